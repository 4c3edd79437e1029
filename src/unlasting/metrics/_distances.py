"""Distances between two samples of cells."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from scipy import sparse
from sklearn.metrics.pairwise import euclidean_distances

from unlasting.metrics._matrices import BLOCK_VALUES, Matrix, as_matrix, as_pair, check_genes, dense, slices
from unlasting.screen import logger

MAX_BLOCK_CELLS = 1024
MEDIAN_CELLS = 1000
COINCIDENT = {np.dtype(np.float32): 1e-4, np.dtype(np.float64): 1e-13}
"""Share of the squared norms below which a squared distance is lost in rounding.

float32 blocks with such a pair are computed in float64, where it is taken as zero.
"""


def mean_distance(x: Matrix, y: Matrix | None = None, *, squared: bool = False, unbiased: bool = False) -> float:
    """Compute the mean Euclidean distance between all pairs of cells.

    Parameters
    ----------
    x
        Cells, shape `(n_cells, n_genes)`.
    y
        Other cells, shape `(n_other_cells, n_genes)`. If `None`, the pairs are those within `x`.
    squared
        Whether to average squared distances.
    unbiased
        Within `x`: whether to leave out each cell's pair with itself, that is to divide by `n (n - 1)` and not
        by `n^2`. Without meaning between two samples.

    Returns
    -------
    The mean distance, in the data's unit (squared with `squared`).

    Raises
    ------
    ValueError
        If `unbiased` is asked for a single cell.

    Notes
    -----
    Distances are computed block by block from matrix products, after the data are centred. float32 blocks in which cells nearly coincide are computed in float64.
    """
    x = as_matrix(x, "x", min_cells=2 if unbiased and y is None else 1)
    if y is not None:
        y = as_matrix(y, "y")
        check_genes(x.shape[1], y.shape[1], "x", "y")
    return _mean_distance(x, y, squared, unbiased)


def e_distance(
    predicted: Matrix,
    observed: Matrix,
    *,
    unbiased: bool = False,
    sqrt: bool = False,
    squared: bool = False,
    max_cells: int | None = None,
    seed: int = 0,
) -> float:
    r"""Compute the E-distance between two samples of cells.

    It is :math:`2\,\overline{\|X_i - Y_j\|} - \overline{\|X_i - X_{i'}\|} - \overline{\|Y_j - Y_{j'}\|}` with means
    over all pairs. Of two distributions it is zero only if they are equal :cite:p:`szekely2013energy`.

    Parameters
    ----------
    predicted, observed
        Cells, shapes `(n_cells, n_genes)` and `(n_other_cells, n_genes)`.
    unbiased
        Whether to leave out each cell's pair with itself (U-statistic). It is zero on average, and negative
        half the time, for samples from one distribution; the other form is never negative and grows as samples
        get smaller.
    sqrt
        Whether to take the square root, which is 0 for a negative estimate.
    squared
        Whether to use squared distances. It then compares only the samples' means.
    max_cells
        Largest number of cells used per sample; others are left out at random, which is logged.
    seed
        Seed for that choice.

    Returns
    -------
    The E-distance, in the data's unit.

    Raises
    ------
    ValueError
        If a sample is too small.

    Notes
    -----
    The default is the formula in the text by :cite:t:`chi2025unlasting`; the tables there are `unbiased=True,
    sqrt=True`. pertpy's `edistance` is the default as well; where it uses squared distances
    (`cell_wise_metric="sqeuclidean"`, its default before version 1), it is `squared=True`.

    Examples
    --------
    >>> import numpy as np
    >>> from unlasting.metrics import e_distance
    >>> observed = np.array([[0.0, 1.0], [2.0, 1.0]])
    >>> e_distance(observed, observed)
    0.0
    >>> round(e_distance(observed + [0.0, 1.5], observed), 6)
    2.0
    """
    predicted, observed = as_pair(predicted, observed, min_cells=2 if unbiased else 1)
    if max_cells is not None:
        if max_cells < 2:
            raise ValueError(f"`max_cells` is {max_cells}, but at least 2 cells are needed.")
        rng = np.random.default_rng(seed)
        predicted = _capped(predicted, max_cells, rng, "predicted")
        observed = _capped(observed, max_cells, rng, "observed")
    value = (
        2 * _mean_distance(predicted, observed, squared, False)
        - _mean_distance(predicted, None, squared, unbiased)
        - _mean_distance(observed, None, squared, unbiased)
    )
    return math.sqrt(max(value, 0.0)) if sqrt else value


def mmd(
    predicted: Matrix, observed: Matrix, *, unbiased: bool = True, bandwidth: float | None = None, seed: int = 0
) -> float:
    r"""Compute the squared maximum mean discrepancy between two samples under a Gaussian kernel.

    It follows :cite:t:`gretton2012mmd` with the kernel :math:`k(x, y) = \exp(-\|x - y\|^2 / 2 \sigma^2)`.

    Parameters
    ----------
    predicted, observed
        Cells, shapes `(n_cells, n_genes)` and `(n_other_cells, n_genes)`.
    unbiased
        Whether to leave out each cell's pair with itself (U-statistic, zero on average for samples from one
        distribution, hence sometimes negative).
    bandwidth
        The scale :math:`\sigma`, in the data's unit. If `None`, the median distance between cells in both
        samples together, without pairs that coincide. Values compare only at the same bandwidth.
    seed
        Seed for the 1,000 cells from which the median is taken if there are more.

    Returns
    -------
    The squared discrepancy, at most 2.

    Raises
    ------
    ValueError
        If `bandwidth` is not positive.
    """
    predicted, observed = as_pair(predicted, observed, min_cells=2 if unbiased else 1)
    if bandwidth is None:
        bandwidth = _median_distance(predicted, observed, np.random.default_rng(seed))
    if not 0 < bandwidth < math.inf:
        raise ValueError(f"`bandwidth` is {bandwidth}, but a positive number is needed.")
    scale = -0.5 / bandwidth**2
    between = _kernel_sum(predicted, observed, scale) / (predicted.shape[0] * observed.shape[0])
    within = 0.0
    for cells in (predicted, observed):
        n = cells.shape[0]
        total = _kernel_sum(cells, None, scale)
        within += (total - n) / (n * (n - 1)) if unbiased else total / n**2
    return within - 2 * between


def _mean_distance(x: Matrix, y: Matrix | None, squared: bool, unbiased: bool) -> float:
    if squared:
        total = _sum_of_squared_distances(x, y)
    else:
        total = sum(
            weight * float(np.sqrt(block, out=block).sum(axis=1).sum(dtype=np.float64))
            for weight, block in _blocks(x, y)
        )
    n = x.shape[0]
    return total / (n * (y.shape[0] if y is not None else n - 1 if unbiased else n))


def _sum_of_squared_distances(x: Matrix, y: Matrix | None) -> float:
    """Sum over all pairs from each sample's two moments."""
    center = _center(x, y)
    moments = []
    for cells in (x, x if y is None else y):
        total, squares = np.zeros(x.shape[1]), 0.0
        for rows in slices(cells.shape[0], _block_cells(x)):
            values = dense(cells[rows]) - center
            total += values.sum(axis=0)
            squares += float(np.vdot(values, values))
        moments.append((cells.shape[0], total, squares))
    (n, sum_x, squares_x), (m, sum_y, squares_y) = moments
    return m * squares_x + n * squares_y - 2 * float(sum_x @ sum_y)


