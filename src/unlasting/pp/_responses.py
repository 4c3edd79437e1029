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

    `matrix` has the shape `(n_cells, n_genes)`, `targets` maps a target to the rows of its cells. Differences are taken
    within each of `groups`, shape `(n_cells,)`, and averaged by the target's cells; groups with fewer than two cells on
    a side do not count. Returns target, gene and difference, each with shape `(n_pairs,)`.
    """
    values = sparse.csr_matrix(matrix, dtype=np.float64)
    codes = np.unique(groups, return_inverse=True)[1]
    control = _moments(values, np.flatnonzero(is_control), codes)
    names: list[str] = []
    genes, differences = [np.empty(0, dtype=np.int64)], [np.empty(0)]
    for target, rows in targets.items():
        n, mean, variance = _moments(values, rows, codes)
        counts = (n > 1) & (control[0] > 1)
        if not counts.any():
            continue
        weight = (n * counts / n[counts].sum())[:, None]
        difference = (weight * (mean - control[1])).sum(axis=0)
        # Welch and Satterthwaite: the variance of a sum of independent means, and its degrees of freedom
        part = [weight**2 * v / np.maximum(m, 1)[:, None] for m, v in ((n, variance), (control[0], control[2]))]
        spread = sum(p.sum(axis=0) for p in part)
        square = sum(
            (p**2 / np.maximum(m - 1, 1)[:, None]).sum(axis=0) for p, m in zip(part, (n, control[0]), strict=True)
        )
        varies = spread > 0
        p = np.ones(len(difference))
        t = np.abs(difference[varies]) / np.sqrt(spread[varies])
        p[varies] = 2 * stats.t.sf(t, spread[varies] ** 2 / square[varies])
        gene = np.flatnonzero(stats.false_discovery_control(p) <= max_fdr)
        names += [target] * len(gene)
        genes.append(gene)
        differences.append(difference[gene])
    return np.array(names, dtype=object), np.concatenate(genes), np.concatenate(differences)


def _moments(
    values: sparse.csr_matrix, rows: np.ndarray, codes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Get number of cells, shape `(n_groups,)`, mean and variance, `(n_groups, n_genes)`, of rows in each group."""
    n_groups, cells = int(codes.max()) + 1, values[rows]
    n = np.bincount(codes[rows], minlength=n_groups)
    shape = (n_groups, len(rows))
    in_group = sparse.csr_matrix((np.ones(len(rows)), (codes[rows], np.arange(len(rows)))), shape=shape)
    size = np.maximum(n, 1)[:, None]
    mean = (in_group @ cells).toarray() / size
    square = (in_group @ cells.multiply(cells)).toarray() / size
    variance = square - mean**2
    variance[variance <= 1e-12 * square] = 0.0  # a constant gene, up to rounding
    return n, mean, variance * size / np.maximum(size - 1, 1)
