"""The cells of an AnnData and the conditions that they are in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse

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
        The cell type; empty where a screen has only one.
    dose
        The dose in uM as text, such as `0.1`, or one part for each target, such as `1+0.5`; empty where there is none.
    """

    perturbation: str
    cell_type: str = ""
    dose: str = ""

    def __str__(self) -> str:
        """Name the condition in a message."""
        at = f"{self.perturbation} at {self.dose} uM" if self.dose else self.perturbation
        return f"{at} in {self.cell_type}" if self.cell_type else at

    def columns(self) -> dict[str, str]:
        """Write the condition as columns of a frame."""
        return {"condition": self.perturbation, "cell_type": self.cell_type, "dose": self.dose}


@dataclass(frozen=True)
class Cells:
    """A matrix of cells with their labels.

    Parameters
    ----------
    matrix
        Log-normalised expression, shape `(n_cells, n_genes)`, genes in the order of the screen after `columns`.
    columns
        Where the genes of the screen are in `matrix`, shape `(n_genes,)`.
    names
        Names of the cells.
    labels, cell_types, doses
        Canonical perturbation, cell type and dose of every cell, shape `(n_cells,)`.
    obs
        The table of the cells.
    present
        Whether there is a cell at all (`predict` leaves rows without a generated cell empty), shape `(n_cells,)`.
    origin
        How an error message calls the matrix.
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
        """Read all cells of a screen.

        Raises
        ------
        KeyError
            If a label column is missing.
        ValueError
            If a label or dose cannot be read, no cell carries the control label, or `X` holds raw counts.
        """
        cells = cls(
            matrix=adata.X,
            columns=np.arange(adata.n_vars),
            names=adata.obs_names,
            labels=keys.labels(adata),
            cell_types=keys.cell_types(adata),
            doses=keys.doses(adata),
            obs=adata.obs,
            present=np.ones(adata.n_obs, dtype=bool),
            origin="`adata.X`",
        )
        if adata.X is None:
            raise ValueError(f"{cells.origin} is empty; log-normalised expression is expected there.")
        if adata.X.dtype.kind not in "biuf":
            raise ValueError(f"{cells.origin} holds values of type {adata.X.dtype}; real numbers are expected.")
        refuse_counts(cells)
        if (cells.values(np.arange(min(500, adata.n_obs))) < 0).any():
            raise ValueError(
                f"{cells.origin} holds negative values. Log-normalised expression is needed; run `pp.prepare`."
            )
        return cells

    @cached_property
    def conditions(self) -> Mapping[Condition, np.ndarray]:
        """The rows of every condition that has cells, controls included.

        Conditions and the cells of each are in the order of their names, so that no draw depends on the order of rows.
        """
        names = np.asarray(self.names, dtype=str)
        rows = np.argsort(names, kind="stable")
        rows = rows[self.present[rows]]
        frame = pd.DataFrame({"p": self.labels[rows], "c": self.cell_types[rows], "d": self.doses[rows]})
        return {Condition(*map(str, key)): rows[i] for key, i in sorted(frame.groupby(["p", "c", "d"]).indices.items())}

    def rows(self, condition: Condition) -> np.ndarray:
        """Find the cells of a condition."""
        return self.conditions.get(condition, np.zeros(0, dtype=np.intp))

    def rows_at_any_dose(self, perturbation: str, cell_type: str) -> np.ndarray:
        """Find the cells of a perturbation in a cell type."""
        parts = [rows for c, rows in self.conditions.items() if c[:2] == (perturbation, cell_type)]
        return np.sort(np.concatenate(parts)) if parts else np.zeros(0, dtype=np.intp)

    def values(self, rows: np.ndarray, genes: np.ndarray | None = None, dtype: Any = np.float64) -> np.ndarray:
        """Get expression as a dense array, shape `(len(rows), n_genes)`.

        Raises
        ------
        ValueError
            If a value is missing or infinite.
        """
        # sorted rows because a backed file reads them in order only
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
                f"{self.origin} holds missing or infinite values (for example in cell "
                f"{self.names[rows[~np.isfinite(values).all(axis=1)][0]]!r}). Remove or correct these cells."
            )
        return values


def is_in_memory(matrix: Any) -> bool:
    """Whether values are at hand, and not on disk or still to be computed."""
    return matrix is None or isinstance(matrix, np.ndarray) or sparse.issparse(matrix)


def sample(rows: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw at most `n` rows without replacement, in their old order."""
    return rows if len(rows) <= n else np.sort(rng.choice(rows, n, replace=False))


def refuse_counts(cells: Cells) -> None:
    """Refuse whole numbers, as raw counts are.

    Raises
    ------
    ValueError
        If the first cells hold nothing else.
    """
    head = cells.values(np.flatnonzero(cells.present)[:500])
    if head.any() and (head == np.round(head)).all():
        raise ValueError(
            f"{cells.origin} holds whole numbers, which look like raw counts. Log-normalised expression is needed; "
            "run `pp.prepare`."
        )
