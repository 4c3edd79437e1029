"""Responding and non-responding cells: a mixture for every condition and control population."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Self

import numpy as np
import torch
from scipy import sparse
from scipy.stats import norm
from torch import Tensor

from unlasting.effects._direction import CellBlocks, CellMoments, direction
from unlasting.effects._moments import ScreenCells
from unlasting.effects._tensors import Tensors

_DIRECTION_GENES: Final = 50
"""Genes that distinguish responding from non-responding cells."""
_MIN_CELLS: Final = 50
"""Fewest cells, perturbed and control, from which a mixture is distinguished from a single mode."""
_MIN_SHARED_CELLS: Final = 20
"""Fewest cells in a condition and population that share a mixture with others under the same perturbation."""
_MAX_CELLS: Final = 2_000
"""Most cells that are read for one mixture."""
_MIN_SHARE: Final = 1e-3
"""Non-responding share where one mode explains all cells."""
_HALVINGS: Final = 10
"""Random halvings over which scores are averaged: with one, a share depends on the draw."""
_ROUNDS: Final = 200


@dataclass(frozen=True)
class NonresponderMixture(Tensors):
    """Mixtures over one score per cell, its position along the direction from control to perturbed cells.

    Scores are in s.d. around the mean score in controls. Non-responding cells follow `N(0, 1)`, as the controls do,
    and responding cells `N(separation, spread^2)`.

    Parameters
    ----------
    genes, weights
        Direction in each condition and population, shape `(n_conditions, n_populations, n_direction_genes)`.
    centre
        Mean score in the controls, shape `(n_conditions, n_populations)`.
    share
        Share of non-responding cells, 0 without a mixture, shape `(n_conditions, n_populations)`.
    separation, spread
        Mean and s.d. of the responding cells' scores, shape `(n_conditions, n_populations)`.
    trained_share
        Share of non-responding cells in every trained condition, over populations where responding cells are clearly apart
        from controls. Where they never are, it is the share at other doses, shape `(n_trained,)`.
    """

    genes: Tensor
    weights: Tensor
    centre: Tensor
    share: Tensor
    separation: Tensor
    spread: Tensor
    trained_share: Tensor

    @classmethod
    def none(cls, n_conditions: int, n_populations: int, n_trained: int) -> Self:
        """Get mixtures without non-responding cells."""
        pair = (n_conditions, n_populations)
        genes = torch.zeros(*pair, _DIRECTION_GENES, dtype=torch.long)
        zero, one = torch.zeros(pair), torch.ones(pair)
        return cls(genes, torch.zeros(genes.shape), zero, zero.clone(), one, one.clone(), torch.zeros(n_trained))

    @classmethod
    def fit(cls, cells: ScreenCells, perturbation: np.ndarray | None = None) -> Self:
        """Fit mixtures to the training cells.

        As in Mixscape :cite:p:`papalexi2021`, cells are scored along the change from control to perturbed cells, and
        non-responding cells have the scores' distribution in controls. One half provides the direction for the other
        half. A mixture has to beat a single mode by more than the log number of cells.

        Conditions with few cells in a population share one mixture with such populations and doses under the
        same perturbation, unless one share for each dose is clearly likelier. Each cell is scored along the direction of
        its own condition and population.

        Parameters
        ----------
        cells
            The screen.
        perturbation
            Codes for perturbations at any dose, shape `(n_conditions,)`. `None`: all conditions differ.
        """
        training = np.flatnonzero(cells.split == 0)
        trained = np.setdiff1d(cells.condition[training], [0])
        fit = cls.none(cells.n_conditions, cells.n_populations, len(trained))
        rng = np.random.default_rng(0)
        groups, inverse, sizes = np.unique(
            cells.population[training] * cells.n_conditions + cells.condition[training],
            return_inverse=True,
            return_counts=True,
        )
        members = np.split(training[inverse.argsort(kind="stable")], sizes.cumsum()[:-1])
        rows_by_group = dict(zip(groups.tolist(), members, strict=True))
        shared: dict[tuple[int, ...], list[_Scores]] = {}
        for population in range(cells.n_populations):
            first = population * cells.n_conditions
            control_cells = _read(cells, rows_by_group.get(first, training[:0]))
            if len(control_cells) < _MIN_CELLS:
                continue
            control = _Cells(control_cells)
            for place, condition in enumerate(trained.tolist()):
                rows = rows_by_group.get(first + condition, training[:0])
                if len(rows) < _MIN_SHARED_CELLS:
                    continue
                key: tuple[int, ...] = (condition, population)
                if perturbation is not None and len(rows) < _MIN_CELLS:
                    key = (int(perturbation[condition]),)
                scores = _Scores.along_direction(
                    (condition, population), place, len(rows), _Cells(_read(cells, rows)), control, rng
                )
                shared.setdefault(key, []).append(scores)
        n_separated = np.zeros(len(trained))
        for group in shared.values():
            for scores, share, separation, spread in _shares(group):
                if separation >= 1.0 + spread:
                    n_separated[scores.place] += scores.n_cells
                    fit._write(scores, share, separation, spread)
        fit.trained_share.div_(torch.from_numpy(np.maximum(n_separated, 1.0)))
        if perturbation is not None:
            fit._complete_doses(n_separated, perturbation[trained])
        return fit

    def _write(self, scores: _Scores, share: float, separation: float, spread: float) -> None:
        """Add one mixture; its share counts by its cells."""
        self.trained_share[scores.place] += scores.n_cells * share
        if share:
            pair, n_genes = scores.pair, len(scores.genes)
            self.genes[pair][:n_genes] = torch.from_numpy(scores.genes)
            self.weights[pair][:n_genes] = torch.from_numpy(scores.weights)
            self.centre[pair], self.share[pair] = scores.centre, share
            self.separation[pair], self.spread[pair] = separation, spread

    def _complete_doses(self, n_separated: np.ndarray, perturbation: np.ndarray) -> None:
        """Give doses without a clear effect the mean share over the other doses, so that dose curves do not jump."""
        for code in np.unique(perturbation[n_separated > 0]):
            same = perturbation == code
            separated = same & (n_separated > 0)
            share = np.average(self.trained_share[separated].numpy(), weights=n_separated[separated])
            self.trained_share[same & ~separated] = float(share)

    def response_probability(self, cells: Tensor, condition: Tensor, population: Tensor) -> Tensor:
        """Get the probability that cells in registered conditions responded, 1 without a mixture.

        Parameters
        ----------
        cells
            Log-normalised expression, shape `(n_cells, n_genes)`.
        condition, population
            Codes, shape `(n_cells,)`.

        Returns
        -------
        Shape `(n_cells,)`.
        """
        pair = (condition, population)
        score = (cells.gather(1, self.genes[pair]) * self.weights[pair]).sum(-1) - self.centre[pair]
        separation, spread, share = self.separation[pair], self.spread[pair], self.share[pair]
        # Beyond either mean, the probability is that at the mean: the wider normal would win on the far side.
        score = score.clamp(min=0.0).minimum(separation)
        odds = torch.log1p(-share) - share.log()
        odds = odds - spread.log() - 0.5 * ((score - separation) / spread).square() + 0.5 * score.square()
        return torch.sigmoid(odds)


@dataclass(frozen=True)
class ResponseMixture:
    """Mixture of responding and non-responding cells in one condition.

    Parameters
    ----------
    nonresponding
        Share of non-responding cells.
    separation, spread
        Mean and s.d. of the responding cells' scores, in units of the controls' s.d.
    mixture
        The mixture as the effects model stores it.
    """

    nonresponding: float
    separation: float
    spread: float
    mixture: NonresponderMixture

    @property
    def is_separated(self) -> bool:
        """Whether responding cells are clearly apart from controls."""
        return self.separation >= 1.0 + self.spread

    def probability(self, cells: np.ndarray) -> np.ndarray:
        """Compute the probability that each cell responded, missing without a clear separation, shape `(n_cells,)`."""
        if not self.is_separated:
            return np.full(len(cells), np.nan)
        codes = torch.zeros(len(cells), dtype=torch.long)
        return self.mixture.response_probability(torch.as_tensor(cells), codes, codes).numpy()


def fit_response_mixture(perturbed: np.ndarray, control: np.ndarray, seed: int = 0) -> ResponseMixture | None:
    """Fit the effects model's mixture to one condition.

    Parameters
    ----------
    perturbed, control
        Cells, shape `(n_cells, n_genes)`.
    seed
        Seed for the halves that provide each other's direction.

    Returns
    -------
    The mixture, or `None` with too few cells.
    """
    if min(len(perturbed), len(control)) < _MIN_CELLS:
        return None
    # one halving, the seed's own: averages over many draw the scores of both groups together where few cells stay
    rng = np.random.default_rng(seed)
    scores = _Scores.along_direction((0, 0), 0, len(perturbed), _Cells(perturbed), _Cells(control), rng, 1)
    ((_, share, separation, spread),) = _shares([scores])
    mixture = NonresponderMixture.none(1, 1, 1)
    mixture._write(scores, max(share, _MIN_SHARE), separation, spread)
    return ResponseMixture(max(share, _MIN_SHARE), separation, spread, mixture)


class _Cells:
    """Cells, with the moments that every comparison with them needs.

    Parameters
    ----------
    values
        Cells, shape `(n_cells, n_genes)`.
    """

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    @cached_property
    def moments(self) -> CellMoments:
        return CellMoments.of(self.values)

    @cached_property
    def by_gene(self) -> np.ndarray:
        return np.ascontiguousarray(self.values.T)

    @cached_property
    def blocks(self) -> CellBlocks:
        return CellBlocks(self.values)

    def along(self, genes: np.ndarray, weights: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Score some cells along a direction, shape `(n_rows,)`."""
        return np.asarray(self.by_gene[genes].take(rows, axis=1).T @ weights)


