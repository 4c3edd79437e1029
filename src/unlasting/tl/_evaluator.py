"""Evaluation in one condition: equally many cells from every predictor against one half of the test cells."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

from unlasting.baselines import NoEffect, NoPrediction, Predictor
from unlasting.metrics import gene_weights
from unlasting.screen import TEST, TRAIN, Cells, Condition
from unlasting.tl._comparison import CONTROLS, Comparison, compares_conditions
from unlasting.tl._differential import Moments, differential, top_genes
from unlasting.tl._protocol import ALL, FLOOR, LEVEL, NO_EFFECT, OBSERVED, Protocol
from unlasting.tl._screen import Screen
from unlasting.tl._uncertainty import FalsePositiveTest, false_positive_test, permutation_test

MIN_DE_CELLS = 10
"""Fewest training cells that choose DE genes; below, one third of the test cells does."""
MAX_PERMUTED = 1000
"""Most cells on either side in the permutation test."""
MIN_SAMPLE = 5
"""Fewest cells in a prediction."""
MAX_TEST_CELLS = 4000
"""Most test cells per condition, and most control cells per metric; more are sampled down."""


class LeftOut(Exception):
    """A condition cannot be evaluated, for the reason in the message."""


class GeneratedCells:
    """Existing predictions as a predictor."""

    def __init__(self, cells: Cells) -> None:
        self.cells = cells

    @cached_property
    def means_only(self) -> bool:
        """Whether each condition has one row, its mean profile."""
        return all(len(rows) == 1 for rows in self.cells.conditions.values())

    def fit(self, adata: object, **labels: object) -> GeneratedCells:
        """Return itself: the model was trained elsewhere."""
        return self

    def predict(self, condition: Condition, n_cells: int, *, seed: int = 0) -> np.ndarray:
        """Sample cells for a condition."""
        rows = self.cells.rows(condition)
        if not len(rows):
            raise NoPrediction("no cells were generated")
        return self.cells.values(np.random.default_rng(seed).permutation(rows)[:n_cells], dtype=np.float32)


@dataclass(frozen=True)
class ConditionResult:
    """Result for one condition."""

    condition: Condition
    n_test: int
    de_from: str  # origin of the cells that choose DE genes, `train` or `test`
    n_de_cells: int
    n_de_genes: int  # with any difference in these cells
    top20: np.ndarray  # columns of the genes with the largest change
    e_distance: float  # between test cells and controls
    p_value: float
    n_cells: dict[str, int]  # per sample, by predictor
    missing: dict[str, str]  # reason by predictor without a prediction
    values: dict[str, dict[tuple[str, str], np.ndarray]] = field(default_factory=dict)
    """By predictor, metric and gene set: value, floor and no effect, means over repeats, shape `(3,)`."""
    changes: dict[str, np.ndarray] = field(default_factory=dict)
    """Mean changes by predictor, and for floor and test cells, shape `(n_repeats, n_genes)`."""
    false_positives: dict[str, FalsePositiveTest] = field(default_factory=dict)
    """By predictor, without a signal."""

    @property
    def signal(self) -> bool:
        """Whether the test cells differ from the controls by more than chance."""
        return self.p_value <= LEVEL


class _TestCells(NamedTuple):
    """Test cells for the comparison, and DE scores from other cells."""

    cells: np.ndarray  # (n_cells, n_genes)
    n_test: int
    de_from: str
    n_de_cells: int
    score: np.ndarray  # (n_genes,)


class Evaluator:
    """Evaluate fitted predictors, condition by condition; those `evaluated` are tested for false-positive effects."""

    def __init__(
        self,
        screen: Screen,
        predictors: Mapping[str, Predictor],
        no_effect: NoEffect,
        protocol: Protocol,
        evaluated: Collection[str],
    ) -> None:
        self.screen = screen
        self.predictors = {NO_EFFECT: no_effect, **predictors}
        self.training = no_effect.training_
        self.protocol = protocol
        self.evaluated = evaluated
        self.metrics = [metric for metric in protocol.metrics if not compares_conditions(metric)]
        self._controls: dict[str, Moments] = {}
        self._halves: dict[tuple[str, int], tuple[Moments, Moments]] = {}

    def __call__(self, condition: Condition) -> ConditionResult:
        """Evaluate all predictors in one condition."""
        protocol, seeds = self.protocol, [self.protocol.seed, zlib.crc32(str(condition).encode())]
        test = self._test_cells(condition, np.random.default_rng(seeds))
        n_cells = min(len(test.cells) // 2, protocol.max_cells, len(self.screen.control_rows(condition.cell_type)))
        predicted, missing = self._predict(condition, n_cells, seeds)
        genes = self.screen.genes
        columns = {
            name: np.arange(len(genes)) if name == ALL else top_genes(test.score, genes, int(name[2:]))
            for name in protocol.gene_sets
        }
        result = ConditionResult(
            condition,
            test.n_test,
            test.de_from,
            test.n_de_cells,
            int((test.score != 0).sum()),
            top_genes(test.score, genes, 20),
            *permutation_test(
                test.cells[:MAX_PERMUTED],
                predicted[NO_EFFECT][:MAX_PERMUTED],
                protocol.n_permutations,
                np.random.default_rng([*seeds, 0]),
            ),
            {name: n_cells if self._is_mean(name) else min(len(cells), n_cells) for name, cells in predicted.items()},
            missing,
        )
        columns = {name: found for name, found in columns.items() if len(found)}
        self._compare(result, test.cells, predicted, gene_weights(test.score), columns, seeds)
        return result

    def _compare(
        self,
        result: ConditionResult,
        cells: np.ndarray,
        predicted: Mapping[str, np.ndarray],
        weights: np.ndarray,
        gene_sets: Mapping[str, np.ndarray],
        seeds: list[int],
    ) -> None:
        """Compare samples from all predictors with halves of the test cells, repeat by repeat, and fill the result."""
        keep_changes = len(self.metrics) < len(self.protocol.metrics)
        cell_type = result.condition.cell_type
        reference = self._reference(cell_type)
        values: list[dict[str, dict[tuple[str, str], np.ndarray]]] = []
        changes: list[dict[str, np.ndarray]] = []
        for repeat in range(self.protocol.n_repeats):
            order = np.random.default_rng([*seeds, 1, repeat]).permutation(len(cells))
            floor, observed = cells[order[: len(cells) // 2]], cells[order[len(cells) // 2 :]]
            samples = {name: _sample(given, repeat, result.n_cells[name]) for name, given in predicted.items()}
            controls = self._control_halves(cell_type, repeat)
            comparison = Comparison(observed, *controls[0], reference, weights, self.metrics, gene_sets, controls[1])
            ends = {
                n: [comparison.values(end[:n]) for end in (floor, samples[NO_EFFECT])]
                for n in set(result.n_cells.values())
            }
            found: dict[str, dict[tuple[str, str], np.ndarray]] = {}
            for name, sample in samples.items():
                at_floor, at_no_effect = ends[result.n_cells[name]]
                own = at_no_effect if name == NO_EFFECT else comparison.values(sample)
                found[name] = {key: np.array([own[key], at_floor[key], at_no_effect[key]]) for key in own}
            values.append(found)
            if keep_changes:
                compared = {**samples, FLOOR: floor[: result.n_cells[NO_EFFECT]]}
                changed = {name: comparison.change(sample) for name, sample in compared.items()}
                changes.append({**changed, OBSERVED: comparison.observed_change})
            if repeat == 0 and not result.signal:
                for name in self.evaluated:
                    if name in samples and not self._is_mean(name):
                        rng = np.random.default_rng([*seeds, 2])
                        pair = self._independent(name, result.condition, samples, rng)
                        if min(map(len, pair)) >= MIN_SAMPLE:
                            result.false_positives[name] = false_positive_test(
                                *pair, observed[: self.protocol.max_cells], self.protocol.n_permutations, rng
                            )
        for name, first in values[0].items():
            result.values[name] = {key: np.mean([found[name][key] for found in values], axis=0) for key in first}
        if keep_changes:
            result.changes.update({name: np.array([found[name] for found in changes]) for name in changes[0]})

    def _independent(
        self, name: str, condition: Condition, samples: Mapping[str, np.ndarray], rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Get predicted cells from one half of the controls, one for each source, and the other half."""
        predictor, most = self.predictors[name], self.protocol.max_cells
        if not isinstance(predictor, GeneratedCells):
            return samples[name], samples[NO_EFFECT]
        rows = rng.permutation(predictor.cells.rows(condition))
        source = self.screen.source_rows(rows)
        halves = np.array_split(rng.permutation(self.screen.control_rows(condition.cell_type)), 2)
        # an unknown source is in neither half
        unique = np.unique(np.where(source < 0, -1 - np.arange(len(source)), source), return_index=True)[1]
        chosen = np.sort(unique[~np.isin(source[unique], halves[1])])
        return (
            predictor.cells.values(rows[chosen][:most], dtype=np.float32),
            self.screen.observed.values(halves[1][:most], dtype=np.float32),
        )

    def _predict(
        self, condition: Condition, n_cells: int, seeds: list[int]
    ) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        """Collect cells from all predictors, enough for all repeats, and the reasons where there are none."""
        predicted: dict[str, np.ndarray] = {}
        missing: dict[str, str] = {}
        # equal seeds for all, so that no prediction depends on the other predictors
        seed = int(np.random.default_rng([*seeds, 3]).integers(2**32))
        for name, predictor in self.predictors.items():
            try:
                cells = np.asarray(predictor.predict(condition, self.protocol.n_repeats * n_cells, seed=seed))
            except NoPrediction as error:
                missing[name] = str(error)
                continue
            self._check(name, condition, cells, self.protocol.n_repeats * n_cells)
            needed = max(2, min(MIN_SAMPLE, n_cells))
            if len(cells) < needed and not self._is_mean(name):
                missing[name] = f"it has {len(cells)} cells; {needed} are needed"
                continue
            predicted[name] = np.random.default_rng([*seeds, 4]).permutation(cells.astype(np.float32, copy=False))
        if NO_EFFECT in missing:
            raise LeftOut(f"its cell type has too few training controls: {missing[NO_EFFECT]}")
        return predicted, missing

    def _check(self, name: str, condition: Condition, cells: np.ndarray, n_cells: int) -> None:
        """Refuse arrays that are no cells."""
        n_genes = len(self.screen.genes)
        if cells.ndim != 2 or cells.shape[1] != n_genes or not 1 <= len(cells) <= n_cells:
            raise ValueError(
                f"The predictor {name!r} gave an array of shape {cells.shape} for {condition}; return at most {n_cells} "
                f"cells with {n_genes} genes."
            )
        if not np.isfinite(cells).all():
            raise ValueError(
                f"The predictor {name!r} gave missing or infinite values for {condition}; return finite values."
            )

    def _test_cells(self, condition: Condition, rng: np.random.Generator) -> _TestCells:
        """Set apart the cells that choose DE genes, and shuffle the others."""
        test, train = (self.screen.part(condition, part) for part in (TEST, TRAIN))
        if len(test) < self.protocol.min_cells:
            raise LeftOut(f"it has {len(test)} test cells (`min_cells` is {self.protocol.min_cells})")
        try:
            controls = self._control_moments(condition.cell_type)
        except ValueError as error:
            raise LeftOut("its cell type has no training controls") from error
        test = rng.permutation(test)
        third = 0 if len(train) >= MIN_DE_CELLS else len(test) // 3
        de_rows, rest = (test[:third], test[third:]) if third else (train, test)
        score = differential(Moments.read(self.screen.observed, de_rows), controls).score
        cells = self.screen.observed.values(rest[:MAX_TEST_CELLS], dtype=np.float32)
        return _TestCells(cells, len(test), TEST if third else TRAIN, len(de_rows), score)

    def _is_mean(self, name: str) -> bool:
        predictor = self.predictors[name]
        return isinstance(predictor, GeneratedCells) and predictor.means_only

    def _control_moments(self, cell_type: str) -> Moments:
        if cell_type not in self._controls:
            rows = self.screen.control_rows(cell_type)
            self._controls[cell_type] = Moments.read(self.screen.observed, rows)
        return self._controls[cell_type]

    def _control_halves(self, cell_type: str, repeat: int) -> tuple[tuple[Moments, Moments], dict[str, np.ndarray]]:
        """Halve the training controls, equally within a cell type; read cells only for metrics."""
        rng = np.random.default_rng([self.protocol.seed, zlib.crc32(cell_type.encode()), repeat])
        halves = np.array_split(rng.permutation(self.screen.control_rows(cell_type)), 2)
        observed = self.screen.observed
        if (cell_type, repeat) not in self._halves:
            first, second = (Moments.read(observed, rows) for rows in halves)
            self._halves[cell_type, repeat] = first, second
        needed = {need for metric in self.metrics if not metric.takes_means for need in metric.needs}
        return self._halves[cell_type, repeat], {
            name: observed.values(rows[:MAX_TEST_CELLS], dtype=np.float32)
            for name, rows in zip(CONTROLS, halves, strict=True)
            if name in needed
        }

    def _reference(self, cell_type: str) -> np.ndarray:
        """Average the training perturbations' mean profiles; the controls' mean without any perturbation."""
        mean = self._control_moments(cell_type).mean
        try:
            return mean + np.mean(list(self.training.effects(cell_type).values()), axis=0)
        except NoPrediction:
            return mean


def _sample(cells: np.ndarray, repeat: int, n: int) -> np.ndarray:
    """Take one sample after the other, cyclic where there are too few cells for all repeats."""
    return cells[np.arange(repeat * n, (repeat + 1) * n) % len(cells)]
