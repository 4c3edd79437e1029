"""Observed control, observed perturbed and generated cells of a screen, condition by condition."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from unlasting._constants import TEST, TRAIN, UNS_KEY
from unlasting._keys import ScreenKeys
from unlasting._perturbation import canonical_labels, nearest_name


class Condition(NamedTuple):
    """A perturbation in a cell type; the cell type is empty where a screen has only one."""

    perturbation: str
    cell_type: str

    def __str__(self) -> str:
        """Name the condition in a message."""
        return f"{self.perturbation} in {self.cell_type}" if self.cell_type else self.perturbation


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
    labels, cell_types
        Canonical perturbation and cell type of every cell, shape `(n_cells,)`.
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
    obs: pd.DataFrame
    present: np.ndarray
    origin: str

    def rows(self, condition: Condition) -> np.ndarray:
        """Find the cells of a condition."""
        return np.flatnonzero(
            self.present & (self.labels == condition.perturbation) & (self.cell_types == condition.cell_type)
        )

    def values(self, rows: np.ndarray, genes: np.ndarray | None = None) -> np.ndarray:
        """Get expression as a dense float64 array, shape `(len(rows), n_genes)`.

        Raises
        ------
        ValueError
            If a value is missing or infinite.
        """
        # sorted rows because a backed file reads them in order only
        order = np.argsort(rows, kind="stable")
        columns = self.columns if genes is None else self.columns[genes]
        block = self.matrix[rows[order]][:, columns]
        block = block.toarray() if sparse.issparse(block) else np.asarray(block)
        values = np.empty(block.shape, dtype=np.float64)
        values[order] = block
        if not np.isfinite(values).all():
            raise ValueError(
                f"{self.origin} holds missing or infinite values (for example in cell "
                f"{self.names[rows[~np.isfinite(values).all(axis=1)][0]]!r}). Remove or correct these cells."
            )
        return values


@dataclass(frozen=True)
class Groups:
    """A screen and the cells that were generated for it.

    Parameters
    ----------
    keys
        Where the labels are.
    genes
        Names of the genes, shape `(n_genes,)`.
    observed
        The cells of the screen.
    generated
        The generated cells, without those generated under the control label.
    split
        `train`, `val` or `test` of the observed cells; all `train` without a split column.
    """

    keys: ScreenKeys
    genes: pd.Index
    observed: Cells
    generated: Cells
    split: np.ndarray
    _controls: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def read(cls, adata: AnnData, *, layer: str | None, predictions: AnnData | None, **overrides: Any) -> Groups:
        """Read the observed cells of `adata` and the generated ones of its layer or of `predictions`.

        Raises
        ------
        KeyError
            If the layer, a label column or genes of the screen are missing.
        ValueError
            If `X` holds raw counts, names are not unique, or there is no generated cell.
        """
        if adata.n_obs == 0 or adata.n_vars == 0:
            raise ValueError("`adata` is empty: it needs at least one cell and one gene.")
        for argument, names in (("obs_names", adata.obs_names), ("var_names", adata.var_names)):
            if not names.is_unique:
                raise ValueError(
                    f"`adata.{argument}` holds {names[names.duplicated()][0]!r} more than once. Make names unique, for "
                    f"example by `adata.{argument}_make_unique()`."
                )
        keys = ScreenKeys.read(adata, **overrides)
        split = keys.split(adata)
        observed = Cells(
            matrix=adata.X,
            columns=np.arange(adata.n_vars),
            names=adata.obs_names,
            labels=keys.labels(adata),
            cell_types=keys.cell_types(adata),
            obs=adata.obs,
            present=np.ones(adata.n_obs, dtype=bool),
            origin="`adata.X`",
        )
        _refuse_counts(observed)
        generated = (
            _from_layer(adata, observed, layer) if predictions is None else _from_other(adata, predictions, keys)
        )
        generated.present[generated.labels == keys.control] = False
        if not generated.present.any():
            raise ValueError(f"{generated.origin} holds no generated cell under a perturbation. Run `model.predict`.")
        return cls(
            keys=keys,
            genes=adata.var_names,
            observed=observed,
            generated=generated,
            split=np.full(adata.n_obs, TRAIN, dtype=object) if split is None else split,
        )

    def conditions(self, wanted: Iterable[str | tuple[str, str]] | None = None) -> list[Condition]:
        """List the conditions with generated cells, or those of them that are `wanted`.

        Raises
        ------
        ValueError
            If no cell was generated for a wanted condition.
        """
        cells = self.generated
        found = sorted(
            {Condition(p, c) for p, c in zip(cells.labels[cells.present], cells.cell_types[cells.present], strict=True)}
        )
        if wanted is None:
            return found
        chosen: list[Condition] = []
        for entry in [wanted] if isinstance(wanted, str) else wanted:
            name, cell_type = (entry, None) if isinstance(entry, str) else entry
            label = canonical_labels([name], control=self.keys.control, delimiter=self.keys.delimiter)[0]
            matches = [c for c in found if c.perturbation == label and cell_type in (None, c.cell_type)]
            if not matches:
                raise ValueError(
                    f"`conditions` names {entry!r}, for which {cells.origin} holds no generated cells."
                    + nearest_name(str(name), [c.perturbation for c in found])
                )
            chosen += matches
        return list(dict.fromkeys(chosen))

    def control_rows(self, cell_type: str) -> np.ndarray:
        """Find the training controls of a cell type.

        Raises
        ------
        ValueError
            If there is none.
        """
        if cell_type not in self._controls:
            rows = self.observed.rows(Condition(self.keys.control, cell_type))
            rows = rows[self.split[rows] == TRAIN]
            if not len(rows):
                raise ValueError(
                    f"There are no training control cells{f' of cell type {cell_type!r}' if cell_type else ''}. "
                    f"Every comparison starts from them: label some controls 'train' in "
                    f"`obs[{self.keys.split_key!r}]`, or leave this cell type out."
                )
            self._controls[cell_type] = rows
        return self._controls[cell_type]

    def source_rows(self, rows: np.ndarray, source_key: str) -> np.ndarray:
        """Find the observed cells from which generated cells came, -1 where that is unknown."""
        if source_key not in self.generated.obs:
            return np.full(len(rows), -1)
        return self.observed.names.get_indexer(np.asarray(self.generated.obs[source_key].astype(object))[rows])

    def observed_rows(self, condition: Condition) -> np.ndarray:
        """Find the observed cells to compare with: the `test` cells of a condition, or all if it has none."""
        rows = self.observed.rows(condition)
        test = rows[self.split[rows] == TEST]
        return test if len(test) else rows


def t_scores(group: np.ndarray, control: np.ndarray) -> np.ndarray:
    """Score the change of every gene by Welch's t, 0 where a gene does not vary, shape `(n_genes,)`."""
    with np.errstate(all="ignore"):
        change = group.mean(axis=0) - control.mean(axis=0)
        error = np.sqrt(group.var(axis=0, ddof=1) / len(group) + control.var(axis=0, ddof=1) / len(control))
        return np.where(error > 0, change / error, 0.0)


