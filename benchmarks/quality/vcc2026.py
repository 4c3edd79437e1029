"""Score the model and all baselines in the profile of the Virtual Cell Challenge 2026, beside the normalised E-distance.

    python benchmarks/quality/vcc2026.py --steps 0

Writes `results/vcc2026.csv`, and prints the scores. `--steps 0` scores the closed form, `--no-model` the baselines alone.
"""

from __future__ import annotations

import argparse
from typing import Any

import pandas as pd
from run import RESULTS, TABLES, maker

import unlasting as ul
from unlasting.baselines import BASELINES, ModelPredictor

SCREENS = ("papalexi_reference", "norman_reference", "kang_reference")


def scores(name: str, steps: int | None, *, with_model: bool) -> pd.DataFrame:
    """Score all predictors on the reference split of a screen, by both kinds of scores."""
    table = TABLES[name]
    adata = table["screen"]()
    setup: dict[str, Any] = table.get("setup", {})
    keys = {key: value for key, value in setup.items() if key == "cell_type_key"}
    ul.pp.split(adata, "reference", **keys)
    ul.pp.prepare(adata, **table.get("prepare", {}))
    ul.pp.grn(adata, prior=table.get("prior", "go"))
    predictors: dict[str, Any] = {"unlasting": ModelPredictor(maker(setup, steps, 0))} if with_model else {}
    predictors |= {label: baseline() for label, baseline in BASELINES.items()}
    for options in ({"profile": "vcc2026"}, {"metrics": "e_distance", "gene_sets": "all"}):
        ul.tl.evaluate(adata, layer=None, baselines=predictors, **options)
    stored = adata.uns["unlasting"]
    distance = stored["score_summary"].assign(cell_type="", value=float("nan"))
    columns = ["cell_type", "predictor", "metric", "score", "value", "n_conditions"]
    return pd.concat([stored["vcc2026_summary"][columns], distance[columns]]).assign(screen=name)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=None, help="training steps of the denoiser; 0: none")
    parser.add_argument("--model", action=argparse.BooleanOptionalAction, default=True)
    arguments = parser.parse_args()
    found = [scores(name, arguments.steps, with_model=arguments.model) for name in SCREENS]
    frame = pd.concat(found, ignore_index=True)
    frame.to_csv(RESULTS / "vcc2026.csv", index=False)
    for screen, part in frame.groupby("screen", sort=False):
        wide = part.pivot_table(index="predictor", columns="metric", values="score", sort=False)
        print(f"{screen}, mean over cell types:\n{wide.round(2).to_string()}")
