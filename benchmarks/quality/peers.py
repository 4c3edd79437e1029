"""Score the model at the sizes at which other tools were measured, so that their ratios to no effect can be compared.

    python benchmarks/quality/peers.py --seeds 3

The `reference` splits; of every condition with 30 cells, at most 400 true ones beside as many generated ones (at least 200); E-distance
as V-statistic, not rooted, which holds a part that depends on sizes alone. Writes `results/peers.csv`, every condition of
every seed, and prints the means and the ratios to no effect.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import pandas as pd
import scanpy as sc
from run import RESULTS, TABLES, maker

import unlasting as ul

MAX_CELLS = {"perturbed": 400, "control": 1_500}
"""Cells of a condition that the other tools were given on Papalexi, and on all screens the most that are compared."""
MIN_CELLS, FEWEST_GENERATED = 30, 200
SCREENS = ("papalexi_reference", "norman_reference", "kang_reference")
PEERS = {
    "papalexi_reference": {
        "CellFlow 0.0.9": (2.01, 1.12),
        "CPA 0.8.8": (15.2, 4.65),
        "GEARS 0.1.2": (1.26, 1.00),
        "STATE 0.11.1": (18.9, 5.17),
    },
    "norman_reference": {
        "CellFlow 0.0.9": (0.993, 0.883),
        "CPA 0.8.8": (2.55, 1.80),
        "GEARS 0.1.2": (1.68, 1.23),
        "STATE 0.11.1": (2.02, 1.49),
    },
    "kang_reference": {"CellFlow 0.0.9": (0.331, 0.099), "CPA 0.8.8": (1.61, 0.803), "STATE 0.11.1": (0.891, 0.300)},
}
"""E of other tools over E of no effect, all genes and DE20, one seed each, small and untuned settings."""


def capped(adata: Any, seed: int) -> Any:
    """Keep a random part of large conditions."""
    rng = np.random.default_rng(seed)
    kept = []
    for label, rows in adata.obs.groupby("perturbation", observed=True).indices.items():
        kept.append(rng.permutation(rows)[: MAX_CELLS["control" if label == "control" else "perturbed"]])
    return adata[np.sort(np.concatenate(kept))].copy()


def top_genes(adata: Any, true: np.ndarray, control: np.ndarray) -> np.ndarray:
    """Find the 20 genes that change most, by the t-test of scanpy."""
    both = adata[np.concatenate([true, control])].copy()
    both.obs["group"] = pd.Categorical(np.repeat(["true", "control"], [len(true), len(control)]))
    sc.tl.rank_genes_groups(both, "group", groups=["true"], reference="control", method="t-test_overestim_var")
    scores = pd.Series(both.uns["rank_genes_groups"]["scores"]["true"], both.uns["rank_genes_groups"]["names"]["true"])
    return adata.var_names.get_indexer(scores.abs().sort_values(ascending=False).index[:20])


def dense(cells: Any) -> np.ndarray:
    """Get expression, shape `(n_cells, n_genes)`."""
    return np.asarray(cells.X.toarray() if hasattr(cells.X, "toarray") else cells.X, dtype=np.float32)


def conditions(model: Any, adata: Any, setup: dict[str, Any], seed: int) -> list[dict[str, Any]]:
    """Score every test condition."""
    rng = np.random.default_rng(seed)
    keys = ["perturbation", *([setup["cell_type_key"]] if "cell_type_key" in setup else [])]
    test = adata.obs["unlasting_split"] == "test"
    training_control = ((adata.obs["perturbation"] == "control") & (adata.obs["unlasting_split"] == "train")).to_numpy()
    rows = []
    for names, group in adata.obs[test].groupby(keys, observed=True):
        true = adata.obs_names.get_indexer(group.index)
        if names[0] == "control" or len(true) < MIN_CELLS:
            continue
        of_type = np.ones(adata.n_obs, bool) if len(keys) == 1 else (adata.obs[keys[1]] == names[1]).to_numpy()
        control = np.flatnonzero(training_control & of_type)
        genes = {"all": np.arange(adata.n_vars), "de20": top_genes(adata, true, control)}
        true = rng.permutation(true)[: MAX_CELLS["perturbed"]]
        n = int(np.clip(len(true), FEWEST_GENERATED, MAX_CELLS["perturbed"]))
        options = {"cell_type": names[1]} if len(keys) == 2 else {}
        cells = {
            "unlasting": dense(model.generate(names[0], n, seed=seed, show_progress=False, **options)),
            "no effect": dense(adata[rng.permutation(control)[:n]]),
        }
        observed = dense(adata[true])
        for predictor, predicted in cells.items():
            for gene_set, columns in genes.items():
                e = ul.metrics.e_distance(predicted[:, columns], observed[:, columns], unbiased=False)
                rows.append(
                    {"condition": " ".join(names), "predictor": predictor, "gene_set": gene_set, "e_distance": e}
                )
    return rows


def run(n_seeds: int) -> None:
    """Make the table."""
    found = []
    for name in SCREENS:
        table = TABLES[name]
        setup = table.get("setup", {})
        for seed in range(n_seeds):
            adata = capped(table["screen"](), seed) if name == "papalexi_reference" else table["screen"]()
            ul.pp.split(adata, **table["splits"]["reference"], seed=seed)
            ul.pp.prepare(adata, **table.get("prepare", {}))
            ul.pp.grn(adata, prior=table.get("prior", "default"))
            model = maker(setup, None, seed)(adata)
            found += [{"screen": name, "seed": seed, **row} for row in conditions(model, adata, setup, seed)]
            pd.DataFrame(found).to_csv(RESULTS / "peers.csv", index=False)
    means = (
        pd.DataFrame(found)
        .groupby(["screen", "gene_set", "seed", "predictor"], sort=False)["e_distance"]
        .mean()
        .unstack()
    )
    means["ratio"] = means["unlasting"] / means["no effect"]
    print(means.groupby(["screen", "gene_set"], sort=False).agg(["mean", "std"]).round(3).to_string())
    print(pd.DataFrame({k: pd.Series(v) for k, v in PEERS.items()}).to_string())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    RESULTS.mkdir(exist_ok=True)
    run(parser.parse_args().seeds)
