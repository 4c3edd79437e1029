"""Score the model on simulated drug screens: unseen doses, unseen drugs, and genes together with drugs.

    python benchmarks/quality/drugs.py
    python benchmarks/quality/drugs.py --only "unseen drug" --screens 6

Every seed is a screen of its own. Writes for each of the three questions `results/drugs_QUESTION.csv` (scores over
conditions), `results/drugs_QUESTION_conditions.csv` (every condition: the value of each predictor, not normalised, the
floor and no effect) and `results/drugs_QUESTION_monotone.csv` (how often a predicted dose-response turns back), and prints
their means and s.d. over screens. `--steps 0` judges what is known before any training.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import pandas as pd
from run import METRICS as SCORES
from run import RESULTS, keeping, maker

import unlasting as ul
from unlasting.baselines import BASELINES, ModelPredictor

METRICS = (*SCORES, "mse_change")
FIRST_SEED = 800
"""Screens of lower seeds served to choose how the model describes drugs; they would flatter it."""
DRUGS = {"n_drugs": 12, "n_cells": 40}
GENES_AND_DRUGS = {"n_drugs": 8, "doses": (0.1, 1.0, 10.0), "n_gene_targets": 4, "n_combos": 8, "n_cells": 40}
KEYS = {"cell_type_key": "cell_type", "dose_key": "dose", "smiles_key": "smiles"}
QUESTIONS: dict[str, tuple[dict[str, Any], dict[str, Any], int]] = {
    "unseen dose": (DRUGS, {"kind": "unseen_dose", "test": 1.0, "val_fraction": 0.0}, 8),
    "unseen drug": (DRUGS, {"kind": "unseen_drug", "val_fraction": 0.0}, 13),
    "unseen gene + drug": (GENES_AND_DRUGS, {"kind": "unseen_combo", "val_fraction": 0.0}, 4),
}
"""Screen, split, and number of screens: which drugs are unseen decides how hard they are, so that many are needed."""
DOSES = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Where dose-responses are predicted: at the simulated doses, between and beyond them."""
N_DRUGS = 4
"""Of how many drugs of a model."""
TURNS = 0.1
"""A curve that turns back by more than this part of its range is not monotone."""
CHANGES = 0.3
"""Genes are looked at whose expression changes by more than this at the highest dose, in natural logarithms."""


def prepare(adata: Any) -> None:
    """Prepare a simulated screen, whose cells know their depth before the perturbation."""
    ul.pp.prepare(adata, library_size_key="library_size", target_sum=1e4)
    ul.pp.molecules(adata)
    ul.pp.grn(adata, prior=adata.uns["simulation"]["edges"])


def turns_back(curves: np.ndarray) -> np.ndarray:
    """By which part of its range each curve turns back, from 0 (monotone); shape `(n_doses, n_curves)`."""
    falls = (np.maximum.accumulate(curves) - curves).max(axis=0)
    rises = (curves - np.minimum.accumulate(curves)).max(axis=0)
    return np.minimum(falls, rises) / np.maximum(np.ptp(curves, axis=0), 1e-9)


def true_curves(adata: Any, drug: str, cell_type: str) -> pd.DataFrame:
    """Get the true change of the expression of genes at the doses of a drug and without it, one row for each dose."""
    effects = adata.uns["simulation"]["effects"]
    doses = np.unique(adata.obs["dose"].to_numpy(dtype=float)[(adata.obs["perturbation"] == drug).to_numpy()])
    curves = effects.loc[[f"{drug} at {dose:g} uM in {cell_type}" for dose in doses], list(adata.var_names)]
    return pd.concat([0.0 * curves.iloc[:1], curves])


def monotone(model: Any, adata: Any, *, seed: int) -> dict[str, Any]:
    """Count the predicted dose-responses that turn back where the true ones do not, of drugs with held-out cells."""
    test = adata.obs["unlasting_split"] == "test"
    curves = []
    for drug in sorted(set(adata.obs["perturbation"][test].astype(str)))[:N_DRUGS]:
        for cell_type in sorted(set(adata.obs["cell_type"].astype(str))):
            true = true_curves(adata, drug, cell_type).to_numpy()
            asked = (np.abs(true[-1]) > CHANGES) & (turns_back(true) == 0)
            if asked.any():
                cells = model.generate(drug, 50, dose=list(DOSES), cell_type=cell_type, seed=seed, show_progress=False)
                means = cells.X.toarray().reshape(len(DOSES), -1, cells.n_vars).mean(axis=1)
                curves.append(turns_back(means[:, asked]))
    values = np.concatenate(curves)
    return {"turn_back": float((values > TURNS).mean()), "n_curves": len(values), "n_drugs": len(curves)}


def run(question: str, n_screens: int, steps: int | None) -> None:
    """Make the table of one question."""
    simulated, split, _ = QUESTIONS[question]
    parts: dict[str, list[pd.DataFrame]] = {"": [], "_conditions": [], "_monotone": []}
    for seed in range(FIRST_SEED, FIRST_SEED + n_screens):
        adata = ul.datasets.simulate_drug_screen(seed=seed, **simulated)
        kept: list[tuple[Any, Any]] = []
        predictors = {"unlasting": ModelPredictor(keeping(maker(KEYS, steps, seed), kept))}
        predictors |= {label: baseline() for label, baseline in BASELINES.items()}
        ul.tl.benchmark(adata, predictors, splits={question: split}, seeds=[seed], prepare=prepare, metrics=METRICS)
        stored = adata.uns["unlasting"]
        parts[""].append(stored["benchmark"].assign(seed=seed))
        every = stored["benchmark_scores"].drop(columns=["split", "normalised", "scored"])
        keys = [name for name in every if name not in ("predictor", "value")]
        values = every.set_index([*keys, "predictor"])["value"].unstack("predictor")
        parts["_conditions"].append(values.reset_index().round(4))
        if simulated is DRUGS:
            turns = [{"seed": seed, **monotone(*pair, seed=seed)} for pair in kept]
            parts["_monotone"].append(pd.DataFrame(turns))
        for name, frames in parts.items():
            if frames:
                file = RESULTS / f"drugs_{question.replace(' + ', ' ').replace(' ', '_')}{name}.csv"
                pd.concat(frames, ignore_index=True).to_csv(file, index=False)
    grouped = pd.concat(parts[""]).groupby(["predictor", "metric", "gene_set"], sort=False)["score"]
    for what, table in (("mean", grouped.mean()), ("s.d.", grouped.std()), ("median", grouped.median())):
        print(
            f"{question}, {what} over {n_screens} screens:\n{table.unstack(['metric', 'gene_set']).round(3).to_string()}"
        )
    for frame in parts["_monotone"]:
        print(frame.to_string(index=False))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(QUESTIONS))
    parser.add_argument("--screens", type=int, help="number of screens, in place of that of each question")
    parser.add_argument("--steps", type=int, default=None, help="training steps of the denoiser; 0: none")
    arguments = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    for question in [arguments.only] if arguments.only else QUESTIONS:
        run(question, arguments.screens or QUESTIONS[question][2], arguments.steps)
