"""Errors in the mean change."""

from __future__ import annotations

from typing import Any

import numpy as np

from unlasting.metrics._matrices import Matrix, check_genes, mean_profile


def pearson_change(
    predicted: Matrix, observed: Matrix, control: Matrix, *, observed_control: Matrix | None = None
) -> float:
    """Correlate the predicted and the observed mean change over genes.

    Parameters
    ----------
    predicted
        Predicted cells, shape `(n_cells, n_genes)`, or their mean profile, shape `(n_genes,)`.
    observed
        Observed cells or their mean profile, likewise.
    control
        Reference for the change: control cells or a mean profile, likewise. With the mean over the training
        perturbations instead, the score asks how *this* perturbation differs from others.
    observed_control
        Other control cells, from which the observed change is measured. A shared control correlates the two changes
        by its own noise; disjoint control halves do not. If `None`, `control`.

    Returns
    -------
    Pearson's correlation; NaN if a change is the same in all genes, as for a prediction without an
    effect.
    """
    first, second = _changes(predicted, observed, control, observed_control)
    # rounding leaves a constant vector with a tiny variance
    smallest = 1e-12 * max(float(np.abs(profile).max()) for profile in (first, second))
    first, second = first - first.mean(), second - second.mean()
    if min(np.abs(first).max(), np.abs(second).max()) <= smallest:
        return float("nan")
    return float(np.clip(first @ second / (np.linalg.norm(first) * np.linalg.norm(second)), -1.0, 1.0))


def mse_change(
    predicted: Matrix, observed: Matrix, control: Matrix, *, observed_control: Matrix | None = None
) -> float:
    """Compute the squared error in the mean change, averaged over genes.

    Parameters
    ----------
    predicted, observed, control, observed_control
        As in :func:`pearson_change`. Without `observed_control`, the control cancels.

    Returns
    -------
    The mean squared error, in the data's squared unit.
    """
    first, second = _changes(predicted, observed, control, observed_control)
    return float(np.mean((first - second) ** 2))


def _changes(predicted: Any, observed: Any, control: Any, observed_control: Any) -> tuple[np.ndarray, np.ndarray]:
    """Get the predicted and the observed mean change, each with shape `(n_genes,)`."""
    given = {"predicted": predicted, "observed": observed, "control": control, "observed_control": observed_control}
    means = {name: mean_profile(cells, name) for name, cells in given.items() if cells is not None}
    for name, mean in means.items():
        check_genes(len(means["predicted"]), len(mean), "predicted", name)
    base = means["control"]
    return means["predicted"] - base, means["observed"] - means.get("observed_control", base)
