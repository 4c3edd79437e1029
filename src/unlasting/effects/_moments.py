"""Statistics from the training cells: control populations, hurdle parameters and measured effects on them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from unlasting.effects._tensors import Rows, Tensors

if TYPE_CHECKING:
    from unlasting.effects._mixture import NonresponderMixture

N_PARAMETERS: Final = 3
"""Hurdle parameters: log-odds of detection, mean expressed value, and its standard deviation."""

_BLOCK: Final = 8_192
_PRIOR_CELLS: Final = 10.0
"""Weight in cells for the average gene, towards which rarely detected genes are shrunken."""
_CONTROL_CELLS: Final = 2.0
"""Weight in cells for the control, which keeps effects finite where few cells were measured."""
_HALF_INFORMATION: Final = 0.5
"""Fisher information at which an effect on log-odds keeps half its size."""
_MIN_RETAINED: Final = 0.2
"""Smallest retained share that units correct for: below it, an effect is mere noise."""
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

    def hurdle_parameters(self) -> HurdleParameters:
        """Get the hurdle parameters without a perturbation."""
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
    """

    condition: np.ndarray
    context: np.ndarray
    n_cells: np.ndarray
    noise: np.ndarray
    effects: np.ndarray
    detection: np.ndarray

    @property
    def units(self) -> np.ndarray:
        """Factors that bring all effects to unit variance over cells, shape `(3, n_genes)`.

        Measurement shrinks effects seen in few cells. The factors undo this on average, and leave the final shrinkage
        to the regression, which sees all conditions.
        """
        rate = self.detection
        factors = np.stack([np.sqrt(rate * (1.0 - rate)), np.sqrt(rate), np.sqrt(2.0 * rate)])
        n_cells = self.n_cells[:, None]
        expressed, information = n_cells * rate, n_cells * rate * (1.0 - rate)
        retained = np.stack(
            [
                information / (information + _HALF_INFORMATION) * n_cells / (n_cells + _CONTROL_CELLS),
                expressed / (expressed + _CONTROL_CELLS),
                expressed / (expressed + _PRIOR_CELLS),
            ]
        )
        # weighted by cells: large conditions would hardly profit from the correction that small ones need
        return factors / np.maximum(np.average(retained, axis=1, weights=self.n_cells), _MIN_RETAINED)


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
        group = np.searchsorted(groups, pair[rows])
        members = sparse.csr_matrix((responded, (group, np.arange(len(rows)))), (len(groups), len(rows)))
        n_cells += np.asarray(members.sum(axis=1)).ravel()
        for power, part in enumerate((block.astype(bool), block, block.power(2))):
            sums[power] += (members @ part.astype(float)).toarray()
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
    n_controls = np.zeros(n_populations)
    n_controls[population[is_control]] = n_cells[is_control]
    base, scale = _expressed_moments(control_sums, *overall)
    counts = np.maximum(n_controls, 1.0)[:, None]
    mean = control_sums[1] / counts
    rate = _rate(control_sums[0], counts)

    measured, rows = ~is_control, population[~is_control]
    effects = MeasuredEffects(
        condition=condition[measured],
        context=cells.context[rows],
        n_cells=n_cells[measured],
        noise=1.0 / n_cells[measured] + 1.0 / np.maximum(n_controls[rows], 1.0),
        effects=_effects(sums[:, measured], n_cells[measured], base[rows], scale[rows], rate[rows]),
        detection=_rate(sums[0].sum(axis=0), n_cells.sum()),
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
        _log_odds(rate),
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


def _rate(expressed: np.ndarray, n_cells: Any) -> np.ndarray:
    """Estimate detection rates, kept off 0 and 1."""
    return (expressed + 0.5) / (n_cells + 1.0)


def _log_odds(rate: np.ndarray) -> np.ndarray:
    return np.log(rate) - np.log1p(-rate)


def _effects(
    sums: np.ndarray, n_cells: np.ndarray, base: np.ndarray, scale: np.ndarray, rate: np.ndarray
) -> np.ndarray:
    """Effects on log-odds, on the mean in s.d. and on the log s.d., shape `(n_groups, 3, n_genes)`."""
    n, first, second = sums
    perturbed_rate = (n + _CONTROL_CELLS * rate) / (n_cells[:, None] + _CONTROL_CELLS)
    mean = (first + _CONTROL_CELLS * base) / (n + _CONTROL_CELLS)
    within = np.maximum(second - 2 * mean * first + n * mean**2, 0.0)
    perturbed_scale = np.sqrt((within + _PRIOR_CELLS * scale**2) / (n + _PRIOR_CELLS))
    # Log-odds contain little information on a gene that nearly all cells express, or none, before and after.
    middle = 0.5 * (perturbed_rate + rate)
    information = n_cells[:, None] * middle * (1.0 - middle)
    log_odds = (_log_odds(perturbed_rate) - _log_odds(rate)) * information / (information + _HALF_INFORMATION)
    return np.stack([log_odds, (mean - base) / scale, np.log(perturbed_scale / scale)], axis=1)


def _detected_genes(log_detected: np.ndarray, cells: ScreenCells) -> tuple[np.ndarray, np.ndarray]:
    """Compute mean log detected genes by condition and population, shrunken to the controls', and their s.d."""
    mean, sd = np.zeros((cells.n_conditions, cells.n_populations)), np.ones(cells.n_populations)
    pair, control_mean = cells.pair, {}
    for code in range(cells.n_populations):
        controls = log_detected[(pair == code) & (cells.split == 0)]
        if controls.size:
            mean[:, code] = control_mean[code] = controls.mean()
            sd[code] = max(controls.std(), 1e-3)
    for part in (1, 0):  # training cells, where there are any, replace validation cells
        codes, inverse, n = np.unique(pair[cells.split == part], return_inverse=True, return_counts=True)
        sums = np.bincount(inverse, weights=log_detected[cells.split == part], minlength=len(codes))
        condition, population = np.divmod(codes, cells.n_populations)
        mean[condition, population] = (sums + _PRIOR_CELLS * mean[0, population]) / (n + _PRIOR_CELLS)
    mean[0, list(control_mean)] = list(control_mean.values())
    return mean, sd
