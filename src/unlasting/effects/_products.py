"""Weighted products between conditions' features, of which most are zero in large screens."""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy import sparse

_RARE: Final = 0.1
"""Share of conditions with a feature up to which its products are computed as sparse."""
_BLOCK: Final = 1_024


def as_rows(features: np.ndarray | sparse.csr_matrix) -> sparse.csr_matrix:
    """Convert features to sparse rows; those that are sparse already have neither zeros nor an order of their own."""
    return features if sparse.issparse(features) else sparse.csr_matrix(features)


def weighted(rows: sparse.csr_matrix, weights: np.ndarray) -> sparse.csr_matrix:
    """Multiply each feature by its weight, in double precision."""
    found = rows.astype(np.float64)
    found.data *= weights[rows.indices]
    return found


def divided(rows: sparse.csr_matrix) -> tuple[np.ndarray, np.ndarray, sparse.csr_matrix]:
    """Divide features into common ones, as columns and their dense values, and rare ones, as a matrix without the others."""
    is_common = np.bincount(rows.indices, minlength=rows.shape[1]) > _RARE * rows.shape[0]
    common, rare = np.flatnonzero(is_common), rows.astype(np.float64)
    rare.data[is_common[rare.indices]] = 0.0
    rare.eliminate_zeros()
    return common, rows[:, common].toarray().astype(np.float64), rare


def products(left: sparse.csr_matrix, relevance: np.ndarray, right: sparse.csr_matrix) -> np.ndarray:
    """Sum the products of features times relevance, in double precision, shape `(n_left, n_right)`.

    Neighbouring doses keep their order.
    """
    scaled = weighted(left, relevance)
    columns, common, rare = divided(right)
    found = scaled[:, columns].toarray() @ common.T
    if rare.nnz:
        transposed = rare.T.tocsr()
        for start in range(0, left.shape[0], _BLOCK):
            found[start : start + _BLOCK] += (scaled[start : start + _BLOCK] @ transposed).toarray()
    return np.asarray(found)


def squares(rows: sparse.csr_matrix, relevance: np.ndarray) -> np.ndarray:
    """Sum the squares of features times relevance, shape `(n,)`."""
    return np.asarray(rows.astype(np.float64).power(2) @ relevance.astype(np.float64))


def equal_rows(*parts: sparse.csr_matrix) -> list[np.ndarray]:
    """Give the rows of several matrices codes, which equal rows share, each of shape `(n,)`."""
    known: dict[tuple[bytes, bytes], int] = {}
    found = []
    for rows in parts:
        entries = zip(np.split(rows.indices, rows.indptr[1:-1]), np.split(rows.data, rows.indptr[1:-1]), strict=True)
        keys = [(columns.tobytes(), values.tobytes()) for columns, values in entries][: rows.shape[0]]
        found.append(np.array([known.setdefault(key, len(known)) for key in keys], dtype=int))
    return found
