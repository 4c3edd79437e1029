"""Tests for single conditions: for a signal, and for a false-positive effect."""

from __future__ import annotations

import numpy as np
from scipy import stats

from unlasting.metrics import emd_per_gene, resampled_e_distance


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
