"""Whether predictions for different conditions differ as they should."""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy.spatial.distance import cdist
from sklearn.metrics.pairwise import cosine_distances

from unlasting.metrics._matrices import as_matrix, as_pair, dense

Discrimination = Literal["l1", "l2", "cosine"]


def discrimination_score(
    predicted: np.ndarray, observed: np.ndarray, *, distance: Discrimination = "l1", excluded: np.ndarray | None = None
) -> np.ndarray:
    """Rank, for each condition, its own truth among all truths by distance to its prediction.

    Parameters
    ----------
    predicted
        Predicted mean changes, one row per condition, shape `(n_conditions, n_genes)`.
    observed
        Observed mean changes, same conditions in the same order.
    distance
        How effects are compared: `l1`, `l2` or `cosine`.
    excluded
        Genes that are left out for a condition, shape `(n_conditions, n_genes)`, boolean. Without its own target,
        a knock-out is harder to tell.

    Returns
    -------
    `1 - rank / n_conditions` with the rank counted from 0, shape `(n_conditions,)`: 1 if the own truth is the nearest,
    `1 / n_conditions` if it is the farthest, and `(n_conditions + 1) / (2 n_conditions)` on average by chance. Ties
    share their mean rank, so that predicting no effect scores as chance under `cosine`.

    Raises
    ------
    ValueError
        If the shapes differ, a value is missing or infinite, or `distance` is unknown.

    Notes
    -----
    It is cell-eval's `discrimination_score`, which leaves out each condition's target gene (`excluded`) and breaks
    ties by order.
    """
    if distance not in ("l1", "l2", "cosine"):
        raise ValueError(f"`distance` is {distance!r}, but it is one of 'l1', 'l2' and 'cosine'.")
    predicted, observed = _effects(predicted, observed)
    if excluded is None:
        distances = _distances(predicted, observed, distance)
    else:
        excluded = np.asarray(excluded, dtype=bool)
        if excluded.shape != predicted.shape:
            raise ValueError(f"`excluded` has the shape {excluded.shape}, but `predicted` has {predicted.shape}.")
        distances = np.vstack(
            [
                _distances(row[~left_out][None, :], observed[:, ~left_out], distance)
                for row, left_out in zip(predicted, excluded, strict=True)
            ]
        )
    own = np.diagonal(distances)[:, None]
    rank = (distances < own).sum(axis=1) + ((distances == own).sum(axis=1) - 1) / 2
    return 1 - rank / len(predicted)


def perturbation_spread(predicted: np.ndarray, observed: np.ndarray | None = None) -> float:
    """Compute the spread between the effects, which is zero if all predictions are the same.

    Parameters
    ----------
    predicted
        Predicted mean changes, one row per condition, shape `(n_conditions, n_genes)`.
    observed
        Observed mean changes, same conditions. If `None`, the spread is absolute.

    Returns
    -------
    The mean Euclidean distance of effects from their mean, in the data's unit; or with `observed`, as a fraction
    thereof: 0 if all predictions are the same, 1 if they differ as much as the truth. NaN if the truth
    does not differ.

    Raises
    ------
    ValueError
        If there are fewer than two conditions, the shapes differ, or a value is missing or infinite.
    """
    if observed is None:
        return _spread(dense(as_matrix(predicted, "predicted", min_cells=2)))
    first, second = _effects(predicted, observed, min_conditions=2)
    spread = _spread(second)
    return _spread(first) / spread if spread > 0 else float("nan")


def _distances(predicted: np.ndarray, observed: np.ndarray, distance: Discrimination) -> np.ndarray:
    """Compare effects; one that is zero everywhere is at cosine distance 1 from all."""
    if distance == "cosine":
        return cosine_distances(predicted, observed)
    return cdist(predicted, observed, {"l1": "cityblock", "l2": "euclidean"}[distance])


def _spread(effects: np.ndarray) -> float:
    return float(np.linalg.norm(effects - effects.mean(axis=0), axis=1).mean())


def _effects(predicted: np.ndarray, observed: np.ndarray, min_conditions: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Check effects, and that both have the same conditions and genes."""
    first = dense(as_matrix(predicted, "predicted", min_cells=min_conditions)).astype(np.float64)
    second = dense(as_matrix(observed, "observed", min_cells=min_conditions)).astype(np.float64)
    if first.shape != second.shape:
        raise ValueError(
            f"`predicted` has the shape {first.shape} and `observed` {second.shape}. Both need the same conditions and "
            "genes in the same order."
        )
    return first, second


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
