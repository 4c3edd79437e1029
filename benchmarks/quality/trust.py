"""Measure whether intervals and trust hold: conditions and contexts left out in turn, and simulated screens.

    python benchmarks/quality/trust.py papalexi norman kang null sign --data FOLDER_WITH_FURTHER_SCREENS

Writes `results/trust_conditions.csv` (one row for each left-out condition), and `results/trust.csv` (coverage of genes and
E-distances, width, rank correlation of expected with actual error, null screens and signs). Predictive intervals contain
the sampling noise of the observed cells. Names already in the tables are replaced.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from run import RESULTS, kang, norman, papalexi
from scipy.stats import binom, norm, spearmanr

import unlasting as ul
from unlasting.metrics import resampled_e_distance

LEVELS = (0.5, 0.8, 0.95)
FULL = {"library_size_key": "ncounts_full", "target_sum": 1e4}
MIN_CELLS, MAX_CELLS = 20, 400
N_NULL, N_SIGN = 5, 10
SCREENS: dict[str, dict[str, Any]] = {
    "papalexi": {"read": papalexi},
    "norman": {"read": norman, "prepare": FULL, "setup": {"mode": "activation"}},
    "kang": {"read": kang, "prepare": {"n_top_genes": 1_000}, "context": "cell_type", "prior": None},
    "datlinger_stimulated": {"file": "datlinger2021_jurkat_tcr.h5ad", "only": "stimulated", "prepare": FULL},
    "datlinger_unstimulated": {"file": "datlinger2021_jurkat_tcr.h5ad", "only": "unstimulated", "prepare": FULL},
    "mcfaline": {"file": "mcfaline2023_gbm_mini.h5ad", "prepare": FULL, "setup": {"mode": "knockdown"}, "types": True},
}


def left_out(name: str, screen: dict[str, Any], folder: Path | None) -> Iterator[dict[str, Any]]:
    """Leave each condition, or each context, of a screen out and compare it with its prediction."""
    if "file" in screen:
        if folder is None:
            return
        raw = anndata.read_h5ad(folder / screen["file"])
        if "only" in screen:
            raw = raw[raw.obs["stimulation"].astype(str) == screen["only"]].copy()
    else:
        raw = screen["read"]()
    label = raw.obs["perturbation"].astype(str).to_numpy()
    types = raw.obs["cell_type"].astype(str).to_numpy() if screen.get("types") or "context" in screen else None
    by = types if "context" in screen else label
    setup = dict(screen.get("setup", {})) | ({} if types is None else {"cell_type_key": "cell_type"})
    for one in sorted(set(by) - {"control"}):
        asked = np.flatnonzero((by == one) & (label != "control"))
        if len(asked) < MIN_CELLS:
            continue
        adata = raw.copy()
        split = np.full(adata.n_obs, "train", dtype=object)
        split[asked] = "test"
        adata.obs["unlasting_split"] = pd.Categorical(split, categories=["train", "val", "test"])
        model = fitted(adata, screen, setup)
        for kind in [None] if types is None else sorted(set(types[asked])):
            for perturbation in sorted(set(label[asked])):
                cells = asked[(label[asked] == perturbation) & (True if kind is None else types[asked] == kind)]
                controls = np.flatnonzero((label == "control") & (True if kind is None else types == kind))
                if min(len(cells), len(controls)) >= MIN_CELLS:
                    row = compared(model, perturbation, kind, cells, controls)
                    yield {"screen": name, "condition": perturbation, "context": kind or "", **row}


def fitted(adata: Any, screen: dict[str, Any], setup: dict[str, Any], **options: Any) -> ul.UnlastingModel:
    """Fit the effects model alone."""
    ul.pp.prepare(adata, **screen.get("prepare", {}))
    ul.pp.grn(adata, prior=screen.get("prior", "default"))
    ul.UnlastingModel.setup_anndata(adata, **setup)
    model = ul.UnlastingModel(adata, **options)
    model.train(max_steps=0, show_progress=False)
    return model


def compared(
    model: Any, perturbation: str, kind: str | None, cells: np.ndarray, controls: np.ndarray
) -> dict[str, Any]:
    """Compare the posterior with observed cells."""
    adata, rng = model.adata, np.random.default_rng(0)
    ((_, _, changes),) = model.iterate_changes([perturbation], cell_type=kind)
    x, y = adata.X[cells].toarray().astype(float), adata.X[controls].toarray().astype(float)
    observed, mean, sd = x.mean(axis=0) - y.mean(axis=0), changes.mean[0], changes.sd[0]
    noise = x.var(axis=0) / len(x) + y.var(axis=0) / len(y)
    variable = y.var(axis=0) >= np.median(y.var(axis=0))
    z = np.abs(observed - mean) / np.sqrt(sd**2 + noise)
    training = (adata.obs["unlasting_split"] == "train").to_numpy()
    labels = adata.obs["perturbation"].astype(str).to_numpy()
    others = [one for one in sorted(set(labels[training])) if one != "control"]
    spread = np.std([np.asarray(adata.X[training & (labels == one)].mean(axis=0)).ravel() for one in others], axis=0)
    n, m = (min(len(part), MAX_CELLS) for part in (x, y))
    both = np.vstack([x[rng.permutation(len(x))[:n]], y[rng.permutation(len(y))[:m]]])
    first, second = (np.vstack([np.ones(size), rng.multinomial(size, np.full(size, 1 / size), 50)]) for size in (n, m))
    first, second = np.hstack([first, np.zeros((51, m))]), np.hstack([np.zeros((51, n)), second])
    distance, *bootstraps = resampled_e_distance(both, first, second)
    draws = np.interp(
        rng.random(4_000), np.linspace(0.001, 0.999, 200), changes.distance_quantiles(np.linspace(0.001, 0.999, 200))[0]
    )
    draws = draws + np.std(bootstraps) * rng.standard_normal(len(draws))
    row = {"n_cells": len(x), "e_distance": distance, "expected_e_distance": changes.distance[0]}
    for level in LEVELS:
        low, high = np.quantile(draws, [0.5 - level / 2, 0.5 + level / 2])
        row[f"genes_{level:g}"] = float((z[variable] < norm.ppf(0.5 + level / 2)).mean())
        row[f"e_{level:g}"] = bool(low <= distance <= high)
    sign = changes.false_sign_rate[0]
    significant = np.abs(observed) > 3.0 * np.sqrt(noise)
    called = (sign < 0.1) & significant
    return {
        **row,
        "width_to_spread": float(sd[variable].mean() / max(spread[variable].mean(), 1e-9))
        if len(others) > 1
        else np.nan,
        "expected_error": float((sd**2).sum()),
        # predicted cells are the same control cells plus the change: the noise of the held-out cells is all that is not theirs
        "error": float(((observed - mean) ** 2 - x.var(axis=0) / len(x)).sum()),
        "control_noise": float((y.var(axis=0) / len(y)).sum()),
        "expected_normalised_error": float(changes.expected_error[0]),
        "p_better": float(changes.p_better[0]),
        "better": bool(((observed - mean) ** 2).sum() < (observed**2).sum()),
        "p_active": float(changes.p_active[0]),
        "excludes_0": float((sign[variable] < 0.025).mean()),
        "n_sign_calls": int(called.sum()),
        "n_false_signs": int((np.sign(observed) != np.sign(mean))[called].sum()),
    }


def null_screens() -> dict[str, Any]:
    """Permute the labels of simulated screens: nothing acts."""
    excluded = []
    for seed in range(N_NULL):
        adata = ul.datasets.simulate_screen(n_genes=200, n_targets=15, n_unmeasured=5, seed=seed)
        labels = np.random.default_rng(seed).permutation(adata.obs["perturbation"].astype(str))
        adata.obs["perturbation"] = labels
        adata.obs["unlasting_split"] = np.where(np.isin(labels, ["T3", "T6", "T9"]), "test", "train")
        found = fitted(adata, {"prior": adata.uns["simulation"]["edges"]}, {}).effects(
            sorted(set(labels) - {"control"})
        )
        excluded.append(float((found.layers["false_sign_rate"] < 0.025).mean()))
    return {"screen": "null", "n": N_NULL, "excludes_0": float(np.mean(excluded))}


def signs() -> dict[str, Any]:
    """Compare signs called at a false sign rate below 10 % with the true effects of simulated screens."""
    n_called = n_false = n_opposite = 0
    for seed in range(N_SIGN):
        adata = ul.datasets.simulate_screen(
            n_genes=300, n_targets=15, n_unmeasured=0, n_cells=80, responders=1.0, seed=seed
        )
        truth = adata.uns["simulation"]["effects"]
        adata.obs["unlasting_split"] = np.where(adata.obs["perturbation"].isin(["T3", "T6", "T9"]), "test", "train")
        # over all counts: otherwise genes without an effect change with the total of the others
        screen = {"prior": adata.uns["simulation"]["edges"], "prepare": {"library_size_key": "library_size"}}
        model = fitted(adata, screen, {})
        found = model.effects([one for one in truth.index if one.startswith("T")])
        true = truth.loc[found.obs["perturbation"].astype(str), found.var_names].to_numpy()
        called = found.layers["false_sign_rate"] < 0.1
        n_called += int(called.sum())
        n_false += int((np.sign(true) != np.sign(found.X))[called].sum())
        n_opposite += int((true * found.X < 0)[called].sum())
    # a gene without any true effect counts as false in the first share, and not in the second
    shares = {"false_sign_share": n_false / max(n_called, 1), "opposite_sign_share": n_opposite / max(n_called, 1)}
    return {"screen": "sign", "n": N_SIGN, "n_sign_calls": n_called, **shares}


def summary(frame: pd.DataFrame, name: str) -> dict[str, Any]:
    """Summarise the left-out conditions of a screen, or of all."""
    row: dict[str, Any] = {"screen": name, "n": len(frame)}
    for level in LEVELS:
        low, high = binom.interval(0.95, len(frame), level)
        genes = frame[f"genes_{level:g}"]
        row[f"genes_{level:g}"], row[f"genes_{level:g}_se"] = genes.mean(), genes.std() / np.sqrt(len(frame))
        row[f"e_{level:g}"] = frame[f"e_{level:g}"].mean()
        row[f"accepted_{level:g}"] = f"{low / len(frame):.2f} to {high / len(frame):.2f}"
    ranks = frame.groupby("screen")[["expected_error", "error"]].rank(pct=True)
    rng = np.random.default_rng(0)
    boot = [spearmanr(*ranks.iloc[rng.integers(len(ranks), size=len(ranks))].T.to_numpy())[0] for _ in range(500)]
    silent = frame["e_distance"] < 0.015
    return {
        **row,
        "width_to_spread": frame["width_to_spread"].mean(),
        "spearman": spearmanr(ranks["expected_error"], ranks["error"])[0],
        "spearman_low": float(np.nanquantile(boot, 0.05)),
        "p_better": frame["p_better"].mean(),
        "better": frame["better"].mean(),
        "excludes_0_silent": frame.loc[silent, "excludes_0"].mean(),
        "called_active_silent": int((frame.loc[silent, "p_active"] > 0.5).sum()),
        "n_silent": int(silent.sum()),
        "n_sign_calls": int(frame["n_sign_calls"].sum()),
        "false_sign_share": frame["n_false_signs"].sum() / max(frame["n_sign_calls"].sum(), 1),
    }


def run(names: list[str], folder: Path | None) -> None:
    """Measure some screens, and write both tables."""
    path = RESULTS / "trust_conditions.csv"
    kept = (
        pd.read_csv(path, keep_default_na=False, na_values=["nan", ""])
        if path.exists()
        else pd.DataFrame({"screen": []})
    )
    simulated = []
    for name in names:
        if name in SCREENS:
            rows = list(left_out(name, SCREENS[name], folder))
            kept = pd.concat([kept[kept["screen"] != name], pd.DataFrame(rows)], ignore_index=True)
            kept.to_csv(path, index=False, float_format="%.4g")
        else:
            simulated.append(null_screens() if name == "null" else signs())
    table = [summary(part, str(name)) for name, part in kept.groupby("screen")] + (
        [summary(kept, "all")] if len(kept) else []
    )
    old = RESULTS / "trust.csv"
    if old.exists():
        before = pd.read_csv(old, keep_default_na=False, na_values=[""])  # one screen is called null
        done = {row["screen"] for row in simulated}
        for _, row in before[before["screen"].isin({"null", "sign"} - done)].iterrows():
            simulated.append(row.dropna().to_dict())
    frame = pd.DataFrame(table + simulated)
    frame.to_csv(old, index=False, float_format="%.4g")
    print(frame.round(3).T.to_string())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=[*SCREENS, "null", "sign"])
    parser.add_argument("--data", type=Path, default=None, help="folder with the files of screens that are not shipped")
    arguments = parser.parse_args()
    run(arguments.names, arguments.data)
