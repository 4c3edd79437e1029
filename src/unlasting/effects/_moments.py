"""Statistics from the training cells: control populations, hurdle parameters and measured effects on them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
import torch
from scipy import sparse
from scipy.stats import poisson
from torch import Tensor

from unlasting.effects._spectrum import Errors
from unlasting.effects._tensors import Rows, Tensors

if TYPE_CHECKING:
    from unlasting.effects._mixture import NonresponderMixture

N_PARAMETERS: Final = 3
"""Hurdle parameters: log-odds of detection, mean expressed value, and its standard deviation."""

_BLOCK: Final = 8_192
_BLOCK_GROUPS: Final = 1_024
"""Groups of cells whose effects are computed together: a step holds a dozen arrays of them."""
_PRIOR_CELLS: Final = 10.0
"""Weight in cells for the average gene, towards which rarely detected genes are shrunken."""
_CENTRE_CELLS: Final = 2.0
"""Weight in cells for the reference around which a spread is measured, which keeps it finite where few cells express a gene."""
_SMOOTHING_EVENTS: Final = 3.0
"""Weight in detections for the reference, near which effects are linearised: fewer make rare genes' effects skewed."""
_OBSERVED_EVENTS: Final = 0.01
"""Detections that keep observed rates off 0 and 1."""
_UNKNOWN_EVENTS: Final = 0.5
"""The same for populations without perturbed cells, whose sampling error is unknown."""
_MIN_RETAINED: Final = 0.2
"""Smallest retained share of an effect on the spread that units correct for: below it, an effect is mere noise."""
_MOST_NOISE: Final = 25.0
"""Largest ratio of error variances: rarer genes are shrunken by the weight in cells."""
_MIN_SCALE: Final = 1e-3
"""Smallest s.d. for expressed values, relative to the largest value: a single normalised gene does not vary."""

_SAME_TOTAL: Final = 1e-3
"""Range between cells' totals, relative to their mean, that counts as rounding."""
_INTEGER_TOLERANCE: Final = (0.01, 1e-6)
"""Absolute and relative distance to an integer that is rounding in float32."""
_INTEGER_CELLS: Final = 0.99
"""Share of cells with integer counts from which on the screen has them; a cell without a single count looks otherwise."""


@dataclass(frozen=True)
class HurdleParameters(Rows):
    """Detection, mean and spread for every gene.

    Parameters
    ----------
    log_odds
        Log-odds that a gene is detected in a cell with the usual number of detected genes, shape `(n, n_genes)`.
    base
        Mean expressed value on the [0, 1] scale, shape `(n, n_genes)`.
    scale
        Their standard deviation, shape `(n, n_genes)`.
    """

    log_odds: Tensor
    base: Tensor
    scale: Tensor

    def changed_by(self, effects: Tensor) -> HurdleParameters:
        """Apply effects on log-odds, on the mean in s.d. and on the log s.d., shape `(n, 3, n_genes)`."""
        log_odds, base, log_scale = effects.unbind(-2)
        return HurdleParameters(
            self.log_odds + log_odds, self.base + base * self.scale, self.scale * log_scale.clamp(-1.0, 1.0).exp()
        )


