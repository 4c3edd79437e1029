"""Recovery of differences between perturbations, beyond their shared response."""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist

from unlasting.metrics._matrices import as_pair, dense


def perturbed_reference(profiles: np.ndarray) -> np.ndarray:
    """Compute the mean over perturbation centroids, from which Systema measures changes.

    Parameters
    ----------
    profiles
        Mean profiles over training perturbations, shape `(n_conditions, n_genes)`. Each counts once, whatever its
        number of cells.

    Returns
    -------
    The reference, shape `(n_genes,)`: pass it as `control` of :func:`pearson_change`.

    Notes
    -----
    It is a measure from Systema :cite:p:`vinastorne2025systema`.
    """
    return np.asarray(profiles, dtype=np.float64).mean(axis=0)


def centroid_accuracy(predicted: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Compute, for each condition, the share of other centroids that are farther from the prediction than its own.

    Parameters
    ----------
    predicted
        Predicted mean profiles or changes, one row for each condition, shape `(n_conditions, n_genes)`.
    observed
        Observed ones, same conditions in the same order.

    Returns
    -------
    The share by Euclidean distance, shape `(n_conditions,)`: 1 if the own centroid is the nearest, 1/2 on average by
    chance. A tie does not count as farther. NaN with one condition.

    Notes
    -----
    It is a measure from Systema :cite:p:`vinastorne2025systema`.
    """
    first, second = as_pair(predicted, observed)
    if first.shape != second.shape:
        raise ValueError(
            f"`predicted` has {first.shape[0]} conditions and `observed` {second.shape[0]}. Both need the same conditions "
            "in the same order."
        )
    distances = cdist(dense(first), dense(second))
    farther = (distances > np.diagonal(distances)[:, None]).sum(axis=1)
    n = len(distances)
    return farther / (n - 1) if n > 1 else np.full(n, np.nan)
