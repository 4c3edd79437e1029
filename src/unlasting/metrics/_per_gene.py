"""Distances between two samples of cells, gene by gene."""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy import sparse

from unlasting.metrics._matrices import Matrix, as_pair, by_gene, gene_blocks, slices

_GENES: Final = 256
"""Genes whose stored values are sorted together."""


def emd_per_gene(predicted: Matrix, observed: Matrix) -> np.ndarray:
    """Compute the earth mover's distance of every gene: the exact one-dimensional Wasserstein distance.

    Parameters
    ----------
    predicted, observed
        Cells, shapes `(n_cells, n_genes)` and `(n_other_cells, n_genes)`.

    Returns
    -------
    Distances in the data's unit, shape `(n_genes,)`.
    """
    predicted, observed = as_pair(predicted, observed)
    n, m = predicted.shape[0], observed.shape[0]
    # both quantile functions are constant between these, in units of 1 / (n m) so that they are whole numbers
    ends = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)
    places = (ends - 1) // m, (ends - 1) // n
    weights = np.diff(ends, prepend=0) / (n * m)
    found = np.empty(predicted.shape[1])
    if all(sparse.issparse(cells) and cells.min() >= 0 for cells in (predicted, observed)):
        turned = [sparse.csr_matrix(by_gene(cells)) for cells in (predicted, observed)]
        n_stored = np.stack([np.diff(cells.indptr) for cells in turned])
        order = np.argsort(n_stored.max(axis=0))
        for rows in slices(len(order), _GENES):  # with similar numbers of values
            chosen = order[rows]
            # zeros are the smallest values: the distance is that between the largest ones
            most = n_stored[:, chosen].max(axis=1)
            first = min(np.searchsorted(places[0], n - most[0]), np.searchsorted(places[1], m - most[1]), len(ends) - 1)
            x, y = (
                _largest(cells[chosen], size - place[first])
                for cells, size, place in zip(turned, (n, m), places, strict=True)
            )
            if n != m:
                x, y = (block[:, place[first:] - place[first]] for block, place in zip((x, y), places, strict=True))
            found[chosen] = np.abs(x - y) @ weights[first:]
        return found
    for genes, blocks in gene_blocks(predicted, observed):
        for block in blocks:
            block.sort(axis=1)
        x, y = blocks if n == m else (block[:, place] for block, place in zip(blocks, places, strict=True))
        difference = x - y
        np.abs(difference, out=difference)
        found[genes] = difference.mean(axis=1, dtype=np.float64) if n == m else difference @ weights
    return found


def _largest(cells: sparse.csr_matrix, width: int) -> np.ndarray:
    """Sort each row's stored values in as many columns, the first ones zero, shape `(n_rows, width)`."""
    values = np.zeros((cells.shape[0], width), dtype=np.result_type(cells.dtype, np.float32))
    n_stored = np.diff(cells.indptr)
    values[
        np.repeat(np.arange(len(n_stored)), n_stored), np.arange(cells.nnz) - np.repeat(cells.indptr[:-1], n_stored)
    ] = cells.data
    values.sort(axis=1)
    return values


def emd(predicted: Matrix, observed: Matrix) -> float:
    """Compute the earth mover's distance, averaged over genes.

    Parameters
    ----------
    predicted, observed
        Cells, shapes `(n_cells, n_genes)` and `(n_other_cells, n_genes)`.

    Returns
    -------
    The mean distance, in the data's unit.
    """
    return float(emd_per_gene(predicted, observed).mean())


def energy_per_gene(predicted: Matrix, observed: Matrix, *, unbiased: bool = False) -> np.ndarray:
    r"""Compute the energy distance of every gene, :math:`2 E|X - Y| - E|X - X'| - E|Y - Y'|`.

    Parameters
    ----------
    predicted, observed
        Cells, shapes `(n_cells, n_genes)` and `(n_other_cells, n_genes)`.
    unbiased
        Whether to leave out each cell's pair with itself.

    Returns
    -------
    Distances in the data's unit, shape `(n_genes,)`: the square of `scipy.stats.energy_distance`.

    Raises
    ------
    ValueError
        If a sample is too small.
    """
    predicted, observed = as_pair(predicted, observed, min_cells=2 if unbiased else 1)
    n, m = predicted.shape[0], observed.shape[0]
    pairs_n, pairs_m = (n * (n - 1), m * (m - 1)) if unbiased else (n**2, m**2)
    found = np.empty(predicted.shape[1])
    for genes, (x, y) in gene_blocks(predicted, observed):
        within_x, within_y = _sum_of_differences(x), _sum_of_differences(y)
        between = _sum_of_differences(np.hstack([x, y])) - within_x - within_y
        found[genes] = 2 * (between / (n * m) - within_x / pairs_n - within_y / pairs_m)
    return found


def energy(predicted: Matrix, observed: Matrix, *, unbiased: bool = False) -> float:
    """Compute the energy distance, averaged over genes.

    Parameters
    ----------
    predicted, observed
        Cells, shapes `(n_cells, n_genes)` and `(n_other_cells, n_genes)`.
    unbiased
        Whether to leave out each cell's pair with itself.

    Returns
    -------
    The mean distance, in the data's unit.
    """
    return float(energy_per_gene(predicted, observed, unbiased=unbiased).mean())


def _sum_of_differences(values: np.ndarray) -> np.ndarray:
    """Sum absolute differences over each row's pairs, from its sorted values."""
    n = values.shape[1]
    return np.sort(values, axis=1) @ (2.0 * np.arange(n) + 1 - n)