@dataclass(frozen=True)
class ControlPopulations(Rows):
    """Moments for control populations, each the control cells in one cell type and batch.

    Parameters
    ----------
    mean
        Mean on the [0, 1] scale, zeros included, shape `(n_populations, n_genes)`.
    sd
        Standard deviation, zeros included, shape `(n_populations, n_genes)`.
    log_odds
        Log-odds of detection, shape `(n_populations, n_genes)`.
    base, scale
        Mean and standard deviation of expressed values, shape `(n_populations, n_genes)`.
    correction
        From the observed hurdle parameters to estimates without the control cells' sampling error, in the form of
        effects, shape `(n_populations, 3, n_genes)`.
    log_detected_mean
        Mean log number of detected genes, shape `(n_populations,)`.
    log_detected_sd
        Its standard deviation, shape `(n_populations,)`.
    cell_type
        Index of the cell type, -1 for an untrained one, shape `(n_populations,)`.
    """

    mean: Tensor
    sd: Tensor
    log_odds: Tensor
    base: Tensor
    scale: Tensor
    correction: Tensor
    log_detected_mean: Tensor
    log_detected_sd: Tensor
    cell_type: Tensor

    @classmethod
    def fit(cls, matrix: Any, *, cell_type: int, x_max: float) -> ControlPopulations:
        """Fit one population to log-normalised control cells, shape `(n_cells, n_genes)`; `x_max` is the model's."""
        zeros = np.zeros(matrix.shape[0], dtype=int)
        statistics, _ = fit_statistics(ScreenCells(matrix, zeros, zeros, zeros, 1, 1))
        fitted, factor = statistics.populations(torch.tensor([cell_type])), float(statistics.x_max) / x_max
        return replace(fitted, **{name: getattr(fitted, name) * factor for name in ("mean", "sd", "base", "scale")})

    def average(self, weights: Tensor) -> ControlPopulations:
        """Average all populations with one cell type to one, by weights that add up to 1, shape `(n_populations,)`."""
        averages = {
            f.name: torch.tensordot(weights.to(part), part, dims=1)[None]
            for f in fields(self)
            if f.name != "cell_type" and (part := getattr(self, f.name)) is not None
        }
        return replace(self, **averages, cell_type=self.cell_type[weights.argmax()][None])

    def hurdle_parameters(self) -> HurdleParameters:
        """Get the observed hurdle parameters."""
        return HurdleParameters(self.log_odds, self.base, self.scale)


@dataclass(frozen=True)
class ScreenStatistics(Tensors):
    """Moments from the training cells, on the [0, 1] scale except for the first.

    Parameters
    ----------
    x_max
        Largest log-normalised value, shape `()`.
    base, scale
        Mean and s.d. of control cells' expressed values, shape `(n_populations, n_genes)`.
    typical_scale
        S.d. of a typical expressed value, shape `()`.
    control_mean, control_sd
        Mean and s.d. of control cells, zeros included, shape `(n_populations, n_genes)`.
    control_log_odds
        Log-odds of detection in a control cell, shape `(n_populations, n_genes)`.
    correction
        Removes the control cells' sampling error, see :class:`ControlPopulations`, shape `(n_populations, 3, n_genes)`.
    log_detected_mean
        Mean log number of detected genes, shape `(n_conditions, n_populations)`.
    log_detected_sd
        Its standard deviation among control cells, shape `(n_populations,)`.
    total
        Sum over the normalised counts in a cell, 0 where it differs between cells, shape `()`.
    integer_counts
        1 where a cell's normalised counts are multiples of its smallest one, else 0, shape `()`.
    """

    x_max: Tensor
    base: Tensor
    scale: Tensor
    typical_scale: Tensor
    control_mean: Tensor
    control_sd: Tensor
    control_log_odds: Tensor
    correction: Tensor
    log_detected_mean: Tensor
    log_detected_sd: Tensor
    total: Tensor
    integer_counts: Tensor

    def populations(self, cell_type: Tensor) -> ControlPopulations:
        """Get all control populations; `cell_type` holds their indices, shape `(n_populations,)`."""
        return ControlPopulations(
            self.control_mean,
            self.control_sd,
            self.control_log_odds,
            self.base,
            self.scale,
            self.correction,
            self.log_detected_mean[0],
            self.log_detected_sd,
            cell_type,
        )


