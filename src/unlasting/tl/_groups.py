"""Observed control, observed perturbed and generated cells of a screen, condition by condition."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from unlasting.screen import (
    TEST,
    TRAIN,
    UNS_KEY,
    Cells,
    Condition,
    MissingKeyError,
    Perturbation,
    ScreenKeys,
    canonical_labels,
    nearest_name,
)


@dataclass(frozen=True)
class Screen:
    """The observed cells of a screen.

    Parameters
    ----------
    keys
        Where the labels are.
    genes
        Names of the genes, shape `(n_genes,)`.
    observed
        The cells of the screen.
    split
        `train`, `val` or `test` of the observed cells; all `train` without a split column.
    """

    keys: ScreenKeys
    genes: pd.Index
    observed: Cells
    split: np.ndarray

    @classmethod
    def of(cls, adata: AnnData, **overrides: Any) -> Screen:
        """Read the cells of `adata`.

        Raises
        ------
        TypeError
            If `adata` is no AnnData.
        KeyError
            If a label column is missing.
        ValueError
            If `X` holds raw counts, or names are not unique.
        """
        if not isinstance(adata, AnnData):
            raise TypeError(f"`adata` is a {type(adata).__name__}; an AnnData is needed.")
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
        return Screen(
            keys=keys,
            genes=adata.var_names,
            observed=Cells.read(adata, keys),
            split=np.full(adata.n_obs, TRAIN, dtype=object) if split is None else split,
        )

    @cached_property
    def _controls(self) -> dict[str, np.ndarray]:
        """The training controls of each cell type."""
        found = {c.cell_type: self.part(c, TRAIN) for c in self.observed.conditions if self.is_control(c)}
        return {cell_type: rows for cell_type, rows in found.items() if len(rows)}

    def is_control(self, condition: Condition) -> bool:
        """Whether a condition is that of the control cells."""
        return condition.perturbation == self.keys.control

    def part(self, condition: Condition, part: str) -> np.ndarray:
        """Find the `train`, `val` or `test` cells of a condition."""
        rows = self.observed.rows(condition)
        return rows[self.split[rows] == part]

    def observed_conditions(self, wanted: Iterable[str | tuple[str, ...]] | None = None) -> list[Condition]:
        """List the conditions of the perturbed cells, or those of them that are `wanted`.

        Raises
        ------
        ValueError
            If there is none of a wanted name.
        """
        found = [condition for condition in self.observed.conditions if not self.is_control(condition)]
        return self._wanted(found, wanted, "`adata` holds no cells")

    def test_conditions(self) -> list[Condition]:
        """List the conditions with test cells.

        Raises
        ------
        ValueError
            If there are none.
        """
        found = [condition for condition in self.observed_conditions() if len(self.part(condition, TEST))]
        if not found:
            raise ValueError(
                f"No perturbed cell is labelled 'test' in `obs[{self.keys.split_key!r}]`, so there is nothing to judge a "
                "prediction by. Run `pp.split` (on the command line: `unlasting train --split unseen_perturbation`), or name "
                "another `split_key`."
            )
        return found

    def _wanted(
        self, found: list[Condition], wanted: Iterable[str | tuple[str, ...]] | None, lack: str
    ) -> list[Condition]:
        """Choose among conditions: a name stands for all cell types and doses, a pair for all doses."""
        if wanted is None:
            return found
        chosen: list[Condition] = []
        for entry in [wanted] if isinstance(wanted, str) else wanted:
            name, *rest = [entry] if isinstance(entry, str) else entry
            label = canonical_labels([name], **self.keys.grammar)[0]
            # a dose may be given as a number
            rest = [part if isinstance(part, str) else np.format_float_positional(part, trim="-") for part in rest]
            matches = [c for c in found if c[: 1 + len(rest)] == (label, *rest)]
            if not matches:
                raise ValueError(
                    f"`conditions` names {entry!r}, for which {lack}."
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
            raise ValueError(
                f"There are no training control cells{f' of cell type {cell_type!r}' if cell_type else ''}. "
                f"Every comparison starts from them: label some controls 'train' in "
                f"`obs[{self.keys.split_key!r}]`, or leave this cell type out."
            )
        return self._controls[cell_type]

    def observed_rows(self, condition: Condition) -> np.ndarray:
        """Find the observed cells to compare with: the `test` cells of a condition, or all if it has none."""
        test = self.part(condition, TEST)
        return test if len(test) else self.observed.rows(condition)


@dataclass(frozen=True)
class Groups(Screen):
    """A screen and the cells that were generated for it.

    Parameters
    ----------
    generated
        The generated cells, without those generated under the control label.
    """

    generated: Cells

    @classmethod
    def read(
        cls,
        adata: AnnData,
        *,
        layer: str | None,
        predictions: AnnData | None,
        allow_counts: bool = False,
        **overrides: Any,
    ) -> Groups:
        """Read the observed cells of `adata` and the generated ones of its layer or of `predictions`.

        Raises
        ------
        KeyError
            If the layer, a label column or genes of the screen are missing.
        ValueError
            If `X` holds raw counts, names are not unique, or there is no generated cell.
        """
        screen = Screen.of(adata, **overrides)
        if predictions is None:
            generated = _from_layer(adata, screen.observed, layer)
        else:
            generated = _from_other(adata, predictions, screen.keys)
        generated.present[generated.labels == screen.keys.control] = False
        if not generated.present.any():
            raise ValueError(f"{generated.origin} holds no generated cell under a perturbation. Run `model.predict`.")
        if not allow_counts:
            generated.check()
        return cls(screen.keys, screen.genes, screen.observed, screen.split, generated)

    def conditions(self, wanted: Iterable[str | tuple[str, ...]] | None = None) -> list[Condition]:
        """List the conditions with generated cells, or those of them that are `wanted`.

        Raises
        ------
        ValueError
            If no cell was generated for a wanted condition.
        """
        found = list(self.generated.conditions)
        return self._wanted(found, wanted, f"{self.generated.origin} holds no generated cells")

    def source_rows(self, rows: np.ndarray, source_key: str) -> np.ndarray:
        """Find the observed cells from which generated cells came, -1 where that is unknown."""
        if source_key not in self.generated.obs:
            return np.full(len(rows), -1)
        return self.observed.names.get_indexer(np.asarray(self.generated.obs[source_key].astype(object))[rows])


def store(adata: AnnData, **results: Any) -> None:
    """Write results under `uns["unlasting"]` in one step, leaving what else is there."""
    adata.uns[UNS_KEY] = {**adata.uns.get(UNS_KEY, {}), **results}


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
        raise MissingKeyError(
            f"`{argument}` names genes that the data do not hold: {missing[:5]}." + nearest_name(missing[0], genes)
        )
    return places


def _from_layer(adata: AnnData, observed: Cells, layer: str | None) -> Cells:
    if layer not in adata.layers:
        raise MissingKeyError(
            f"`adata.layers` has no {layer!r} (it has {[name for name in adata.layers if name]}). Run `model.predict(adata)` "
            "first (on the command line: `unlasting predict`), name another `layer`, or pass generated cells as `predictions`."
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
        doses=observed.doses,
        obs=adata.obs,
        present=~np.isnan(first[:, 0]),
        origin=f"`adata.layers[{layer!r}]`",
    )


def _from_other(adata: AnnData, predictions: AnnData, keys: ScreenKeys) -> Cells:
    if not isinstance(predictions, AnnData):
        raise TypeError(f"`predictions` is a {type(predictions).__name__}; an AnnData with generated cells is needed.")
    if not predictions.var_names.is_unique:
        repeated = predictions.var_names[predictions.var_names.duplicated()][0]
        raise ValueError(f"`predictions.var_names` holds {repeated!r} more than once. Make names unique.")
    columns = predictions.var_names.get_indexer(adata.var_names)
    if (columns < 0).any():
        raise MissingKeyError(
            f"`predictions` lacks {(columns < 0).sum()} of the {adata.n_vars} genes of `adata` "
            f"(for example {list(adata.var_names[columns < 0][:3])}). Both need the same genes; the order is free."
        )
    for argument in ("perturbation_key", "cell_type_key", "dose_key"):
        key = getattr(keys, argument)
        if key is not None and key not in predictions.obs:
            raise MissingKeyError(f"`predictions.obs` has no column {key!r}, which `{argument}` names in `adata`.")
    labels, doses = _written(adata, predictions, keys)
    return Cells(
        matrix=predictions.X,
        columns=columns,
        names=predictions.obs_names,
        labels=labels,
        cell_types=keys.cell_types(predictions),
        doses=doses,
        obs=predictions.obs,
        present=np.ones(predictions.n_obs, dtype=bool),
        origin="`predictions`",
    )


def _written(adata: AnnData, predictions: AnnData, keys: ScreenKeys) -> tuple[np.ndarray, np.ndarray]:
    """Get canonical labels and doses of generated cells; what is a drug, the screen knows."""
    drugs = None if keys.dose_key is None else keys.drugs(adata)
    labels = keys.column(predictions, "perturbation_key")
    doses = np.full(len(labels), None) if keys.dose_key is None else keys.column(predictions, "dose_key")
    cells = list(zip(labels, doses, strict=True))
    parsed = {cell: Perturbation.parse(*cell, **keys.grammar, drugs=drugs) for cell in dict.fromkeys(cells)}
    return (
        np.array([parsed[cell].label(**keys.grammar) for cell in cells], dtype=object),
        np.array([parsed[cell].dose_text() for cell in cells], dtype=object),
    )
