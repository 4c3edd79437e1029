"""The shared latent of all cells, and the graph attention behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from mudata import MuData

from unlasting.data import GRAPH, POPULATION, cell_noise
from unlasting.model._base import Dose, seed_or_default, size_or_default
from unlasting.model._generation import GenerationMixin
from unlasting.screen import to_memory


class LatentMixin(GenerationMixin):
    """`encode`, `decode`, `get_latent_representation` and `get_attention`."""

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
            Cells with the model's genes; by default those in its own screen.
        indices
            Rows to encode.
        batch_size
            Cells in a chunk.
        seed
            Seed for the noise that replaces silent genes.

        Returns
        -------
        Shape `(n_cells, n_genes)`.
        """
        adata = self._resolve(adata)
        if indices is not None:
            adata = to_memory(adata[indices])
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
        """Encode cells to the shared latent.

        Parameters
        ----------
        adata
            Cells with the model's genes; by default those in its own screen.
        perturbation
            The perturbation to encode under; each cell's own by default. `preset="paper"` encodes controls only.
        dose
            Its drugs' dose in uM, as for :meth:`predict`.
        batch_size
            Cells in a chunk.
        seed
            Seed for the noise that replaces silent genes.

        Returns
        -------
        Shape `(n_cells, n_genes)`. With `hold_silent`, silent genes hold noise.

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
            raise ValueError(
                "With `preset='paper'` only control cells can be encoded: its source has no perturbation. Pass controls, "
                f"or `perturbation={self.keys.control!r}`."
            )
        cells = self._as_sources(adata, np.arange(adata.n_obs))
        conditions, condition = self._conditions_of(wanted)
        generator = self._generator(cells, conditions, seed, batch_size, show_progress=False)
        latents = []
        for rows in _chunks(adata.n_obs, batch_size):
            noise = cell_noise(list(cells.names[rows]), [0] * len(rows), adata.n_vars, seed_or_default(seed))[0]
            latents.append(generator.encode(rows, condition[rows], torch.from_numpy(noise)).cpu().numpy())
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
        """Decode latents to log-normalised cells: the reverse of :meth:`encode`.

        Parameters
        ----------
        latent
            Latents from :meth:`encode`, shape `(n_cells, n_genes)`.
        perturbation
            The perturbation to decode under.
        dose
            Its drugs' dose in uM, as for :meth:`predict`.
        mask
            1 for expressed genes, else 0, shape `(n_cells, n_genes)`.
        cell_type, batch
            The control population; needed where the screen has several.
        controls
            For `preset="paper"`, the control cells as log-normalised values, shape `(n_cells, n_genes)`.
        batch_size
            Cells in a chunk.

        Returns
        -------
        Log-normalised values, 0 outside the mask, shape `(n_cells, n_genes)`.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        ValueError
            If shapes differ, the perturbation is unknown, or the control population is ambiguous.
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
        asked = [self._asked(perturbation, dose)]
        conditions, known = self._tensors(asked), self.module.populations()
        expected, x_max = self.module.expected(asked, known), self.module.statistics.x_max
        cells = []
        for rows in _chunks(len(latent), batch_size):
            zeros = torch.zeros(len(rows), dtype=torch.long, device=self.module.device)
            populations = known[zeros + population]
            signal = populations.mean
            if controls is not None and self.preset.control_signal == "cell":
                signal = torch.as_tensor(controls[rows], dtype=x_max.dtype, device=self.module.device) / x_max
            is_on, start = (torch.from_numpy(part[rows]).to(self.module.device) for part in (mask, latent))
            values = self.module.decode(
                start, is_on, signal, conditions[zeros], populations, expected(zeros, zeros + population)
            )
            cells.append(((values * is_on).clamp(min=0.0) * x_max).cpu().numpy())
        return np.concatenate(cells)

    def get_attention(
        self,
        adata: AnnData | MuData | None = None,
        *,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        seed: int | None = None,
    ) -> pd.DataFrame:
        """Get the graph attention between genes while the denoiser encodes cells.

        Each target divides an attention of 1 between itself and its source genes. Values are averages over heads,
        layers, solver steps and cells.

        Parameters
        ----------
        adata
            Cells with the model's genes, each under its own label; by default those in its own screen.
        indices
            Rows to encode.
        batch_size
            Cells in a chunk.
        seed
            Seed for the noise that replaces silent genes.

        Returns
        -------
        A frame with `source`, `target` and `attention`: all graph edges, and one from each gene to itself.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        ValueError
            If the model has no graph block, no training step improved the denoiser, a perturbation is unknown, or genes are
            missing.
        """
        self._require_trained()
        block: Any = getattr(self.module.averaged["denoiser"], "grn", None)
        if block is None:
            raise ValueError(
                "The denoiser has no graph block (`use_grn=False`, the default), and so no attention. Make the model with "
                "`use_grn=True`, and train it."
            )
        graph = block.attention[0].graph
        total, n_seen = np.zeros(graph.n_edges), 0

        def see(layer: Any, given: tuple[torch.Tensor]) -> None:
            nonlocal n_seen
            total[:] += layer.attention(given[0]).sum(0).cpu().double().numpy()
            n_seen += len(given[0])

        handles = [layer.register_forward_pre_hook(see) for layer in block.attention]
        try:
            self.get_latent_representation(adata, indices=indices, batch_size=batch_size, seed=seed)
        finally:
            for handle in handles:
                handle.remove()
        if not n_seen:
            raise ValueError(
                "The denoiser has no attention: it predicts the closed form alone, as no training step improved it (see "
                "`model.history`). Call `model.train()` without `max_steps`, or with more steps."
            )
        nodes = np.asarray(self._state(GRAPH)["nodes"], dtype=object)
        source, target = (nodes[end.cpu().numpy()] for end in (graph.source, graph.target))
        return pd.DataFrame({"source": source, "target": target, "attention": total / n_seen})

    def _population_code(self, cell_type: str | None, batch: str | None) -> int:
        """Find one registered control population."""
        state = self._state(POPULATION)
        found = np.flatnonzero(
            ((state["cell_types"] == cell_type) | (cell_type is None)) & ((state["batches"] == batch) | (batch is None))
        )
        if len(found) != 1:
            raise ValueError(
                f"`cell_type={cell_type!r}` and `batch={batch!r}` name {len(found)} control populations; name exactly one. "
                f"Cell types: {sorted(set(state['cell_types']))}; batches: {sorted(set(state['batches']))}."
            )
        return int(found[0])


def _chunks(n: int, batch_size: int | None) -> list[np.ndarray]:
    size = size_or_default(batch_size)
    return [np.arange(i, min(i + size, n)) for i in range(0, n, size)]
