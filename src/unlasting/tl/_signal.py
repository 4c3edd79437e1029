"""Tests of single conditions: whether there is an effect at all, and whether a prediction invents one."""

from __future__ import annotations

import numpy as np
from scipy import stats
from sklearn.metrics.pairwise import euclidean_distances

from unlasting.metrics import emd_per_gene


def permutation_test(
    cells: np.ndarray, controls: np.ndarray, n_permutations: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Compute the unbiased E-distance of two samples, and how often relabelled cells are at least as far apart."""
    n, m = len(cells), len(controls)
    distances = euclidean_distances(np.vstack([cells, controls]))
    # the first row are the true labels; (n_permutations + 1, n + m)
    labels = np.tile(np.repeat([1.0, 0.0], [n, m]), (n_permutations + 1, 1))
    rng.permuted(labels[1:], axis=1, out=labels[1:])
    to_cells = labels @ distances
    within_cells = np.einsum("ij,ij->i", to_cells, labels)
    between = to_cells.sum(axis=1) - within_cells
    within_controls = distances.sum() - within_cells - 2 * between
    value = 2 * between / (n * m) - within_cells / (n * (n - 1)) - within_controls / (m * (m - 1))
    # rounding must not part what is equal
    as_far = value[1:] >= value[0] - 1e-9 * abs(value[0])
    return float(value[0]), float((1 + as_far.sum()) / (1 + n_permutations))


def harm_test(
    predicted: np.ndarray, no_effect: np.ndarray, observed: np.ndarray, n_bootstraps: int, rng: np.random.Generator
) -> tuple[float, float, float]:
    """Compute the EMD of a prediction and of no effect, and the p-value of the first being larger.

    In every bootstrap the three samples are drawn anew from themselves, the observed one for both distances. Their
    difference is compared with its standard deviation over bootstraps: a tail of a few hundred bootstraps would not
    reach the levels that a correction for many conditions asks for.
    """
    larger, smaller = (float(emd_per_gene(cells, observed).mean()) for cells in (predicted, no_effect))
    differences = np.empty(n_bootstraps)
    for i in range(n_bootstraps):
        first, second, third = (
            cells[rng.integers(len(cells), size=len(cells))] for cells in (predicted, no_effect, observed)
        )
        differences[i] = (emd_per_gene(first, third) - emd_per_gene(second, third)).mean()
    deviation = float(differences.std(ddof=1))
    if deviation == 0:
        return larger, smaller, 1.0
    return larger, smaller, float(stats.norm.sf((larger - smaller) / deviation))


def holm(p_values: np.ndarray) -> np.ndarray:
    """Adjust p-values for their number by the step-down method of Holm, shape `(n_tests,)`."""
    order = np.argsort(p_values, kind="stable")
    factors = len(p_values) - np.arange(len(p_values))
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(p_values[order] * factors), 1.0)
    return adjusted
