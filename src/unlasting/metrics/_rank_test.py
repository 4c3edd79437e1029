"""Differential expression on counts by a rank test, as cell-eval2 computes it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse, stats

from unlasting.metrics._matrices import Matrix, as_pair

CPM = 1e6
EPSILON = 1e-9
MIN_CPM = 5.0


@dataclass(frozen=True)
class RankTable:
    """Differential expression between a condition and control cells.

    Parameters
    ----------
    lfc
        log2 of the ratio of mean counts per million, shape `(n_genes,)`.
    p_value
        Two-sided Mann-Whitney p-values, shape `(n_genes,)`; NaN where a gene is not tested.
    p_adjusted
        The same after Benjamini and Hochberg over the tested genes.
    """

    lfc: np.ndarray
    p_value: np.ndarray
    p_adjusted: np.ndarray


def rank_table(counts: Matrix, control: Matrix, *, min_cpm: float = MIN_CPM) -> RankTable:
    """Compare a condition's counts with control counts, gene by gene.

    Parameters
    ----------
    counts
        The condition's counts, shape `(n_cells, n_genes)`.
    control
        Control counts, shape `(n_controls, n_genes)`.
    min_cpm
        A gene is tested where the mean counts per million of the *control* cells are above this number, so that no
        prediction chooses its genes.

    Returns
    -------
    The table, genes in the order of the columns.

    Notes
    -----
    The settings are those in the profile `vcc2026` in cell-eval2: counts per million over the given genes, arithmetic
    means with a pseudocount of 1e-9, the Mann-Whitney test of log values with correction for ties and continuity.
    """
    counts, control = as_pair(counts, control)
    scaled = [_per_million(counts), _per_million(control)]
    mean, control_mean = (np.asarray(x.sum(axis=0)).ravel() / x.shape[0] for x in scaled)
    for x in scaled:
        np.log1p(x.data, out=x.data)
    tested = control_mean > min_cpm
    p_value = np.where(tested, rank_test(*scaled), np.nan)
    p_adjusted = np.full(len(p_value), np.nan)
    if tested.any():
        p_adjusted[tested] = stats.false_discovery_control(p_value[tested])
    return RankTable(np.log2((mean + EPSILON) / (control_mean + EPSILON)), p_value, p_adjusted)


def rank_test(first: Matrix, second: Matrix) -> np.ndarray:
    """Test whether two samples of non-negative values differ, gene by gene.

    Parameters
    ----------
    first
        One sample's values, shape `(n_cells, n_genes)`.
    second
        The other sample's values, shape `(n_other_cells, n_genes)`.

    Returns
    -------
    Two-sided p-values, shape `(n_genes,)`; 1 where all values are the same.

    Notes
    -----
    It is the asymptotic test of :func:`scipy.stats.mannwhitneyu`, for all genes at once. Only values above 0 are
    sorted, so that sparse matrices stay sparse.
    """
    first, second = as_pair(first, second)
    n_first, n_genes = first.shape
    n = n_first + second.shape[0]
    stacked = sparse.vstack([sparse.csr_array(first), sparse.csr_array(second)], format="coo")
    present = stacked.data != 0
    cell, gene = (places[present] for places in stacked.coords)
    values = stacked.data[present]
    if (values < 0).any():
        raise ValueError("The samples hold negative values. Give counts, or their logarithms after `log1p`.")
    order = np.argsort(values)
    small = np.uint16 if n_genes <= 2**16 else np.int64  # short integers are sorted in linear time
    order = order[np.argsort(gene[order].astype(small), kind="stable")]
    gene, values, is_first = gene[order], values[order], cell[order] < n_first

    # one group of ties for each gene and value
    start = np.flatnonzero(np.r_[True, (np.diff(gene) != 0) | (np.diff(values) != 0)][: len(values)])
    size = np.diff(np.r_[start, len(values)])
    group_gene = gene[start]
    n_present = np.bincount(gene, minlength=n_genes)
    n_zero = n - n_present
    first_place = np.r_[0, np.cumsum(n_present)[:-1]]
    rank = n_zero[group_gene] + start - first_place[group_gene] + (size + 1) / 2
    first_counts = np.add.reduceat(is_first.astype(np.float64), start) if len(start) else np.zeros(0)
    first_zeros = n_first - np.bincount(gene, weights=is_first, minlength=n_genes)
    rank_sum = np.bincount(group_gene, weights=first_counts * rank, minlength=n_genes) + first_zeros * (n_zero + 1) / 2
    ties = np.bincount(group_gene, weights=_ties(size), minlength=n_genes) + _ties(n_zero)

    product = float(n_first) * second.shape[0]
    u = rank_sum - n_first * (n_first + 1) / 2
    variance = product / 12 * (n + 1 - ties / (n * (n - 1.0)))
    z = (np.maximum(u, product - u) - product / 2 - 0.5) / np.sqrt(np.where(variance > 0, variance, 1.0))
    return np.where(variance > 0, np.minimum(2 * stats.norm.sf(z), 1.0), 1.0)


def _ties(size: np.ndarray) -> np.ndarray:
    size = size.astype(np.float64)
    return size**3 - size


def _per_million(counts: Matrix) -> sparse.csr_array:
    """Scale cells to a million counts; an empty cell stays empty."""
    matrix = sparse.csr_array(counts, dtype=np.float64, copy=True)
    if (matrix.data < 0).any():
        raise ValueError("The counts hold negative values. Give raw counts, not scaled expression.")
    total = np.asarray(matrix.sum(axis=1)).ravel() / CPM
    matrix.data /= np.repeat(np.where(total > 0, total, 1.0), np.diff(matrix.indptr))
    return matrix
