"""Which control cells a prediction starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from unlasting.data import POPULATION, SPLIT
from unlasting.effects import ControlPopulations
from unlasting.model._base import ModelBase
from unlasting.model._streaming import digest_of
from unlasting.screen import (
    TEST,
    ScreenKeys,
    counts_per_unit,
    expression,
    find_screen_counts,
    listed,
    logger,
    nearest_name,
)


@dataclass(frozen=True)
class SourceCells:
    """Cells to start from.

    Parameters
    ----------
    matrix
        Log-normalised values, shape `(n_sources, n_genes)`.
    names
        Names, which seed the random numbers of the cells made from them, shape `(n_sources,)`.
    cell_type, batch
        What they are, shape `(n_sources,)`.
    population
        Row of `populations` for every cell, shape `(n_sources,)`.
    populations
        What is known of their cell types and batches.
    counts_per_unit
        Counts that one unit of normalised expression is, shape `(n_sources,)`; `None` without counts.
    """

    matrix: Any
    names: np.ndarray
    cell_type: np.ndarray
    batch: np.ndarray
    population: np.ndarray
    populations: ControlPopulations
    counts_per_unit: np.ndarray | None

    def __len__(self) -> int:
        return len(self.names)

    def followed_by(self, others: SourceCells) -> SourceCells:
        """Append other cells."""
        per_unit = [cells.counts_per_unit for cells in (self, others) if cells.counts_per_unit is not None]
        return SourceCells(
            matrix=sparse.vstack([self.matrix, others.matrix], format="csr"),
            names=np.concatenate([self.names, others.names]),
            cell_type=np.concatenate([self.cell_type, others.cell_type]),
            batch=np.concatenate([self.batch, others.batch]),
            population=np.concatenate([self.population, others.population + len(self.populations)]),
            populations=ControlPopulations.concatenate([self.populations, others.populations]),
            counts_per_unit=np.concatenate(per_unit) if len(per_unit) == 2 else None,
        )

    def restrict(self, rows: np.ndarray, n_first: int) -> tuple[SourceCells, np.ndarray]:
        """Keep some cells and the first `n_first` of each population, in order; also get the new place of `rows`."""
        is_kept = np.zeros(len(self), dtype=bool)
        is_kept[rows] = True
        for population in np.unique(self.population[rows]):
            is_kept[np.flatnonzero(self.population == population)[:n_first]] = True
        kept = SourceCells(
            matrix=self.matrix[is_kept],
            names=self.names[is_kept],
            cell_type=self.cell_type[is_kept],
            batch=self.batch[is_kept],
            population=self.population[is_kept],
            populations=self.populations,
            counts_per_unit=None if self.counts_per_unit is None else self.counts_per_unit[is_kept],
        )
        return kept, (np.cumsum(is_kept) - 1)[rows]

    def digest(self) -> str:
        """Fingerprint the cells and the statistics of their populations."""
        matrix = self.matrix
        populations = (getattr(self.populations, f.name).cpu().numpy() for f in fields(self.populations))
        per_unit = [] if self.counts_per_unit is None else [self.counts_per_unit]
        return digest_of(
            *map(str, self.names),
            *per_unit,
            matrix.indptr,
            matrix.indices,
            matrix.data,
            self.population,
            *populations,
        )

    def rows_by_cell_type(
        self, cell_type: str | Sequence[str] | None, batch: str | int | None
    ) -> dict[str, np.ndarray]:
        """Get the rows of the cell types asked for."""
        have = sorted(set(self.cell_type))
        wanted = have if cell_type is None else [cell_type] if isinstance(cell_type, str) else list(cell_type)
        if not wanted:
            raise ValueError(f"`cell_type` is empty; name at least one of {have}, or leave it out for all.")
        rows = {}
        for name in map(str, wanted):
            chosen = (self.cell_type == name) & ((batch is None) | (self.batch == str(batch)))
            if not chosen.any():
                hint, missing = nearest_name(name, have), f"`cell_type={name!r}` to start from (cell types: {have})"
                if name in have:
                    batches = sorted(set(self.batch[self.cell_type == name]))
                    hint, missing = nearest_name(str(batch), batches), f"`batch={batch!r}` to start from"
                    missing += f" in `cell_type={name!r}`" * bool(name) + f" (batches: {batches})"
                raise ValueError(f"There are no control cells of {missing}.{hint} Give some as `controls`.")
            rows[name] = np.flatnonzero(chosen)
        return rows


def typed_as(values: np.ndarray, *columns: pd.Series) -> pd.Series | pd.Categorical:
    """Give names the type that they have in the first column, text as categories; others may add names, `(n_cells,)`."""
    known = {str(value): value for column in reversed(columns) for value in column.dropna().unique()}
    named = pd.Series(values, dtype=object).map(lambda name: known.get(name, name))
    if named.map(type).eq(str).nunique() > 1:
        named = named.astype(str)  # a file holds no categories of two types
    dtype = columns[0].dtype
    if isinstance(dtype, pd.CategoricalDtype):
        is_known = named.isin(dtype.categories).all()
        return pd.Categorical(named, dtype=dtype if is_known else None).remove_unused_categories()
    is_text = named.map(type).eq(str).any()
    return pd.Categorical(named) if is_text else named.astype(dtype)


def draw(rng: np.random.Generator, rows: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw n of the rows, none a second time before all were drawn, and count how often each came before."""
    rounds = -(-n // len(rows))
    drawn = np.concatenate([rng.permutation(rows) for _ in range(rounds)])[:n]
    return drawn, np.repeat(np.arange(rounds), len(rows))[:n]


def label_as_controls(adata: AnnData, keys: ScreenKeys) -> None:
    """Label cells without any label as controls, and log it.

    Raises
    ------
    ValueError
        If another column seems to hold the labels.
    """
    key = keys.perturbation_key
    if key not in adata.obs:
        others = [name for name in adata.obs if (adata.obs[name].astype(str) == keys.control).any()]
        if others:
            raise ValueError(
                f"The new cells have no column {key!r}, but {others[0]!r} holds the control label {keys.control!r}. If it has "
                f"the labels, rename it: `adata.obs = adata.obs.rename(columns={{{others[0]!r}: {key!r}}})`."
            )
        logger.warning(
            "The new cells have no column %r, and are taken as controls. If they are perturbed, label them first: "
            "`adata.obs[%r] = ...`.",
            key,
            key,
        )
        adata.obs[key] = pd.Categorical([keys.control] * adata.n_obs)


class SourcesMixin(ModelBase):
    """Find the cells that a prediction starts from."""

    def _perturbations(self, adata: AnnData) -> np.ndarray:
        """Get the perturbation of every cell, shape `(n_cells,)`; given cells need not hold a control."""
        return self.keys.perturbations(adata)

    def _is_control(self, adata: AnnData) -> np.ndarray:
        """Whether every cell is unperturbed, shape `(n_cells,)`."""
        return np.array([p.is_control for p in self._perturbations(adata)], dtype=bool)

    def _as_sources(self, adata: AnnData, rows: np.ndarray) -> SourceCells:
        """Take cells as sources; populations that the model does not know are fitted from their own control cells."""
        cell_type, batch = self.keys.cell_types(adata), self.keys.batches(adata)
        self.effects_model  # noqa: B018  fitted on first use
        state, known = self._state(POPULATION), self.module.populations()
        place = {pair: i for i, pair in enumerate(zip(state["cell_types"], state["batches"], strict=True))}
        new = sorted({(cell_type[row], batch[row]) for row in rows} - set(place))
        populations = ControlPopulations.concatenate([known, *(self._fit_population(adata, *pair) for pair in new)])
        place |= {pair: len(known) + i for i, pair in enumerate(new)}
        matrix, counts = expression(adata, self._layer)[rows], find_screen_counts(adata)
        return SourceCells(
            matrix=sparse.csr_matrix(matrix, dtype=np.float32),
            names=np.asarray(adata.obs_names, dtype=object)[rows],
            cell_type=cell_type[rows],
            batch=batch[rows],
            population=np.array([place[cell_type[row], batch[row]] for row in rows], dtype=int),
            populations=populations,
            counts_per_unit=None
            if counts is None
            else counts_per_unit(sparse.csr_array(counts[rows], dtype=np.float64), matrix),
        )

    def _fit_population(self, adata: AnnData, cell_type: str, batch: str) -> ControlPopulations:
        """Fit a cell type or batch that was not trained from the control cells given, as one population."""
        trained = self._state(POPULATION)["cell_types"]
        if self.preset.denoiser.cell_type_index and cell_type not in trained:
            raise ValueError(
                f"The cell type {cell_type!r} was not trained, and `preset='paper'` knows cell types by index only "
                f"({sorted(set(trained))}). The default preset takes a new cell type from its control cells."
            )
        chosen = (
            self._is_control(adata) & (self.keys.cell_types(adata) == cell_type) & (self.keys.batches(adata) == batch)
        )
        if not chosen.any():
            raise ValueError(
                f"The cell type {cell_type!r} (batch {batch!r}) was not trained, and no control cells of it are given. "
                "Every prediction starts from controls: add some."
            )
        if self.keys.cell_type_key is not None and cell_type not in trained:
            logger.warning(
                "The cell type %r was not trained (trained: %s), and is represented by its controls. If it is one of these, "
                "rename it in `adata.obs[%r]`.",
                cell_type,
                listed(sorted(set(trained))),
                self.keys.cell_type_key,
            )
        index = {name: int(self.module.cell_type[i]) for i, name in enumerate(trained)}
        population = ControlPopulations.fit(
            expression(adata, self._layer)[np.flatnonzero(chosen)],
            cell_type=index.get(cell_type, -1),
            x_max=float(self.module.statistics.x_max),
        )
        return population.to(self.module.device)

    def _training_controls(self) -> SourceCells:
        """Get the control cells of the training data."""
        if self.adata is None:
            raise ValueError("The model was loaded without an AnnData: give the control cells to start from.")
        in_training = np.asarray(self.adata_manager.get_from_registry(SPLIT)).ravel() == 0
        is_control = self._is_control(self.adata)
        if not (in_training & is_control).any():
            logger.warning(
                "No control is labelled 'train' in `adata.obs[%r]`, so predictions start from all controls of the loaded cells. "
                "Give others as `controls` if you have them.",
                self.keys.split_key,
            )
            in_training = is_control
        return self._as_sources(self.adata, np.flatnonzero(in_training & is_control))

    def _pair(self, adata: AnnData, seed: int) -> tuple[SourceCells, np.ndarray, np.ndarray]:
        """Find the source of every cell: itself for a control, else a training control of its cell type and batch.

        Returns
        -------
        The sources, the row of the source of every cell, and how many cells came from it before.
        """
        own_rows = np.flatnonzero(self._is_control(adata))
        sources = self._as_sources(adata, own_rows)
        if adata is self.adata:
            usable = np.asarray(self.adata_manager.get_from_registry(SPLIT)).ravel()[own_rows] == 0
        elif self.adata is not None:
            usable = np.concatenate([np.zeros(len(sources), bool), np.ones(len(self._training_controls()), bool)])
            sources = sources.followed_by(self._training_controls())
        else:
            split = self.keys.split(adata)
            usable = np.ones(len(sources), bool) if split is None else split[own_rows] != TEST
        source, replicate = np.full(adata.n_obs, -1), np.zeros(adata.n_obs, dtype=int)
        source[own_rows] = np.arange(len(own_rows))
        rng = np.random.default_rng(seed)
        pairs = np.column_stack([self.keys.cell_types(adata), self.keys.batches(adata)])
        for cell_type, batch in sorted(set(map(tuple, pairs[source < 0]))):
            cells = np.flatnonzero((source < 0) & (pairs[:, 0] == cell_type) & (pairs[:, 1] == batch))
            candidates = np.flatnonzero(usable & (sources.cell_type == cell_type) & (sources.batch == batch))
            if not len(candidates):  # a cell type that was not trained: its own controls
                candidates = np.flatnonzero((sources.cell_type == cell_type) & (sources.batch == batch))
            if not len(candidates):
                raise ValueError(
                    f"There are no control cells of cell type {cell_type!r} (batch {batch!r}) to start from. Add some."
                )
            source[cells], replicate[cells] = draw(rng, candidates, len(cells))
        return sources, source, replicate
