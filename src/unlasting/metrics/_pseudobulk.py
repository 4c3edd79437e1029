"""Pseudobulk profiles and their sampling noise."""

from __future__ import annotations

import numpy as np

from unlasting.metrics._matrices import Matrix, as_matrix, row_blocks

TARGET_SUM = 5e4


def pseudobulk(counts: Matrix, *, target_sum: float = TARGET_SUM) -> np.ndarray:
    """Compute the logarithm of summed counts, scaled to a total.

    Parameters
    ----------
    counts
        Counts, shape `(n_cells, n_genes)`.
    target_sum
        The total of the scaled sums.

    Returns
    -------
    `log1p` of the scaled sums, shape `(n_genes,)`; zeros if there are no counts.
    """
    total = _sums(counts)[0]
    whole = total.sum()
    return np.log1p(target_sum * total / whole) if whole > 0 else np.zeros(len(total))


def pseudobulk_noise(counts: Matrix, *, target_sum: float = TARGET_SUM) -> float:
    """Estimate a pseudobulk profile's sampling variance, summed over genes.

    Parameters
    ----------
    counts
        Counts, shape `(n_cells, n_genes)`.
    target_sum
        As in :func:`pseudobulk`.

    Returns
    -------
    The jackknife variance: each cell is left out in turn. 0 with fewer than two cells or without counts.
    """
    total, matrix = _sums(counts)
    whole, n = total.sum(), matrix.shape[0]
    if n < 2 or whole <= 0:
        return 0.0
    profile = np.log1p(target_sum * total / whole)
    first, second = np.zeros(len(total)), np.zeros(len(total))
    for block in row_blocks(matrix):
        block = block.astype(np.float64)
        rest = whole - block.sum(axis=1, keepdims=True)
        without = np.log1p(target_sum * (total - block) / np.where(rest > 0, rest, 1.0))
        deviation = np.where(rest > 0, without, 0.0) - profile
        first += deviation.sum(axis=0)
        second += (deviation**2).sum(axis=0)
    return max(float((n - 1) / n * (second - first**2 / n).sum()), 0.0)


def _sums(counts: Matrix) -> tuple[np.ndarray, Matrix]:
    """Check counts and add them up over cells, in float64."""
    matrix = as_matrix(counts, "counts")
    if matrix.min() < 0:
        raise ValueError("`counts` holds negative values. Give raw counts, not scaled expression.")
    total = np.zeros(matrix.shape[1])
    for block in row_blocks(matrix):
        total += block.sum(axis=0, dtype=np.float64)
    return total, matrix
