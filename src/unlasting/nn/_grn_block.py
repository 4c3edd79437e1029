"""The gene regulatory network block: every gene is a node, and attention carries the perturbation along edges."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from unlasting.effects import ConditionTensors
from unlasting.nn._graph_attention import SharedGraph, SharedGraphAttention
from unlasting.nn._molecules import MoleculeFusion


class GRNBlock(nn.Module):
    r"""Two graph-attention layers over genes, with a read-out for every measured gene.

    A node starts as `Phi(g_i m_i, context) + delta(g_i, condition) + Psi(inputs_i)`. `m_i` is zero for a knocked-out
    gene. `delta` is linear in the condition, so it vanishes for the control. The published form has no `delta`; given
    molecules, it fuses the first term with theirs under a drug. Targets that are not measured are nodes as well; they
    have no inputs and no read-out.

    Parameters
    ----------
    graph
        The graph over `n_nodes` nodes, the measured genes first.
    n_genes
        Number of measured genes.
    gene_features
        Width of the gene embeddings.
    out_features
        Width of the graph-attention layers.
    heads
        Number of attention heads.
    context_features
        Width of the context (time, cell type); 0 for none.
    condition_features
        Width of the embedding of the perturbation; 0 for none.
    n_inputs
        Number of inputs of every gene.
    molecules
        Embeddings of the molecules that are fused, shape `(n_molecules, n_features)`; none by default.
    """

    def __init__(
        self,
        graph: SharedGraph,
        n_genes: int,
        *,
        gene_features: int,
        out_features: int,
        heads: int,
        context_features: int,
        condition_features: int,
        n_inputs: int,
        molecules: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.n_genes = n_genes
        self.gene_embedding = nn.Parameter(torch.randn(graph.n_nodes, gene_features) * gene_features**-0.5)
        self.of_gene = nn.Linear(gene_features, gene_features)
        self.of_context = nn.Linear(context_features, gene_features) if context_features else None
        self.of_condition = nn.Linear(condition_features, 2 * gene_features, bias=False) if condition_features else None
        self.of_inputs = nn.Linear(n_inputs, gene_features)
        self.fusion = MoleculeFusion(molecules, gene_features) if molecules is not None else None
        self.attention = nn.ModuleList(
            [
                SharedGraphAttention(graph, gene_features, out_features, heads),
                SharedGraphAttention(graph, out_features, out_features, heads),
            ]
        )
        self.read_out = nn.Parameter(torch.zeros(n_genes, out_features))
        self.read_out_bias = nn.Parameter(torch.zeros(n_genes))

    def forward(
        self,
        inputs: Tensor,
        keep: Tensor,
        context: Tensor | None,
        condition: Tensor | None,
        conditions: ConditionTensors,
    ) -> Tensor:
        """Pass a batch through the graph.

        Parameters
        ----------
        inputs
            Shape `(n_cells, n_genes, n_inputs)`.
        keep
            0 for knocked-out nodes, else 1, shape `(n_cells, n_nodes)`.
        context
            Shape `(n_cells, context_features)`.
        condition
            The embedding of the perturbation, shape `(n_cells, condition_features)`.
        conditions
            The perturbation itself, of which molecules are read where they are fused.

        Returns
        -------
        One number for every gene, shape `(n_cells, n_genes)`.
        """
        # of_gene(g * keep) without a product for every cell: `keep` is 0 or 1
        genes = functional.linear(self.gene_embedding, self.of_gene.weight) * keep[..., None] + self.of_gene.bias
        if self.of_context is not None and context is not None:
            genes = genes + self.of_context(context)[:, None]
        nodes = functional.silu(genes)  # (n_cells, n_nodes, gene_features)
        if self.of_condition is not None and condition is not None:
            scale, shift = self.of_condition(condition)[:, None].chunk(2, dim=-1)
            nodes = nodes + scale * self.gene_embedding + shift
        if self.fusion is not None:
            nodes = self.fusion(nodes, conditions)
        padding = (0, 0, 0, nodes.shape[1] - self.n_genes)
        nodes = nodes + functional.pad(self.of_inputs(inputs), padding)
        for layer in self.attention:
            nodes = functional.silu(layer(nodes))
        return (nodes[:, : self.n_genes] * self.read_out).sum(-1) + self.read_out_bias