def _kernel_sum(x: Matrix, y: Matrix | None, scale: float) -> float:
    total = 0.0
    for weight, block in _blocks(x, y):
        block *= scale
        total += weight * float(np.exp(block, out=block).sum(dtype=np.float64))
    return total


def _median_distance(predicted: Matrix, observed: Matrix, rng: np.random.Generator) -> float:
    """Get the median distance between different cells in both samples; 1 if all coincide, where it does not matter."""
    n, m = predicted.shape[0], observed.shape[0]
    chosen = np.sort(rng.permutation(n + m)[:MEDIAN_CELLS])
    pooled = np.vstack([dense(predicted[chosen[chosen < n]]), dense(observed[chosen[chosen >= n] - n])])
    # pairs beside the diagonal count twice, but all of them do
    found = np.concatenate([np.tile(block[block > 0], weight) for weight, block in _blocks(pooled, None)])
    return float(np.sqrt(np.median(found))) if len(found) else 1.0


def _blocks(x: Matrix, y: Matrix | None) -> Iterator[tuple[int, np.ndarray]]:
    """Go through squared distances in blocks; within `x`, only the upper triangle, which counts twice.

    Each block takes the memory of the one before it: fresh memory would cost as much time as the products.
    """
    within = y is None
    other = x if y is None else y
    center = _center(x, y)
    dtype = np.result_type(x.dtype, other.dtype)
    width = _block_cells(x)
    left, right = np.empty((2, min(width, max(x.shape[0], other.shape[0])), x.shape[1]), dtype=dtype)
    products = np.empty(len(left) * len(right), dtype=dtype)
    other_norms = _squared_norms(other, center, right)
    norms = other_norms if within else _squared_norms(x, center, left)
    for rows in slices(x.shape[0], width):
        a = _centred(x, rows, center, left)
        a *= -2
        for columns in slices(other.shape[0], width):
            if within and columns.start < rows.start:
                continue
            diagonal = within and columns == rows
            b = _centred(other, columns, center, right)
            block = np.matmul(a, b.T, out=products[: len(a) * len(b)].reshape(len(a), len(b)))
            block += norms[rows, None]
            block += other_norms[columns]
            if diagonal:
                np.fill_diagonal(block, np.inf)  # a cell's pair with itself
            if block.min() <= COINCIDENT[dtype] * (norms[rows].max() + other_norms[columns].max()):
                lost = block <= COINCIDENT[dtype] * (norms[rows, None] + other_norms[columns])
                if dtype == np.float32 and lost.any():
                    block, lost = _in_double_precision(x, rows, other, columns, center)
                block[lost] = 0.0
            if diagonal:
                np.fill_diagonal(block, 0.0)
            yield (2 if within and not diagonal else 1), block


