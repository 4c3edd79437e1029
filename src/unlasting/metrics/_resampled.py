"""The E-distance under many weightings: permutations and bootstraps."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from sklearn.metrics.pairwise import euclidean_distances


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
