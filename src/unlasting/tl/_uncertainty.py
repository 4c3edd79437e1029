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

from unlasting.metrics import resampled_e_distance
from unlasting.tl._protocol import LEVEL as LEVEL_OF_TEST

N_BOOTSTRAPS = 1000
LEVEL = 0.95
"""Coverage of intervals."""
POWER = 0.8
"""Power at which a test's detectable effect is stated."""
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


class FalsePositiveTest(NamedTuple):
    """Result of a test for a false-positive effect."""

    e_distance: float
    """Between prediction and test cells."""
    no_effect: float
    """Between control and test cells."""
    p_value: float
    detectable: float
    """Excess of the first over the second that the test finds with a power of 80 %."""


def false_positive_test(
    predicted: np.ndarray, controls: np.ndarray, observed: np.ndarray, n_permutations: int, rng: np.random.Generator
) -> FalsePositiveTest:
    """Test whether predicted cells are farther from the test cells than control cells are.

    Where nothing acts, predicted cells are a sample of control cells. Labels of both are then exchangeable, so that the
    permutation test has its level for any number of cells. A true effect brings the prediction nearer and is not rejected.
    """
    n, n_both = len(predicted), len(predicted) + len(controls)
    labels = np.tile((np.arange(n_both) < n).astype(float), (n_permutations + 1, 1))
    rng.permuted(labels[1:], axis=1, out=labels[1:])
    both = np.vstack([labels, 1.0 - labels])
    first = np.hstack([both, np.zeros((len(both), len(observed)))])
    second = np.repeat(np.arange(first.shape[1])[None] >= n_both, len(both), axis=0).astype(float)
    nearer, farther = np.split(resampled_e_distance(np.vstack([predicted, controls, observed]), first, second), 2)
    excess = nearer - farther
    as_far = excess[1:] >= excess[0] - 1e-9 * abs(excess[0])
    critical = np.quantile(excess[1:], 1.0 - LEVEL_OF_TEST)
    detectable = critical + stats.norm.ppf(POWER) * excess[1:].std()
    p_value = (1 + as_far.sum()) / (1 + n_permutations)
    return FalsePositiveTest(float(nearer[0]), float(farther[0]), float(p_value), float(detectable))


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
