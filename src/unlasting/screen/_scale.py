"""The scale of expression: one check for all cells that meet a screen's training controls."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
from scipy import sparse

from unlasting.screen._checks import expression
from unlasting.screen._constants import TRAIN
from unlasting.screen._logging import logger

if TYPE_CHECKING:
    from anndata import AnnData

    from unlasting.screen._keys import ScreenKeys

_N_CELLS: Final = 1_000
_SAME: Final = 1.05
"""Factor between totals that differ by rounding, or by lowly expressed genes outside the panel."""
_REFUSED: Final = 2.0
"""Factor outside the range of training controls from which on cells are refused."""

_FINITE: Final = 100.0
"""Larger values are no logarithms, and their sums would not be finite."""


@dataclass(frozen=True)
class Scale:
    """Totals of `expm1` over the genes, in cells of one normalisation: their 1 %, 50 % and 99 % quantiles over cells."""

    low: float
    median: float
    high: float

    @classmethod
    def measure(cls, matrix: Any, rows: np.ndarray) -> Self | None:
        """Measure at most 1,000 of the sorted rows, evenly spaced; `None` without a cell that expresses a gene."""
        rows = (
            rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _N_CELLS)).astype(int))] if len(rows) else rows
        )
        cells = sparse.csr_array(matrix[rows], dtype=np.float64, copy=True)
        cells.data = np.expm1(np.minimum(cells.data, _FINITE))
        totals = np.asarray(cells.sum(axis=1)).ravel()
        totals = totals[totals > 0]
        return cls(*np.quantile(totals, [0.01, 0.5, 0.99]).tolist()) if len(totals) else None

    @classmethod
    def training_controls(cls, adata: AnnData, keys: ScreenKeys, layer: str | None = None) -> Self | None:
        """Measure a screen's training controls."""
        split, chosen = keys.split(adata), keys.labels(adata) == keys.control
        chosen = chosen if split is None else chosen & (split == TRAIN)
        return cls.measure(expression(adata, layer), np.flatnonzero(chosen))

    def as_list(self) -> list[float]:
        """Get the three quantiles, as they are saved with a model."""
        return list(astuple(self))

    def check(self, matrix: Any, rows: np.ndarray, argument: str, fix: str, *, predicted: bool = False) -> None:
        """Refuse cells on another scale; where the difference may be biological, log a warning.

        `fix` is the preferred way out, as a sentence. Predictions (`predicted`) need not keep the total of measured cells, and may
        be averages.
        """
        found = Scale.measure(matrix, rows)
        if found is None:
            return
        outside = max(self.low / found.median, found.median / self.high)
        if outside <= (_REFUSED if predicted else _SAME):
            return
        message = (
            f"{argument} has another scale than the training controls: the median sum of `expm1` over the genes is "
            f"{found.median:.6g}, against {self.median:.6g} in training controls ({self.low:.6g} to {self.high:.6g}). {fix}"
        )
        has_one_total = self.high < self.low * _SAME
        if has_one_total and found.high < found.low * _SAME:
            message += f" Without counts, rescale: `np.log1p(np.expm1(X) * {self.median / found.median:.6g})`."
        if predicted and found.median < self.low:
            logger.warning("%s Averages over cells may differ so: then go on.", message)
        elif has_one_total or outside > _REFUSED:
            raise ValueError(message)
        else:
            logger.warning("%s Cells of another type may differ so: then go on.", message)
