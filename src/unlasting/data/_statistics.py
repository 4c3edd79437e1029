"""Moments of the training cells, computed in passes over blocks of rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from scipy import sparse

from unlasting.nn import ScreenStatistics

_BLOCK = 8_192
_PRIOR_CELLS = 10.0
"""How many cells' worth of the average gene a rarely expressed gene is shrunken with."""


def row_blocks(matrix: Any, rows: np.ndarray) -> Iterator[tuple[np.ndarray, sparse.csr_matrix]]:
    """Read some rows of a dense, sparse or backed matrix in blocks, as CSR."""
    for start in range(0, len(rows), _BLOCK):
        block = np.sort(rows[start : start + _BLOCK])
        yield block, sparse.csr_matrix(matrix[block], dtype=np.float32)


def fit_statistics(
    matrix: Any,
    *,
    condition: np.ndarray,
    pool: np.ndarray,
    split: np.ndarray,
    control_code: int,
    n_conditions: int,
    n_pools: int,
    use_mask: bool = True,
) -> ScreenStatistics:
    """Fit everything that is fixed before training; `test` cells are not read.

    Parameters
    ----------
    matrix
        Log-normalised expression, shape `(n_cells, n_genes)`.
    condition, pool
        Codes of every cell, shape `(n_cells,)`.
    split
        0 for training cells, 1 for validation cells, 2 for test cells, shape `(n_cells,)`.
    control_code
        The code of the control among the conditions.
    n_conditions, n_pools
        Numbers of codes.
    use_mask
        Whether zeros are silent genes. If not, they count among the expressed values.

    Returns
    -------
    The statistics. Moments come from training cells. The usual depth of a condition comes from its training cells,
    or from its validation cells where it is held out: it is used for the validation score only then.
    """
    n_genes = matrix.shape[1]
    gene_sums = np.zeros((3, n_genes))  # number, sum and sum of squares of expressed values
    control_sums = np.zeros((3, n_pools, n_genes))
    n_controls = np.zeros(n_pools)
    log_detected = np.zeros(len(condition))
    largest = 0.0
    for rows, block in row_blocks(matrix, np.flatnonzero(split == 0)):
        powers = [block.astype(bool).astype(float), block.astype(float), block.astype(float).power(2)]
        largest = max(largest, float(block.max()))
        log_detected[rows] = np.log(np.maximum(np.diff(block.indptr), 1))
        for which, power in enumerate(powers):
            gene_sums[which] += np.asarray(power.sum(axis=0)).ravel()
        for code in np.unique(pool[rows]):
            chosen = (pool[rows] == code) & (condition[rows] == control_code)
            n_controls[code] += chosen.sum()
            for which, power in enumerate(powers):
                control_sums[which, code] += np.asarray(power[chosen].sum(axis=0)).ravel()
    for rows, block in row_blocks(matrix, np.flatnonzero(split == 1)):
        log_detected[rows] = np.log(np.maximum(np.diff(block.indptr), 1))

    expressed, first, second = gene_sums[0], gene_sums[1] / largest, gene_sums[2] / largest**2
    if not use_mask:
        expressed = np.full(n_genes, float((split == 0).sum()))
    overall_mean = first.sum() / expressed.sum()
    base = (first + _PRIOR_CELLS * overall_mean) / (expressed + _PRIOR_CELLS)
    within = np.maximum(second - 2 * base * first + expressed * base**2, 0.0)
    overall_variance = within.sum() / expressed.sum()
    scale = np.sqrt((within + _PRIOR_CELLS * overall_variance) / (expressed + _PRIOR_CELLS))
    scale = np.maximum(scale, 0.1 * np.sqrt(overall_variance))

    counts = np.maximum(n_controls, 1.0)[:, None]
    control_mean = control_sums[1] / largest / counts
    control_variance = np.maximum(control_sums[2] / largest**2 / counts - control_mean**2, 0.0)
    rate = (control_sums[0] + 0.5) / (counts + 1.0)

    depth_mean, depth_sd = _depth(log_detected, condition, pool, split, control_code, n_conditions, n_pools)
    tensors = (
        largest,
        base,
        scale,
        np.exp((expressed * np.log(scale)).sum() / expressed.sum()),
        control_mean,
        np.sqrt(control_variance),
        np.log(rate) - np.log1p(-rate),
        depth_mean,
        depth_sd,
    )
    return ScreenStatistics(*(torch.as_tensor(value, dtype=torch.float32) for value in tensors))


def _depth(
    log_detected: np.ndarray,
    condition: np.ndarray,
    pool: np.ndarray,
    split: np.ndarray,
    control_code: int,
    n_conditions: int,
    n_pools: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Mean log number of expressed genes per condition and pool, shrunken to the controls', and their s.d."""
    is_control = (condition == control_code) & (split == 0)
    depth_mean, depth_sd = np.zeros((n_conditions, n_pools)), np.ones(n_pools)
    cell = condition * n_pools + pool
    for code in range(n_pools):
        of_controls = log_detected[is_control & (pool == code)]
        if of_controls.size:
            depth_mean[:, code] = of_controls.mean()
            depth_sd[code] = max(of_controls.std(), 1e-3)
    for part in (1, 0):  # training cells, where there are any, have the last word
        codes, inverse, n = np.unique(cell[split == part], return_inverse=True, return_counts=True)
        sums = np.bincount(inverse, weights=log_detected[split == part], minlength=len(codes))
        prior = depth_mean[control_code, codes % n_pools]
        depth_mean[codes // n_pools, codes % n_pools] = (sums + _PRIOR_CELLS * prior) / (n + _PRIOR_CELLS)
    for code in range(n_pools):
        of_controls = log_detected[is_control & (pool == code)]
        if of_controls.size:
            depth_mean[control_code, code] = of_controls.mean()
    return depth_mean, depth_sd
