"""Find the cells that a perturbation did not reach."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
from scipy.stats import norm

from unlasting._direction import direction
from unlasting.data._statistics import row_blocks
from unlasting.nn import N_DIRECTION_GENES, ResponderFit

_MIN_CELLS: Final = 50
"""Fewest cells, perturbed and control, from which a mixture is told from a single mode."""

_MAX_CELLS: Final = 2_000
"""Most cells that are looked at; more would not change what is found."""

_ROUNDS: Final = 200


def fit_responders(
    matrix: Any,
    *,
    condition: np.ndarray,
    pool: np.ndarray,
    split: np.ndarray,
    control_code: int,
    n_conditions: int,
    n_pools: int,
) -> ResponderFit:
    """Fit a mixture of responders and cells that escaped to the training cells of every condition and pool.

    As in Mixscape :cite:p:`papalexi2021`, cells are placed along the change from control to perturbed cells, and the
    cells that escaped are spread along it as the controls are. The direction for one half of the cells comes from the
    other. A mixture has to explain the cells better than one mode by more than the logarithm of their number, and its
    modes have to be farther apart than the sum of their s.d.; otherwise all cells count as responders.

    Parameters
    ----------
    matrix
        Log-normalised expression, shape `(n_cells, n_genes)`.
    condition, pool
        Codes of every cell, shape `(n_cells,)`.
    split
        0 for training cells, others are not read, shape `(n_cells,)`.
    control_code
        The code of the control among the conditions.
    n_conditions, n_pools
        Numbers of codes.

    Returns
    -------
    The mixtures.
    """
    training = np.flatnonzero(split == 0)
    trained = np.setdiff1d(condition[training], [control_code])
    fit = ResponderFit.empty(n_conditions, n_pools, len(trained))
    rng = np.random.default_rng(0)
    groups, of_group, sizes = np.unique(
        pool[training] * n_conditions + condition[training], return_inverse=True, return_counts=True
    )
    rows_of = dict(
        zip(groups.tolist(), np.split(training[of_group.argsort(kind="stable")], sizes.cumsum()[:-1]), strict=True)
    )
    n_cells = np.bincount(condition[training], minlength=n_conditions)
    for code in range(n_pools):
        control = _read(matrix, rows_of.get(code * n_conditions + control_code, training[:0]), rng)
        if len(control) < _MIN_CELLS:
            continue
        for place, perturbed_code in enumerate(trained.tolist()):
            rows = rows_of.get(code * n_conditions + perturbed_code, training[:0])
            if len(rows) < _MIN_CELLS:
                continue
            perturbed = _read(matrix, rows, rng)
            mixture = _mixture(_held_out_places(perturbed, control, rng))
            if mixture is None:
                continue
            genes, weights = direction(perturbed, control, N_DIRECTION_GENES)
            places = control[:, genes] @ weights
            pair = (perturbed_code, code)
            fit.genes[pair][: len(genes)] = torch.from_numpy(genes)
            fit.weights[pair][: len(genes)] = torch.from_numpy(weights / _deviation(places))
            fit.centre[pair] = float(places.mean()) / _deviation(places)
            fit.escaped[pair], fit.separation[pair], fit.spread[pair] = mixture
            fit.of_trained[place] += len(rows) / n_cells[perturbed_code] * mixture[0]
    return fit


def _read(matrix: Any, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Read some cells, or a sample of them, (n_cells, n_genes)."""
    if len(rows) > _MAX_CELLS:
        rows = np.sort(rng.choice(rows, _MAX_CELLS, replace=False))
    blocks = [block.toarray() for _, block in row_blocks(matrix, rows)]
    return np.concatenate(blocks) if blocks else np.zeros((0, matrix.shape[1]), dtype=np.float32)


def _held_out_places(perturbed: np.ndarray, control: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Place each half of the perturbed cells along the direction of the other, in s.d. of the held-out controls."""
    places = np.zeros(len(perturbed))
    half, control_half = (rng.permutation(len(cells)) % 2 == 0 for cells in (perturbed, control))
    for first in (True, False):
        genes, weights = direction(perturbed[half == first], control[control_half == first], N_DIRECTION_GENES)
        held_out = control[control_half != first][:, genes] @ weights
        places[half != first] = (perturbed[half != first][:, genes] @ weights - held_out.mean()) / _deviation(held_out)
    return places


def _deviation(places: np.ndarray) -> float:
    return float(places.std()) or 1.0


def _mixture(places: np.ndarray) -> tuple[float, float, float] | None:
    """Fit `escaped N(0, 1) + (1 - escaped) N(separation, spread^2)` if that is called for."""
    if places.mean() <= 0 or places.std() == 0:
        return None
    one_mode = norm.logpdf(places, places.mean(), places.std()).sum()
    of_escaped = norm.pdf(places)
    escaped, separation, spread = 0.2, places.mean() / 0.8, 1.0
    for _ in range(_ROUNDS):
        of_responders = (1 - escaped) * norm.pdf(places, separation, spread)
        responds = of_responders / (of_responders + escaped * of_escaped + 1e-300)
        n = max(responds.sum(), 1e-12)
        escaped, separation = 1 - n / len(places), (responds @ places) / n
        spread = max(0.3, float(np.sqrt(responds @ (places - separation) ** 2 / n)))
    two_modes = np.log(escaped * of_escaped + (1 - escaped) * norm.pdf(places, separation, spread) + 1e-300).sum()
    if two_modes - one_mode < np.log(len(places)) or separation < 1.0 + spread:
        return None
    return float(np.clip(escaped, 1e-3, 1 - 1e-3)), float(separation), spread
