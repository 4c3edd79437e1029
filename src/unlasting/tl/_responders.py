"""Responders: cells that responded to a perturbation, and cells that did not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from unlasting.screen import PREDICTION_KEY
from unlasting.tl._screen import Screen, store

if TYPE_CHECKING:
    from anndata import AnnData

_ROUNDS = 500
CONTROL, NON_RESPONDER, RESPONDER, UNLABELLED = LABELS = ("control", "non-responder", "responder", "unlabelled")


def responders(
    adata: AnnData,
    *,
    layer: str = PREDICTION_KEY,
    predictions: AnnData | None = None,
    conditions: Iterable[str | tuple[str, ...]] | None = None,
    key_added: str = "responders",
) -> pd.DataFrame:
    """Label observed and generated cells as responders or non-responders.

    The effects model and this function share one definition, Mixscape's :cite:p:`papalexi2021`. Each cell has a
    score along the direction from control to perturbed cells. Non-responders have the scores of controls, and responders
    have another normal distribution. A cell is a responder if its probability under this mixture is above 1/2.

    The mixture comes from all observed cells, or from generated cells if the condition was not observed.
    It is also applied to the generated cells. Without a clear separation (responders' mean score below the sum of both
    s.d.), or with fewer than 50 cells, the cells stay unlabelled.

    Parameters
    ----------
    adata
        The screen, log-normalised.
    layer
        Layer with the generated cells.
    predictions
        Generated cells as an AnnData, instead of `layer`.
    conditions
        Perturbations, or tuples (perturbation, cell type, dose). All conditions with generated cells if `None`.
    key_added
        Name for columns and frame.

    Returns
    -------
    A frame with a row for each condition: `condition`, `cell_type`, `dose`, `fitted_to` (`observed` or `generated`),
    `n_observed`, `n_generated`, `separation` and `spread` (mean and s.d. of responders' scores, in the controls' s.d.),
    and the shares `responders_observed` and `responders_generated`, both missing without a clear separation.

    Updates the following fields:

    - `adata.obs["unlasting_" + key_added]`: `control`, `responder`, `non-responder` or `unlabelled`.
    - `adata.obs["unlasting_" + key_added + "_probability"]`: probability that a perturbed cell responded.
    - The same columns with `_generated` at the end for cells in `layer`, or without it in `predictions.obs`.
    - `adata.uns["unlasting"][key_added]`: the frame.

    Raises
    ------
    KeyError
        If the layer or a label column is missing.
    ValueError
        If a cell type has no training controls, or every condition has too few cells.
    """
    screen = Screen.read(adata, layer, predictions)
    observed, generated = (np.full(len(cells.names), np.nan) for cells in (screen.observed, screen.generated))
    rows = []
    for condition in screen.generated_conditions(conditions):
        control = screen.observed.values(screen.control_rows(condition.cell_type))
        groups = {
            "observed": screen.observed.values(screen.observed.rows(condition)),
            "generated": screen.generated.values(screen.generated.rows(condition)),
        }
        response = fit_response(control, groups)
        if response is None:
            continue
        numbers = {f"n_{name}": len(cells) for name, cells in groups.items()}
        shares = {f"responders_{name}": share for name, share in response.share.items()}
        rows.append({**condition.columns(), **response.row, **numbers, **shares})
        observed[screen.observed.rows(condition)] = response.probability["observed"]
        generated[screen.generated.rows(condition)] = response.probability["generated"]
    if not rows:
        raise ValueError(
            "No condition has enough observed or generated cells for a mixture. Generate at least 50 cells per condition, "
            "and keep as many training controls."
        )
    frame = pd.DataFrame(rows)
    column = f"unlasting_{key_added}"
    _write(adata, column, "", observed, screen.observed.labels == screen.keys.control)
    if predictions is None:
        _write(adata, column, "_generated", generated)
    else:
        _write(predictions, column, "", generated)
    store(adata, **{key_added: frame})
    return frame.copy()


class Response(NamedTuple):
    """Mixture of responders and non-responders, applied to groups."""

    row: dict[str, object]
    """`fitted_to`, `separation`, `spread`."""
    probability: dict[str, np.ndarray]
    """Probability that each cell responded, by group; missing without a clear separation."""
    share: dict[str, float]
    """Share by group."""


def fit_response(control: np.ndarray, groups: Mapping[str, np.ndarray]) -> Response | None:
    """Fit the effects model's mixture to the first group with enough cells, and apply it to all.

    Groups are cells by name, shape `(n_cells, n_genes)`, the preferred one first. Without enough cells, the result is
    `None`.
    """
    from unlasting.effects import fit_response_mixture  # imports torch, which is slow

    fits = ((name, fit_response_mixture(cells, control)) for name, cells in groups.items())
    fitted_to, mixture = next(((name, fit) for name, fit in fits if fit is not None), ("", None))
    if mixture is None:
        return None
    probability = {name: mixture.probability(cells) for name, cells in groups.items()}
    share = {name: _share(found, 1 - mixture.nonresponding) for name, found in probability.items()}
    if mixture.is_separated:
        share[fitted_to] = 1 - mixture.nonresponding
    row = {"fitted_to": fitted_to, "separation": mixture.separation, "spread": mixture.spread}
    return Response(row, probability, share)


def _share(probability: np.ndarray, prior: float) -> float:
    """Estimate the share by maximum likelihood, from probabilities under another share."""
    if not len(probability) or np.isnan(probability).any():
        return float("nan")
    share = 0.5
    with np.errstate(divide="ignore", over="ignore"):
        against = (1 / probability - 1) * prior / (1 - prior)  # inverse likelihood ratio
        for _ in range(_ROUNDS):
            share = max(float(np.mean(1 / (1 + against * (1 / share - 1)))), 1e-9)
    return share


def _write(
    adata: AnnData, column: str, suffix: str, probability: np.ndarray, control: np.ndarray | None = None
) -> None:
    """Write labels and probabilities into `obs`."""
    labels = np.where(np.isnan(probability), UNLABELLED, np.where(probability > 0.5, RESPONDER, NON_RESPONDER))
    if control is not None:
        labels[control] = CONTROL
    adata.obs[f"{column}{suffix}"] = pd.Categorical(labels, categories=list(LABELS))
    adata.obs[f"{column}_probability{suffix}"] = probability
