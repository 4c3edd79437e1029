"""Prediction of a model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from mudata import MuData
from scvi import settings

from unlasting.data import POPULATION, cell_noise
from unlasting.effects import ConditionTensors
from unlasting.model._base import Dose
from unlasting.model._generator import Generator
from unlasting.model._mudata import expression_of, modality_of
from unlasting.model._parts import digest_of, write_in_parts
from unlasting.model._provenance import ProvenanceMixin
from unlasting.model._sources import SourceCells, SourcesMixin
from unlasting.screen import (
    PREDICTION_KEY,
    Perturbation,
    check_cells,
    check_genes,
    check_log_normalised,
    expression,
    is_in_memory,
    not_none,
    require_integers,
)

DEFAULT_BATCH_SIZE = 128
"""Small chunks stay in the cache of a processor: half the time of 512 cells."""


class PredictionMixin(SourcesMixin, ProvenanceMixin):
    """`predict`, `encode`, `decode` and `get_latent_representation`."""

    def predict(
        self,
        adata: AnnData | MuData | None = None,
        perturbation: str | None = None,
        dose: Dose = None,
        *,
        key_added: str = PREDICTION_KEY,
        indices: Sequence[int] | None = None,
        path: str | Path | None = None,
        overwrite: bool = False,
        batch_size: int | None = None,
        seed: int | None = None,
        show_progress: bool = True,
        copy: bool = False,
    ) -> AnnData | MuData | None:
        """Write one generated cell beside every cell.

        Without `perturbation`, every cell gets a cell generated under its own label. A control cell is its own source;
        the source of any other is a training control of its cell type and batch, drawn with the seed. With
        `perturbation`, the cells must be controls, and get their counterfactuals.

        Where some trained cells of a perturbation look as if it had not reached them, as many generated cells stay what
        they were: a share of the cells comes back unchanged (`use_responders=False` when the model is made: none).

        Parameters
        ----------
        adata
            Cells with the genes of the model; those the model was made with by default.
        perturbation
            What the given control cells are to undergo: `A`, `A+B`, or the control label.
        dose
            The dose of its drugs in uM: a number, or text such as `1+0.5` in the order of the drugs.
        key_added
            Name of the layer.
        indices
            Which cells are predicted; the rows of the others are NaN.
        path
            An `.h5ad` file for a layer that would not fit into memory, written in parts as by :meth:`generate`.
        overwrite
            Whether an existing file, or the parts of another call, are replaced.
        batch_size
            Cells in a chunk; it changes memory and speed only.
        seed
            Seed of sources and noise. The same seed gives the same cells on the CPU.
        show_progress
            Whether a progress bar is shown.
        copy
            Whether a copy is returned, and `adata` left as it was.

        Returns
        -------
        With `path` the generated cells, backed by the file, with the `obs` of the cells they stand beside; `adata` stays as
        it was. Otherwise `None`, or the copy with `copy=True`. Updates the following fields (of a MuData: of its expression
        modality):

        - `adata.layers[key_added]`: log-normalised cells on the scale of the input, shape `(n_cells, n_genes)`.
        - `adata.obs[key_added + "_source"]`: name of the control cell that each came from.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        ValueError
            If genes are missing or in another order, a perturbation is unknown, a dose is missing or cannot be read,
            cells that are to be perturbed are no controls, or `path` does not end in `.h5ad` or is the file of `adata`.
        IndexError
            If `indices` are out of range.
        FileExistsError
            If `path` exists, or holds parts of another call, and `overwrite` is false.
        """
        self._require_trained()
        given = self.adata if adata is None else adata
        if copy and path is None and given is not None:
            if isinstance(given, AnnData) and not is_in_memory(given.X):
                raise ValueError(
                    "`copy=True` is for cells in memory, and these are on disk. Pass `path=` to write what is generated to a "
                    "file and leave `adata` as it is, or read the cells first: `adata.to_memory()`."
                )
            given = given.copy()
        adata = self._resolve(given)
        if path is not None and adata.isbacked and Path(adata.filename).resolve() == Path(path).resolve():
            raise ValueError(f"`path` is {os.fspath(path)!r}, the file that the cells are read from. Name another.")
        found = self._perturbations(adata)
        chosen = np.arange(adata.n_obs)
        if indices is not None:
            try:
                chosen = chosen[np.asarray(indices, dtype=None if len(indices) else int)]
            except IndexError as error:
                raise IndexError(f"`indices` do not fit the {adata.n_obs} cells of `adata`: {error}.") from error
            if not len(chosen):
                raise IndexError("`indices` is empty; name at least one cell, or leave it out for all.")
        if perturbation is None and dose is not None:
            raise ValueError(f"`dose` is {dose!r}, but there is no `perturbation`: the cells have doses of their own.")
        if perturbation is None:
            sources, source, replicate = self._pair(adata, seed_or_default(seed))
            source, replicate = source[chosen], replicate[chosen]
            wanted = found[chosen]
        else:
            self._require_controls(found[chosen], "adata")
            sources = self._as_sources(adata, chosen)
            source, replicate = np.arange(len(chosen)), np.zeros(len(chosen), dtype=int)
            wanted = np.full(len(chosen), self._asked(perturbation, dose), dtype=object)
        conditions, condition = self._conditions_of(wanted)
        carrier = self._carrier(sources, conditions, seed, batch_size, show_progress and path is None)
        if path is not None:
            obs = adata.obs.iloc[chosen].copy()
            obs[f"{key_added}_source"] = pd.Categorical(sources.names[source])
            AnnData(obs=obs).strings_to_categoricals(obs)  # of all cells: the parts must have the same categories

            def cells(rows: range) -> AnnData:
                """Generate some of the cells."""
                part = np.asarray(rows)
                generated = carrier(source[part], replicate[part], condition[part])
                return AnnData(generated, obs=obs.iloc[part], var=pd.DataFrame(index=pd.Index(self.get_var_names())))

            asked = list(dict.fromkeys(wanted))
            request: dict[str, str | int] = {
                "model": self._digest(),
                "perturbations": digest_of(*map(self._write, asked), condition),
                "obs": digest_of(*obs.columns, pd.util.hash_pandas_object(obs).to_numpy()),
                "controls": digest_of(sources.digest(np.unique(source)), source, replicate),
                "seed": seed_or_default(seed),
            }
            shape, said = (len(chosen), adata.n_vars), self._said_of(self.keys, asked, seed_or_default(seed))
            return write_in_parts(path, cells, shape, said, request, overwrite, show_progress)
        generated = carrier(source, replicate, condition)
        written = modality_of(given, self._modalities) if isinstance(given, MuData) else adata
        if len(chosen) == adata.n_obs and np.array_equal(chosen, np.arange(adata.n_obs)):
            written.layers[key_added] = generated
        else:
            layer = np.full(adata.shape, np.nan, dtype=np.float32)
            layer[chosen] = generated.toarray()
            written.layers[key_added] = layer
        names = pd.Series(pd.NA, index=adata.obs_names, dtype=object)
        names.iloc[chosen] = sources.names[source]
        written.obs[f"{key_added}_source"] = names.fillna("").astype("category")
        return given if copy else None

    def get_latent_representation(
        self,
        adata: AnnData | MuData | None = None,
        *,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        seed: int | None = None,
    ) -> np.ndarray:
        """Encode each cell under its own label to the shared latent, where expressed genes are standard normal.

        Parameters
        ----------
        adata
            Cells with the genes of the model; those the model was made with by default.
        indices
            Which cells.
        batch_size
            Cells in a chunk.
        seed
            Seed of the noise that stands for silent genes.

        Returns
        -------
        Shape `(n_cells, n_genes)`.
        """
        adata = self._resolve(adata)
        if indices is not None:
            adata = adata[indices].copy()
        return self.encode(adata, batch_size=batch_size, seed=seed)

    @torch.inference_mode()
    def encode(
        self,
        adata: AnnData | MuData | None = None,
        perturbation: str | None = None,
        dose: Dose = None,
        *,
        batch_size: int | None = None,
        seed: int | None = None,
    ) -> np.ndarray:
        """Follow cells to the shared latent.

        Parameters
        ----------
        adata
            Cells with the genes of the model; those the model was made with by default.
        perturbation
            The perturbation that they are encoded under; their own by default. In `preset="paper"`, controls only.
        dose
            The dose of its drugs in uM, as for :meth:`predict`.
        batch_size
            Cells in a chunk.
        seed
            Seed of the noise that stands for silent genes.

        Returns
        -------
        Shape `(n_cells, n_genes)`. In the default preset, entries of silent genes are noise.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        ValueError
            If a perturbation is unknown, or genes are missing.
        """
        self._require_trained()
        adata = self._resolve(adata)
        wanted = self._perturbations(adata)
        if perturbation is not None:
            wanted = np.full(adata.n_obs, self._asked(perturbation, dose), dtype=object)
        if self.preset.control_signal == "cell" and not all(p.is_control for p in wanted):
            raise ValueError("With `preset='paper'` only control cells can be encoded: its source has no perturbation.")
        cells = self._as_sources(adata, np.arange(adata.n_obs))
        conditions, condition = self._conditions_of(wanted)
        carrier = self._carrier(cells, conditions, seed, batch_size, show_progress=False)
        latents = []
        for rows in _chunks(adata.n_obs, batch_size):
            x0, populations = carrier.cells(rows), carrier.populations(rows)
            eps = cell_noise(list(cells.names[rows]), [0] * len(rows), adata.n_vars, seed_or_default(seed))[0]
            signal = populations.mean if self.preset.control_signal == "population" else torch.zeros_like(x0)
            of_cells = conditions.to(x0.device)[torch.as_tensor(condition[rows], device=x0.device)]
            noise = torch.from_numpy(eps).to(x0.device)
            latents.append(self.module.encode(x0, noise, signal, of_cells, populations).cpu().numpy())
        return np.concatenate(latents)

    @torch.inference_mode()
    def decode(
        self,
        latent: np.ndarray,
        perturbation: str,
        dose: Dose = None,
        *,
        mask: np.ndarray,
        cell_type: str | None = None,
        batch: str | None = None,
        controls: np.ndarray | None = None,
        batch_size: int | None = None,
    ) -> np.ndarray:
        """Follow latents to log-normalised cells: the reverse of :meth:`encode`.

        Parameters
        ----------
        latent
            What :meth:`encode` returned, shape `(n_cells, n_genes)`.
        perturbation
            The perturbation that they are decoded under.
        dose
            The dose of its drugs in uM, as for :meth:`predict`.
        mask
            Which genes the cells express, shape `(n_cells, n_genes)`.
        cell_type, batch
            Whose controls stand behind the cells; needed where the screen has several.
        controls
            For `preset="paper"`, the control cells themselves as log-normalised values, shape `(n_cells, n_genes)`.
        batch_size
            Cells in a chunk.

        Returns
        -------
        Log-normalised values, 0 outside of the mask, shape `(n_cells, n_genes)`.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        ValueError
            If the shapes differ, the perturbation is unknown or the cell type is not given where there are several.
        """
        self._require_trained()
        latent, mask = np.asarray(latent, dtype=np.float32), np.asarray(mask, dtype=np.float32)
        if latent.shape != mask.shape or latent.shape[1] != self.summary_stats["n_vars"]:
            raise ValueError(
                f"`latent` has shape {latent.shape} and `mask` {mask.shape}; both must be (n_cells, "
                f"{self.summary_stats['n_vars']})."
            )
        if self.preset.control_signal == "cell" and controls is None:
            raise ValueError("With `preset='paper'` the control cells themselves are needed: give `controls`.")
        population = self._population_code(cell_type, batch)
        conditions = self._tensors([self._asked(perturbation, dose)]).to(self.module.device)
        x_max = self.module.statistics.x_max
        cells = []
        for rows in _chunks(len(latent), batch_size):
            once = torch.zeros(len(rows), dtype=torch.long, device=self.module.device)
            populations = self.module.populations()[once + population]
            signal = populations.mean
            if controls is not None and self.preset.control_signal == "cell":
                signal = torch.as_tensor(controls[rows], dtype=x_max.dtype, device=self.module.device) / x_max
            on = torch.from_numpy(mask[rows]).to(self.module.device)
            start = torch.from_numpy(latent[rows]).to(self.module.device)
            values = self.module.decode(start, on, signal, conditions[once], populations)
            cells.append(((values * on).clamp(min=0.0) * x_max).cpu().numpy())
        return np.concatenate(cells)

    # -- what the calls above share

    def _require_trained(self) -> None:
        if not self.is_trained_:
            raise RuntimeError(
                "The model is not trained yet. Call `model.train()` first, or `UnlastingModel.load(...)`."
            )

    def _require_controls(self, perturbations: np.ndarray, argument: str) -> None:
        others = sorted({p.label(**self.keys.grammar) for p in perturbations} - {self.keys.control})
        if others:
            raise ValueError(
                f"`{argument}` holds cells labelled {others[:5]}, but only controls ({self.keys.control!r}) can be put "
                f"under another perturbation. Pass `adata[adata.obs[{self.keys.perturbation_key!r}] == "
                f"{self.keys.control!r}].copy()`."
            )

    def _resolve(self, adata: AnnData | MuData | None, argument: str = "adata") -> AnnData:
        """Take the given cells or the model's own, and check them."""
        if isinstance(adata, MuData):
            own = modality_of(adata, self._modalities)
            adata = own if own is self.adata else expression_of(adata, self._modalities, self.keys)
        if adata is None:
            if self.adata is None:
                raise ValueError("The model was loaded without an AnnData: give the control cells (`controls=...`).")
            return self.adata
        if adata is not self.adata:
            check_cells(adata, argument)
            check_genes(adata, self.get_var_names())
            check_log_normalised(expression(adata, self._layer))
        return adata

    @property
    def _modalities(self) -> dict[str, str] | None:
        return self.registry_["setup_args"].get("modalities")

    @property
    def _layer(self) -> str | None:
        return self.registry_["setup_args"]["layer"]

    def get_var_names(self, legacy_mudata_format: bool = False) -> list[str]:
        """Get the genes of the model, in its order.

        Parameters
        ----------
        legacy_mudata_format
            Without effect: scvi-tools passes it to every model.

        Returns
        -------
        Names, shape `(n_genes,)`.
        """
        if self.adata is not None:
            return list(self.adata.var_names)
        return list(self.var_names_)

    def _conditions_of(self, perturbations: np.ndarray) -> tuple[ConditionTensors, np.ndarray]:
        """Get the tensors of the distinct perturbations, and the row of every cell among them."""
        row: dict[Perturbation, int] = {}
        codes = np.array([row.setdefault(p, len(row)) for p in perturbations], dtype=int)
        self.vocabulary.require_known(list(row), **self.keys.grammar)
        return self._tensors(list(row)), codes

    def _carrier(
        self,
        sources: SourceCells,
        conditions: ConditionTensors,
        seed: int | None,
        batch_size: int | None,
        show_progress: bool,
    ) -> Generator:
        return Generator(
            self.module,
            sources,
            conditions,
            seed=seed_or_default(seed),
            batch_size=_size(batch_size),
            show_progress=show_progress,
        )

    def _population_code(self, cell_type: str | None, batch: str | None) -> int:
        """Find one registered population of controls."""
        state = self._state(POPULATION)
        found = np.flatnonzero(
            ((state["cell_types"] == cell_type) | (cell_type is None)) & ((state["batches"] == batch) | (batch is None))
        )
        if len(found) != 1:
            raise ValueError(
                f"`cell_type={cell_type!r}` and `batch={batch!r}` name {len(found)} populations of controls; one is needed. "
                f"Cell types: {sorted(set(state['cell_types']))}; batches: {sorted(set(state['batches']))}."
            )
        return int(found[0])


def seed_or_default(seed: int | None) -> int:
    require_integers(0, **not_none(seed=seed))
    if seed is not None:
        return seed
    return 0 if settings.seed is None else settings.seed


def _size(batch_size: int | None) -> int:
    require_integers(1, **not_none(batch_size=batch_size))
    return batch_size or DEFAULT_BATCH_SIZE


def _chunks(n: int, batch_size: int | None) -> list[np.ndarray]:
    size = _size(batch_size)
    return [np.arange(i, min(i + size, n)) for i in range(0, n, size)]
