"""Whether the expressed values of a gene have the right spread and shape."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from unlasting.metrics._matrices import Matrix, as_pair, gene_blocks


def dispersion_error(predicted: Matrix, observed: Matrix, *, min_cells: int = 10) -> float:
    """Compute the error in the standard deviation of expressed values, relative to the observed one.

    Predictors that average give cells that are too much alike, which no comparison of means notices.

    Parameters
    ----------
    predicted
        Predicted cells, shape `(n_cells, n_genes)`. A gene is expressed where its value is above 0.
    observed
        Observed cells, shape `(n_other_cells, n_genes)`.
    min_cells
        In how many cells of each sample a gene must be expressed to be compared.

    Returns
    -------
    The sum over genes of the absolute error, divided by the sum of the observed standard deviations: 1 if predicted
    cells do not vary. NaN if there is no gene to compare.

    Raises
    ------
    TypeError
        If a matrix does not hold real numbers.
    ValueError
        If a matrix is empty or holds missing or infinite values, the numbers of genes differ, or `min_cells` is
        below 2.
    """
    first, second = _expressed(predicted, observed, min_cells, 2)
    predicted_sd, observed_sd = np.sqrt(first.second), np.sqrt(second.second)
    total = float(observed_sd.sum())
    return float(np.abs(predicted_sd - observed_sd).sum()) / total if total > 0 else float("nan")


def bimodality_error(predicted: Matrix, observed: Matrix, *, min_cells: int = 20) -> float:
    """Compute the mean over genes of the absolute error in Sarle's bimodality coefficient of expressed values.

    Parameters
    ----------
    predicted
        Predicted cells, shape `(n_cells, n_genes)`. A gene is expressed where its value is above 0; dropout is not a
        mode.
    observed
        Observed cells, shape `(n_other_cells, n_genes)`.
    min_cells
        In how many cells of each sample a gene must be expressed to be compared.

    Returns
    -------
    The mean error, between 0 and 1; NaN if there is no gene to compare. Genes without any variation are left out,
    as they have no shape.

    Raises
    ------
    TypeError
        If a matrix does not hold real numbers.
    ValueError
        If a matrix is empty or holds missing or infinite values, the numbers of genes differ, or `min_cells` is
        below 4.
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
    The coefficient: 1/3 for a normal distribution, 5/9 for a uniform one, 1 for one of two points. NaN below 4
    values or if all are equal.
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) < 4:
        return float("nan")
    return float(_sarle(_moments(values[None, :], np.ones((1, len(values)), dtype=bool)))[0])


class _Moments(NamedTuple):
    """Number of values and central moments of each gene, shape `(n_genes,)`."""

    n: np.ndarray
    second: np.ndarray
    third: np.ndarray
    fourth: np.ndarray


def _moments(values: np.ndarray, chosen: np.ndarray) -> _Moments:
    """Compute the moments of the chosen values of every row; values that are all equal have none but 0."""
    n = chosen.sum(axis=1)
    count = np.maximum(n, 1)
    largest = np.where(chosen, values, -np.inf).max(axis=1)
    smallest = np.where(chosen, values, np.inf).min(axis=1)
    mean = np.where(chosen, values, 0.0).sum(axis=1) / count
    centred = np.where(chosen & (largest > smallest)[:, None], values - mean[:, None], 0.0)
    squares = centred**2
    return _Moments(
        n,
        squares.sum(axis=1) / count,
        (squares * centred).sum(axis=1) / count,
        (squares**2).sum(axis=1) / count,
    )


def _sarle(moments: _Moments) -> np.ndarray:
    """Compute the coefficient from bias-corrected skewness and kurtosis."""
    n, second, third, fourth = moments
    with np.errstate(invalid="ignore", divide="ignore"):
        skewness = np.sqrt(n * (n - 1)) / (n - 2) * third / second**1.5
        corrected = (n - 1) / ((n - 2) * (n - 3)) * ((n + 1) * fourth / second**2 - 3 * (n - 1))
        return (skewness**2 + 1) / (corrected + 3 * (n - 1) ** 2 / ((n - 2) * (n - 3)))


def _expressed(predicted: Matrix, observed: Matrix, min_cells: int, smallest: int) -> tuple[_Moments, _Moments]:
    """Compute the moments of the expressed values of the genes that enough cells of both samples express."""
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
