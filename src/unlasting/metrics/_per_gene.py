"""Distances between two samples of cells, gene by gene."""

from __future__ import annotations

import numpy as np

from unlasting.metrics._matrices import Matrix, as_pair, as_real_matrix, check_genes, gene_blocks, require_finite
from unlasting.metrics._sorted_values import earth_movers_distances


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
    predicted, observed = as_real_matrix(predicted, "predicted"), as_real_matrix(observed, "observed")
    check_genes(predicted.shape[1], observed.shape[1], "predicted", "observed")
    found = earth_movers_distances(predicted, observed)
    if not np.isfinite(found).all():  # looked at last, since a pass over dense cells takes long
        require_finite(predicted, "predicted")
        require_finite(observed, "observed")
    return found


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
