"""Moments of the training cells, computed in passes over blocks of rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse

from unlasting.effects._responders import Responders
from unlasting.effects._statistics import ScreenStatistics

_BLOCK = 8_192
_PRIOR_CELLS = 10.0
"""How many cells' worth of the average gene a rarely expressed gene is shrunken with."""
_LIKE_CONTROLS = 2.0
"""How many cells that are like the controls keep what was seen in a few cells from being infinite."""
_LEAST_INFORMATION = 0.5
"""Fisher information of log-odds at which half of a shift is believed."""
_LEAST_BELIEVED = 0.2
"""Share of a shift that is believed below which its scale is not made up for: it would be mere noise."""
_MIN_SCALE = 1e-3
"""Smallest s.d. of expressed values, as a share of the largest value: one gene, normalised, does not vary at all."""

_SAME_TOTAL = 1e-3
"""Range of the totals of cells, as a share of their mean, within which they are the same."""
_SAME_COUNT = (0.01, 1e-6)
"""Distance to a whole number, and share of it, that is rounding of float32."""
_OF_CELLS = 0.99
"""Share of cells with integer counts from which on all have them: a cell may hold no single count to tell them by."""


@dataclass(frozen=True)
class MeasuredEffects:
    """How the genes of trained conditions differ from the controls of their population.

    Parameters
    ----------
    condition, population
        Codes of the condition and the population, shape `(n_measured,)`.
    n_cells
        Number of training cells, shape `(n_measured,)`.
    noise
        Variance of a shift whose variance over cells is 1, shape `(n_measured,)`.
    shifts
        Shifts of the log-odds of being expressed, of the mean of the expressed values in s.d., and of the log of their
        s.d., shape `(n_measured, 3, n_genes)`.
    expressed
        Share of the training cells that express a gene, shape `(n_genes,)`.
    """

    condition: np.ndarray
    population: np.ndarray
    n_cells: np.ndarray
    noise: np.ndarray
    shifts: np.ndarray
    expressed: np.ndarray

    @property
    def units(self) -> np.ndarray:
        """Factors that bring every shift to a variance of 1 over cells, shape `(3, n_genes)`.

        What few cells tell of a gene is drawn towards no shift when it is measured. The factors undo this on average: what
        is to be believed is for the fit to say, which knows all conditions.
        """
        rate = self.expressed
        factors = np.stack([np.sqrt(rate * (1.0 - rate)), np.sqrt(rate), np.sqrt(2.0 * rate)])
        n_cells = self.n_cells[:, None]
        expressed, information = n_cells * rate, n_cells * rate * (1.0 - rate)
        believed = np.stack(
            [
                information / (information + _LEAST_INFORMATION) * n_cells / (n_cells + _LIKE_CONTROLS),
                expressed / (expressed + _LIKE_CONTROLS),
                expressed / (expressed + _PRIOR_CELLS),
            ]
        )
        # by cells: little of what was measured in a large condition would be made up for by what small ones need
        return factors / np.maximum(np.average(believed, axis=1, weights=self.n_cells), _LEAST_BELIEVED)


def row_blocks(matrix: Any, rows: np.ndarray) -> Iterator[tuple[np.ndarray, sparse.csr_matrix]]:
    """Read some rows of a dense, sparse or backed matrix in blocks, as CSR."""
    for start in range(0, len(rows), _BLOCK):
        block = np.sort(rows[start : start + _BLOCK])
        yield block, sparse.csr_matrix(matrix[block], dtype=np.float32)


def has_integer_counts(normalised: sparse.csr_matrix) -> np.ndarray:
    """Tell for each cell whether its normalised counts are whole multiples of its smallest one, shape `(n_cells,)`."""
    normalised.eliminate_zeros()
    n_expressed = np.diff(normalised.indptr)
    first = normalised.indptr[:-1][n_expressed > 0]
    has = np.ones(normalised.shape[0], dtype=bool)
    if len(first):
        smallest = np.minimum.reduceat(normalised.data, first)
        counts = normalised.data / np.repeat(smallest, n_expressed[n_expressed > 0])
        absolute, relative = _SAME_COUNT
        off = np.abs(counts - counts.round()) - np.maximum(absolute, relative * counts)
        has[n_expressed > 0] = np.maximum.reduceat(off, first) < 0
    return has


