"""Compare chosen with random experiments: the error after each batch, in simulated screens of 100 targets.

    python benchmarks/quality/design.py

Both orders start from the same ten random targets, and batches of ten follow. The error is the squared error of the mean change
over the squared change: over targets without cells, and over all 100 targets, measured ones included. The random order's
error is that after 60 targets. Writes `results/design.csv`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData
from run import RESULTS
from trust import fitted

import unlasting as ul

N_SCREENS, N_STARTS, N_TARGETS, BATCH = 3, 5, 100, 10
N_RANDOM = 60
STAGES = tuple(range(BATCH, N_RANDOM + 1, BATCH))


def simulated(seed: int) -> tuple[AnnData, np.ndarray]:
    """Simulate a screen, and the true mean change of each target in cells that all respond."""
    adata, counterfactuals = ul.datasets.simulate_screen(
        n_genes=200,
        n_targets=N_TARGETS,
        n_unmeasured=0,
        n_inert=0,
        n_cells=40,
        n_controls=500,
        responders=1.0,
        seed=seed,
        return_counterfactuals=True,
    )
    control = (adata.obs["perturbation"] == "control").to_numpy()
    size = adata.obs["library_size"].to_numpy()[control, None] / TOTAL
    before = np.log1p(adata.X[control].toarray() / size)
    truth = [(np.log1p(counterfactuals[f"T{i + 1}"].toarray() / size) - before).mean(axis=0) for i in range(N_TARGETS)]
    return adata, np.array(truth)


TOTAL = 1_000.0
"""Counts to which cells are scaled, so that changes have one scale."""


def error(adata: AnnData, truth: np.ndarray, measured: list[str]) -> tuple[float, float, ul.UnlastingModel]:
    """Fit the effects model to some targets; get its error over all, and over those without cells."""
    names = [f"T{i + 1}" for i in range(N_TARGETS)]
    screen = adata.copy()
    known = screen.obs["perturbation"].isin(["control", *measured])
    screen.obs["unlasting_split"] = np.where(known, "train", "test")
    options = {"prepare": {"library_size_key": "library_size", "target_sum": TOTAL}}
    model = fitted(screen, {"prior": adata.uns["simulation"]["edges"], **options}, {}, use_responders=False)
    found = model.effects(names)[:, adata.var_names]
    wrong, size = ((part**2).sum(axis=1) for part in (found.X - truth, truth))
    rest = ~np.isin(names, measured)
    return wrong.sum() / size.sum(), (wrong[rest].sum() / size[rest].sum() if rest.any() else np.nan), model


def run() -> None:
    """Measure all orders, and print the number of experiments that each needs."""
    rows = []
    for seed in range(N_SCREENS):
        adata, truth = simulated(seed)
        names = [f"T{i + 1}" for i in range(N_TARGETS)]
        for start in range(N_STARTS):
            order = np.random.default_rng([seed, start]).permutation(names).tolist()
            for kind in ("random", "chosen"):
                measured = order[:BATCH]
                for n in STAGES:
                    if kind == "random":
                        measured = order[:n]
                    if kind == "chosen" or n == N_RANDOM:
                        over_all, over_rest, model = error(adata, truth, measured)
                        row = {"screen": seed, "start": start, "order": kind, "n": n}
                        rows.append({**row, "error": over_all, "error_unmeasured": over_rest})
                    if kind == "chosen":
                        left = [name for name in order if name not in measured]
                        measured = measured + ul.tl.design(model, left, BATCH)["condition"].tolist()
                pd.DataFrame(rows).to_csv(RESULTS / "design.csv", index=False, float_format="%.4g")
    frame = pd.DataFrame(rows)
    for column in ("error_unmeasured", "error"):
        mean = frame.pivot_table(index=["screen", "n"], columns="order", values=column)
        for seed, part in mean.groupby("screen"):
            target, reached = part["random"].dropna().iloc[0], -part["chosen"].cummin()
            needed = np.interp(-target, reached, part.index.get_level_values("n"), right=np.inf)
            print(f"screen {seed}, {column}: {target:.3f} after {N_RANDOM} random targets, or {needed:.1f} chosen ones")


if __name__ == "__main__":
    run()
