"""Effects on detection and on expressed values, and their application to control cells."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import expit, logit

N_QUANTILES = 21


class ControlExpression(NamedTuple):
    """Detection and expressed values in control cells, gene by gene.

    Parameters
    ----------
    rate
        Share of cells that express the gene, strictly between 0 and 1, shape `(n_genes,)`.
    mean
        Mean expressed value, shape `(n_genes,)`.
    quantiles
        Quantiles of the expressed values at equal steps from 0 to 1, shape `(n_quantiles, n_genes)`.
    """

    rate: np.ndarray
    mean: np.ndarray
    quantiles: np.ndarray


def control_expression(cells: np.ndarray, otherwise: np.ndarray) -> ControlExpression:
    """Summarise control cells.

    Parameters
    ----------
    cells
        Log-normalised control cells, shape `(n_cells, n_genes)`.
    otherwise
        Expressed value for genes that no control cell expresses, shape `(n_genes,)`.

    Returns
    -------
    The summary.
    """
    ordered = np.sort(cells, axis=0)
    n_cells, n_expressed = len(cells), (cells > 0).sum(axis=0)
    place = n_cells - n_expressed + np.linspace(0, 1, N_QUANTILES)[:, None] * np.maximum(n_expressed - 1, 0)
    low = np.minimum(np.floor(place).astype(int), n_cells - 1)
    below, above = (np.take_along_axis(ordered, i, axis=0) for i in (low, np.minimum(low + 1, n_cells - 1)))
    silent = n_expressed == 0
    quantiles = np.where(silent, otherwise, below + (place - low) * (above - below))
    mean = np.where(silent, otherwise, cells.sum(axis=0, dtype=np.float64) / np.maximum(n_expressed, 1))
    return ControlExpression((n_expressed + 0.5) / (n_cells + 1), mean, quantiles)


def hurdle_effects(n_cells: int, n_expressed: np.ndarray, total: np.ndarray, control: ControlExpression) -> np.ndarray:
    """Estimate a perturbation's effects on detection and on expressed values.

    Both are most probable values under a standard normal prior, in units of log-odds and of one cell's noise, so that
    few cells give small effects.

    Parameters
    ----------
    n_cells
        Number of perturbed cells.
    n_expressed
        Number of cells that express the gene, shape `(n_genes,)`.
    total
        Sum of their values, shape `(n_genes,)`.
    control
        The control cells.

    Returns
    -------
    Shifts of the log-odds of detection (first row) and of expressed values (second row), shape `(2, n_genes)`.
    """
    start = logit(control.rate)
    shift = np.zeros_like(start)
    for _ in range(50):
        rate = expit(start + shift)
        step = (n_expressed - n_cells * rate - shift) / (n_cells * rate * (1 - rate) + 1)
        shift += np.clip(step, -1.0, 1.0)
        if np.abs(step).max(initial=0.0) < 1e-9:
            break
    return np.stack([shift, (total - n_expressed * control.mean) / (n_expressed + 1)])


def apply_effects(
    cells: np.ndarray, effects: np.ndarray, control: ControlExpression, uniform: np.ndarray
) -> np.ndarray:
    """Apply effects to control cells, so that zeros stay zeros where the perturbation does nothing.

    Detection changes in one direction only: where a gene is detected less, some cells that express it fall silent;
    where it is detected more, some silent cells express it, with a value drawn from the control cells' quantiles.
    All expressed values are shifted, but not below the smallest expressed value in control cells.

    Parameters
    ----------
    cells
        Control cells, log-normalised, shape `(n_cells, n_genes)`.
    effects
        Shifts of the log-odds of detection and of expressed values, shape `(2, n_genes)`.
    control
        The control population.
    uniform
        Random numbers in [0, 1), shape `(n_cells, n_genes)`.

    Returns
    -------
    The perturbed cells, shape `(n_cells, n_genes)`.
    """
    log_odds, shift = effects
    before, after = control.rate, expit(logit(control.rate) + log_odds)
    kept = (cells > 0) & (uniform < np.minimum(after / before, 1.0))
    gain = np.maximum(after - before, 0.0) / (1.0 - before)
    gained = (cells == 0) & (uniform < gain)
    values = np.where(kept, cells, 0.0)
    row, gene = np.nonzero(gained)
    place = (
        uniform[row, gene] / gain[gene] * (len(control.quantiles) - 1)
    )  # uniform again, given that the gene is gained
    low = np.minimum(place.astype(int), len(control.quantiles) - 2)
    below, above = control.quantiles[low, gene], control.quantiles[low + 1, gene]
    values[row, gene] = below + (place - low) * (above - below)
    return np.where(kept | gained, np.maximum(values + shift, control.quantiles[0]), 0.0)