def fit_statistics(
    matrix: Any,
    *,
    condition: np.ndarray,
    population: np.ndarray,
    split: np.ndarray,
    control_code: int,
    n_conditions: int,
    n_populations: int,
    responders: Responders | None = None,
    use_mask: bool = True,
) -> tuple[ScreenStatistics, MeasuredEffects]:
    """Fit everything that is fixed before training; `test` cells are not read.

    Parameters
    ----------
    matrix
        Log-normalised expression, shape `(n_cells, n_genes)`.
    condition, population
        Codes of every cell, shape `(n_cells,)`.
    split
        0 for training cells, 1 for validation cells, 2 for test cells, shape `(n_cells,)`.
    control_code
        The code of the control among the conditions.
    n_conditions, n_populations
        Numbers of codes.
    responders
        Tells non-responding cells, which say nothing of its effects. All responded if `None`.
    use_mask
        Whether zeros are silent genes. If not, they count among the expressed values.

    Returns
    -------
    The statistics, and the effects of the trained conditions. Moments come from training cells. The usual depth of a
    condition comes from its training cells, or from its validation cells where it is held out: it is used for the
    validation score only then.
    """
    training = np.flatnonzero(split == 0)
    groups = np.unique(condition[training] * n_populations + population[training])
    sums = np.zeros((3, len(groups), matrix.shape[1]))  # number, sum and sum of squares of expressed values
    n_cells = np.zeros(len(groups))
    log_detected, totals = np.zeros(len(condition)), np.zeros(len(condition))
    is_whole = np.zeros(len(condition), dtype=bool)
    largest = 0.0
    for rows, block in row_blocks(matrix, training):
        largest = max(largest, float(block.max()))
        log_detected[rows] = np.log(np.maximum(np.diff(block.indptr), 1))
        normalised = block.expm1()
        totals[rows] = np.asarray(normalised.sum(axis=1)).ravel()
        is_whole[rows] = has_integer_counts(normalised)
        group = np.searchsorted(groups, condition[rows] * n_populations + population[rows])
        responded = np.ones(len(rows))
        if responders is not None:
            mixed = np.flatnonzero(responders.nonresponding.numpy()[condition[rows], population[rows]])
            codes = (torch.from_numpy(of[rows[mixed]].astype(np.int64)) for of in (condition, population))
            responded[mixed] = responders(torch.from_numpy(block[mixed].toarray()), *codes).numpy()
        members = sparse.csr_matrix((responded, (group, np.arange(len(rows)))), (len(groups), len(rows)))
        n_cells += np.asarray(members.sum(axis=1)).ravel()
        for which, power in enumerate((block.astype(bool), block, block.power(2))):
            sums[which] += (members @ power.astype(float)).toarray()
    for rows, block in row_blocks(matrix, np.flatnonzero(split == 1)):
        log_detected[rows] = np.log(np.maximum(np.diff(block.indptr), 1))
    sums[1] /= largest
    sums[2] /= largest**2
    if not use_mask:
        sums[0] = n_cells[:, None]

    everything = _expressed_moments(sums.sum(axis=1))
    is_control = groups // n_populations == control_code
    of_populations = np.zeros((3, n_populations, matrix.shape[1]))
    of_populations[:, groups[is_control] % n_populations] = sums[:, is_control]
    n_controls = np.zeros(n_populations)
    n_controls[groups[is_control] % n_populations] = n_cells[is_control]
    base, scale = _expressed_moments(of_populations, *everything)
    counts = np.maximum(n_controls, 1.0)[:, None]
    mean = of_populations[1] / counts
    rate = _rate(of_populations[0], counts)

    measured = ~is_control
    of_group = groups[measured] % n_populations
    effects = MeasuredEffects(
        condition=groups[measured] // n_populations,
        population=of_group,
        n_cells=n_cells[measured],
        noise=1.0 / n_cells[measured] + 1.0 / np.maximum(n_controls[of_group], 1.0),
        shifts=_shifts(sums[:, measured], n_cells[measured], base[of_group], scale[of_group], rate[of_group]),
        expressed=_rate(sums[0].sum(axis=0), n_cells.sum()),
    )
    log_detected_mean, log_detected_sd = _detected_genes(
        log_detected, condition, population, split, control_code, n_conditions, n_populations
    )
    tensors = (
        largest,
        base,
        scale,
        np.exp((sums[0].sum(axis=0) * np.log(everything[1])).sum() / sums[0].sum()),
        mean,
        np.sqrt(np.maximum(of_populations[2] / counts - mean**2, 0.0)),
        _log_odds(rate),
        log_detected_mean,
        log_detected_sd,
        _total(totals[training]),
        is_whole[training].mean() >= _OF_CELLS,
    )
    return ScreenStatistics(*(torch.as_tensor(value, dtype=torch.float32) for value in tensors)), effects