@dataclass(frozen=True)
class MeasuredEffects:
    """Differences between trained conditions and their control populations.

    Parameters
    ----------
    condition, context
        Codes of condition and cell type, shape `(n_measured,)`. Each batch of a cell type has a row.
    n_cells
        Number of training cells, shape `(n_measured,)`.
    noise
        Error variance for an effect whose variance over cells is 1, shape `(n_measured,)`.
    effects
        Effects on log-odds of detection, on the mean expressed value in s.d., and on the log s.d.,
        shape `(n_measured, 3, n_genes)`.
    detection
        Detection rate among training cells, shape `(n_genes,)`.
    population
        Codes of the control populations, shape `(n_measured,)`. `None`: errors are independent.
    control_noise
        Part of the noise that comes from control cells, shape `(n_populations,)`.
    importance
        Squared change in mean expression by a unit effect, shape `(3, n_genes)`. `None`: equal.
    local_detection
        Detection rate among training cells of the population, shape `(n_measured, n_genes)`. `None`: as in the whole screen.
    control_weights
        Weight of each population's control cells in an effect, shape `(n_measured, n_populations)`. `None`: all on its own.
    retained
        Share of a change in the log s.d. that measurement keeps, shape `(n_genes,)`. `None`: by the numbers of cells.
    """

    condition: np.ndarray
    context: np.ndarray
    n_cells: np.ndarray
    noise: np.ndarray
    effects: np.ndarray
    detection: np.ndarray
    population: np.ndarray | None = None
    control_noise: np.ndarray | None = None
    importance: np.ndarray | None = None
    local_detection: np.ndarray | None = None
    control_weights: np.ndarray | None = None
    retained: np.ndarray | None = None

    def averaged_over_batches(self) -> Self:
        """Average effects over the batches of a context, by their precision.

        Batches of a context have the same effects, apart from error. Their number then does not slow the regression down.
        """
        pairs, row = np.unique(np.stack([self.condition, self.context]), axis=1, return_inverse=True)
        row = row.ravel()
        if self.population is None or self.control_noise is None or pairs.shape[1] == len(row):
            return self
        weight = 1.0 / self.noise
        weight /= np.bincount(row, weights=weight)[row]
        average = sparse.csr_matrix((weight, (row, np.arange(len(row)))))
        place = (np.arange(len(row)), self.population)
        control_weights = (
            average @ sparse.csr_matrix((np.ones(len(row)), place), (len(row), len(self.control_noise)))
        ).toarray()
        local = self.local_detection
        return replace(
            self,
            condition=pairs[0],
            context=pairs[1],
            n_cells=np.bincount(row, weights=self.n_cells),
            noise=average.power(2) @ self.own_noise + control_weights**2 @ self.control_noise,
            effects=(average @ self.effects.reshape(len(row), -1)).reshape(-1, *self.effects.shape[1:]),
            local_detection=None if local is None else average @ local,
            control_weights=control_weights,
            retained=self._retained,
        )

    @property
    def _retained(self) -> np.ndarray:
        if self.retained is not None:
            return self.retained
        expressed = self.n_cells[:, None] * self.detection
        # weighted by cells: large conditions would hardly profit from the correction that small ones need
        return np.asarray(np.average(expressed / (expressed + _PRIOR_CELLS), axis=0, weights=self.n_cells))

    @property
    def noise_ratio(self) -> np.ndarray:
        """Error variance over that in the whole screen, at least 1, shape `(n_measured, 3, n_genes)`.

        It is larger where a gene is detected less often than in the screen.
        """
        shape = (len(self.condition), N_PARAMETERS, len(self.detection))
        if self.local_detection is None:
            return np.ones(shape)
        rate, local = self.detection, np.clip(self.local_detection, 1e-6, 1.0 - 1e-6)
        by_rate = rate / local
        ratio = np.stack([by_rate * (1.0 - rate) / (1.0 - local), by_rate, by_rate], axis=1)
        return np.clip(ratio, 1.0, _MOST_NOISE)

    @property
    def units(self) -> np.ndarray:
        """Factors that bring all effects to unit variance over cells, shape `(3, n_genes)`.

        Measurement shrinks an effect on the spread seen in few cells. Its factor undoes this on average, and leaves the
        final shrinkage to the regression, which sees all conditions.
        """
        rate = self.detection
        factors = np.stack([np.sqrt(rate * (1.0 - rate)), np.sqrt(rate), np.sqrt(2.0 * rate)])
        factors[2] /= np.maximum(self._retained, _MIN_RETAINED)
        return factors

    @property
    def control_covariance(self) -> np.ndarray:
        """Covariance between each population's control error and all effects, shape `(n_populations, n_measured)`.

        Effects measured against the same control cells share the sampling error of these cells.
        """
        if self.control_noise is None:
            return np.zeros((0, len(self.condition)))
        return np.asarray(self._weights.T * self.control_noise[:, None])

    @property
    def _weights(self) -> np.ndarray:
        """Weight of each population's control cells, shape `(n_measured, n_populations)`."""
        if self.control_weights is not None:
            return self.control_weights
        return (np.asarray(self.population)[:, None] == np.arange(len(np.asarray(self.control_noise)))).astype(float)

    @property
    def own_noise(self) -> np.ndarray:
        """Error variance that a measurement shares with no other, for effects whose variance over cells is 1."""
        if self.control_noise is None:
            return self.noise
        return np.asarray(self.noise - self._weights**2 @ self.control_noise)

    @property
    def errors(self) -> Errors:
        """Covariance between all errors, for effects whose variance over cells is 1."""
        if self.control_noise is None:
            return Errors(self.noise, np.zeros((len(self.noise), 0)))
        return Errors(self.own_noise, self._weights * np.sqrt(self.control_noise))


