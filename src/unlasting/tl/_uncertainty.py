"""Tests for single conditions, and uncertainty over conditions.

The tests look for a signal and for a false-positive effect. In intervals, paired differences and the influence of single
conditions, the unit is the condition, not the cell and not the seed. A score is a function on means over conditions, so
every resampled score follows from resampled means.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import stats

from unlasting.metrics import emd_per_gene, resampled_e_distance

N_BOOTSTRAPS = 1000
LEVEL = 0.95
"""Coverage of intervals."""
Score = Callable[[np.ndarray], np.ndarray]
"""A function on means over conditions, shape `(n, n_terms)`, with one score for each row."""


def permutation_test(
    cells: np.ndarray, controls: np.ndarray, n_permutations: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Compute the unbiased E-distance between two samples, and its p-value under permuted labels."""
    labels = np.tile(np.repeat([1.0, 0.0], [len(cells), len(controls)]), (n_permutations + 1, 1))
    rng.permuted(labels[1:], axis=1, out=labels[1:])  # the first row keeps the true labels
    value = resampled_e_distance(np.vstack([cells, controls]), labels, 1 - labels)
    # equal distances must not differ by rounding
    as_far = value[1:] >= value[0] - 1e-9 * abs(value[0])
    return float(value[0]), float((1 + as_far.sum()) / (1 + n_permutations))


def false_positive_test(
    predicted: np.ndarray, no_effect: np.ndarray, observed: np.ndarray, n_bootstraps: int, rng: np.random.Generator
) -> tuple[float, float, float]:
    """Compute the EMD for a prediction and for no effect, and the p-value that the first is larger.

    Each bootstrap resamples all three samples, the observed one once for both distances. The difference is compared
    with its standard deviation over bootstraps, since a few hundred bootstraps have no tail for Holm's levels.
    """
    larger, smaller = (float(emd_per_gene(cells, observed).mean()) for cells in (predicted, no_effect))
    differences = np.empty(n_bootstraps)
    for i in range(n_bootstraps):
        first, second, third = (
            cells[rng.integers(len(cells), size=len(cells))] for cells in (predicted, no_effect, observed)
        )
        differences[i] = (emd_per_gene(first, third) - emd_per_gene(second, third)).mean()
    deviation = float(differences.std(ddof=1))
    p_value = float(stats.norm.sf((larger - smaller) / deviation)) if deviation else 1.0
    return larger, smaller, p_value


def holm(p_values: np.ndarray) -> np.ndarray:
    """Adjust p-values by Holm's step-down method, shape `(n_tests,)`."""
    order = np.argsort(p_values, kind="stable")
    factors = len(p_values) - np.arange(len(p_values))
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(p_values[order] * factors), 1.0)
    return adjusted


class Interval(NamedTuple):
    """An estimate with its interval, missing below two conditions."""

    value: float
    low: float
    high: float


def resampled_means(terms: np.ndarray, seed: int) -> np.ndarray:
    """Average the terms over conditions: once over all, then over each bootstrap sample.

    Equal seeds draw equal conditions. Terms have the shape `(n_conditions, n_terms)`, and means `(1 + N_BOOTSTRAPS, n_terms)`.
    """
    n = len(terms)
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), N_BOOTSTRAPS)
    return np.vstack([np.ones(n), drawn]) @ terms / n


def score_interval(score: Score, terms: np.ndarray, seed: int, *, level: float = LEVEL) -> Interval:
    """Compute a score over conditions with its percentile-bootstrap interval."""
    return _interval(score(resampled_means(terms, seed)), len(terms), level)


def difference_interval(
    score: Score, terms: np.ndarray, reference: np.ndarray, seed: int, *, level: float = LEVEL
) -> Interval:
    """Compute a score minus a reference's on the same conditions, with its paired bootstrap interval."""
    own, other = (score(resampled_means(part, seed)) for part in (terms, reference))
    return _interval(own - other, len(terms), level)


def leave_one_out(score: Score, terms: np.ndarray) -> np.ndarray:
    """Compute the score without each condition in turn, shape `(n_conditions,)`; missing for a single condition."""
    n = len(terms)
    if n < 2:
        return np.full(n, np.nan)
    return score((terms.sum(axis=0) - terms) / (n - 1))


def _interval(values: np.ndarray, n: int, level: float) -> Interval:
    first, resampled = float(values[0]), values[1:]
    if n < 2 or not np.isfinite(resampled).any():
        return Interval(first, np.nan, np.nan)
    low, high = np.nanquantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return Interval(first, float(low), float(high))