def _expressed_moments(
    sums: np.ndarray, usual_mean: np.ndarray | None = None, usual_scale: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and s.d. of expressed values, shrunken to the usual ones of the gene, or else of all genes."""
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


def _total(totals: np.ndarray) -> float:
    """Get the total that all cells have, or 0."""
    usual = float(totals.mean())
    return usual if np.ptp(totals) < _SAME_TOTAL * usual else 0.0


def _rate(expressed: np.ndarray, n_cells: Any) -> np.ndarray:
    """Rate of expression, kept off 0 and 1."""
    return (expressed + 0.5) / (n_cells + 1.0)


def _log_odds(rate: np.ndarray) -> np.ndarray:
    return np.log(rate) - np.log1p(-rate)


def _shifts(sums: np.ndarray, n_cells: np.ndarray, base: np.ndarray, scale: np.ndarray, rate: np.ndarray) -> np.ndarray:
    """Shifts of log-odds, of the mean in s.d. and of the log s.d. against the controls, (n_groups, 3, n_genes)."""
    n, first, second = sums
    of_group = (n + _LIKE_CONTROLS * rate) / (n_cells[:, None] + _LIKE_CONTROLS)
    mean = (first + _LIKE_CONTROLS * base) / (n + _LIKE_CONTROLS)
    within = np.maximum(second - 2 * mean * first + n * mean**2, 0.0)
    own_scale = np.sqrt((within + _PRIOR_CELLS * scale**2) / (n + _PRIOR_CELLS))
    # Log-odds say little of a gene that (nearly) all cells express, or none, before and after.
    middle = 0.5 * (of_group + rate)
    information = n_cells[:, None] * middle * (1.0 - middle)
    log_odds = (_log_odds(of_group) - _log_odds(rate)) * information / (information + _LEAST_INFORMATION)
    return np.stack([log_odds, (mean - base) / scale, np.log(own_scale / scale)], axis=1)


def _detected_genes(
    log_detected: np.ndarray,
    condition: np.ndarray,
    population: np.ndarray,
    split: np.ndarray,
    control_code: int,
    n_conditions: int,
    n_populations: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Mean log number of expressed genes per condition and population, shrunken to the controls', and their s.d."""
    is_control = (condition == control_code) & (split == 0)
    log_detected_mean, log_detected_sd = np.zeros((n_conditions, n_populations)), np.ones(n_populations)
    cell = condition * n_populations + population
    for code in range(n_populations):
        of_controls = log_detected[is_control & (population == code)]
        if of_controls.size:
            log_detected_mean[:, code] = of_controls.mean()
            log_detected_sd[code] = max(of_controls.std(), 1e-3)
    for part in (1, 0):  # training cells, where there are any, have the last word
        codes, inverse, n = np.unique(cell[split == part], return_inverse=True, return_counts=True)
        sums = np.bincount(inverse, weights=log_detected[split == part], minlength=len(codes))
        prior = log_detected_mean[control_code, codes % n_populations]
        log_detected_mean[codes // n_populations, codes % n_populations] = (sums + _PRIOR_CELLS * prior) / (
            n + _PRIOR_CELLS
        )
    for code in range(n_populations):
        of_controls = log_detected[is_control & (population == code)]
        if of_controls.size:
            log_detected_mean[control_code, code] = of_controls.mean()
    return log_detected_mean, log_detected_sd
