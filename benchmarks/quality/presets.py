"""Examine the default preset on held-out cells of trained knock-outs, down to zeros, spread and latent.

    python benchmarks/quality/presets.py --seeds 3

Writes `results/presets.csv` (normalised scores over the nine clear targets, as `run.py papalexi_cells`),
`results/presets_cells.csv` (each condition: detected genes per cell, zero fractions, variances of expressed values,
beside two halves of the true cells), `results/presets_latent.csv` (moments of encoded held-out control cells) and
`results/presets_responders.csv` (share of cells that respond, observed and generated), and prints their means.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import pandas as pd
from run import CLEAR, METRICS, RESULTS, keeping, maker

import unlasting as ul
from unlasting.baselines import ModelPredictor, NoEffect

MIN_EXPRESSED = 50
"""Entries of a gene whose variance is compared, among the held-out cells of a condition."""
MIN_LATENT = 400
"""Entries of a gene whose latent is looked at, among the held-out control cells."""
N_REPEATS = 5


def prepare(adata: Any) -> None:
    """Prepare the screen with the annotations as prior."""
    ul.pp.prepare(adata)
    ul.pp.grn(adata)


def dense(cells: Any) -> np.ndarray:
    """Get the expression of some cells, shape `(n_cells, n_genes)`."""
    return np.asarray(cells.X.toarray() if hasattr(cells.X, "toarray") else cells.X, dtype=np.float64)


def variances(cells: np.ndarray) -> np.ndarray:
    """Compute the variance of the expressed values of each gene, NaN below two of them."""
    on = cells > 0
    n = on.sum(axis=0)
    mean = cells.sum(axis=0) / np.maximum(n, 1)
    squares = (np.where(on, cells - mean, 0.0) ** 2).sum(axis=0)
    return np.where(n > 1, squares / np.maximum(n - 1, 1), np.nan)


def shape_of_cells(model: Any, adata: Any, seed: int) -> list[dict[str, Any]]:
    """Compare generated cells with held-out ones, and these among themselves, at equal numbers."""
    rng = np.random.default_rng(seed)
    rows = []
    for target in CLEAR:
        wanted = (adata.obs["perturbation"] == target) & (adata.obs["unlasting_split"] == "test")
        true = dense(adata[wanted])
        half = len(true) // 2
        generated = dense(model.generate(target, half, seed=seed, show_progress=False))
        often = (true > 0).sum(axis=0) >= MIN_EXPRESSED
        errors: dict[str, list[float]] = {}
        for _ in range(N_REPEATS):
            order = rng.permutation(len(true))
            first, second = true[order[:half]], true[order[half:]]
            for name, cells in (("generated", generated), ("floor", first)):
                zeros = np.abs((cells == 0).mean(axis=0) - (second == 0).mean(axis=0)).mean()
                spread = np.abs(variances(cells) - variances(second))[often]
                errors.setdefault(f"{name} zero fraction", []).append(float(zeros))
                errors.setdefault(f"{name} variance", []).append(float(np.nanmean(spread)))
        detected = (generated > 0).sum(axis=1).mean() / (true > 0).sum(axis=1).mean()
        means = {name: float(np.mean(values)) for name, values in errors.items()}
        rows.append({"condition": target, "n_genes": int(often.sum()), "detected": float(detected), **means})
    return rows


def latent(model: Any, adata: Any, seed: int) -> dict[str, Any]:
    """Take the moments of encoded held-out control cells, expressed entries only, of each gene."""
    controls = adata[(adata.obs["perturbation"] == "control") & (adata.obs["unlasting_split"] == "test")].copy()
    encoded = model.encode(controls, seed=seed)
    on = dense(controls) > 0
    genes = on.sum(axis=0) >= MIN_LATENT
    expressed = np.where(on, encoded, np.nan)[:, genes]
    moments = {"mean": np.nanmean(expressed, axis=0), "s.d.": np.nanstd(expressed, axis=0)}
    found: dict[str, Any] = {"n_cells": len(encoded), "n_genes": int(genes.sum())}
    for name, values in moments.items():
        found |= {f"{name} {q}": float(np.quantile(values, at)) for q, at in (("min", 0), ("median", 0.5), ("max", 1))}
    return found


def responders(model: Any, adata: Any, seed: int) -> list[dict[str, Any]]:
    """Compare the share of responders among observed and generated cells of each knock-out."""
    held_out = (adata.obs["unlasting_split"] == "test") & adata.obs["perturbation"].isin(CLEAR)
    model.predict(adata, indices=np.flatnonzero(held_out), seed=seed, show_progress=False)
    found = ul.tl.responders(adata, layer="unlasting", conditions=list(CLEAR), seed=seed)
    return found[["condition", "responders_observed", "responders_generated"]].to_dict("records")


def run(n_seeds: int) -> None:
    """Make the tables."""
    adata = ul.datasets.papalexi()
    scores: list[pd.DataFrame] = []
    rows: dict[str, list[dict[str, Any]]] = {"cells": [], "latent": [], "responders": []}
    for seed in range(n_seeds):
        kept: list[tuple[Any, Any]] = []
        ul.tl.benchmark(
            adata,
            {"unlasting": ModelPredictor(keeping(maker({}, None, seed), kept)), "no effect": NoEffect()},
            splits={"cells": {"kind": "random"}},
            seeds=[seed],
            prepare=prepare,
            conditions=CLEAR,
            metrics=METRICS,
        )
        [(model, screen)] = kept
        labels = {"preset": "default", "seed": seed, "steps": model.preset.train_denoiser.max_steps}
        scores.append(adata.uns["unlasting"]["benchmark"].assign(**labels))
        rows["cells"] += [{**labels, **row} for row in shape_of_cells(model, screen, seed)]
        rows["latent"].append({**labels, **latent(model, screen, seed)})
        rows["responders"] += [{**labels, **row} for row in responders(model, screen, seed)]
        pd.concat(scores, ignore_index=True).to_csv(RESULTS / "presets.csv", index=False)
        for name, found in rows.items():
            pd.DataFrame(found).to_csv(RESULTS / f"presets_{name}.csv", index=False)
    frame = pd.concat(scores, ignore_index=True)
    wide = frame.pivot_table(index="predictor", columns=["metric", "gene_set"], values="score", sort=False)
    print(f"Mean score over {n_seeds} seeds:\n{wide.round(3).to_string()}")
    mean = pd.DataFrame(rows["cells"]).mean(numeric_only=True)
    print(f"Detected genes per cell, generated to true: {pd.DataFrame(rows['cells'])['detected'].describe()}")
    for part in ("zero fraction", "variance"):
        print(f"Error in the {part}, relative to the floor: {mean[f'generated {part}'] / mean[f'floor {part}']:.3f}")
    print(pd.DataFrame(rows["latent"]).round(3).to_string(index=False))
    shares = pd.DataFrame(rows["responders"]).groupby("condition", sort=False).mean(numeric_only=True)
    print(shares[["responders_observed", "responders_generated"]].round(3).to_string())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    RESULTS.mkdir(exist_ok=True)
    run(parser.parse_args().seeds)
