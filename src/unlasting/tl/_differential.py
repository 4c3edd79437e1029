"""Differential expression from moments: scanpy's test `t-test_overestim_var`."""

from __future__ import annotations

from functools import reduce
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from unlasting.screen import Cells
from unlasting.tl._screen import blocks


class Moments(NamedTuple):
    """Number of cells, and mean and variance by gene, shape `(n_genes,)`."""

    n: int
    mean: np.ndarray
    variance: np.ndarray

    @classmethod
    def compute(cls, values: np.ndarray) -> Moments:
        """Compute moments from dense cells, shape `(n_cells, n_genes)`; a single cell has no variance."""
        n = len(values)
        mean = values.mean(axis=0, dtype=np.float64)
        variance = ((values - mean) ** 2).sum(axis=0) / (n - 1) if n > 1 else np.full(values.shape[1], np.nan)
        return cls(n, mean, variance)

    @classmethod
    def read(cls, cells: Cells, rows: np.ndarray) -> Moments:
        """Compute moments from any number of cells, block by block."""
        return reduce(cls.joined, map(cls.compute, blocks(cells, rows)))

    def joined(self, other: Moments) -> Moments:
        """Combine moments from two samples (Chan et al. 1979)."""
        n = self.n + other.n
        step = other.mean - self.mean
        squares = sum(np.nan_to_num(m.variance) * (m.n - 1) for m in (self, other))
        squares = squares + step**2 * self.n * other.n / n
        return Moments(n, self.mean + step * other.n / n, squares / (n - 1))


class Differential(NamedTuple):
    """Score, mean change and adjusted p-value (Benjamini-Hochberg) by gene, shape `(n_genes,)`."""

    score: np.ndarray
    lfc: np.ndarray
    pvalue: np.ndarray


def differential(group: Moments, control: Moments) -> Differential:
    """Compare two samples by Welch's t test, with as few controls as cells in the group.

    With their true number the smallest change would be significant. A gene without variance has score 0 and p-value 1.
    """
    change = group.mean - control.mean
    with np.errstate(all="ignore"):
        error = np.sqrt((group.variance + control.variance) / group.n)
        freedom = (group.n - 1) * (group.variance + control.variance) ** 2 / (group.variance**2 + control.variance**2)
        varies = error > 0
        score = np.where(varies, change / error, 0.0)
        pvalue = np.where(varies, 2 * stats.t.sf(np.abs(score), freedom), 1.0)
    return Differential(score, change, stats.false_discovery_control(pvalue))


def top_genes(score: np.ndarray, genes: pd.Index, n: int) -> np.ndarray:
    """Find the genes with the largest absolute score, ties by name, none with score 0, in panel order."""
    order = np.lexsort((np.asarray(genes, dtype=str), -np.abs(score)))[:n]
    return np.sort(order[score[order] != 0])
