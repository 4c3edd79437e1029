"""Cells, grouped by condition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse

from unlasting.screen._checks import check_log_normalised, expression

if TYPE_CHECKING:
    from anndata import AnnData

    from unlasting.screen._keys import ScreenKeys


class Condition(NamedTuple):
    """A perturbation in a cell type at a dose.

    Parameters
    ----------
    perturbation
        Canonical label, such as `A` or `A+B`.
    cell_type
        The cell type; empty without a `cell_type_key`.
    dose
        The dose in uM as text, such as `0.1`, or one part for each target, such as `1+0.5`; empty without a dose.
    """

    perturbation: str
    cell_type: str = ""
    dose: str = ""

    def __str__(self) -> str:
        """Name the condition in a message."""
        at = f"{self.perturbation} at {self.dose} uM" if self.dose else self.perturbation
        return f"{at} in {self.cell_type}" if self.cell_type else at

    def columns(self) -> dict[str, str]:
        """Get the condition by column name."""
        return {"condition": self.perturbation, "cell_type": self.cell_type, "dose": self.dose}


@dataclass(frozen=True)
class Cells:
    """Expression and labels.

    Parameters
    ----------
    matrix
        Log-normalised expression, shape `(n_cells, n_genes)`, genes like in the screen after `columns`.
    columns
        Columns of the screen's genes in `matrix`, shape `(n_genes,)`.
    names
        Cell names.
    labels, cell_types, doses
        Canonical perturbation, cell type and dose per cell, shape `(n_cells,)`.
    obs
        The cell table.
    present
        Whether the row is a cell (`predict` leaves rows without a generated cell empty), shape `(n_cells,)`.
    origin
        Matrix name in messages.
    """

    matrix: Any
    columns: np.ndarray
    names: pd.Index
    labels: np.ndarray
    cell_types: np.ndarray
    doses: np.ndarray
    obs: pd.DataFrame
    present: np.ndarray
    origin: str

    @classmethod
    def read(cls, adata: AnnData, keys: ScreenKeys) -> Cells:
        """Read all cells.

        Raises
        ------
        KeyError
            If a label column is missing.
        ValueError
            If a label or dose cannot be read, there are no controls, or `X` is not log-normalised.
        """
        cells = cls(
            matrix=expression(adata),
            columns=np.arange(adata.n_vars),
            names=adata.obs_names,
            labels=keys.labels(adata),
            cell_types=keys.cell_types(adata),
            doses=keys.doses(adata),
            obs=adata.obs,
            present=np.ones(adata.n_obs, dtype=bool),
            origin="`adata.X`",
        )
        cells.check()
        return cells

    def check(self) -> None:
        """Refuse values among the first 500 cells that are not log-normalised; cells without counts are accepted.

        Raises
        ------
        ValueError
            If values are missing, infinite, negative, or integers like raw counts.
        """
        head = self.values(np.flatnonzero(self.present)[:500])
        if head.any():
            check_log_normalised(head, self.origin)

    @cached_property
    def conditions(self) -> Mapping[Condition, np.ndarray]:
        """The rows of each condition with cells, controls included.

        Conditions and their cells are sorted by name, so that no draw depends on the row order.
        """
        names = np.asarray(self.names, dtype=str)
        rows = np.argsort(names, kind="stable")
        rows = rows[self.present[rows]]
        frame = pd.DataFrame({"p": self.labels[rows], "c": self.cell_types[rows], "d": self.doses[rows]})
        return {Condition(*map(str, key)): rows[i] for key, i in sorted(frame.groupby(["p", "c", "d"]).indices.items())}

    def rows(self, condition: Condition) -> np.ndarray:
        """Find the cells in a condition."""
        return self.conditions.get(condition, np.zeros(0, dtype=np.intp))

    def values(self, rows: np.ndarray, genes: np.ndarray | None = None, dtype: Any = np.float64) -> np.ndarray:
        """Get expression as a dense array, shape `(len(rows), n_genes)`.

        Raises
        ------
        ValueError
            If a value is missing or infinite.
        """
        # a backed file reads rows in order only
        order = np.argsort(rows, kind="stable")
        block = self.matrix[rows[order]]
        columns = self.columns if genes is None else self.columns[genes]
        if not np.array_equal(columns, np.arange(block.shape[1])):
            block = block[:, columns]
        block = block.toarray() if sparse.issparse(block) else np.asarray(block)
        values = np.empty(block.shape, dtype=dtype)
        values[order] = block
        if not np.isfinite(values).all():
            raise ValueError(
                f"{self.origin} contains missing or infinite values (for example in cell "
                f"{self.names[rows[~np.isfinite(values).all(axis=1)][0]]!r}). Remove or correct these cells."
            )
        return values


def has_source(adata: AnnData, layer: str) -> np.ndarray:
    """Whether a row of a layer is a generated cell, shape `(n_cells,)`: all rows without `obs[layer + "_source"]`."""
    source = adata.obs.get(f"{layer}_source")
    if source is None:
        return np.ones(adata.n_obs, dtype=bool)
    return (source.notna() & (source.astype(object) != "")).to_numpy(copy=True)


def sample(rows: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw at most `n` rows without replacement, in their old order."""
    return rows if len(rows) <= n else np.sort(rng.choice(rows, n, replace=False))
