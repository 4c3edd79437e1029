"""E-distance and EMD beside scipy's, pertpy's and a sort, on the same dense cells.

A fifth of the entries is not zero, and a tenth where the name says so.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import stats
from scipy.spatial.distance import cdist

from unlasting import metrics

Distance = Callable[[np.ndarray, np.ndarray], float]


def _draw(rng: np.random.Generator, n_cells: int, n_genes: int, shift: float, share: float) -> np.ndarray:
    """Draw values like log-normalised expression."""
    values = rng.gamma(2.0, 0.5, (n_cells, n_genes)) + shift * rng.random(n_genes)
    return (values * (rng.random((n_cells, n_genes)) < share)).astype(np.float32)


def e_distance_scipy(x: np.ndarray, y: np.ndarray) -> float:
    """Get the E-distance from whole matrices of distances."""
    return float(2 * cdist(x, y).mean() - cdist(x, x).mean() - cdist(y, y).mean())


def emd_scipy(x: np.ndarray, y: np.ndarray) -> float:
    """Get the EMD gene by gene."""
    return float(np.mean([stats.wasserstein_distance(of_x, of_y) for of_x, of_y in zip(x.T, y.T, strict=True)]))


def emd_sort(x: np.ndarray, y: np.ndarray) -> float:
    """Get the EMD between as many cells, whose order statistics are pairs."""
    return float(np.abs(np.sort(x, axis=0) - np.sort(y, axis=0)).mean())


def e_distance_pertpy(x: np.ndarray, y: np.ndarray) -> float:
    """Get the E-distance of pertpy, whose within-terms leave the distances of cells to themselves out."""
    from pertpy.tools import Distance as PertpyDistance

    return float(PertpyDistance("edistance")(x, y))


DISTANCES: dict[str, Distance] = {
    "E-distance": metrics.e_distance,
    "E-distance, scipy": e_distance_scipy,
    "E-distance, pertpy": e_distance_pertpy,
    "EMD": metrics.emd,
    "EMD, scipy": emd_scipy,
    "EMD, 90 % zeros": metrics.emd,
    "EMD, 90 % zeros, sort": emd_sort,
}


def case(name: str) -> Callable[..., tuple[Callable[[], float], float]]:
    """Get the case that measures one of them between two samples of `n_cells` each."""

    def prepared(n_cells: int = 5_000, n_genes: int = 2_000) -> tuple[Callable[[], float], float]:
        distance, rng = DISTANCES[name], np.random.default_rng(0)
        x, y = (_draw(rng, n_cells, n_genes, shift, 0.1 if "90 %" in name else 0.2) for shift in (0.0, 0.2))
        distance(x[:1000], y[:1000])  # what is compiled is compiled before
        return lambda: distance(x, y), 1

    return prepared
