"""The published experiments: splits, training, and our numbers beside the printed ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.resources import files
from typing import Any, Final

import numpy as np
import pandas as pd
from anndata import AnnData

from unlasting import datasets, pp, tl
from unlasting.baselines import ModelPredictor
from unlasting.model import UnlastingModel
from unlasting.module import LAPTOP, PAPER_RESPONSE_FDR, NetworkTraining
from unlasting.screen import ScreenKeys, nearest_name

METRICS: Final = {"e_distance_rooted": "E", "emd": "EMD"}
GENE_SETS: Final = {"all": "all", "de20": "DE20", "de40": "DE40"}
COLUMNS: Final = [f"{metric}_{genes}" for genes in GENE_SETS.values() for metric in METRICS.values()]
BIMODAL: Final = "CREB1"
"""The knock-out in the published Fig. 5."""
N_TRAININGS: Final = {"fig6": 6}
"""Trainings in an experiment with several: the model, its four ablations, and the model for the pairing."""
DOUBLES: Final = "every combination"
DRUGS: Final = {"dose_key": "dose", "smiles_key": "smiles", "cell_type_key": "cell_type"}


@dataclass(frozen=True)
class Experiment:
    """A published experiment.

    Parameters
    ----------
    dataset
        Name in :data:`unlasting.datasets.DATASETS`.
    split
        Arguments for :func:`unlasting.pp.split`; the test set `DOUBLES` stands for all combinations.
    n_top_genes
        Number of highly variable genes.
    printed
        Data set in the published tables; none for a figure.
    mode
        Effect of a perturbation on its target.
    keys
        Label columns besides `perturbation`.
    """

    dataset: str
    split: Mapping[str, Any]
    n_top_genes: int
    printed: str = ""
    mode: str = "knockout"
    keys: Mapping[str, str] = field(default_factory=dict)


_SINGLES = {"kind": "unseen_perturbation", "test_fraction": 0.3, "val_fraction": 0.0}
_DRUGS_AND_DOSES = {"kind": "unseen_drug_and_dose", "test_fraction": 0.1, "val_fraction": 0.0}

EXPERIMENTS: Final = {
    "adamson": Experiment("adamson", _SINGLES, 5_000, "Adamson", "knockdown"),
    "norman": Experiment(
        "norman",
        {"kind": "unseen_perturbation", "test": DOUBLES, "val_fraction": 0.0},
        5_000,
        "Double Gene Perturbation",
        "activation",
    ),
    "sciplex3": Experiment("sciplex3", _DRUGS_AND_DOSES, 2_000, "sci-Plex3", keys=DRUGS),
    "ood-drugs": Experiment(
        "sciplex3",
        {"kind": "unseen_drug", "method": "published", "val_fraction": 0.0},
        2_000,
        "OOD drug Perturbation",
        keys=DRUGS,
    ),
    "fig5": Experiment("adamson", {**_SINGLES, "test": BIMODAL}, 5_000, mode="knockdown"),
    "fig6": Experiment("sciplex3", _DRUGS_AND_DOSES, 2_000, keys=DRUGS),
}
"""The experiments by name."""


def printed_tables() -> pd.DataFrame:
    """Read the published Tables 1 and 2: `table`, `data`, `tool`, and each score with its s.d."""
    with (files("unlasting") / "_paper_tables.tsv").open(encoding="utf-8") as file:
        return pd.read_csv(file, sep="\t")


def reproduce(
    name: str,
    data: AnnData | None = None,
    *,
    preset: str = "paper",
    short: bool = False,
    seed: int = 0,
    accelerator: str = "auto",
    options: Mapping[str, Any] | None = None,
    evaluation: Mapping[str, Any] | None = None,
) -> dict[str, pd.DataFrame]:
    """Run a published experiment.

    Parameters
    ----------
    name
        A name in `EXPERIMENTS`.
    data
        The screen with raw counts in `X`, and `perturbation`, `dose` (uM), `smiles` and `cell_type` in `obs` as
        from the functions in :mod:`unlasting.datasets`. By default it is downloaded.
    preset
        Name of the preset.
    short
        Whether the published recipe is shortened to `LAPTOP`. The six trainings of `fig6` share its steps.
    seed
        Seed for the split and all random numbers.
    accelerator
        Device.
    options
        Further options for the model.
    evaluation
        Further arguments for :func:`unlasting.tl.evaluate`.

    Returns
    -------
    Frames by title. For a table: `scores`, ours (means over test conditions) beside the printed ones. For `fig5`: `genes`,
    the frame of :func:`unlasting.tl.bimodality`. For `fig6`: `ablations`, and `pairing`, distances between generated cells
    and control cells, their own source or a random one.

    Raises
    ------
    KeyError
        If there is no experiment of this name, or a label column is missing.
    ConnectionError
        If the screen cannot be downloaded.
    ValueError
        If the screen does not fit the experiment.
    """
    if name not in EXPERIMENTS:
        raise ValueError(
            f"`experiment` is {name!r}; choose one of {list(EXPERIMENTS)}.{nearest_name(name, EXPERIMENTS)}"
        )
    experiment = EXPERIMENTS[name]
    adata = _prepared(_loaded(name, experiment) if data is None else data.copy(), experiment, preset, seed)
    chosen = {**(_laptop(name) if short and preset != "default" else {}), **(options or {})}

    def make(screen: AnnData, **changes: Any) -> UnlastingModel:
        UnlastingModel.setup_anndata(screen, mode=experiment.mode)
        model = UnlastingModel(screen, preset=preset, **{**chosen, **changes})
        model.train(seed=seed, accelerator=accelerator)
        return model

    how = {"metrics": list(METRICS), "gene_sets": list(GENE_SETS), "seed": seed, **(evaluation or {})}
    if name == "fig5":
        return {"genes": _bimodal_genes(adata, make, seed)}
    if name == "fig6":
        variants = tl.ablate(adata, make, **how).rename(columns={"variant": "predictor"})
        return {"ablations": _means(variants), "pairing": _pairing(adata, make, seed)}
    scores = tl.evaluate(adata, layer=None, baselines={f"unlasting, {preset}": ModelPredictor(make)}, **how)
    printed = printed_tables().query("data == @experiment.printed").assign(source="printed")
    ours = _means(scores).assign(source="here")
    return {
        "scores": pd.concat([ours, printed[["source", "tool", *COLUMNS]]], ignore_index=True)[
            ["source", "tool", *COLUMNS]
        ]
    }


def _laptop(name: str) -> dict[str, Any]:
    """Get the laptop recipe; an experiment with several trainings shares its steps among them."""
    n = N_TRAININGS.get(name, 1)
    steps = {k: replace(v, max_steps=v.max_steps // n) for k, v in LAPTOP.items() if isinstance(v, NetworkTraining)}
    return {**LAPTOP, **steps}


def _loaded(name: str, experiment: Experiment) -> AnnData:
    """Download the screen, or name its address and the other way in."""
    try:
        return datasets.DATASETS[experiment.dataset]()
    except ConnectionError as error:
        raise ConnectionError(f"{error} Or pass the screen: `unlasting reproduce {name} --data FILE`.") from error


def _prepared(adata: AnnData, experiment: Experiment, preset: str, seed: int) -> AnnData:
    """Split and prepare the screen as published."""
    request = dict(experiment.split)
    recorded = ScreenKeys.read(adata, **experiment.keys)
    if request.get("test") == DOUBLES:
        request["test"] = sorted(
            {p.label(**recorded.grammar) for p in set(recorded.perturbations(adata)) if len(p.targets) > 1}
        )
    pp.split(adata, **request, **{k: v for k, v in recorded.as_dict().items() if k != "split_key"}, seed=seed)
    pp.prepare(adata, n_top_genes=experiment.n_top_genes)
    if experiment.keys:
        pp.molecules(adata)
    # a target that the prior does not know is a node too, since the published networks know no other gene target
    targets = {name for p in set(recorded.perturbations(adata)) for name in p.targets}
    response_fdr = PAPER_RESPONSE_FDR if preset == "paper" else None
    pp.grn(adata, prior="go", targets=None if experiment.keys else sorted(targets), response_fdr=response_fdr)
    return adata


def _means(scores: pd.DataFrame) -> pd.DataFrame:
    """Average each predictor's values over conditions, in the columns of the published tables, beside the noise floor."""
    scores = scores.astype({"predictor": str})
    floor = scores[scores["predictor"] == "no effect"].assign(predictor="noise floor", value=lambda rows: rows["floor"])
    rows = pd.concat([scores, floor])
    rows["column"] = rows["metric"].map(METRICS) + "_" + rows["gene_set"].map(GENE_SETS)
    table = rows.pivot_table(index="predictor", columns="column", values="value", sort=False)
    return table.reindex(columns=COLUMNS).rename_axis(index="tool", columns=None).reset_index()


