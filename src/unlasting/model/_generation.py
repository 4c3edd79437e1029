"""New cells under any perturbation, in memory or streamed to a file, with a description of their origin."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from concurrent.futures import Executor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData
from scipy import sparse

from unlasting.effects import DRUG
from unlasting.model._base import Dose, seed_or_default, size_or_default
from unlasting.model._generator import Generator
from unlasting.model._mudata import modality_of
from unlasting.model._rows import RowsByCell, RowsByCondition
from unlasting.model._sources import SourceCells, draw, label_as_controls, typed_as
from unlasting.model._streaming import digest_of, require_executor, write_in_parts
from unlasting.model._trust import TrustMixin
from unlasting.screen import (
    PREDICTION_KEY,
    TEST,
    UNS_KEY,
    Condition,
    Perturbation,
    ScreenKeys,
    from_micromolar,
    is_in_memory,
    listed,
    logger,
    require_choices,
    require_integers,
    writable_table,
)


class GenerationMixin(TrustMixin):
    """`generate` and `predict`."""

    def generate(
        self,
        perturbations: str | Sequence[str],
        n_cells: int = 300,
        *,
        dose: Dose | Sequence[Dose] = None,
        cell_type: str | Sequence[str] | None = None,
        batch: str | int | None = None,
        controls: AnnData | MuData | None = None,
        path: str | Path | None = None,
        overwrite: bool = False,
        executor: Executor | None = None,
        batch_size: int | None = None,
        seed: int | None = 0,
        show_progress: bool = True,
    ) -> AnnData:
        """Generate new cells under perturbations, measured or not.

        Some generated cells do not respond, as in training: they equal the control cell that they started from.
        Where all training cells share one total, or hold integer counts, so do generated cells. Given `controls`
        without integer counts are an exception. Turn this off with `keep_total=False` and `integer_counts=False`.

        Parameters
        ----------
        perturbations
            Labels such as `A` or `A+B`.
        n_cells
            Cells for each perturbation and cell type.
        dose
            The drugs' dose in uM: a number, or text such as `1+0.5` in the label's order. One for all perturbations,
            one for each, or several for a single perturbation. Doses between and beyond trained ones are allowed.
            Gene targets and stimuli have none.
        cell_type
            Cell types to start from; all by default.
        batch
            Batch to take controls from; all by default.
        controls
            Control cells to start from, also from new cell types; the training controls by default.
        path
            An `.h5ad` file for cells that exceed memory. Parts go to the folder `<path>.parts`, and the file appears
            when all are complete. After a kill, repeat the call: it generates the missing parts only.
        overwrite
            Whether an existing file, or another call's parts, are replaced.
        executor
            Generates the parts in its workers, on one machine or several; needs `path`, in a folder that all workers
            share. Pass a `ProcessPoolExecutor`, Dask's `client.get_executor()` or an `MPIPoolExecutor`. By default,
            this process generates them.
        batch_size
            Cells in a chunk; it changes memory and speed only.
        seed
            Seed for sources and noise. The same seed gives the same cells on the CPU.
        show_progress
            Whether a progress bar is shown.

        Returns
        -------
        Log-normalised cells, `n_cells` for each perturbation and cell type; with `path`, backed by the file. `var` is that
        of the screen. `layers["counts"]` holds the cells as integer counts, if the screen has counts.
        `obs` holds perturbation, dose (in the unit of the screen), cell type and batch under the screen's keys and with its types, and

        - `unlasting_source`: name of the control cell.
        - `unlasting_replicate`: number of earlier cells from the same source.
        - `unlasting_expected_error`: expected normalised error; 0 is perfect, 1 no better than the control.
        - `unlasting_p_better`: probability to be nearer to the truth than the control is; .5 for the control itself.
        - `unlasting_dose_extrapolated`, where drugs have doses: whether a dose is outside the trained range.

        `uns["unlasting"]["generated"]` describes seed, preset, `target_sum` and unseen targets.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        ValueError
            If a target is unknown, none is named, a dose is missing or unreadable, a cell type has no control cells,
            `n_cells` is not positive, `path` does not end in `.h5ad`, or `executor` is given without it.
        TypeError
            If `executor` is no `concurrent.futures.Executor`.
        FileExistsError
            If `path` exists, or another call's parts, and `overwrite` is false.
        """
        self._require_trained()
        require_executor(executor, path)
        require_integers(1, n_cells=n_cells)
        asked = self._all_asked(perturbations, dose)
        for condition in asked:
            self.vocabulary.require_distinct(condition)  # refused now, not after hours
        _refuse_own_file(path, controls=controls, model_adata=self.adata)
        sources, given = self._sources_of(controls)
        rng = np.random.default_rng(seed_or_default(seed))
        drawn = [draw(rng, rows, n_cells) for rows in sources.rows_by_cell_type(cell_type, batch).values()]
        source, replicate = (np.concatenate(part) for part in zip(*drawn, strict=True))
        sources, source = self._restricted(sources, source)
        generator = self._generator(sources, asked[:1], seed, batch_size, show_progress and path is None)
        labels = np.array([p.label(**self.keys.grammar) for p in asked], dtype=object)
        by_condition, by_source = self._columns(asked, labels, sources, source, [self.adata, given])
        by_source[f"{PREDICTION_KEY}_replicate"] = replicate
        used, population = np.unique(sources.population[source], return_inverse=True)
        trust = self._trust([(p, row) for p in asked for row in used.tolist()], sources.populations)
        cells = RowsByCondition(
            generator=generator,
            genes=self.get_var_names(),
            layer=self._layer,
            source=source,
            replicate=replicate,
            conditions=asked,
            population=population.ravel(),
            by_condition=by_condition,
            by_source=by_source,
            trust=trust,
        )
        n_all = len(source) * len(asked)
        uns = self._uns(dataclasses.replace(self.keys, smiles_key=None), asked, seed_or_default(seed))
        if path is None:
            new = cells(range(n_all))
            new.var, new.uns = given.var.copy(), uns
            return new
        generator.keep_latents(source)
        request: dict[str, str | int] = {
            "model": self._digest(),
            "perturbations": digest_of(*(f"{p.label(**self.keys.grammar)}\0{p.dose_text()}" for p in asked)),
            "controls": digest_of(sources.digest(), source),
            "n_cells": n_cells,
            "seed": seed_or_default(seed),
            "precision": generator.precision,  # devices and threads change the last bits only
        }
        return write_in_parts(path, cells, n_all, given.var, uns, request, overwrite, show_progress, executor)

    def predict(
        self,
        adata: AnnData | MuData | None = None,
        perturbation: str | None = None,
        dose: Dose = None,
        *,
        cells: str = TEST,
        key_added: str = PREDICTION_KEY,
        indices: Sequence[int] | None = None,
        path: str | Path | None = None,
        overwrite: bool = False,
        executor: Executor | None = None,
        batch_size: int | None = None,
        seed: int | None = None,
        show_progress: bool = True,
        copy: bool = False,
    ) -> AnnData | MuData | None:
        """Generate one cell beside each held-out cell, or beside each given control.

        Without `perturbation`, each cell gets a generated cell under its own label. It starts from a training control
        with its cell type and batch, drawn with the seed; a control is its own source. With `perturbation`, all cells
        must be controls, and get their counterfactuals.

        Where some trained cells did not respond to a perturbation, as large a share of generated cells comes back
        unchanged. Turn this off with `use_responders=False` when the model is made.

        Parameters
        ----------
        adata
            Cells with the model's genes; by default those in its own screen.
        perturbation
            The perturbation for the given control cells: `A`, `A+B`, or the control label.
        dose
            Its drugs' dose in uM: a number, or text such as `1+0.5` in the label's order.
        cells
            `test`: perturbed cells labelled `test`, or all perturbed cells without this label. `all`: every cell. With
            `perturbation`, every given control.
        key_added
            Name of the layer.
        indices
            Rows to predict, in place of `cells`.
        path
            An `.h5ad` file for a layer that exceeds memory, written in parts as by :meth:`generate`.
        overwrite
            Whether an existing file, or another call's parts, are replaced.
        executor
            Generates the parts in its workers, as in :meth:`generate`; needs `path`.
        batch_size
            Cells in a chunk; it changes memory and speed only.
        seed
            Seed for sources and noise. The same seed gives the same cells on the CPU.
        show_progress
            Whether a progress bar is shown.
        copy
            Whether a copy is returned, and `adata` left unchanged.

        Returns
        -------
        With `path` the generated cells with the `obs` and `var` columns of `adata` and with their counts, backed by the
        file; `adata` stays unchanged. Otherwise `None`, or the copy with `copy=True`. Updates the following fields (in a
        MuData: of its expression modality):

        - `adata.layers[key_added]`: log-normalised cells on the input's scale, CSR, shape `(n_cells, n_genes)`. Rows of
          other cells are empty.
        - `adata.obs[key_added + "_source"]`: name of each cell's source; `""` for other cells.
        - `adata.obs[key_added + "_expected_error"]`, `adata.obs[key_added + "_p_better"]`: trust in each cell's prediction,
          as in :meth:`generate`; missing for other cells.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        ValueError
            If genes are missing or in another order, a perturbation is unknown, a dose is missing or unreadable,
            `perturbation` is given for cells other than controls, no cell is perturbed, `path` does not end in
            `.h5ad` or is the file behind cells that are read, or `executor` is given without it.
        TypeError
            If `executor` is no `concurrent.futures.Executor`.
        IndexError
            If `indices` are out of range.
        FileExistsError
            If `path` exists, or another call's parts, and `overwrite` is false.
        """
        self._require_trained()
        require_executor(executor, path)
        given = self.adata if adata is None else adata
        if copy and path is None and given is not None:
            if isinstance(given, AnnData) and not is_in_memory(given.X):
                raise ValueError(
                    "`copy=True` needs cells in memory, and these are on disk. Pass `path=` to write generated cells to a "
                    "file and leave `adata` unchanged, or read the cells first: `adata.to_memory()`."
                )
            given = given.copy()
        adata = self._resolve(given)
        _refuse_own_file(path, adata=adata, model_adata=self.adata)
        if perturbation is not None:
            label_as_controls(adata, self.keys)
        elif dose is not None:
            raise ValueError(
                f"`dose` is {dose!r} without `perturbation`: each cell has its own dose then. Give `perturbation` too."
            )
        found = self._perturbations(adata)
        chosen = self._chosen(adata, found, "all" if perturbation is not None else cells, indices)
        if perturbation is None:
            sources, source, replicate = self._pair(adata, seed_or_default(seed))
            source, replicate = source[chosen], replicate[chosen]
            wanted = found[chosen]
        else:
            self._require_controls(found[chosen], "adata")
            sources = self._as_sources(adata, chosen)
            source, replicate = np.arange(len(chosen)), np.zeros(len(chosen), dtype=int)
            wanted = np.full(len(chosen), self._asked(perturbation, dose), dtype=object)
        sources, source = self._restricted(sources, source)
        conditions, condition = self._conditions_of(wanted)
        generator = self._generator(sources, conditions, seed, batch_size, show_progress and path is None)
        pairs, pair = np.unique(np.stack([condition, sources.population[source]]), axis=1, return_inverse=True)
        trust = self._trust([(conditions[row], int(place)) for row, place in pairs.T], sources.populations)
        trust = trust.iloc[pair.ravel()].rename(columns=lambda name: name.replace(PREDICTION_KEY, key_added, 1))
        if path is not None:
            obs = writable_table(adata.obs.iloc[chosen], "obs", []).copy()
            obs[f"{key_added}_source"] = pd.Categorical(sources.names[source])
            for name, values in trust.items():
                obs[name] = values.to_numpy()
            AnnData(obs=obs).strings_to_categoricals(obs)  # of all cells: the parts must have the same categories
            rows = RowsByCell(
                generator=generator,
                genes=self.get_var_names(),
                layer=self._layer,
                source=source,
                replicate=replicate,
                condition=condition,
                obs=obs,
            )
            asked = list(dict.fromkeys(wanted))
            request: dict[str, str | int] = {
                "model": self._digest(),
                "perturbations": digest_of(*map(self._write, asked), condition),
                "obs": digest_of(*obs.columns, pd.util.hash_pandas_object(obs).to_numpy()),
                "controls": digest_of(sources.digest(), source, replicate),
                "seed": seed_or_default(seed),
                "precision": generator.precision,
            }
            uns = self._uns(self.keys, asked, seed_or_default(seed))
            return write_in_parts(path, rows, len(chosen), adata.var, uns, request, overwrite, show_progress, executor)
        written = modality_of(given, self._modalities) if isinstance(given, MuData) else adata
        written.layers[key_added] = _in_rows(generator(source, replicate, condition).expression, chosen, adata.n_obs)
        names = np.full(adata.n_obs, "", dtype=object)
        names[chosen] = sources.names[source]
        written.obs[f"{key_added}_source"] = pd.Categorical(names)
        for name, values in trust.items():
            written.obs[name] = np.full(adata.n_obs, np.nan)
            written.obs.iloc[chosen, written.obs.columns.get_loc(name)] = values.to_numpy()
        return given if copy else None

    def _chosen(self, adata: AnnData, found: np.ndarray, cells: str, indices: Sequence[int] | None) -> np.ndarray:
        """Find the rows to predict."""
        require_choices((TEST, "all"), cells=cells)
        rows = np.arange(adata.n_obs)
        if indices is not None:
            try:
                rows = rows[np.asarray(indices, dtype=None if len(indices) else int)]
            except IndexError as error:
                raise IndexError(
                    f"`indices` do not fit the {adata.n_obs} cells of `adata` ({error}). Give row numbers below "
                    f"{adata.n_obs}, or leave it out for all."
                ) from error
            if not len(rows):
                raise IndexError("`indices` is empty; name at least one cell, or leave it out for all.")
            return rows
        if cells == "all":
            return rows
        is_perturbed, split = np.array([not p.is_control for p in found]), self.keys.split(adata)
        if not is_perturbed.any():
            raise ValueError(
                f"`adata` holds only controls ({self.keys.control_text}). Name a `perturbation` for them, or pass "
                "`cells='all'` for each under its own label."
            )
        is_test = is_perturbed if split is None else is_perturbed & (split == TEST)
        return np.flatnonzero(is_test if is_test.any() else is_perturbed)

    # -- the generator

    def _conditions_of(self, perturbations: np.ndarray) -> tuple[list[Perturbation], np.ndarray]:
        """Get the distinct perturbations, and each cell's row in them."""
        row: dict[Perturbation, int] = {}
        codes = np.array([row.setdefault(p, len(row)) for p in perturbations], dtype=int)
        self.vocabulary.require_known(list(row), **self.keys.grammar)
        return list(row), codes

    def _restricted(self, sources: SourceCells, source: np.ndarray) -> tuple[SourceCells, np.ndarray]:
        """Drop cells that no generated cell depends on; the published mask rate depends on controls of the population."""
        preset = self.module.preset
        return sources.restrict(source, 0 if preset.mask_rule == "bridge" else preset.n_mask_controls)

    def _generator(
        self,
        sources: SourceCells,
        perturbations: Sequence[Perturbation],
        seed: int | None,
        batch_size: int | None,
        show_progress: bool,
    ) -> Generator:
        return Generator(
            self.module,
            sources,
            perturbations,
            seed=seed_or_default(seed),
            batch_size=size_or_default(batch_size),
            show_progress=show_progress,
        )

    # -- the description of generated cells

    def _columns(
        self,
        asked: Sequence[Perturbation],
        labels: np.ndarray,
        sources: SourceCells,
        source: np.ndarray,
        screens: Sequence[AnnData | None],
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Get `obs` columns by condition and by source cell, with the types in the first screen."""
        tables = [screen.obs for screen in screens if screen is not None]

        def typed(values: np.ndarray, key: str) -> Any:
            return typed_as(values, *(table[key] for table in tables if key in table))

        by_condition = {self.keys.perturbation_key: typed(labels, self.keys.perturbation_key)}
        if self.keys.dose_key is not None:
            unit, is_extrapolated = self.keys.dose_unit or "uM", self._is_extrapolated(asked)
            is_number = all(
                pd.api.types.is_numeric_dtype(table[self.keys.dose_key])
                for table in tables
                if self.keys.dose_key in table
            )
            by_condition[self.keys.dose_key] = _dose_column(asked, unit, is_number)
            by_condition[f"{PREDICTION_KEY}_dose_extrapolated"] = is_extrapolated
            if is_extrapolated.any() and unit != "uM":
                logger.warning(
                    "generate: %s: outside of the trained range. `dose` is in uM, whatever the unit of the screen (%s): write such "
                    "as `dose='100 nM'` for another unit.",
                    listed(self._write(p) for p, far in zip(asked, is_extrapolated, strict=True) if far),
                    unit,
                )
        by_source = {f"{PREDICTION_KEY}_source": pd.Categorical(sources.names[source])}
        for key, names in ((self.keys.cell_type_key, sources.cell_type), (self.keys.batch_key, sources.batch)):
            if key is not None:
                by_source[key] = typed(names[source], key)
        return pd.DataFrame(by_condition), pd.DataFrame(by_source)

    def _is_extrapolated(self, perturbations: Sequence[Perturbation]) -> np.ndarray:
        """Whether a dose is outside the trained range, that of all drugs for an untrained drug, `(n,)`."""
        trained: dict[str, list[float]] = {}
        for perturbation in self.vocabulary.trained_conditions:
            for smiles, dose in self._doses(perturbation):
                trained.setdefault(smiles, []).append(dose)
        every = [dose for doses in trained.values() for dose in doses]

        def outside(smiles: str, dose: float) -> bool:
            doses = trained.get(smiles, every)
            return not doses or not min(doses) <= dose <= max(doses)

        return np.array([any(outside(*one) for one in self._doses(p)) for p in perturbations])

    def _doses(self, perturbation: Perturbation) -> list[tuple[str, float]]:
        """Get canonical SMILES and dose of each drug with a dose."""
        named = ((self.vocabulary.target(n), d) for n, d in zip(perturbation.targets, perturbation.doses, strict=True))
        return [(smiles, dose) for (kind, smiles), dose in named if kind == DRUG and dose is not None]

    def _uns(self, keys: ScreenKeys, perturbations: Sequence[Perturbation], seed: int) -> dict[str, Any]:
        """Get `uns` for generated cells: their keys, and seed, preset and unseen targets."""
        trained_targets, named = set(self.vocabulary.trained_targets), self.vocabulary.named
        trained = {named(p) for p in [*self.vocabulary.trained_conditions, Perturbation()]}
        names = {name for p in perturbations for name in p.targets}
        unseen = [p for p in perturbations if named(p) not in trained]
        target_sum = self.preparation_.get("target_sum", float(self.module.statistics.total))
        described = AnnData()
        keys.write(described)
        described.uns[UNS_KEY]["generated"] = {
            "version": version("unlasting"),
            "seed": seed,
            "preset": self._preset_name,
            "solver": self.preset.solver,
            "n_steps": self.preset.n_steps,
            "x_max": float(self.module.statistics.x_max),
            "scale": "log-normalised, as the training cells",
            **({"target_sum": target_sum} if target_sum else {}),
            "unseen_targets": np.array(
                sorted(name for name in names if self.vocabulary.target(name) not in trained_targets), dtype=str
            ),
            "unseen_conditions": np.array(sorted(map(self._write, unseen)), dtype=str),
        }
        return dict(described.uns)

    def _digest(self) -> str:
        """Fingerprint the model's options and weights."""
        weights = (tensor.detach().cpu().numpy() for _, tensor in sorted(self.module.state_dict().items()))
        return digest_of(repr(self.preset), *weights, *self.effects_model.state().values())

    def _write(self, perturbation: Perturbation) -> str:
        """Write a condition with its dose."""
        return str(Condition(perturbation.label(**self.keys.grammar), dose=perturbation.dose_text()))


def _refuse_own_file(path: str | Path | None, **screens: AnnData | MuData | None) -> None:
    """Refuse to write over a file behind cells that are read."""
    for name, screen in screens.items():
        if path is None or screen is None or not screen.isbacked:
            continue
        if Path(screen.filename).resolve() == Path(path).resolve():
            raise ValueError(
                f"`path` is {os.fspath(path)!r}, the file behind `{name.replace('_', '.')}`. Name another."
            )


def _in_rows(cells: sparse.csr_matrix, rows: np.ndarray, n_rows: int) -> sparse.csr_matrix:
    """Put cells into their rows of an otherwise empty matrix."""
    place = np.full(n_rows, len(rows))
    place[rows] = np.arange(len(rows))
    return sparse.vstack([cells, sparse.csr_matrix((1, cells.shape[1]), dtype=cells.dtype)], format="csr")[place]


def _dose_column(perturbations: Sequence[Perturbation], unit: str, is_number: bool) -> np.ndarray | pd.Categorical:
    """Write doses as numbers in the screen's unit, NaN for none; as text like in the screen, or for several in a cell."""
    doses = [[np.nan if dose is None else from_micromolar(dose, unit) for dose in p.doses] for p in perturbations]
    if is_number and not any("+" in p.dose_text() for p in perturbations):
        return np.array([next((dose for dose in several if dose == dose), np.nan) for several in doses], dtype=float)
    texts = [
        ["" if dose != dose else np.format_float_positional(dose, 6, fractional=False, trim="-") for dose in several]
        for several in doses
    ]
    # a gene target alone, or a single drug, has no part for other targets
    joined = [
        "+".join(parts) if "+" in p.dose_text() else "".join(parts)
        for p, parts in zip(perturbations, texts, strict=True)
    ]
    return pd.Categorical([text or None for text in joined])