@dataclass(frozen=True)
class _Scores:
    """Scores for the cells in one condition and population, and their direction."""

    pair: tuple[int, int]
    """Condition and population as codes."""
    place: int
    """The condition's row among the trained ones."""
    n_cells: int
    values: np.ndarray
    genes: np.ndarray
    weights: np.ndarray
    centre: float

    @classmethod
    def along_direction(
        cls,
        pair: tuple[int, int],
        place: int,
        n_cells: int,
        perturbed: _Cells,
        control: _Cells,
        rng: np.random.Generator,
        n_halvings: int = _HALVINGS,
    ) -> Self:
        values = _held_out_scores(perturbed, control, rng, n_halvings)
        genes, weights = direction(perturbed.moments, control.moments, _DIRECTION_GENES)
        along = control.values[:, genes] @ weights
        sd = _sd(along)
        return cls(pair, place, n_cells, values, genes, weights / sd, float(along.mean()) / sd)


def _read(cells: ScreenCells, rows: np.ndarray) -> np.ndarray:
    """Read some cells, or a sample, in an order that depends on their expression alone, shape `(n_cells, n_genes)`."""
    rng = np.random.default_rng(0)
    weights = rng.standard_normal(cells.matrix.shape[1])
    read = sparse.vstack([sparse.csr_matrix((0, len(weights)), dtype=np.float32), *(b for _, b in cells.blocks(rows))])
    order = np.argsort(read @ weights, kind="stable")
    return read[order[rng.permutation(len(order))[:_MAX_CELLS]]].toarray()


