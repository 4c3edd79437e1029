"""The GRN block: genes are nodes, and perturbations spread along the edges."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from unlasting.effects import ConditionTensors
from unlasting.nn._architecture import Architecture
from unlasting.nn._attention import SharedGraph, graph_layer
from unlasting.nn._molecules import MoleculeFusion

_LARGE_EMBEDDING: Final = 3.0
"""Initial s.d. of gene embeddings with `node_norm`: a zeroed node then differs from the others beyond one unit."""

_CELLS_PER_THREAD: Final = 2
"""Cells whose node states are in the cache together where no gradient keeps those of all cells."""


class GRNBlock(nn.Module):
    r"""Two graph layers over genes, with a read-out for every measured gene.

    A node starts as `Phi(g_i m_i, context) + delta(g_i, condition) + Psi(inputs_i)`, where `m_i` is zero for a
    knocked-out gene and `delta` is linear in the condition. The published form has no `delta`; under a drug it fuses the
    first term with the molecule. Unmeasured targets are nodes without inputs and read-out.

    Parameters
    ----------
    graph
        The graph over `n_nodes` nodes, the measured genes first.
    n_genes
        Number of measured genes.
    architecture
        Sizes and switches.
    context_features
        Context width (time, cell type); 0 for none.
    n_inputs
        Number of inputs per gene.
    molecules
        Molecule embeddings to fuse, shape `(n_molecules, n_features)`, if any.
    """

    def __init__(
        self,
        graph: SharedGraph,
        n_genes: int,
        architecture: Architecture,
        *,
        context_features: int,
        n_inputs: int,
        molecules: Tensor | None = None,
    ) -> None:
        super().__init__()
        a, width = architecture, architecture.gene_features
        self.n_genes = n_genes
        self.knock_out = a.knock_out
        self.node_norm, self.read_out_scale = a.node_norm, a.read_out_scale
        spread = _LARGE_EMBEDDING if a.node_norm else width**-0.5
        self.gene_embedding = nn.Parameter(torch.randn(graph.n_nodes, width) * spread)
        self.gene_proj = nn.Linear(width, width)
        self.context_proj = nn.Linear(context_features, width) if context_features else None
        self.condition_proj = nn.Linear(a.condition_features, 2 * width, bias=False) if a.condition_features else None
        self.input_proj = nn.Linear(n_inputs, width)
        self.fusion = MoleculeFusion(molecules, width) if molecules is not None else None
        self.attention = nn.ModuleList(
            graph_layer(str(a.attention), graph, in_features, a.attention_features, a.heads)
            for in_features in (width, a.attention_features)
        )
        self.read_out = nn.Parameter(torch.zeros(n_genes, a.attention_features))
        self.read_out_bias = nn.Parameter(torch.zeros(n_genes))

    def forward(
        self, inputs: Tensor, context: Tensor | None, condition: Tensor | None, conditions: ConditionTensors
    ) -> Tensor:
        """Pass a batch through the graph: one number per gene, shape `(n_cells, n_genes)`.

        Parameters
        ----------
        inputs
            Shape `(n_cells, n_genes, n_inputs)`.
        context
            Shape `(n_cells, context_features)`.
        condition
            Embedded perturbation, shape `(n_cells, condition_features)`.
        conditions
            The perturbations, for knocked-out nodes and fused molecules.
        """
        # gene_proj(g * keep) without a product for every cell: `keep` is 0 or 1
        genes = functional.linear(self.gene_embedding, self.gene_proj.weight)
        if self.knock_out:
            genes = genes * conditions.keep_nodes(len(genes))[..., None]
        else:
            genes = genes.expand(len(inputs), -1, -1)
        genes = genes + self.gene_proj.bias
        if self.context_proj is not None and context is not None:
            genes = genes + self.context_proj(context)[:, None]
        nodes = functional.silu(genes)  # (n_cells, n_nodes, gene_features)
        if self.condition_proj is not None and condition is not None:
            scale, shift = self.condition_proj(condition)[:, None].chunk(2, dim=-1)
            nodes = nodes + scale * self.gene_embedding + shift
        if self.fusion is not None:
            nodes = self.fusion(nodes, conditions)
        padding = (0, 0, 0, nodes.shape[1] - self.n_genes)
        nodes = nodes + functional.pad(self.input_proj(inputs), padding)
        if nodes.device.type != "cpu" or torch.is_grad_enabled():
            return self._spread(nodes)
        # few cells at once: node states beyond the cache would take longer to move than to compute
        return torch.cat([self._spread(cells) for cells in nodes.split(_CELLS_PER_THREAD * torch.get_num_threads())])

    def _spread(self, nodes: Tensor) -> Tensor:
        """Pass node states through the graph layers, and read each measured gene out, shape `(n_cells, n_genes)`."""
        overwrite = not torch.is_grad_enabled()
        for layer in self.attention:
            nodes = layer(nodes)
            if self.node_norm:
                nodes = functional.layer_norm(nodes, nodes.shape[-1:])
            nodes = functional.silu(nodes, inplace=overwrite)
        return (nodes[:, : self.n_genes] * (self.read_out_scale * self.read_out)).sum(-1) + self.read_out_bias