def store(adata: AnnData, **results: Any) -> None:
    """Write results under `uns["unlasting"]` in one step, leaving what else is there."""
    adata.uns[UNS_KEY] = {**adata.uns.get(UNS_KEY, {}), **results}


def sample(rows: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw at most `n` rows without replacement, in their old order."""
    return rows if len(rows) <= n else np.sort(rng.choice(rows, n, replace=False))


def named_genes(names: Sequence[str], genes: pd.Index, argument: str) -> np.ndarray:
    """Find the columns of named genes.

    Raises
    ------
    KeyError
        If a gene is not in the panel.
    """
    places = genes.get_indexer(list(names))
    if (places < 0).any():
        missing = [name for name, place in zip(names, places, strict=True) if place < 0]
        raise KeyError(
            f"`{argument}` names genes that the data do not hold: {missing[:5]}." + nearest_name(missing[0], genes)
        )
    return places


def _from_layer(adata: AnnData, observed: Cells, layer: str | None) -> Cells:
    if layer not in adata.layers:
        raise KeyError(
            f"`adata.layers` has no {layer!r} (it has {[name for name in adata.layers if name]}). Run `model.predict(adata)` first, name "
            "another `layer`, or pass generated cells as `predictions`."
        )
    matrix = adata.layers[layer]
    # `predict` fills a whole row or leaves it NaN: one gene tells
    first = matrix[:, [0]]
    first = first.toarray() if sparse.issparse(first) else np.asarray(first)
    return Cells(
        matrix=matrix,
        columns=observed.columns,
        names=adata.obs_names,
        labels=observed.labels,
        cell_types=observed.cell_types,
        obs=adata.obs,
        present=~np.isnan(first[:, 0]),
        origin=f"`adata.layers[{layer!r}]`",
    )


def _from_other(adata: AnnData, predictions: AnnData, keys: ScreenKeys) -> Cells:
    columns = predictions.var_names.get_indexer(adata.var_names)
    if (columns < 0).any():
        raise KeyError(
            f"`predictions` lacks {(columns < 0).sum()} of the {adata.n_vars} genes of `adata` "
            f"(for example {list(adata.var_names[columns < 0][:3])}). Both need the same genes; the order is free."
        )
    for argument in ("perturbation_key", "cell_type_key"):
        key = getattr(keys, argument)
        if key is not None and key not in predictions.obs:
            raise KeyError(f"`predictions.obs` has no column {key!r}, which `{argument}` names in `adata`.")
    return Cells(
        matrix=predictions.X,
        columns=columns,
        names=predictions.obs_names,
        labels=canonical_labels(
            keys.column(predictions, "perturbation_key"), control=keys.control, delimiter=keys.delimiter
        ),
        cell_types=keys.cell_types(predictions),
        obs=predictions.obs,
        present=np.ones(predictions.n_obs, dtype=bool),
        origin="`predictions`",
    )


def _refuse_counts(cells: Cells) -> None:
    head = cells.values(np.arange(min(500, len(cells.names))))
    if (head < 0).any():
        raise ValueError(
            f"{cells.origin} holds negative values. Log-normalised expression is needed; run `pp.prepare`."
        )
    if head.any() and (head == np.round(head)).all():
        raise ValueError(
            f"{cells.origin} holds whole numbers, which look like raw counts. Log-normalised expression is needed; "
            "run `pp.prepare`."
        )