@dataclass(frozen=True)
class ScreenCells:
    """Cells with their codes.

    Parameters
    ----------
    matrix
        Log-normalised expression, dense, sparse or backed, shape `(n_cells, n_genes)`.
    condition
        Codes; 0 is the control, shape `(n_cells,)`.
    population
        Codes, shape `(n_cells,)`.
    split
        0 for training, 1 for validation, 2 for test cells, shape `(n_cells,)`.
    n_conditions, n_populations
        Numbers of codes.
    cell_type
        Code of every population's cell type, shape `(n_populations,)`. `None`: each population is one.
    """

    matrix: Any
    condition: np.ndarray
    population: np.ndarray
    split: np.ndarray
    n_conditions: int
    n_populations: int
    cell_type: np.ndarray | None = None

    @property
    def context(self) -> np.ndarray:
        """Code of every population's context, its cell type, shape `(n_populations,)`."""
        return np.arange(self.n_populations) if self.cell_type is None else np.asarray(self.cell_type)

    def blocks(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, sparse.csr_matrix]]:
        """Read some rows in blocks."""
        for start in range(0, len(rows), _BLOCK):
            block = np.sort(rows[start : start + _BLOCK])
            yield block, sparse.csr_matrix(self.matrix[block], dtype=np.float32)

    @property
    def pair(self) -> np.ndarray:
        """Code for condition and population together, shape `(n_cells,)`."""
        return self.condition.astype(np.int64) * self.n_populations + self.population

    def detection_rates(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Compute detection rates in training cells, for each pair of condition and population.

        Returns
        -------
        Codes for condition and population, shape `(n_pairs,)`, and rates, shape `(n_pairs, n_genes)`.
        """
        training, pair = np.flatnonzero(self.split == 0), self.pair
        groups, n_cells = np.unique(pair[training], return_counts=True)
        detected = np.zeros((len(groups), self.matrix.shape[1]), dtype=np.float32)
        for rows, block in self.blocks(training):
            group = np.searchsorted(groups, pair[rows])
            members = sparse.csr_matrix(
                (np.ones(len(rows), np.float32), (group, np.arange(len(rows)))), (len(groups), len(rows))
            )
            detected += (members @ (block > 0)).toarray()
        return *np.divmod(groups, self.n_populations), detected / n_cells[:, None].astype(np.float32)


def has_integer_counts(normalised: sparse.csr_matrix) -> np.ndarray:
    """Test whether a cell's normalised counts are multiples of its smallest one, shape `(n_cells,)`."""
    normalised.eliminate_zeros()
    n_expressed = np.diff(normalised.indptr)
    first = normalised.indptr[:-1][n_expressed > 0]
    has = np.ones(normalised.shape[0], dtype=bool)
    if len(first):
        smallest = np.minimum.reduceat(normalised.data, first)
        counts = normalised.data / np.repeat(smallest, n_expressed[n_expressed > 0])
        absolute, relative = _INTEGER_TOLERANCE
        off = np.abs(counts - counts.round()) - np.maximum(absolute, relative * counts)
        has[n_expressed > 0] = np.maximum.reduceat(off, first) < 0
    return has


def fit_statistics(
    cells: ScreenCells, mixture: NonresponderMixture | None = None, *, use_mask: bool = True
) -> tuple[ScreenStatistics, MeasuredEffects]:
    """Compute all statistics; `test` cells are not read.

    Parameters
    ----------
    cells
        The screen.
    mixture
        Mixture that gives weights to cells by their probability to respond. `None`: all cells responded.
    use_mask
        Whether zeros are undetected genes. Otherwise they count among the expressed values.

    Returns
    -------
    The statistics, and the effects in trained conditions. Moments come from training cells. The usual number of
    detected genes in a held-out condition comes from its validation cells, and serves the validation score only.
    """
    training, n_populations = np.flatnonzero(cells.split == 0), cells.n_populations
    pair = cells.pair
    groups = np.unique(pair[training])
    sums = np.zeros((3, len(groups), cells.matrix.shape[1]))  # number, sum and sum of squares of expressed values
    n_cells = np.zeros(len(groups))
    log_detected, totals = np.zeros(len(pair)), np.zeros(len(pair))
    has_integers = np.zeros(len(pair), dtype=bool)
    largest = 0.0
    for rows, block in cells.blocks(training):
        largest = max(largest, float(block.max()))
        log_detected[rows] = np.log(np.maximum(np.diff(block.indptr), 1))
        normalised = block.expm1()
        totals[rows] = np.asarray(normalised.sum(axis=1)).ravel()
        has_integers[rows] = has_integer_counts(normalised)
        responded = np.ones(len(rows))
        if mixture is not None:
            codes = cells.condition[rows], cells.population[rows]
            mixed = np.flatnonzero(mixture.share.numpy()[codes])
            tensors = (torch.from_numpy(code[mixed].astype(np.int64)) for code in codes)
            responded[mixed] = mixture.response_probability(torch.from_numpy(block[mixed].toarray()), *tensors).numpy()
        present, group = np.unique(pair[rows], return_inverse=True)
        place = np.searchsorted(groups, present)
        members = sparse.csr_matrix((responded, (group, np.arange(len(rows)))), (len(present), len(rows)))
        n_cells[place] += np.asarray(members.sum(axis=1)).ravel()
        for power, part in enumerate((block.astype(bool), block, block.power(2))):
            sums[power, place] += (members @ part.astype(float)).toarray()
    for rows, block in cells.blocks(np.flatnonzero(cells.split == 1)):
        log_detected[rows] = np.log(np.maximum(np.diff(block.indptr), 1))
    sums[1] /= largest
    sums[2] /= largest**2
    if not use_mask:
        sums[0] = n_cells[:, None]

    overall = _expressed_moments(sums.sum(axis=1))
    condition, population = np.divmod(groups, n_populations)
    is_control = condition == 0
    control_sums = np.zeros((3, n_populations, cells.matrix.shape[1]))
    control_sums[:, population[is_control]] = sums[:, is_control]
    pooled_sums = np.stack([sums[:, population == code].sum(axis=1) for code in range(n_populations)], axis=1)
    n_controls, n_pooled = (
        np.maximum(np.bincount(population, weights=n_cells * part, minlength=n_populations), 1.0)
        for part in (is_control, np.ones(len(groups)))
    )
    # Without any perturbed cells the sampling error stays unknown, and smoothed values keep it out of predicted changes.
    with_effects = np.isin(np.arange(n_populations), population[~is_control])[:, None]
    # Genes that are silent in these controls start from controls of other populations: perturbed cells would count twice.
    elsewhere = _expressed_moments(control_sums.sum(axis=1, keepdims=True) - control_sums, *overall)
    base, scale = _expressed_moments(control_sums, *elsewhere)
    observed = with_effects & (control_sums[0] > 0)
    base = np.where(observed, control_sums[1] / np.maximum(control_sums[0], 1e-12), base)
    counts = n_controls[:, None]
    mean = control_sums[1] / counts
    rates = (_rate(control_sums[0], counts, events) for events in (_OBSERVED_EVENTS, _UNKNOWN_EVENTS))
    log_odds = _log_odds(np.where(with_effects, *rates))

    # Effects are measured around all cells in the population, whose sampling error is the smallest.
    pooled_rate = _rate(pooled_sums[0], n_pooled[:, None])
    pooled_base, pooled_scale = _expressed_moments(pooled_sums, *overall)

    def deviations(chosen: np.ndarray) -> np.ndarray:
        rows = population[chosen]
        reference = (part[rows] for part in (pooled_rate, pooled_base, pooled_scale, scale))
        return _deviations(sums[:, chosen], n_cells[chosen], *reference)

    control = np.zeros((n_populations, N_PARAMETERS, cells.matrix.shape[1]))
    control[population[is_control]] = deviations(np.flatnonzero(is_control))
    correction = np.stack(
        [
            _log_odds(pooled_rate) + control[:, 0] - log_odds,
            (pooled_base - base) / scale + control[:, 1],
            np.zeros_like(scale),
        ],
        axis=1,
    )
    correction *= with_effects[:, None]
    measured = np.flatnonzero(~is_control)
    rows = population[measured]
    differences = np.empty((len(measured), *control.shape[1:]))
    for start in range(0, len(measured), _BLOCK_GROUPS):
        part = slice(start, start + _BLOCK_GROUPS)
        differences[part] = deviations(measured[part]) - control[rows[part]]
    detection = _rate(sums[0].sum(axis=0), n_cells.sum())
    effects = MeasuredEffects(
        condition=condition[measured],
        context=cells.context[rows],
        n_cells=n_cells[measured],
        noise=1.0 / n_cells[measured] + 1.0 / n_controls[rows],
        effects=differences,
        detection=detection,
        population=rows,
        control_noise=1.0 / n_controls,
        importance=np.stack([overall[0] ** 2, overall[1] ** 2, np.zeros_like(detection)]),
        local_detection=pooled_rate[rows],
    )
    usual_total = float(totals[training].mean())
    has_same_total = np.ptp(totals[training]) < _SAME_TOTAL * usual_total
    values = (
        largest,
        base,
        scale,
        np.exp((sums[0].sum(axis=0) * np.log(overall[1])).sum() / sums[0].sum()),
        mean,
        np.sqrt(np.maximum(control_sums[2] / counts - mean**2, 0.0)),
        log_odds,
        correction,
        *_detected_genes(log_detected, cells),
        usual_total if has_same_total else 0.0,
        has_integers[training].mean() >= _INTEGER_CELLS,
    )
    return ScreenStatistics(*(torch.as_tensor(value, dtype=torch.float32) for value in values)), effects


def _expressed_moments(
    sums: np.ndarray, usual_mean: np.ndarray | None = None, usual_scale: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Compute mean and s.d. for expressed values, shrunken to the given ones, by default to those over all genes."""
    n, first, second = sums
    if usual_mean is None or usual_scale is None:
        total = n.sum()
        usual_mean = np.asarray(first.sum() / total)
        within = np.maximum(second - first**2 / np.maximum(n, 1.0), 0.0)
        usual_scale = np.maximum(np.sqrt(within.sum() / total), _MIN_SCALE)
    mean = (first + _PRIOR_CELLS * usual_mean) / (n + _PRIOR_CELLS)
    within = np.maximum(second - 2 * mean * first + n * mean**2, 0.0)
    scale = np.sqrt((within + _PRIOR_CELLS * usual_scale**2) / (n + _PRIOR_CELLS))
    return mean, np.maximum(scale, 0.1 * usual_scale)


def _rate(expressed: np.ndarray, n_cells: Any, events: float = _UNKNOWN_EVENTS) -> np.ndarray:
    """Estimate detection rates, kept off 0 and 1."""
    return (expressed + events) / (n_cells + 2.0 * events)


def _log_odds(rate: np.ndarray) -> np.ndarray:
    return np.log(rate) - np.log1p(-rate)


def _deviations(
    sums: np.ndarray, n_cells: np.ndarray, rate: np.ndarray, base: np.ndarray, scale: np.ndarray, unit: np.ndarray
) -> np.ndarray:
    """Deviations from a reference in log-odds, in the mean by `unit` and in the log s.d., `(n_groups, 3, n_genes)`.

    The first two are one Newton step from a value smoothed towards the reference, nearly linear in the sums where a gene
    is rarely detected, and exact where it is often detected. Without any effect, log-odds have no bias from sampling
    error.
    """
    n, first, second = sums
    cells = np.maximum(n_cells, 1e-9)[:, None]
    bias = _bias(cells * rate) * (1.0 - rate) - _bias(cells * (1.0 - rate)) * rate
    log_odds = _log_odds_steps(n, cells, rate) - bias
    mean = (first - n * base) / (n + _SMOOTHING_EVENTS)
    mean = mean + (first - n * (base + mean)) / np.maximum(np.maximum(n, cells * rate), 1e-9)
    centre = (first + _CENTRE_CELLS * base) / (n + _CENTRE_CELLS)
    within = np.maximum(second - 2 * centre * first + n * centre**2, 0.0)
    spread = np.sqrt((within + _PRIOR_CELLS * scale**2) / (n + _PRIOR_CELLS))
    return np.stack([log_odds, mean / unit, np.log(spread / scale)], axis=1)


def _log_odds_steps(expressed: np.ndarray, n_cells: np.ndarray, rate: np.ndarray) -> np.ndarray:
    """Deviations in log-odds from a rate: one Newton step from a smoothed value, not beyond the likeliest value."""
    weight = _SMOOTHING_EVENTS / (rate * (1.0 - rate))
    smooth = (expressed + weight * rate) / (n_cells + weight)
    step = _log_odds(smooth) - _log_odds(rate) + (expressed / n_cells - smooth) / (smooth * (1.0 - smooth))
    furthest = _log_odds((expressed + rate) / (n_cells + 1.0)) - _log_odds(rate)
    return np.clip(step, np.minimum(furthest, 0.0), np.maximum(furthest, 0.0))


def _bias(expected: np.ndarray) -> np.ndarray:
    """Mean of :func:`_log_odds_steps` over Poisson numbers of detections, for a rare gene without any deviation."""
    numbers, rate = np.arange(400.0), 1e-6
    grid = np.logspace(-3, 2, 100)
    steps = _log_odds_steps(numbers, grid[:, None] / rate, np.array(rate))
    means = (poisson.pmf(numbers, grid[:, None]) * steps).sum(axis=1)
    expected = np.maximum(expected, grid[0])
    return np.asarray(np.interp(np.log(expected), np.log(grid), means * grid)) / expected


def _detected_genes(log_detected: np.ndarray, cells: ScreenCells) -> tuple[np.ndarray, np.ndarray]:
    """Compute mean log detected genes by condition and population, shrunken to the controls', and their s.d."""
    mean, sd = np.zeros((cells.n_conditions, cells.n_populations)), np.ones(cells.n_populations)
    pair = cells.pair
    for code in range(cells.n_populations):
        controls = log_detected[(pair == code) & (cells.split == 0)]
        if controls.size:
            mean[:, code] = controls.mean()
            sd[code] = max(controls.std(), 1e-3)
    controls = mean[0].copy()
    for part in (1, 0):  # training cells, where there are any, replace validation cells
        chosen = (cells.split == part) & (cells.condition > 0)
        codes, inverse, n = np.unique(pair[chosen], return_inverse=True, return_counts=True)
        sums = np.bincount(inverse, weights=log_detected[chosen], minlength=len(codes))
        condition, population = np.divmod(codes, cells.n_populations)
        mean[condition, population] = (sums + _PRIOR_CELLS * controls[population]) / (n + _PRIOR_CELLS)
    return mean, sd
