"""The network that predicts the values of expressed genes from their noised state."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unlasting.effects import ConditionTensors
from unlasting.nn._architecture import Architecture
from unlasting.nn._conditions import ConditionEncoder
from unlasting.nn._graph_attention import SharedGraph
from unlasting.nn._grn_block import GRNBlock
from unlasting.nn._layers import ModulatedBlock, TimeEmbedding, start_at_zero
from unlasting.nn._molecules import MoleculeEncoder


class Denoiser(nn.Module):
    """Block, GRN block and Decoder: one network for source and target.

    The Block (an MLP) encodes the state; the GRN block carries the perturbation over the graph; both are fused, and
    the Decoder (an MLP) predicts. Time, cell type and perturbation condition Block and Decoder.

    Parameters
    ----------
    graph
        The graph over `n_nodes` nodes, the measured genes first.
    n_genes
        Number of measured genes.
    n_features
        Number of features of a condition.
    n_cell_types
        Number of cell types known by an index.
    architecture
        Sizes and switches.
    molecules
        Embeddings of all molecules, shape `(n_molecules, n_features)`. Read only where perturbations have no learnt
        embedding, as published.
    """

    def __init__(
        self,
        graph: SharedGraph,
        n_genes: int,
        n_features: int,
        n_cell_types: int,
        architecture: Architecture,
        molecules: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.architecture = architecture
        width = architecture.width
        self.time = TimeEmbedding(architecture.time_frequencies, architecture.largest_frequency, width)
        self.cell_type = nn.Embedding(n_cell_types, width) if architecture.cell_type_index else None
        conditioned = architecture.condition_features
        self.condition = ConditionEncoder(n_features, conditioned) if conditioned else None
        molecules = None if conditioned else molecules
        self.grn = (
            GRNBlock(
                graph,
                n_genes,
                gene_features=architecture.gene_features,
                out_features=architecture.attention_features,
                heads=architecture.heads,
                context_features=width,
                condition_features=conditioned,
                n_inputs=3 if architecture.mask_as_input else 2,
                molecules=molecules,
            )
            if architecture.use_grn
            else None
        )
        self.molecule = (
            MoleculeEncoder(molecules, width) if molecules is not None and not architecture.use_grn else None
        )
        self.block_in = nn.Linear((2 if architecture.mask_as_input else 1) * n_genes, width)
        self.of_control = nn.Linear(n_genes, width, bias=False)
        context = width + conditioned
        self.block = nn.ModuleList(ModulatedBlock(width, context, architecture.dropout) for _ in range(2))
        self.fuse = nn.Linear(width + (n_genes if self.grn is not None else 0), width)
        self.decoder = nn.ModuleList(ModulatedBlock(width, context, architecture.dropout) for _ in range(2))
        self.out_norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, n_genes)
        # The width is a bottleneck between genes; what a gene's own state says of it passes by its side.
        self.gate = nn.Linear(width, n_genes) if architecture.mask_as_input else None
        start_at_zero(self.out, self.gate)

    def forward(
        self,
        state: Tensor,
        t: Tensor,
        mask: Tensor,
        control: Tensor,
        conditions: ConditionTensors,
        cell_type: Tensor,
    ) -> Tensor:
        """Predict.

        Parameters
        ----------
        state
            What the network sees of the noised cells, shape `(n_cells, n_genes)`.
        t
            Times in [0, 1], shape `(n_cells,)`.
        mask
            1 for expressed genes, else 0, shape `(n_cells, n_genes)`. Read only where the mask is an input.
        control
            The control signal in [0, 1], zero without one, shape `(n_cells, n_genes)`.
        conditions
            The perturbation of every cell.
        cell_type
            Index of the cell type, shape `(n_cells,)`. Read only where cell types have an index.

        Returns
        -------
        The prediction in the coordinates of the ODE, shape `(n_cells, n_genes)`.
        """
        if not self.architecture.use_control_moments:
            control = torch.zeros_like(control)
        embedded = self.time(t)  # (n_cells, width)
        if self.cell_type is not None:
            embedded = embedded + self.cell_type(cell_type)
        condition = self.condition(conditions) if self.condition is not None else None
        context = embedded if condition is None else torch.cat([embedded, condition], dim=-1)

        if self.architecture.mask_as_input:
            # A silent gene is unobserved: the network is told so, and does not see the noise that stands in for it.
            per_gene: tuple[Tensor, ...] = (state * mask, mask, control)
            features = self.block_in(torch.cat(per_gene[:2], dim=-1))
        else:
            per_gene = (state, control)
            features = self.block_in(state)
        features = features + self.of_control(control)
        if self.molecule is not None:
            features = features + self.molecule(conditions)
        for block in self.block:
            features = block(features, context)
        if self.grn is not None:
            keep = conditions.keep_nodes(self.grn.gene_embedding.shape[0])
            if not self.architecture.knock_out:
                keep = torch.ones_like(keep)
            of_graph = self.grn(torch.stack(per_gene, dim=-1), keep, embedded, condition, conditions)
            features = torch.cat([features, of_graph], dim=-1)
        features = self.fuse(features)
        for block in self.decoder:
            features = block(features, context)
        features = self.out_norm(features)
        out = self.out(features)
        if self.gate is not None:
            out = out + self.gate(features) * per_gene[0]
        if self.grn is not None and self.architecture.mask_as_input:
            out = out + of_graph
        return out + control if self.architecture.control_residual else out
