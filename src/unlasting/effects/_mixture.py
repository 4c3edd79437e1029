"""Find the cells that a perturbation did not reach."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from scipy.stats import norm

from unlasting.effects._direction import direction
from unlasting.effects._moments import row_blocks
from unlasting.effects._responders import N_DIRECTION_GENES, ResponderFit

_MIN_CELLS: Final = 50
"""Fewest cells, perturbed and control, from which a mixture is told from a single mode."""

_FEWEST: Final = 20
"""Fewest cells of a condition and population that take part where others of the same perturbation speak with them."""

_MAX_CELLS: Final = 2_000
"""Most cells that are looked at; more would not change what is found."""

_ROUNDS: Final = 200


def fit_responders(
    matrix: Any,
    *,
    condition: np.ndarray,
    population: np.ndarray,
    split: np.ndarray,
    control_code: int,
    n_conditions: int,
    n_populations: int,
    perturbation: np.ndarray | None = None,
) -> ResponderFit:
    """Fit a mixture of responders and non-responding cells to the training cells of every condition and population.

    As in Mixscape :cite:p:`papalexi2021`, cells are placed along the change from control to perturbed cells, and the
    non-responding cells are spread along it as the controls are. The direction for one half of the cells comes from the
    other. A mixture has to explain the cells better than one mode by more than the logarithm of their number, and its
    modes have to be farther apart than the sum of their s.d.; otherwise all cells count as responders. Conditions
    with few cells in a population have one share of non-responding cells in all such populations, and at all such doses of the
    perturbation unless one for each dose is clearly likelier; each cell is placed along the direction of its own.

    Parameters
    ----------
    matrix
        Log-normalised expression, shape `(n_cells, n_genes)`.
    condition, population
        Codes of every cell, shape `(n_cells,)`.
    split
        0 for training cells, others are not read, shape `(n_cells,)`.
    control_code
        The code of the control among the conditions.
    n_conditions, n_populations
        Numbers of codes.
    perturbation
        Codes of what is perturbed in every condition, whatever the dose, shape `(n_conditions,)`. All differ if `None`.

    Returns
    -------
    The mixtures.
    """
    training = np.flatnonzero(split == 0)
    trained = np.setdiff1d(condition[training], [control_code])
    fit = ResponderFit.empty(n_conditions, n_populations, len(trained))
    rng = np.random.default_rng(0)
    groups, of_group, sizes = np.unique(
        population[training] * n_conditions + condition[training], return_inverse=True, return_counts=True
    )
    rows_of = dict(
        zip(groups.tolist(), np.split(training[of_group.argsort(kind="stable")], sizes.cumsum()[:-1]), strict=True)
    )
    together: dict[tuple[int, ...], list[_Placed]] = {}
    for code in range(n_populations):
        control = _read(matrix, rows_of.get(code * n_conditions + control_code, training[:0]), rng)
        if len(control) < _MIN_CELLS:
            continue
        for place, perturbed_code in enumerate(trained.tolist()):
            rows = rows_of.get(code * n_conditions + perturbed_code, training[:0])
            if len(rows) < _FEWEST:
                continue
            pair = (perturbed_code, code)
            key: tuple[int, ...] = pair
            if perturbation is not None and len(rows) < _MIN_CELLS:
                key = (int(perturbation[perturbed_code]),)
            placed = _Placed.of(pair, place, len(rows), _read(matrix, rows, rng), control, rng)
            together.setdefault(key, []).append(placed)
    told = np.zeros(len(trained))
    for members in together.values():
        for placed, nonresponding, separation, spread in _shares(members):
            if separation >= 1.0 + spread:
                told[placed.place] += placed.n_cells
                placed.write(fit, nonresponding, separation, spread)
    fit.of_trained.div_(torch.from_numpy(np.maximum(told, 1.0)))
    if perturbation is not None:
        _carry_to_other_doses(fit.of_trained, told, perturbation[trained])
    return fit


def _carry_to_other_doses(share: torch.Tensor, told: np.ndarray, perturbation: np.ndarray) -> None:
    """Give doses of too little effect to tell the mean share of those that tell: else curves would jump between them."""
    for code in np.unique(perturbation[told > 0]):
        of_code = perturbation == code
        known = of_code & (told > 0)
        share[of_code & ~known] = float(np.average(share[known].numpy(), weights=told[known]))


@dataclass(frozen=True)
class _Placed:
    """Cells of a condition in a population along a direction."""

    pair: tuple[int, int]
    """Codes of condition and population."""
    place: int
    """Of the condition among the trained ones."""
    n_cells: int
    places: np.ndarray
    genes: np.ndarray
    weights: np.ndarray
    centre: float

    @classmethod
    def of(
        cls,
        pair: tuple[int, int],
        place: int,
        n_cells: int,
        perturbed: np.ndarray,
        control: np.ndarray,
        rng: np.random.Generator,
    ) -> _Placed:
        places = _held_out_places(perturbed, control, rng)
        genes, weights = direction(perturbed, control, N_DIRECTION_GENES)
        along = control[:, genes] @ weights
        return cls(
            pair, place, n_cells, places, genes, weights / _deviation(along), float(along.mean()) / _deviation(along)
        )

    def write(self, fit: ResponderFit, nonresponding: float, separation: float, spread: float) -> None:
        """Add what was found, to the share of the condition by the number of cells."""
        fit.of_trained[self.place] += self.n_cells * nonresponding
        if not nonresponding:
            return
        fit.genes[self.pair][: len(self.genes)] = torch.from_numpy(self.genes)
        fit.weights[self.pair][: len(self.genes)] = torch.from_numpy(self.weights)
        fit.centre[self.pair] = self.centre
        fit.nonresponding[self.pair], fit.separation[self.pair], fit.spread[self.pair] = (
            nonresponding,
            separation,
            spread,
        )


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


def _shares(members: list[_Placed]) -> Iterator[tuple[_Placed, float, float, float]]:
    """Fit a mixture to all members, or to those of each condition if one share for all is clearly less likely."""
    of_condition: dict[int, list[_Placed]] = {}
    for placed in members:
        of_condition.setdefault(placed.pair[0], []).append(placed)
    together, *alone = (_Mixture.of([placed.places for placed in group]) for group in (members, *of_condition.values()))
    gain = sum(mixture.log_likelihood for mixture in alone) - together.log_likelihood
    n_cells = sum(len(placed.places) for placed in members)
    if gain <= (len(alone) - 1) * np.log(n_cells):
        fitted = [(together, members)]
    else:
        fitted = list(zip(alone, of_condition.values(), strict=True))
    for mixture, group in fitted:
        share = mixture.nonresponding if mixture.is_called_for else 0.0
        for placed, separation, spread in zip(group, mixture.separation, mixture.spread, strict=True):
            yield placed, share, float(separation), float(spread)


@dataclass(frozen=True)
class _Mixture:
    """`nonresponding N(0, 1) + (1 - nonresponding) N(separation, spread^2)` of groups of cells, all with one share that nonresponding."""

    nonresponding: float
    separation: np.ndarray
    spread: np.ndarray
    log_likelihood: float
    is_called_for: bool
    """Whether one mode for each group does not explain as many cells as are needed as well."""

    @classmethod
    def of(cls, groups: Sequence[np.ndarray]) -> _Mixture:
        """Fit it; groups that are not beyond the controls do not take part."""
        separations, spreads = np.zeros(len(groups)), np.ones(len(groups))
        which = [i for i, places in enumerate(groups) if places.mean() > 0 and places.std() > 0]
        n_cells = sum(len(groups[i]) for i in which)
        if not n_cells:
            return cls(0.0, separations, spreads, 0.0, False)
        group = np.repeat(np.arange(len(which)), [len(groups[i]) for i in which])
        places = np.concatenate([groups[i] for i in which])

        def mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
            return np.bincount(group, weights * values) / np.maximum(np.bincount(group, weights), 1e-12)

        middle = mean(places, np.ones(n_cells))
        deviation = np.sqrt(mean((places - middle[group]) ** 2, np.ones(n_cells)))
        one_mode = norm.logpdf(places, middle[group], deviation[group]).sum()
        of_nonresponding = norm.pdf(places)
        nonresponding, separation, spread = 0.2, middle / 0.8, np.ones(len(which))
        for _ in range(_ROUNDS):
            of_responders = (1 - nonresponding) * norm.pdf(places, separation[group], spread[group])
            responds = of_responders / (of_responders + nonresponding * of_nonresponding + 1e-300)
            nonresponding, separation = 1 - max(responds.sum(), 1e-12) / n_cells, mean(places, responds)
            spread = np.maximum(0.3, np.sqrt(mean((places - separation[group]) ** 2, responds)))
        of_responders = (1 - nonresponding) * norm.pdf(places, separation[group], spread[group])
        two_modes = float(np.log(nonresponding * of_nonresponding + of_responders + 1e-300).sum())
        separations[which], spreads[which] = separation, spread
        is_called_for = n_cells >= _MIN_CELLS and two_modes - one_mode >= np.log(n_cells)
        return cls(float(np.clip(nonresponding, 1e-3, 1 - 1e-3)), separations, spreads, two_modes, bool(is_called_for))