def _bimodal_genes(adata: AnnData, make: Any, seed: int) -> pd.DataFrame:
    """Compare the modes of the top genes in held-out, generated and control cells (Fig. 5)."""
    model = make(adata)
    rows = (ScreenKeys.read(adata).labels(adata) == BIMODAL).nonzero()[0]
    model.predict(adata, indices=rows, seed=seed)
    return tl.bimodality(adata, conditions=[BIMODAL], seed=seed)


def _pairing(adata: AnnData, make: Any, seed: int) -> pd.DataFrame:
    """Compare each generated cell with its own source, and with a random control of the cell type (section 3.6)."""
    screen = adata.copy()
    model = make(screen)
    keys = ScreenKeys.read(screen)
    rows = (screen.obs[keys.split_key] == "test").to_numpy().nonzero()[0]
    model.predict(screen, indices=rows, seed=seed)
    sources = screen.obs["unlasting_source"].astype(str).to_numpy()[rows]
    place = {cell_name: row for row, cell_name in enumerate(screen.obs_names)}
    own = np.array([place[source] for source in sources])
    rng = np.random.default_rng(seed)
    kinds = keys.cell_types(screen)[own]
    shuffled = own.copy()
    for kind in np.unique(kinds):
        shuffled[kinds == kind] = rng.permutation(own[kinds == kind])
    generated = _dense(screen.layers["unlasting"][rows])
    distance = {
        pairing: np.linalg.norm(generated - _dense(screen.X[control]), axis=1)
        for pairing, control in (("implicit", own), ("random", shuffled))
    }
    return pd.DataFrame(
        {"pairing": list(distance), "distance": [d.mean() for d in distance.values()], "n_cells": len(rows)}
    )


def _dense(matrix: Any) -> np.ndarray:
    return np.asarray(matrix.toarray() if hasattr(matrix, "toarray") else matrix)
