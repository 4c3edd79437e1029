"""Generation of new cells, in memory or part by part into a file."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

from unlasting.model._base import Dose
from unlasting.model._parts import digest_of, write_in_parts
from unlasting.model._prediction import PredictionMixin, seed_or_default
from unlasting.model._sources import draw
from unlasting.screen import PREDICTION_KEY, Perturbation, listed, logger, require_integers

_CONDITIONS_AT_ONCE = 256
_LITTLE_SUPPORT = 0.25


class GenerationMixin(PredictionMixin):
    """`generate`."""

    def generate(
        self,
        perturbations: str | Sequence[str],
        n_cells: int = 300,
        *,
        dose: Dose | Sequence[Dose] = None,
        cell_type: str | Sequence[str] | None = None,
        batch: str | None = None,
        controls: AnnData | MuData | None = None,
        path: str | Path | None = None,
        overwrite: bool = False,
        batch_size: int | None = None,
        seed: int | None = 0,
        show_progress: bool = True,
    ) -> AnnData:
        """Generate new cells under perturbations, measured or not.

        As in training, some cells may escape a perturbation: they come out as the control cell that they started from.
        Where all training cells have the same total, or integer counts, generated cells do, but for those that start from
        given `controls` without integer counts (`keep_total=False` and `integer_counts=False` of the model leave it).

        Parameters
        ----------
        perturbations
            Labels such as `A` or `A+B`.
        n_cells
            Cells for each perturbation and cell type.
        dose
            The dose of the drugs in uM: a number, or text such as `1+0.5` in the order of the drugs. One for all
            perturbations, one for each, or several for a single perturbation. Doses between and beyond those trained
            are allowed; gene targets and stimuli have none.
        cell_type
            Cell types to start from; all by default.
        batch
            Batch of the controls to start from; all by default.
        controls
            Control cells to start from, of any cell type; the training controls by default.
        path
            An `.h5ad` file for cells that would not fit into memory. They are written in parts to the folder
            `<path>.parts`; the file appears when all are there. The same call after a kill goes on with the parts that
            are missing.
        overwrite
            Whether an existing file, or the parts of another call, are replaced.
        batch_size
            Cells in a chunk; it changes memory and speed only.
        seed
            Seed of sources and noise. The same seed gives the same cells on the CPU.
        show_progress
            Whether a progress bar is shown.

        Returns
        -------
        Log-normalised cells, `n_cells` for each perturbation and cell type; with `path`, backed by the file. `obs` has
        the perturbation, dose, cell type and batch under the keys of the screen, `unlasting_source` (the control cell),
        `unlasting_replicate` (how many cells came from it before), `unlasting_support` (how far its effects follow from
        those of the trained conditions, in [0, 1]: 1 for the control and trained conditions, 0 where nothing particular
        is known of its targets) and, where drugs have doses, `unlasting_dose_extrapolated` (whether a dose is outside of
        those trained). `uns["unlasting"]` says how the cells were made.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        ValueError
            If nothing is known of a target, none is named, a dose is missing or cannot be read, a cell type has no
            control cells, `n_cells` is not positive, or `path` does not end in `.h5ad`.
        FileExistsError
            If `path` exists, or holds parts of another call, and `overwrite` is false.
        """
        self._require_trained()
        require_integers(1, n_cells=n_cells)
        asked = self._all_asked(perturbations, dose)
        parts = [asked[i : i + _CONDITIONS_AT_ONCE] for i in range(0, len(asked), _CONDITIONS_AT_ONCE)]
        support = np.concatenate([self._support(self._tensors(part)) for part in parts])  # refused now, not after hours
        if controls is None:
            sources = self._training_controls()
        else:
            controls = self._resolve(controls, "controls")
            self._require_controls(self._perturbations(controls), "controls")
            sources = self._as_sources(controls, np.arange(controls.n_obs))
        of_types = sources.rows_by_cell_type(cell_type, batch).values()
        rng = np.random.default_rng(seed_or_default(seed))
        drawn = [draw(rng, of_type, n_cells) for of_type in of_types]
        source, replicate = (np.concatenate([pair[which] for pair in drawn]) for which in (0, 1))
        show_chunks = show_progress and path is None
        carrier = self._carrier(sources, self._tensors(asked[:1]), seed, batch_size, show_chunks)
        labels = np.array([p.label(**self.keys.grammar) for p in asked], dtype=object)
        doses, is_extrapolated = _dose_column(asked), self._is_extrapolated(asked)
        little = labels[support < _LITTLE_SUPPORT]
        if len(little):
            logger.info(
                "generate: training tells little of %s (`obs['%s_support']` is below %g).",
                listed(little),
                PREDICTION_KEY,
                _LITTLE_SUPPORT,
            )

        def cells(rows: range) -> AnnData:
            """Generate some rows of the result, in which all cells of a perturbation follow each other."""
            which, of_source = np.divmod(np.asarray(rows), len(source))
            first = which[0]
            conditions = self._tensors(asked[first : which[-1] + 1])
            carrier.ask_for(conditions)
            start = source[of_source]
            generated = carrier(start, replicate[of_source], which - first, keep_latents=path is not None)
            obs = pd.DataFrame({self.keys.perturbation_key: pd.Categorical(labels[which])})
            if self.keys.dose_key is not None:
                obs[self.keys.dose_key] = doses[which]
                obs[f"{PREDICTION_KEY}_dose_extrapolated"] = is_extrapolated[which]
            for key, values in ((self.keys.cell_type_key, sources.cell_type), (self.keys.batch_key, sources.batch)):
                if key is not None:
                    obs[key] = pd.Categorical(values[start])
            obs[f"{PREDICTION_KEY}_source"] = pd.Categorical(sources.names[start])
            obs[f"{PREDICTION_KEY}_replicate"] = replicate[of_source]
            obs[f"{PREDICTION_KEY}_support"] = support[which]
            obs.index = [f"generated_{i}" for i in rows]
            return AnnData(generated, obs=obs, var=pd.DataFrame(index=pd.Index(self.get_var_names())))

        n_all = len(source) * len(asked)
        said = self._said_of(dataclasses.replace(self.keys, smiles_key=None), asked, seed_or_default(seed))
        if path is None:
            new = cells(range(n_all))
            new.uns = said
            return new
        request: dict[str, str | int] = {
            "model": self._digest(),
            "perturbations": digest_of(*(f"{p.label(**self.keys.grammar)}\0{p.dose_text()}" for p in asked)),
            "controls": sources.digest(source),
            "n_cells": n_cells,
            "seed": seed_or_default(seed),
        }
        return write_in_parts(path, cells, (n_all, sources.matrix.shape[1]), said, request, overwrite, show_progress)


def _dose_column(perturbations: Sequence[Perturbation]) -> np.ndarray:
    """Write doses as numbers of uM, missing where there is none, or as text where a combination has several."""
    texts = [p.dose_text() for p in perturbations]
    if any("+" in text for text in texts):
        return np.array(texts, dtype=object)
    return np.array([float(text) if text else np.nan for text in texts])