def _in_double_precision(
    x: Matrix, rows: slice, other: Matrix, columns: slice, center: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Get a block of squared distances, and the pairs that are lost in rounding even so."""
    a, b = (dense(part) - center for part in (x[rows], other[columns]))
    scale = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1)
    block = a @ b.T
    block *= -2
    block += scale
    return block, block <= COINCIDENT[block.dtype] * scale


def _squared_norms(x: Matrix, center: np.ndarray, memory: np.ndarray) -> np.ndarray:
    """Get the centred cells' squared norms, shape `(n_cells,)`."""
    # `sum` adds up pairwise: the naive order of `einsum` would shift float32 distances by more than a small effect
    norms = np.empty(x.shape[0], dtype=memory.dtype)
    for rows in slices(x.shape[0], len(memory)):
        cells = _centred(x, rows, center, memory)
        norms[rows] = np.square(cells, out=cells).sum(axis=1)
    return norms


def _centred(x: Matrix, rows: slice, center: np.ndarray, memory: np.ndarray) -> np.ndarray:
    """Write centred cells into memory."""
    cells = dense(x[rows])
    return np.subtract(cells, center.astype(memory.dtype), out=memory[: len(cells)], dtype=memory.dtype)


def _center(x: Matrix, y: Matrix | None) -> np.ndarray:
    """Get a point amid the cells, from which matrix products lose least."""
    means = [np.asarray(cells.mean(axis=0, dtype=np.float64)).ravel() for cells in (x, y) if cells is not None]
    return np.mean(means, axis=0)


def _block_cells(x: Matrix) -> int:
    return min(MAX_BLOCK_CELLS, max(16, BLOCK_VALUES // x.shape[1]))


def _capped(cells: Matrix, max_cells: int, rng: np.random.Generator, argument: str) -> Matrix:
    """Leave out cells at random beyond a number."""
    n = cells.shape[0]
    if n <= max_cells:
        return cells
    logger.info("E-distance from %d of the %d %s cells (`max_cells`).", max_cells, n, argument)
    return cells[np.sort(rng.choice(n, max_cells, replace=False))]


def resampled_e_distance(
    cells: np.ndarray, first: np.ndarray, second: np.ndarray, *, source: np.ndarray | None = None
) -> np.ndarray:
    """Compute the unbiased E-distance between two weighted samples from the same cells, for many weightings.

    Parameters
    ----------
    cells
        Cells from both samples, shape `(n_cells, n_genes)`.
    first, second
        Every cell's frequency in each sample, shape `(n_rows, n_cells)`: labels of a permutation, or counts of a
        bootstrap.
    source
        Cells with the same source form no pair, shape `(n_cells,)`. All sources differ if `None`.

    Returns
    -------
    One distance for each row, shape `(n_rows,)`.
    """
    n = len(cells)
    codes = np.arange(n) if source is None else np.unique(source, return_inverse=True)[1]
    distances = euclidean_distances(cells)
    distances[codes[:, None] == codes] = 0.0
    by_source = sparse.csr_matrix((np.ones(n), (np.arange(n), codes)))

    def mean(x: np.ndarray, distances_to_x: np.ndarray, y: np.ndarray) -> np.ndarray:
        same = np.einsum("ij,ij->i", x @ by_source, y @ by_source)
        pairs = x.sum(axis=1) * y.sum(axis=1) - same
        return np.einsum("ij,ij->i", distances_to_x, y) / np.maximum(pairs, 1)

    to_first, to_second = first @ distances, second @ distances
    return 2 * mean(first, to_first, second) - mean(first, to_first, first) - mean(second, to_second, second)
