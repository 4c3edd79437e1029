"""What the graph of genes has become in a trained model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from mudata import MuData

from unlasting.data import GRAPH
from unlasting.model._prediction import PredictionMixin
from unlasting.nn import Denoiser


class AttentionMixin(PredictionMixin):
    """`get_attention`."""

    def get_attention(
        self,
        adata: AnnData | MuData | None = None,
        *,
        indices: Sequence[int] | None = None,
        batch_size: int | None = None,
        seed: int | None = None,
    ) -> pd.DataFrame:
        """Get how much each gene attends to its neighbours in the graph while cells are encoded.

        A gene shares out an attention of 1 among itself and the genes with an edge to it. It is that of the denoiser,
        averaged over its heads and layers, the steps of the solver and the cells.

        Parameters
        ----------
        adata
            Cells with the genes of the model, each under its own label; those the model was made with by default.
        indices
            Which cells.
        batch_size
            Cells in a chunk.
        seed
            Seed of the noise that stands for silent genes.

        Returns
        -------
        A frame with `source`, `target` and `attention` (that the target pays to the source): the edges of the graph,
        and one from each gene to itself.

        Raises
        ------
        RuntimeError
            If the model is not trained.
        ValueError
            If the model has no graph block, a perturbation is unknown, or genes are missing.
        """
        self._require_trained()
        block: Any = cast(Denoiser, self.module.averaged["denoiser"]).grn
        if block is None:
            raise ValueError("The model has no graph block (`use_grn=False`), and so no attention.")
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
        nodes = np.asarray(self._state(GRAPH)["nodes"], dtype=object)
        source, target = (nodes[end.cpu().numpy()] for end in (graph.source, graph.target))
        return pd.DataFrame({"source": source, "target": target, "attention": total / n_seen})
