"""Counts of real control cells, and what becomes of counts when expression changes."""

from __future__ import annotations

import numpy as np
from anndata import AnnData
from scipy import sparse, stats


def base_counts(base: AnnData, n_genes: int) -> tuple[sparse.csr_matrix, np.ndarray, np.ndarray]:
    """Get the counts of the genes with most of them, shape `(n_cells, n_genes)`, library sizes and cell types.

    Raises
    ------
    ValueError
        If there are fewer genes, or `base.X` holds no raw counts.
    """
    if base.n_vars < n_genes:
        raise ValueError(f"`base` has {base.n_vars} genes; this screen needs {n_genes}. Lower `n_genes`.")
    counts = sparse.csc_matrix(base.X)
    if counts.data.size and (counts.data.min() < 0 or (counts.data != np.rint(counts.data)).any()):
        raise ValueError("`base.X` must hold raw counts.")
    most = np.argsort(-np.asarray(counts.sum(axis=0)).ravel(), kind="stable")[:n_genes]
    types = base.obs["cell_type"].astype(str).to_numpy() if "cell_type" in base.obs else np.full(base.n_obs, "cell")
    return sparse.csr_matrix(counts[:, most]), np.asarray(counts.sum(axis=1)).ravel(), types


def expected_counts(counts: np.ndarray, cell_types: np.ndarray) -> np.ndarray:
    """Estimate expected counts, by the usual share of each gene in cells of the type, shape `(n_cells, n_genes)`."""
    rate = np.empty(counts.shape)
    for cell_type in np.unique(cell_types):
        own = counts[cell_types == cell_type]
        rate[cell_types == cell_type] = own.sum(axis=1, keepdims=True) * (own.sum(axis=0) / max(own.sum(), 1))
    return rate


def changed_counts(counts: np.ndarray, rate: np.ndarray, change: np.ndarray, luck: np.ndarray) -> np.ndarray:
    """Thin the counts of genes that go down and add to those that go up; leave the others as they are.

    All of shape `(n_cells, n_genes)`. Poisson counts with mean `rate` become Poisson counts with mean
    `rate * exp(change)`.
    """
    after = counts.copy()
    down, up = change < 0, change > 0
    after[down] = stats.binom.ppf(luck[down], counts[down], np.exp(change[down]))
    after[up] += stats.poisson.ppf(luck[up], rate[up] * np.expm1(change[up])).astype(counts.dtype)
    return after
