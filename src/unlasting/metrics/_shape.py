"""Spread and shape of a gene's expressed values."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from unlasting.metrics._matrices import Matrix, as_pair, gene_blocks


def dispersion_error(predicted: Matrix, observed: Matrix, *, min_cells: int = 10) -> float:
    """Compute the error in the standard deviation of expressed values, relative to the observed one.

    Predictors that average give cells that are too similar, which comparisons between means miss.

    Parameters
    ----------
    predicted, observed
        Cells, shapes `(n_cells, n_genes)` and `(n_other_cells, n_genes)`. A gene is expressed where its value is above 0.
    min_cells
        Number of cells of each sample that must express a gene, or it is not compared.

    Returns
    -------
    The absolute error summed over genes, divided by the summed observed standard deviations: 1 if predicted
    cells do not vary. NaN if there is no gene to compare.

    Raises
    ------
    ValueError
        If `min_cells` is below 2.
    """
    first, second = _expressed(predicted, observed, min_cells, 2)
    predicted_sd, observed_sd = np.sqrt(first.second), np.sqrt(second.second)
    total = float(observed_sd.sum())
    return float(np.abs(predicted_sd - observed_sd).sum()) / total if total > 0 else float("nan")


def bimodality_error(predicted: Matrix, observed: Matrix, *, min_cells: int = 20) -> float:
    """Compute the absolute error in Sarle's bimodality coefficient for expressed values, averaged over genes.

    Parameters
    ----------
    predicted
        Predicted cells, shape `(n_cells, n_genes)`. A gene is expressed where its value is above 0; dropout is not a
        mode.
    observed
        Observed cells, shape `(n_other_cells, n_genes)`.
    min_cells
        Number of cells of each sample that must express a gene, or it is not compared.

    Returns
    -------
    The mean error, between 0 and 1; NaN if there is no gene to compare. Genes without any variation are left out,
    as they have no shape.

    Raises
    ------
    ValueError
        If `min_cells` is below 4.
    """
    first, second = _expressed(predicted, observed, min_cells, 4)
    error = np.abs(_sarle(first) - _sarle(second))
    error = error[~np.isnan(error)]
    return float(error.mean()) if len(error) else float("nan")


def sarle_coefficient(values: np.ndarray) -> float:
    """Compute Sarle's bimodality coefficient with its finite-sample correction :cite:p:`pfister2013bimodality`.

    Parameters
    ----------
    values
        Values, shape `(n_values,)`.

    Returns
    -------
    The coefficient: 1/3 for a normal distribution, 5/9 for a uniform one, 1 for two points. NaN below 4
    values or if all are equal.
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) < 4:
        return float("nan")
    return float(_sarle(_moments(values[None, :], np.ones((1, len(values)), dtype=bool)))[0])


class _Moments(NamedTuple):
    """Number of values and central moments per gene, shape `(n_genes,)`."""

    n: np.ndarray
    second: np.ndarray
    third: np.ndarray
    fourth: np.ndarray


def _moments(values: np.ndarray, chosen: np.ndarray) -> _Moments:
    """Compute moments over each row's chosen values, zero where all are equal."""
    n = chosen.sum(axis=1)
    count = np.maximum(n, 1)
    largest = np.where(chosen, values, -np.inf).max(axis=1)
    smallest = np.where(chosen, values, np.inf).min(axis=1)
    mean = np.where(chosen, values, 0.0).sum(axis=1) / count
    centred = np.where(chosen & (largest > smallest)[:, None], values - mean[:, None], 0.0)
    squares = centred**2
    return _Moments(
        n, squares.sum(axis=1) / count, (squares * centred).sum(axis=1) / count, (squares**2).sum(axis=1) / count
    )


def _sarle(moments: _Moments) -> np.ndarray:
    """Compute the coefficient from bias-corrected skewness and kurtosis."""
    n, second, third, fourth = moments
    with np.errstate(invalid="ignore", divide="ignore"):
        skewness = np.sqrt(n * (n - 1)) / (n - 2) * third / second**1.5
        corrected = (n - 1) / ((n - 2) * (n - 3)) * ((n + 1) * fourth / second**2 - 3 * (n - 1))
        return (skewness**2 + 1) / (corrected + 3 * (n - 1) ** 2 / ((n - 2) * (n - 3)))


def _expressed(predicted: Matrix, observed: Matrix, min_cells: int, smallest: int) -> tuple[_Moments, _Moments]:
    """Compute the moments of expressed values for genes that enough cells of both samples express."""
    if min_cells < smallest:
        raise ValueError(f"`min_cells` is {min_cells}, but at least {smallest} are needed.")
    predicted, observed = as_pair(predicted, observed)
    parts: list[list[np.ndarray]] = [[], []]
    for _, blocks in gene_blocks(predicted, observed):
        for part, block in zip(parts, blocks, strict=True):
            part.append(np.array(_moments(block.astype(np.float64), block > 0)))
    first, second = (np.concatenate(part, axis=1) for part in parts)
    enough = (first[0] >= min_cells) & (second[0] >= min_cells)
    return _Moments(*first[:, enough]), _Moments(*second[:, enough])
