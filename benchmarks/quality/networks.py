"""Score the closed form and the trained model side by side: the gain from the networks.

    python benchmarks/quality/networks.py

Writes `results/networks.csv` (scores over conditions with paired differences, one seed) and `results/networks.md`. Errors in
the shape of cells are normalised as distances: 0 is a second sample of true cells, and 1 the control cells. `--resume` keeps
screens that this model has scored, and `--steps` shortens the training.
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from run import METRICS, SHAPE, TABLES, maker
from stamps import RESULTS, finished, stamp
from vcc2026 import markdown, text

import unlasting as ul
from unlasting.baselines import ModelPredictor

NAME = "networks"
SCREENS = {
    "papalexi_cells": "Papalexi, held-out cells of trained knock-outs",
    "papalexi_reference": "Papalexi, unseen knock-outs",
    "kang_reference": "Kang, unseen cell types",
}
NAMES = {"e_distance": "E-distance", "emd": "EMD", "zero_fraction_error": "zero fraction"}
NAMES |= {
    "dispersion_error": "dispersion",
    "detected_genes_error": "detected genes",
    "correlation_error": "correlation",
}
NAMES |= {"bimodality_error": "bimodality"}
"""Metrics in the table."""
COLUMNS = ["score", "low", "high", "n_conditions", "difference", "difference_low", "difference_high"]


def prepare(table: dict[str, Any], adata: Any) -> None:
    """Prepare a screen."""
    ul.pp.prepare(adata, **table.get("prepare", {}))
    ul.pp.grn(adata, prior=table.get("prior", "default"))


def scores(name: str, steps: int | None) -> pd.DataFrame:
    """Score both predictors on one screen, with the closed form as reference."""
    table = TABLES[name]
    adata, setup = table["screen"](), table.get("setup", {})
    predictors = {label: ModelPredictor(maker(setup, n, 0)) for label, n in (("closed form", 0), ("trained", steps))}
    ul.tl.benchmark(
        adata,
        predictors,
        splits=table["splits"],
        prepare=partial(prepare, table),
        conditions=table.get("conditions"),
        metrics=[metric for metric in dict.fromkeys((*METRICS, *SHAPE)) if metric in NAMES],
        gene_sets=("all", "de20"),
        reference="closed form",
    )
    return adata.uns["unlasting"]["benchmark"].assign(screen=name)


def compared(frame: pd.DataFrame) -> pd.DataFrame:
    """Get both predictors' scores side by side: distances over all genes, and errors in shape over DE20."""
    is_distance = frame["metric"].isin(["e_distance", "emd"])
    frame = frame[np.where(is_distance, frame["gene_set"] == "all", frame["gene_set"] == "de20")]
    wide = frame.set_index(["screen", "metric", "predictor"])[COLUMNS].unstack("predictor")
    order = [(screen, metric) for screen in SCREENS for metric in NAMES if (screen, metric) in wide.index]
    return wide.loc[order]


def report(frame: pd.DataFrame) -> str:
    """Write a sentence, then both scores and their paired difference by screen and metric."""
    rows = []
    for (screen, metric), row in compared(frame).iterrows():
        entries = [
            f"{text(row['score', name])} [{text(row['low', name])}, {text(row['high', name])}]"
            for name in ("closed form", "trained")
        ]
        low, high = row["difference_low", "trained"], row["difference_high", "trained"]
        entries.append(f"{text(row['difference', 'trained'])} [{text(low)}, {text(high)}]")
        n = f"{row['n_conditions', 'trained']:.0f}"
        rows.append([SCREENS[screen], n, NAMES[metric], *entries])
    table = markdown(["screen", "n", "metric", "closed form", "with networks", "difference"], rows)
    return f"{sentence(frame)}\n\n{table}"


def sentence(frame: pd.DataFrame) -> str:
    """Count the comparisons with a paired interval on one side of 0."""
    found = compared(frame)
    better = int((found["difference_high", "trained"] < 0).sum())
    worse = int((found["difference_low", "trained"] > 0).sum())
    screens = frame["screen"].nunique()
    return (
        f"{len(found)} comparisons were made, of seven metrics on {screens} questions. The paired 90 % interval favours the "
        f"networks in {better} and the closed form in {worse}."
    )


def stored() -> pd.DataFrame:
    """Read the scores; empty if there are none."""
    file = RESULTS / f"{NAME}.csv"
    return pd.read_csv(file) if file.exists() else pd.DataFrame({"screen": []})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=tuple(SCREENS), choices=[*SCREENS], help="names of screens")
    parser.add_argument("--resume", action="store_true", help="keep screens that this model has scored")
    parser.add_argument("--steps", type=int, default=None, help="training steps of the denoiser")
    arguments = parser.parse_args()
    kept = finished(NAME) if arguments.resume else set()
    for name in [name for name in arguments.only if name not in kept]:
        frame = stored()
        frame = pd.concat([frame[frame["screen"] != name], scores(name, arguments.steps)], ignore_index=True)
        frame.to_csv(RESULTS / f"{NAME}.csv", index=False, float_format="%.5g")
        stamp(NAME, [name])
    (RESULTS / f"{NAME}.md").write_text(report(stored()), encoding="utf-8")
    print(report(stored()))