def _held_out_scores(perturbed: _Cells, control: _Cells, rng: np.random.Generator, n_halvings: int) -> np.ndarray:
    """Score each half along the other half's direction, in units of the held-out controls' s.d., on average over halvings."""
    scores = np.zeros(len(perturbed.values))
    for _ in range(n_halvings):
        halves, control_halves = (_halves(rng.permutation(len(cells.values))) for cells in (perturbed, control))
        for first, second in ((0, 1), (1, 0)):
            moments = perturbed.blocks.moments(halves[first]), control.blocks.moments(control_halves[first])
            genes, weights = direction(*moments, _DIRECTION_GENES)
            held_out = control.along(genes, weights, control_halves[second])
            along = (perturbed.along(genes, weights, halves[second]) - held_out.mean()) / _sd(held_out)
            scores[halves[second]] += along / n_halvings
    return scores


def _halves(order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Divide rows by whether their number in a random order is even."""
    return np.flatnonzero(order % 2 == 0), np.flatnonzero(order % 2)


def _sd(scores: np.ndarray) -> float:
    return float(scores.std()) or 1.0


def _shares(members: list[_Scores]) -> Iterator[tuple[_Scores, float, float, float]]:
    """Fit one mixture to all members, or one to each condition if a common share is clearly less likely."""
    by_condition: dict[int, list[_Scores]] = {}
    for scores in members:
        by_condition.setdefault(scores.pair[0], []).append(scores)
    common = _Mixture.fit([one.values for one in members])
    single = [common]
    if len(by_condition) > 1:
        single = [_Mixture.fit([one.values for one in group]) for group in by_condition.values()]
    gain = sum(mixture.log_likelihood for mixture in single) - common.log_likelihood
    n_cells = sum(len(scores.values) for scores in members)
    if gain <= (len(single) - 1) * np.log(n_cells):
        fitted = [(common, members)]
    else:
        fitted = list(zip(single, by_condition.values(), strict=True))
    for mixture, group in fitted:
        share = mixture.share if mixture.has_two_modes else 0.0
        for scores, separation, spread in zip(group, mixture.separation, mixture.spread, strict=True):
            yield scores, share, float(separation), float(spread)


@dataclass(frozen=True)
class _Mixture:
    """`share N(0, 1) + (1 - share) N(separation, spread^2)` in several groups with a common share."""

    share: float
    separation: np.ndarray
    spread: np.ndarray
    log_likelihood: float
    has_two_modes: bool
    """Whether enough cells are clearly likelier under the mixture than under one mode for each group."""

    @classmethod
    def fit(cls, groups: Sequence[np.ndarray]) -> Self:
        """Fit by expectation and maximisation; groups that are not beyond the controls are left out."""
        separations, spreads = np.zeros(len(groups)), np.ones(len(groups))
        included = [i for i, scores in enumerate(groups) if scores.mean() > 0 and scores.std() > 0]
        n_cells = sum(len(groups[i]) for i in included)
        if not n_cells:
            return cls(0.0, separations, spreads, 0.0, False)
        group = np.repeat(np.arange(len(included)), [len(groups[i]) for i in included])
        scores = np.concatenate([groups[i] for i in included])

        def mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
            return np.bincount(group, weights * values) / np.maximum(np.bincount(group, weights), 1e-12)

        middle = mean(scores, np.ones(n_cells))
        deviation = np.sqrt(mean((scores - middle[group]) ** 2, np.ones(n_cells)))
        one_mode = norm.logpdf(scores, middle[group], deviation[group]).sum()
        nonresponding = _density(scores, 0.0, 1.0)
        share, separation, spread = 0.2, middle / 0.8, np.ones(len(included))
        for _ in range(_ROUNDS):
            responding = (1 - share) * _density(scores, separation[group], spread[group])
            responsibility = responding / (responding + share * nonresponding + 1e-300)
            share = 1 - max(responsibility.sum(), 1e-12) / n_cells
            separation = mean(scores, responsibility)
            spread = np.maximum(0.3, np.sqrt(mean((scores - separation[group]) ** 2, responsibility)))
        responding = (1 - share) * _density(scores, separation[group], spread[group])
        two_modes = float(np.log(share * nonresponding + responding + 1e-300).sum())
        separations[included], spreads[included] = separation, spread
        has_two_modes = n_cells >= _MIN_CELLS and two_modes - one_mode >= np.log(n_cells)
        return cls(
            float(np.clip(share, _MIN_SHARE, 1 - _MIN_SHARE)), separations, spreads, two_modes, bool(has_two_modes)
        )


def _density(values: np.ndarray, mean: np.ndarray | float, sd: np.ndarray | float) -> np.ndarray:
    """Compute the normal density: without the checks of scipy, which take most of the time of a fit."""
    return np.asarray(np.exp(-(((values - mean) / sd) ** 2) / 2.0) / np.sqrt(2.0 * np.pi) / sd)
