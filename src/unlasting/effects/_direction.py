"""Direction from control to perturbed cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np

_BLOCK: Final = 256
"""Genes whose values are read together: as many as stay in a processor's cache."""


@dataclass(frozen=True)
class CellMoments:
    """Mean and variance of every gene over some cells.

    Parameters
    ----------
    n_cells
        Number of cells.
    mean, variance
        Moments, shape `(n_genes,)`.
    """

    n_cells: int
    mean: np.ndarray
    variance: np.ndarray

    @classmethod
    def of(cls, cells: np.ndarray) -> Self:
        """Compute the moments of cells, shape `(n_cells, n_genes)`."""
        with np.errstate(all="ignore"):  # a single cell has no variance
            return cls(len(cells), cells.mean(axis=0), cells.var(axis=0, ddof=1))


class CellBlocks:
    """Cells in blocks of genes, whose moments over parts of the cells take a fraction of the time.

    Parameters
    ----------
    cells
        Cells, shape `(n_cells, n_genes)`.
    """

    def __init__(self, cells: np.ndarray) -> None:
        self._blocks = [np.ascontiguousarray(cells[:, at : at + _BLOCK]) for at in range(0, cells.shape[1], _BLOCK)]

    def moments(self, rows: np.ndarray) -> CellMoments:
        """Compute the moments of some cells, by their rows."""
        parts = [CellMoments.of(block.take(rows, axis=0)) for block in self._blocks]
        return CellMoments(
            len(rows), *(np.concatenate([getattr(one, name) for one in parts]) for name in ("mean", "variance"))
        )


def t_scores(group: np.ndarray, control: np.ndarray) -> np.ndarray:
    """Score the change in every gene by Welch's t, 0 where a gene does not vary, shape `(n_genes,)`."""
    return _t_scores(CellMoments.of(group), CellMoments.of(control))


def direction(group: CellMoments, control: CellMoments, n_genes: int) -> tuple[np.ndarray, np.ndarray]:
    """Select the genes with the largest absolute t, and weight them as a discriminant with diagonal covariance.

    Parameters
    ----------
    group
        Moments of perturbed cells.
    control
        Moments of control cells.
    n_genes
        Number of genes to select.

    Returns
    -------
    The genes' columns and weights, shape `(n_genes,)`, or fewer if there are not as many.
    """
    variance = (control.variance + group.variance) / 2
    # nearly undetected genes have next to no variance: none of them may be the whole direction
    shrinkage = np.median(variance[variance > 0]) if variance.any() else 1.0
    genes = np.argsort(-np.abs(_t_scores(group, control)), kind="stable")[:n_genes]
    change = group.mean[genes] - control.mean[genes]
    return genes, change / (variance[genes] + shrinkage)


def _t_scores(group: CellMoments, control: CellMoments) -> np.ndarray:
    with np.errstate(all="ignore"):
        change = group.mean - control.mean
        error = np.sqrt(group.variance / group.n_cells + control.variance / control.n_cells)
        return np.where(error > 0, change / error, 0.0)
