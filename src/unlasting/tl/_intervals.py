"""Uncertainty over conditions: intervals, paired differences, and the influence of single conditions.

The unit is the condition, not the cell and not the seed. A score is a function on means over conditions, so every
resampled score follows from resampled means.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

N_BOOTSTRAPS = 1000
LEVEL = 0.95
"""Coverage of intervals."""
Score = Callable[[np.ndarray], np.ndarray]
"""A function on means over conditions, shape `(n, n_terms)`, with one score for each row."""


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
