"""A small prepared screen with counts, and cells generated for it."""

from __future__ import annotations

import numpy as np
import pytest
from anndata import AnnData

import unlasting as ul

TESTED = ("G1", "G3", "G5")


@pytest.fixture(scope="session")
def prepared() -> AnnData:
    """Counts of 40 genes, controls and six knock-downs of which three are held out; a generated cell for each test cell."""
    rng = np.random.default_rng(0)
    genes = [f"G{i}" for i in range(40)]
    labels = np.repeat(["control", *genes[:6]], [120, *[70] * 6])
    effect = np.exp(rng.normal(0.0, 0.8, (6, 40)) * (rng.random((6, 40)) < 0.4))
    effect[np.arange(6), np.arange(6)] = 0.1
    rate = rng.gamma(1.0, 4.0, 40) + 0.3
    rates = np.vstack([np.ones(40), effect])[np.r_[np.zeros(120, int), np.repeat(np.arange(1, 7), 70)]] * rate
    depth = rng.gamma(6.0, 1 / 6, (len(labels), 1))
    adata = AnnData(rng.poisson(rates * depth + 0.05).astype(np.float32))
    adata.obs_names, adata.var_names = [f"c{i}" for i in range(len(labels))], genes
    adata.obs["perturbation"] = labels
    adata.obs["unlasting_split"] = np.where(np.isin(labels, TESTED), "test", "train")
    ul.pp.prepare(adata, n_top_genes=40)
    # generated: control cells of which the genes of the truth are scaled, as in a prediction
    controls = np.flatnonzero(labels == "control")
    source = rng.choice(controls, len(labels))
    counts = adata.layers["counts"].toarray()
    guess = counts[source]
    for i, name in enumerate(genes[:6]):
        rows = labels == name
        guess[rows] = rng.poisson(counts[source[rows]] * effect[i] ** 0.7)
    per_unit = counts.sum(axis=1) / np.expm1(adata.X.toarray()).sum(axis=1)
    layer = np.log1p(guess / per_unit[source][:, None]).astype(np.float32)
    layer[~np.isin(labels, TESTED)] = 0.0
    adata.layers["unlasting"] = layer
    adata.layers["truth_of_rounding"] = guess.astype(np.float32)
    adata.obs["unlasting_source"] = np.where(np.isin(labels, TESTED), adata.obs_names[source], "")
    return adata
