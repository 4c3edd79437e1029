"""How a condition is judged: its cells are dealt, every predictor gives as many, and all are compared with one half."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from unlasting.baselines import NoEffect, NoPrediction, Predictor
from unlasting.metrics import Metric, gene_weights
from unlasting.screen import TEST, TRAIN, Cells, Condition
from unlasting.tl._comparison import ALL, CONTROLS, Comparison, is_of_conditions
from unlasting.tl._differential import Moments, differential, top_genes
from unlasting.tl._groups import Screen
from unlasting.tl._signal import harm_test, permutation_test
from unlasting.tl._verdict import FLOOR, NO_EFFECT, OBSERVED, LeftOut, Rules, Verdict

MIN_DE_CELLS = 10
"""With fewer training cells, the DE genes of a condition come from a third of its test cells."""
MAX_TESTED = 1000
"""Number of cells on either side of the permutation test at most."""
MIN_SAMPLE = 5
"""A predictor with fewer cells is missing."""
MAX_TEST_CELLS = 4000
"""Of more test cells of a condition, as many are drawn."""


class Generated:
    """Cells that a model has given already, behind the protocol of predictors."""

    def __init__(self, cells: Cells) -> None:
        self.cells = cells

    @cached_property
    def means_only(self) -> bool:
        """Whether there is one row for each condition: its mean profile, as some models give."""
        return all(len(rows) == 1 for rows in self.cells.conditions.values())

    def fit(self, adata: object, **labels: object) -> Generated:
        """Do nothing: whoever made the cells has learnt."""
        return self

    def predict(self, condition: Condition, n_cells: int, *, seed: int = 0) -> np.ndarray:
        """Draw from the cells of a condition."""
        rows = self.cells.rows(condition)
        if not len(rows):
            raise NoPrediction("no cells were generated")
        return self.cells.values(np.random.default_rng(seed).permutation(rows)[:n_cells], dtype=np.float32)


class _Dealt(NamedTuple):
    """The test cells of a condition that are compared, and the genes that others of its cells chose."""

    cells: np.ndarray  # (n_cells, n_genes)
    n_test: int
    de_from: str
    n_de_cells: int
    score: np.ndarray  # (n_genes,)


class Judge:
    """Judges predictors, condition by condition.

    Parameters
    ----------
    screen
        The observed cells.
    predictors
        Fitted predictors by name.
    no_effect
        The fitted baseline that gives training controls.
    rules
        How to judge.
    judged
        Names of the predictors that are tested for harm where there is no signal.
    """

    def __init__(
        self,
        screen: Screen,
        predictors: Mapping[str, Predictor],
        no_effect: NoEffect,
        rules: Rules,
        judged: Collection[str],
    ) -> None:
        self.screen = screen
        self.predictors = predictors
        self.no_effect = no_effect
        self.rules = rules
        self.judged = judged
        self._of_controls: dict[str, Moments] = {}
        self._of_halves: dict[tuple[str, int], tuple[Moments, Moments]] = {}

    def __call__(self, condition: Condition) -> Verdict:
        """Judge all predictors in one condition.

        Raises
        ------
        LeftOut
            If it has too few cells, or no controls to compare with.
        """
        rules, seeds = self.rules, [self.rules.seed, zlib.crc32(str(condition).encode())]
        dealt = self._deal(condition, np.random.default_rng(seeds))
        n_cells = min(len(dealt.cells) // 2, rules.max_cells, len(self.screen.control_rows(condition.cell_type)))
        populations, missing = self._populations(condition, n_cells, seeds)
        genes = self.screen.genes
        sets = {
            name: np.arange(len(genes)) if name == ALL else top_genes(dealt.score, genes, int(name[2:]))
            for name in rules.gene_sets
        }
        verdict = Verdict(
            condition,
            dealt.n_test,
            dealt.de_from,
            dealt.n_de_cells,
            int((dealt.score != 0).sum()),
            top_genes(dealt.score, genes, 20),
            *permutation_test(
                dealt.cells[:MAX_TESTED],
                populations[NO_EFFECT][:MAX_TESTED],
                rules.n_permutations,
                np.random.default_rng([*seeds, 0]),
            ),
            {
                name: n_cells if self._is_mean(name) else min(len(population), n_cells)
                for name, population in populations.items()
            },
            missing,
        )
        sets = {name: places for name, places in sets.items() if len(places)}
        self._compare(verdict, dealt.cells, populations, gene_weights(dealt.score), sets, seeds)
        return verdict

    def _compare(
        self,
        verdict: Verdict,
        cells: np.ndarray,
        populations: Mapping[str, np.ndarray],
        weights: np.ndarray,
        sets: Mapping[str, np.ndarray],
        seeds: list[int],
    ) -> None:
        """Compare samples of all predictors with halves of the test cells, repeat by repeat, and fill the verdict."""
        single = [metric for metric in self.rules.metrics if not is_of_conditions(metric)]
        keep_changes = len(single) < len(self.rules.metrics)
        reference = self._reference(verdict.condition.cell_type)
        values: list[dict[str, dict[tuple[str, str], np.ndarray]]] = []
        changes: list[dict[str, np.ndarray]] = []
        for repeat in range(self.rules.n_repeats):
            order = np.random.default_rng([*seeds, 1, repeat]).permutation(len(cells))
            floor, observed = cells[order[: len(cells) // 2]], cells[order[len(cells) // 2 :]]
            # one sample after the other, and around again where a population is too small for all repeats
            samples = {
                name: population[
                    np.arange(repeat * verdict.n_cells[name], (repeat + 1) * verdict.n_cells[name]) % len(population)
                ]
                for name, population in populations.items()
            }
            halves = self._halves(verdict.condition.cell_type, repeat)
            controls = self._control_cells(verdict.condition.cell_type, repeat, single)
            comparison = Comparison(observed, *halves, reference, weights, single, sets, controls)
            ends = {
                n: [comparison.values(end[:n]) for end in (floor, samples[NO_EFFECT])]
                for n in set(verdict.n_cells.values())
            }
            found: dict[str, dict[tuple[str, str], np.ndarray]] = {}
            for name, sample in samples.items():
                at_floor, at_no_effect = ends[verdict.n_cells[name]]
                own = at_no_effect if name == NO_EFFECT else comparison.values(sample)
                found[name] = {key: np.array([own[key], at_floor[key], at_no_effect[key]]) for key in own}
            values.append(found)
            if keep_changes:
                of_samples = {**samples, FLOOR: floor[: verdict.n_cells[NO_EFFECT]]}
                changed = {name: comparison.change(sample) for name, sample in of_samples.items()}
                changes.append({**changed, OBSERVED: comparison.observed_change})
            if repeat == 0 and not verdict.signal:
                for name in self.judged:
                    if name in samples and not self._is_mean(name):
                        rng = np.random.default_rng([*seeds, 2])
                        no_effect = samples[NO_EFFECT][: len(samples[name])]
                        verdict.harm[name] = harm_test(samples[name], no_effect, observed, self.rules.n_bootstraps, rng)
        for name, first in values[0].items():
            verdict.values[name] = {key: np.mean([found[name][key] for found in values], axis=0) for key in first}
        if keep_changes:
            verdict.changes.update({name: np.array([found[name] for found in changes]) for name in changes[0]})

    def _populations(
        self, condition: Condition, n_cells: int, seeds: list[int]
    ) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        """Ask all predictors for cells, enough for all repeats, and note which have none."""
        populations: dict[str, np.ndarray] = {}
        missing: dict[str, str] = {}
        # the same seeds for all: what one gives does not depend on which others there are
        draw = int(np.random.default_rng([*seeds, 3]).integers(2**32))
        for name, predictor in {NO_EFFECT: self.no_effect, **self.predictors}.items():
            try:
                population = self._draw(name, predictor, condition, self.rules.n_repeats * n_cells, draw)
            except NoPrediction as error:
                missing[name] = str(error)
                continue
            needed = max(2, min(MIN_SAMPLE, n_cells))
            if len(population) < needed and not self._is_mean(name):
                missing[name] = f"it has {len(population)} cells; {needed} are needed"
                continue
            populations[name] = np.random.default_rng([*seeds, 4]).permutation(population)
        if NO_EFFECT in missing:
            raise LeftOut(f"its cell type has too few training controls: {missing[NO_EFFECT]}")
        return populations, missing

    def _deal(self, condition: Condition, rng: np.random.Generator) -> _Dealt:
        """Set apart the cells that choose the DE genes, and shuffle the others."""
        test, train = (self.screen.part(condition, part) for part in (TEST, TRAIN))
        if len(test) < self.rules.min_cells:
            raise LeftOut(f"it has {len(test)} test cells (`min_cells` is {self.rules.min_cells})")
        try:
            controls = self._controls(condition.cell_type)
        except ValueError as error:
            raise LeftOut("its cell type has no training controls") from error
        test = rng.permutation(test)
        third = 0 if len(train) >= MIN_DE_CELLS else len(test) // 3
        de_rows, rest = (test[:third], test[third:]) if third else (train, test)
        score = differential(Moments.read(self.screen.observed, de_rows), controls).score
        cells = self.screen.observed.values(rest[:MAX_TEST_CELLS], dtype=np.float32)
        return _Dealt(cells, len(test), TEST if third else TRAIN, len(de_rows), score)

    def _draw(self, name: str, predictor: Predictor, condition: Condition, n_cells: int, seed: int) -> np.ndarray:
        """Ask a predictor for cells, and see that it gave cells."""
        cells = np.asarray(predictor.predict(condition, n_cells, seed=seed))
        if cells.ndim != 2 or cells.shape[1] != len(self.screen.genes) or not 1 <= len(cells) <= n_cells:
            raise ValueError(
                f"The predictor {name!r} gave an array of shape {cells.shape} for {condition}; at most {n_cells} cells "
                f"of {len(self.screen.genes)} genes are needed."
            )
        if not np.isfinite(cells).all():
            raise ValueError(f"The predictor {name!r} gave missing or infinite values for {condition}.")
        return cells.astype(np.float32, copy=False)

    def _is_mean(self, name: str) -> bool:
        predictor = self.predictors.get(name)
        return isinstance(predictor, Generated) and predictor.means_only

    def _controls(self, cell_type: str) -> Moments:
        if cell_type not in self._of_controls:
            rows = self.screen.control_rows(cell_type)
            self._of_controls[cell_type] = Moments.read(self.screen.observed, rows)
        return self._of_controls[cell_type]

    def _halves(self, cell_type: str, repeat: int) -> tuple[Moments, Moments]:
        """Halve the training controls, the same way for all conditions of a cell type."""
        if (cell_type, repeat) not in self._of_halves:
            first, second = (Moments.read(self.screen.observed, rows) for rows in self._half_rows(cell_type, repeat))
            self._of_halves[cell_type, repeat] = first, second
        return self._of_halves[cell_type, repeat]

    def _half_rows(self, cell_type: str, repeat: int) -> list[np.ndarray]:
        rng = np.random.default_rng([self.rules.seed, zlib.crc32(cell_type.encode()), repeat])
        return np.array_split(rng.permutation(self.screen.control_rows(cell_type)), 2)

    def _control_cells(self, cell_type: str, repeat: int, metrics: Sequence[Metric]) -> dict[str, np.ndarray]:
        """Read the control cells that metrics ask for, from each half at most as many as test cells."""
        needed = {need for metric in metrics if not metric.takes_means for need in metric.needs}
        return {
            name: self.screen.observed.values(rows[:MAX_TEST_CELLS], dtype=np.float32)
            for name, rows in zip(CONTROLS, self._half_rows(cell_type, repeat), strict=True)
            if name in needed
        }

    def _reference(self, cell_type: str) -> np.ndarray:
        """Compute the mean profile of the training perturbations, all the same weight; of controls, if there is none."""
        mean = self._controls(cell_type).mean
        try:
            return mean + np.mean(list(self.no_effect.training_.effects(cell_type).values()), axis=0)
        except NoPrediction:
            return mean
