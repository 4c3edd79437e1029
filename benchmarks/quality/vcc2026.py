"""Score the model and all baselines in the profile of the Virtual Cell Challenge 2026, beside normalised E-distance and EMD.

    python benchmarks/quality/vcc2026.py --steps 0 --data FOLDER

Writes `results/vcc2026.csv`, and prints the tables of the guide. `--steps 0` scores the closed form, `--no-model` the
baselines alone. Without `--data`, a folder with the files of further development screens, only shipped screens are scored.
At most `--cells` cells of a condition take part, drawn with seed 0.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from run import RESULTS, TABLES, maker

import unlasting as ul
from unlasting.baselines import BASELINES, ModelPredictor
from unlasting.metrics import VCC2026

FULL = {"library_size_key": "ncounts_full", "target_sum": 1e4}
DATLINGER: dict[str, Any] = {
    "file": "datlinger2021_jurkat_tcr.h5ad",
    "prepare": {**FULL, "n_top_genes": 500},
    "split": {"kind": "unseen_perturbation"},
}
FURTHER: dict[str, dict[str, Any]] = {
    "datlinger_stimulated": {**DATLINGER, "only": ("stimulation", "stimulated")},
    "datlinger_unstimulated": {**DATLINGER, "only": ("stimulation", "unstimulated")},
    "mcfaline_targets": {
        "file": "mcfaline2023_gbm_mini.h5ad",
        "prepare": FULL,
        "setup": {"cell_type_key": "cell_type"},
        "split": {"kind": "unseen_perturbation"},
    },
}
SHIPPED = {
    name: {**TABLES[name], "split": {"kind": "reference"}}
    for name in ("papalexi_reference", "norman_reference", "kang_reference")
}
COLUMNS = ["cell_type", "predictor", "metric", "score", "value", "n_conditions"]


def screens(data: Path | None) -> dict[str, dict[str, Any]]:
    """List the screens, with those in the folder `data`."""
    if data is None:
        return SHIPPED
    further = {
        name: {**table, "screen": partial(anndata.read_h5ad, data / table["file"])} for name, table in FURTHER.items()
    }
    return SHIPPED | further


def scores(table: dict[str, Any], steps: int | None, n_cells: int, *, with_model: bool) -> pd.DataFrame:
    """Score all predictors on a screen's held-out conditions, by both kinds of scores."""
    adata = table["screen"]()
    if "only" in table:
        key, value = table["only"]
        adata = adata[adata.obs[key] == value]
    setup: dict[str, Any] = table.get("setup", {})
    keys = {key: value for key, value in setup.items() if key == "cell_type_key"}
    groups = adata.obs.groupby(["perturbation", *keys.values()], observed=True).indices.values()
    rng = np.random.default_rng(0)
    adata = adata[np.sort(np.concatenate([rng.permutation(group)[:n_cells] for group in groups]))].copy()
    ul.pp.split(adata, **table["split"], **keys)
    ul.pp.prepare(adata, **table.get("prepare", {}))
    ul.pp.grn(adata, prior=table.get("prior", "go"))
    predictors: dict[str, Any] = {"unlasting": ModelPredictor(maker(setup, steps, 0))} if with_model else {}
    predictors |= {label: baseline() for label, baseline in BASELINES.items()}
    distances = {"metrics": ["e_distance", "emd"], "gene_sets": "all", "n_repeats": 2, "n_bootstraps": 50}
    for options in ({"profile": "vcc2026"}, distances):
        ul.tl.evaluate(adata, layer=None, baselines=predictors, **options)
    stored = adata.uns["unlasting"]
    distance = stored["score_summary"].assign(cell_type="", value=float("nan"))
    found = pd.concat([stored["vcc2026_summary"][COLUMNS], distance[COLUMNS]])
    return found.dropna(subset=["score", "value"], how="all")


def overview(frame: pd.DataFrame) -> str:
    """Write E, EMD and the challenge's mean score of each predictor and screen as Markdown, and their rank correlation."""
    kinds = ["e_distance", "emd", "mean"]
    wide = frame[frame["metric"].isin(kinds)].groupby(["screen", "predictor", "metric"], sort=False)["score"].mean()
    wide = wide.unstack("metric")[kinds]
    names = list(frame["screen"].unique())
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for predictor in frame["predictor"].unique():
        rows = [wide.loc[(name, predictor)] if (name, predictor) in wide.index else None for name in names]
        cells = ["" if row is None else " / ".join("-" if pd.isna(v) else f"{v:.2f}" for v in row) for row in rows]
        lines.append(f"| {predictor} | " + " | ".join(cells) + " |")
    for kind in kinds[:2]:
        ranks = [wide.loc[name].dropna(subset=[kind, "mean"]) for name in names]
        found = ["-" if len(r) < 3 else f"{-r[kind].corr(r['mean'], method='spearman'):.2f}" for r in ranks]
        lines.append(f"| rank correlation, {kind} and mean | " + " | ".join(found) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=None, help="training steps of the denoiser; 0: none")
    parser.add_argument("--model", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--data", type=Path, default=None, help="folder with further screens")
    parser.add_argument("--cells", type=int, default=500, help="cells of a condition")
    parser.add_argument("--only", nargs="+", default=None, help="screens to score again; rows of others are kept")
    arguments = parser.parse_args()
    place = RESULTS / "vcc2026.csv"
    tables = screens(arguments.data)
    frame = pd.DataFrame()
    if arguments.only is not None:
        tables = {name: tables[name] for name in arguments.only}
        frame = pd.read_csv(place, keep_default_na=False, na_values={"score": "", "value": ""})
        frame = frame[~frame["screen"].isin(tables)]
    for name, table in tables.items():
        part = scores(table, arguments.steps, arguments.cells, with_model=arguments.model).assign(screen=name)
        frame = pd.concat([frame, part], ignore_index=True)
        frame.to_csv(place, index=False, float_format="%.6g")
        wide = part.pivot_table(index="predictor", columns="metric", values="score", sort=False, dropna=False)
        values = part.pivot_table(index="predictor", columns="metric", values="value", sort=False, dropna=False)
        print(f"{name}, scores, mean over cell types:\n{wide.round(2).to_string()}", flush=True)
        print(f"{name}, values:\n{values.reindex(columns=list(VCC2026)).round(2).to_string()}", flush=True)
    print(overview(frame))
