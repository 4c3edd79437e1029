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


def prepare(table: dict[str, Any], adata: Any) -> None:
    """Prepare a screen."""
    ul.pp.prepare(adata, **table.get("prepare", {}))
    ul.pp.grn(adata, prior=table.get("prior", "go"))


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


def report(frame: pd.DataFrame) -> str:
    """Write both scores and their paired difference, by screen and metric."""
    rows = []
    for (screen, metric), part in frame[frame["gene_set"] == "all"].groupby(["screen", "metric"], sort=False):
        found = part.set_index("predictor")
        closed, trained = found.loc["closed form"], found.loc["trained"]
        scored = [f"{text(x['score'])} [{text(x['low'])}, {text(x['high'])}]" for x in (closed, trained)]
        paired = [text(trained[name]) for name in ("difference", "difference_low", "difference_high")]
        rows.append(
            [SCREENS[screen], str(closed["n_conditions"]), NAMES[metric], *scored, "{} [{}, {}]".format(*paired)]
        )
    return markdown(["screen", "n", "metric", "closed form", "with networks", "difference"], rows)


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
