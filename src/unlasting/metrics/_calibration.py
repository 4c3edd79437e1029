"""How well a metric separates a good prediction from a poor one."""

from __future__ import annotations

import numpy as np


def dynamic_range_fraction(
    positive: np.ndarray, negative: np.ndarray, *, best_value: float, larger_is_better: bool
) -> np.ndarray:
    """Compute the share of a metric's range between a poor prediction and a replicate.

    Parameters
    ----------
    positive
        The metric's values for other cells from the same condition, shape `(n_conditions,)`.
    negative
        Values for a prediction that ignores the condition, such as the mean over all perturbations.
    best_value
        Value for a perfect prediction.
    larger_is_better
        Whether a larger value is better.

    Returns
    -------
    The share, between -1 and 1, shape `(n_conditions,)`: near 0 the metric cannot tell a good prediction from a poor
    one. NaN where `negative` is missing or better than the best.

    Notes
    -----
    It is the dynamic range fraction by :cite:t:`miller2025calibrated`, the calibrator `drf` in scPertEval.
    """
    sign = 1.0 if larger_is_better else -1.0
    positive, negative = (np.asarray(x, dtype=np.float64) for x in (positive, negative))
    room = sign * (best_value - negative)
    share = np.clip(sign * (positive - negative) / (np.where(room < 0, np.nan, room) + 1e-6), -1.0, 1.0)
    return np.where(np.isfinite(negative), share, np.nan)
