"""A screen's observed and generated cells, condition by condition."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData

from unlasting.screen import (
    PREDICTION_KEY,
    TEST,
    TRAIN,
    UNS_KEY,
    Cells,
    Condition,
    MissingKeyError,
    Perturbation,
    Scale,
    ScreenKeys,
    canonical_labels,
    check_cells,
    has_source,
    nearest_name,
)

if TYPE_CHECKING:
    from unlasting.model import UnlastingModel

BLOCK = 4096
"""Cells in a dense block."""


@dataclass(frozen=True)
class Screen:
    """A screen's observed cells, and the cells generated for it.

    `split` is `train`, `val` or `test` for each observed cell; all `train` without a split column. `cells` are the generated
    ones, without those under the control label. `source_key` names the column with each generated cell's control cell.
    """

    keys: ScreenKeys
    genes: pd.Index
    observed: Cells
    split: np.ndarray
    cells: Cells | None = None
    source_key: str = f"{PREDICTION_KEY}_source"

    @classmethod
    def read(
        cls,
        adata: AnnData,
        layer: str | None = None,
        predictions: AnnData | None = None,
        *,
        allow_counts: bool = False,
        **given: Any,
    ) -> Screen:
        """Read the observed cells, and the generated ones from a layer or from `predictions`."""
        check_cells(adata)
        keys = ScreenKeys.read(adata, **given)
        split = keys.split(adata)
        split = np.full(adata.n_obs, TRAIN, dtype=object) if split is None else split
        observed = Cells.read(adata, keys)
        if predictions is not None:
            cells, layer = _from_predictions(adata, predictions, keys), PREDICTION_KEY
        elif layer is not None:
            cells = _from_layer(adata, observed, layer)
        else:
            return cls(keys, adata.var_names, observed, split)
        cells.present[cells.labels == keys.control] = False
        if not cells.present.any():
            raise ValueError(
                f"{cells.origin} holds no generated cell under a perturbation. Run `model.predict(adata)`."
            )
        if not allow_counts:
            cells.check()
            scale = Scale.training_controls(adata, keys)
            if scale is not None:
                fix = "Give the cells the normalisation of `adata`."
                scale.check(cells.matrix, np.flatnonzero(cells.present), cells.origin, fix, predicted=True)
        return cls(keys, adata.var_names, observed, split, cells, f"{layer}_source")

    @property
    def generated(self) -> Cells:
        """The generated cells."""
        assert self.cells is not None, "no prediction was read"
        return self.cells

    def is_control(self, condition: Condition) -> bool:
        """Whether a condition is the control."""
        return condition.perturbation == self.keys.control

    def part(self, condition: Condition, part: str) -> np.ndarray:
        """Find a condition's `train`, `val` or `test` cells."""
        rows = self.observed.rows(condition)
        return rows[self.split[rows] == part]

    def observed_conditions(self, wanted: Iterable[str | tuple[str, ...]] | None = None) -> list[Condition]:
        """List the observed conditions, all or the `wanted` ones."""
        found = [condition for condition in self.observed.conditions if not self.is_control(condition)]
        return self._wanted(found, wanted, "`adata` holds no cells")

    def generated_conditions(self, wanted: Iterable[str | tuple[str, ...]] | None = None) -> list[Condition]:
        """List the conditions with generated cells, all or the `wanted` ones."""
        return self._wanted(
            list(self.generated.conditions), wanted, f"{self.generated.origin} holds no generated cells"
        )

    def test_conditions(self) -> list[Condition]:
        """List the conditions with test cells."""
        found = [condition for condition in self.observed_conditions() if len(self.part(condition, TEST))]
        if not found:
            raise ValueError(
                f"No perturbed cell is labelled 'test' in `obs[{self.keys.split_key!r}]`, so there is nothing to evaluate. "
                "Run `pp.split` (on the command line: `unlasting train --split unseen_perturbation`), or name another "
                "`split_key`."
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

    @cached_property
    def _controls(self) -> dict[str, np.ndarray]:
        """The training controls by cell type."""
        found = {c.cell_type: self.part(c, TRAIN) for c in self.observed.conditions if self.is_control(c)}
        return {cell_type: rows for cell_type, rows in found.items() if len(rows)}

    def control_rows(self, cell_type: str) -> np.ndarray:
        """Find a cell type's training controls."""
        if cell_type not in self._controls:
            raise ValueError(
                f"There are no training control cells{f' of cell type {cell_type!r}' if cell_type else ''}. "
                f"Every comparison starts from them: label some controls 'train' in "
                f"`obs[{self.keys.split_key!r}]`, or leave this cell type out."
            )
        return self._controls[cell_type]

    def compared_rows(self, condition: Condition) -> np.ndarray:
        """Find the observed cells for a comparison: the `test` cells, or all cells without a `test` cell."""
        test = self.part(condition, TEST)
        return test if len(test) else self.observed.rows(condition)

    def source_rows(self, rows: np.ndarray) -> np.ndarray:
        """Find the control cell behind each generated cell, -1 where unknown."""
        obs = self.generated.obs
        if self.source_key not in obs:
            return np.full(len(rows), -1)
        return self.observed.names.get_indexer(np.asarray(obs[self.source_key].astype(object))[rows])


def screen_of(model: UnlastingModel) -> AnnData:
    """Get the screen of a model, which holds its control cells."""
    if isinstance(model, AnnData):
        raise TypeError("`model` is an AnnData; pass the trained model.")
    if model.adata is None:
        raise ValueError("The model was loaded without its AnnData. Load it with `adata=...`, the screen.")
    return model.adata


def blocks(cells: Cells, rows: np.ndarray) -> Iterator[np.ndarray]:
    """Read rows as dense blocks, shape `(n_cells, n_genes)`."""
    for start in range(0, len(rows), BLOCK):
        yield cells.values(rows[start : start + BLOCK])


def store(adata: AnnData, **results: Any) -> None:
    """Write results under `uns["unlasting"]` in one step, next to earlier results."""
    adata.uns[UNS_KEY] = {**adata.uns.get(UNS_KEY, {}), **results}


def gene_positions(names: Sequence[str], genes: pd.Index, argument: str) -> np.ndarray:
    """Find columns by gene name."""
    positions = genes.get_indexer(list(names))
    if (positions < 0).any():
        missing = [name for name, position in zip(names, positions, strict=True) if position < 0]
        raise MissingKeyError(
            f"`{argument}` names genes outside the panel: {missing[:5]}.{nearest_name(missing[0], genes)} Choose among "
            "`adata.var_names`."
        )
    return positions


def _from_layer(adata: AnnData, observed: Cells, layer: str) -> Cells:
    if layer not in adata.layers:
        raise MissingKeyError(
            f"`adata.layers` has no {layer!r} (it has {[name for name in adata.layers if name]}). Run `model.predict(adata)` "
            "first (on the command line: `unlasting predict`), name another `layer`, or pass generated cells as `predictions`."
        )
    return replace(
        observed,
        matrix=adata.layers[layer],
        present=has_source(adata, layer),
        origin=f"`adata.layers[{layer!r}]`",
    )


def _from_predictions(adata: AnnData, predictions: AnnData, keys: ScreenKeys) -> Cells:
    if not isinstance(predictions, AnnData):
        raise TypeError(f"`predictions` is a {type(predictions).__name__}; pass an AnnData with generated cells.")
    if not predictions.var_names.is_unique:
        repeated = predictions.var_names[predictions.var_names.duplicated()][0]
        raise ValueError(
            f"The gene name {repeated!r} is repeated in `predictions`. Call `predictions.var_names_make_unique()`."
        )
    columns = predictions.var_names.get_indexer(adata.var_names)
    if (columns < 0).any():
        raise MissingKeyError(
            f"`predictions` lacks {(columns < 0).sum()} of the {adata.n_vars} genes of `adata` "
            f"(for example {list(adata.var_names[columns < 0][:3])}). Pass the same genes, in any order."
        )
    for argument in ("perturbation_key", "cell_type_key", "dose_key"):
        key = getattr(keys, argument)
        if key is not None and key not in predictions.obs:
            raise MissingKeyError(
                f"`predictions.obs` has no column {key!r}, the `{argument}` of `adata`. Add it to `predictions.obs`."
            )
    # the screen knows the drugs, also where `predictions` has no SMILES
    drugs = None if keys.dose_key is None else keys.drugs(adata)
    labels = keys.column(predictions, "perturbation_key")
    doses = np.full(len(labels), None)
    if keys.dose_key is not None:
        doses = keys.micromolar(keys.column(predictions, "dose_key"))
    pairs = list(zip(labels, doses, strict=True))
    parsed = {pair: Perturbation.parse(*pair, **keys.grammar, drugs=drugs) for pair in dict.fromkeys(pairs)}
    return Cells(
        matrix=predictions.X,
        columns=columns,
        names=predictions.obs_names,
        labels=np.array([parsed[pair].label(**keys.grammar) for pair in pairs], dtype=object),
        cell_types=keys.cell_types(predictions),
        doses=np.array([parsed[pair].dose_text() for pair in pairs], dtype=object),
        obs=predictions.obs,
        present=np.ones(predictions.n_obs, dtype=bool),
        origin="`predictions`",
    )
