"""Genes that respond to a target's perturbation, computed from sums over cells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import sparse, stats


def responding_genes(
    matrix: Any, targets: Mapping[str, np.ndarray], is_control: np.ndarray, groups: np.ndarray, max_fdr: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find genes whose mean differs from the controls' at a false discovery rate, by Welch's t-test within each target.

    `matrix` has the shape `(n_cells, n_genes)`, `targets` maps a target to the rows of its cells. The mean over the control
    cells in each of `groups`, shape `(n_cells,)`, is subtracted first; cells in a group without controls do not count.
    Returns target, gene and difference of means, each with shape `(n_pairs,)`.
    """
    values = sparse.csr_matrix(matrix, dtype=np.float64)
    squared = values.multiply(values).tocsr()
    codes = np.unique(groups, return_inverse=True)[1]
    n_control = np.bincount(codes[is_control], minlength=codes.max() + 1)
    control_mean = _sums(values, np.flatnonzero(is_control), codes)[0] / np.maximum(n_control, 1)[:, None]

    def moments(rows: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
        """Get number of cells, mean and variance of the differences from the controls' means, shape `(n_genes,)`."""
        rows = rows[n_control[codes[rows]] > 0]
        (first, count), (second, _) = _sums(values, rows, codes), _sums(squared, rows, codes)
        n = max(int(count.sum()), 1)
        mean = (first - count[:, None] * control_mean).sum(axis=0) / n
        square = (second - 2 * control_mean * first + count[:, None] * control_mean**2).sum(axis=0) / n
        return len(rows), mean, np.maximum(square - mean**2, 0.0) * n / max(n - 1, 1)

    n_reference, reference_mean, reference_variance = moments(np.flatnonzero(is_control))
    found: list[tuple[list[str], np.ndarray, np.ndarray]] = [([], np.empty(0, dtype=np.int64), np.empty(0))]
    for target, rows in targets.items():
        n, mean, variance = moments(rows)
        varies = variance + reference_variance > 0
        if min(n, n_reference) < 2 or not varies.any():
            continue
        p = np.ones(len(mean))
        p[varies] = stats.ttest_ind_from_stats(
            mean[varies],
            np.sqrt(variance[varies]),
            n,
            reference_mean[varies],
            np.sqrt(reference_variance[varies]),
            n_reference,
            equal_var=False,
        ).pvalue
        gene = np.flatnonzero(stats.false_discovery_control(p) <= max_fdr)
        found.append(([target] * len(gene), gene, (mean - reference_mean)[gene]))
    names, genes, differences = zip(*found, strict=True)
    sources = np.array([name for part in names for name in part], dtype=object)
    return sources, np.concatenate(genes), np.concatenate(differences)


def _sums(values: sparse.csr_matrix, rows: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum rows by their group, shape `(n_groups, n_genes)`, and count them, shape `(n_groups,)`."""
    n_groups = int(codes.max()) + 1
    in_group = sparse.csr_matrix((np.ones(len(rows)), (codes[rows], np.arange(len(rows)))), shape=(n_groups, len(rows)))
    return (in_group @ values[rows]).toarray(), np.bincount(codes[rows], minlength=n_groups)
