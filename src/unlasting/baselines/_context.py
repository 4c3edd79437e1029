"""The same perturbation in other cell types."""

from __future__ import annotations

import numpy as np

from unlasting.baselines._base import Baseline, Shift, ZeroAware
from unlasting.screen import Condition


class NearestContext(Baseline):
    """Cells of the same perturbation in the cell type whose controls are nearest in the mean."""

    def _rows(self, condition: Condition) -> np.ndarray:
        self.training_.controls(condition.cell_type)
        profile = {
            other: self.training_.mean(Condition(self.training_.keys.control, other.cell_type))
            for other in [*self.training_.elsewhere(condition), condition]
        }
        wanted = profile.pop(condition)
        return self.training_.perturbed[min(profile, key=lambda c: (float(np.linalg.norm(profile[c] - wanted)), c))]


class ContextTransfer(Shift):
    """Control cells plus the same perturbation's mean change over the other cell types."""

    def _shift(self, condition: Condition) -> np.ndarray:
        return np.mean([self.training_.change(other) for other in self.training_.elsewhere(condition)], axis=0)


class ZeroAwareContextTransfer(ZeroAware):
    """Control cells under the same perturbation's mean effects over the other cell types."""

    def _effects(self, condition: Condition) -> np.ndarray:
        return np.mean([self.training_.hurdle_effect(other) for other in self.training_.elsewhere(condition)], axis=0)


class QuantileContextTransfer(Baseline):
    """Control cells whose values move as the same quantiles do in another cell type, gene by gene.

    Other cell types take turns from cell to cell.
    """

    def _changed(self, cells: np.ndarray, condition: Condition, rng: np.random.Generator) -> np.ndarray:
        uniform, changed = self._uniform(len(cells), rng), np.empty_like(cells)
        own, others = self._sorted(self.training_.controls(condition.cell_type)), self.training_.elsewhere(condition)
        for i, other in enumerate(others):
            turn = slice(i, None, len(others))
            before = self._sorted(self.training_.controls(other.cell_type))
            after = self._sorted(self.training_.perturbed[other])
            changed[turn] = map_quantiles(cells[turn], own, before, after, uniform[turn])
        return changed

    def _sorted(self, rows: np.ndarray) -> np.ndarray:
        """Sort values gene by gene, shape `(n_cells, n_genes)`."""
        return np.sort(self.training_.cells.values(rows, dtype=np.float32), axis=0)


def map_quantiles(
    cells: np.ndarray, own: np.ndarray, before: np.ndarray, after: np.ndarray, uniform: np.ndarray
) -> np.ndarray:
    """Move values as their quantiles move in another cell type, so that zeros are kept, lost or gained as there.

    Parameters
    ----------
    cells
        Cells to change, shape `(n_cells, n_genes)`.
    own
        Sorted controls from their cell type, in which the quantile is found, shape `(n_own, n_genes)`.
    before, after
        Sorted control and perturbed cells from the other type, shapes `(n_before, n_genes)` and `(n_after, n_genes)`.
    uniform
        Numbers in [0, 1) that rank equal values, such as zeros, shape `(n_cells, n_genes)`.
    """
    level = np.empty(cells.shape)
    for gene in range(cells.shape[1]):
        first, last = (np.searchsorted(own[:, gene], cells[:, gene], side) for side in ("left", "right"))
        level[:, gene] = (first + uniform[:, gene] * (last - first)) / len(own)
    old, new = (
        np.take_along_axis(x, np.clip((level * len(x)).astype(int), 0, len(x) - 1), axis=0) for x in (before, after)
    )
    expressed = np.where((old > 0) & (new > 0), np.maximum(cells + new - old, 0), np.where(old > 0, 0, cells))
    return np.where(cells > 0, expressed, np.where(old > 0, 0, new))
