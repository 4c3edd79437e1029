"""Score each source of knowledge about genes by itself, all together, all but one, and beside noise.

    python benchmarks/quality/families.py --data FOLDER [--only papalexi ...]

Each trained target is left out in turn, in closed form. The score is the squared error of the mean change over all left-out
conditions, relative to no effect, with the noise of the measurement removed: 0 is perfect, 1 is no effect. All screens are
development screens. Writes `results/families.csv` and `results/families.md`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scvi import REGISTRY_KEYS
from stamps import RESULTS, present

import unlasting as ul
from unlasting.data import PERTURBATION, POPULATION
from unlasting.effects import EffectsModel, ScreenCells
from unlasting.pp._priors import PRIORS

SOURCES = ("go", "reactome", "string")
FULL = {"library_size_key": "ncounts_full", "target_sum": 1e4}
NAME = "families"


def screens(folder: Path | None) -> dict[str, tuple[Callable[[], AnnData], dict[str, Any], dict[str, Any]]]:
    """List the development screens: how they are read, prepared and set up."""
    found: dict[str, tuple[Callable[[], AnnData], dict[str, Any], dict[str, Any]]] = {
        "papalexi": (ul.datasets.papalexi, {}, {}),
        "norman": (ul.datasets.norman_mini, FULL, {"mode": "activation"}),
    }
    if folder is not None:
        jurkat = anndata.read_h5ad(folder / "datlinger2021_jurkat_tcr.h5ad")
        for state in ("stimulated", "unstimulated"):
            part = jurkat[jurkat.obs["stimulation"] == state]
            found[f"datlinger_{state}"] = (part.copy, FULL, {})
        found["mcfaline"] = (
            lambda: anndata.read_h5ad(folder / "mcfaline2023_gbm_mini.h5ad"),
            FULL,
            {"cell_type_key": "cell_type", "mode": "knockdown"},
        )
    return found


def noise(seed: int, *, permuted: bool) -> pd.DataFrame:
    """Make an embedding without information: random numbers, or the shipped one with its genes exchanged."""
    known, rng = PRIORS["default"](64), np.random.default_rng(seed)
    if permuted:
        return pd.DataFrame(known.matrix, index=rng.permutation(known.names))
    return pd.DataFrame(rng.normal(size=(len(known.names), 64)), index=known.names)


def priors() -> dict[str, Any]:
    """List the priors to compare."""
    alone: dict[str, Any] = {"none": None, **{name: name for name in SOURCES}, "all": "default"}
    without = {f"all but {one}": [name for name in SOURCES if name != one] for one in SOURCES}
    return (
        alone | without | {"all and noise": ["default", noise(0, permuted=False)], "permuted": noise(1, permuted=True)}
    )


def left_out(adata: AnnData, prior: Any, prepare: dict[str, Any], setup: dict[str, Any]) -> pd.DataFrame:
    """Predict each target's conditions from all others."""
    ul.pp.prepare(adata, **prepare)
    ul.pp.grn(adata, prior=prior)
    ul.UnlastingModel.setup_anndata(adata, **setup)
    model = ul.UnlastingModel(adata)
    read = model.adata_manager.get_from_registry
    condition, population = (np.asarray(read(name)).ravel() for name in (PERTURBATION, POPULATION))
    cell_type = model.module.cell_type.cpu().numpy()
    conditions, matrix = model._conditions(), adata.X.tocsr()
    cells = ScreenCells(
        read(REGISTRY_KEYS.X_KEY),
        condition,
        population,
        np.zeros(len(condition), int),
        len(conditions),
        len(cell_type),
        cell_type,
    )
    pairs = [divmod(int(code), cells.n_populations) for code in np.unique(cells.pair)]
    moments = {}
    for pair in pairs:
        block = matrix[(condition == pair[0]) & (population == pair[1])].toarray().astype(np.float64)
        moments[pair] = block.mean(axis=0), (block.var(axis=0) / max(len(block) - 1, 1)).sum()
    rows = []
    for targets in sorted({conditions[code].targets for code, _ in pairs if code}, key=str):
        asked = [pair for pair in pairs if pair[0] and set(conditions[pair[0]].targets) == set(targets)]
        split = np.where(np.isin(condition, [code for code, _ in asked]), 2, 0)
        trained = [conditions[code] for code in np.unique(condition[split == 0]) if code]
        fit = EffectsModel.fit(
            replace(cells, split=split),
            conditions,
            replace(model.vocabulary, trained_conditions=trained),
            mode=setup.get("mode", "knockout"),
            use_responders=False,
        )
        controls = fit.statistics.populations(torch.from_numpy(cell_type))
        for code, place in asked:
            at = controls[torch.tensor([place])]
            found, largest = fit.predict([conditions[code]], at), float(fit.statistics.x_max)
            mean = torch.sigmoid(found.log_odds) * found.base.clamp(min=0) - at.mean
            true = moments[code, place][0] - moments[0, place][0]
            error = ((mean[0].double().numpy() * largest - true) ** 2).sum() - moments[code, place][1]
            rows.append(
                {
                    "condition": conditions[code].label(),
                    "error": error,
                    "none": (true**2).sum() - moments[code, place][1],
                }
            )
    return pd.DataFrame(rows)


def main(folder: Path | None, only: list[str] | None) -> None:
    """Score all priors on all screens."""
    rows = []
    for screen, (make, prepare, setup) in screens(folder).items():
        if only and screen not in only:
            continue
        for name, prior in priors().items():
            found = left_out(make(), prior, prepare, setup)
            score = found["error"].sum() / found["none"].sum()
            rows.append({"screen": screen, "prior": name, "conditions": len(found), "score": score})
            print(f"{screen} {name} {score:.3f}", flush=True)
    frame = pd.DataFrame(rows).assign(**present())
    frame.to_csv(RESULTS / f"{NAME}.csv", index=False, float_format="%.4f")
    table = frame.pivot(index="screen", columns="prior", values="score")[list(priors())]
    order, n = frame["screen"].unique(), frame.groupby("screen")["conditions"].first()
    table = table.loc[order].map("{:.2f}".format)
    table.insert(0, "conditions", n.loc[order])
    (RESULTS / f"{NAME}.md").write_text(table.rename_axis("screen").to_markdown() + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="Folder with the Datlinger and McFaline screens.")
    parser.add_argument("--only", nargs="*")
    arguments = parser.parse_args()
    main(arguments.data, arguments.only)
