"""Co-expression of genes, computed in blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

BLOCK_ENTRIES = 2**24
"""Block size in the correlation matrix: 128 MB in double precision."""


def correlated_pairs(
    matrix: Any, threshold: float, groups: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find gene pairs with an absolute Pearson correlation of at least `threshold`.

    `matrix` has the shape `(n_cells, n_genes)`; the means within `groups`, shape `(n_cells,)`, are subtracted first. Returns
    first gene, second gene and correlation, each with shape `(n_pairs,)`, in both directions. Constant genes have no pairs.
    """
    columns = sparse.csc_matrix(matrix, dtype=np.float64)
    n_cells, n_genes = columns.shape
    codes = np.zeros(n_cells, dtype=np.int64) if groups is None else np.unique(groups, return_inverse=True)[1]
    share = np.bincount(codes) / n_cells
    in_group = sparse.csr_matrix((1 / (n_cells * share[codes]), (codes, np.arange(n_cells))))
    means = (in_group @ columns).toarray()  # (n_groups, n_genes)
    second = np.asarray(columns.multiply(columns).mean(axis=0)).ravel()
    variance = second - share @ means**2
    varies = variance > 1e-12 * np.maximum(second, np.finfo(float).tiny)
    scale = np.zeros(n_genes)
    scale[varies] = 1 / np.sqrt(variance[varies])
    rows = columns.T.tocsr()  # (n_genes, n_cells)
    block = max(1, BLOCK_ENTRIES // n_genes)
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for start in range(0, n_genes, block):
        stop = min(start + block, n_genes)
        product = (rows[start:stop] @ columns).toarray() / n_cells  # (block, n_genes)
        between = (means[:, start:stop].T * share) @ means
        correlation = (product - between) * np.outer(scale[start:stop], scale)
        first, second_gene = np.nonzero(np.abs(correlation) >= threshold)
        keep = (first + start != second_gene) & varies[first + start] & varies[second_gene]
        first, second_gene = first[keep], second_gene[keep]
        found.append((first + start, second_gene, np.clip(correlation[first, second_gene], -1, 1)))
    sources, targets, values = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return sources, targets, values
