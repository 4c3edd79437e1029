"""The network that predicts which genes are expressed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unlasting.effects import ConditionTensors
from unlasting.nn._architecture import Architecture
from unlasting.nn._conditions import ConditionEncoder
from unlasting.nn._graph_attention import SharedGraph
from unlasting.nn._grn_block import GRNBlock
from unlasting.nn._layers import ModulatedBlock, start_at_zero
from unlasting.nn._molecules import MoleculeEncoder


class MaskNetwork(nn.Module):
    """A GRN block without state and time, and an MLP, which give the log-odds that a gene is expressed.

    It looks at a condition, not at a cell. Where the architecture says so, the log-odds are a straight line in the
    depth of the cell (how many genes it expresses, against other cells of its condition), with a slope for each gene.

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
        width, conditioned = architecture.width, architecture.condition_features
        self.cell_type = nn.Embedding(n_cell_types, width) if architecture.cell_type_index else None
        self.condition = ConditionEncoder(n_features, conditioned) if conditioned else None
        molecules = None if conditioned else molecules
        self.grn = (
            GRNBlock(
                graph,
                n_genes,
                gene_features=architecture.gene_features,
                out_features=architecture.attention_features,
                heads=architecture.heads,
                context_features=width if architecture.cell_type_index else 0,
                condition_features=conditioned,
                n_inputs=1,
                molecules=molecules,
            )
            if architecture.use_grn
            else None
        )
        self.molecule = (
            MoleculeEncoder(molecules, width) if molecules is not None and not architecture.use_grn else None
        )
        self.of_control = nn.Linear(n_genes, width)
        self.block = ModulatedBlock(width, max(conditioned, 1), architecture.dropout)
        self.out = nn.Linear(width, n_genes)
        # Where a target has an embedding it also acts on every gene directly; zero for the control.
        self.direct = nn.Linear(conditioned, n_genes, bias=False) if conditioned else None
        start_at_zero(self.out, self.direct)
        self.slope = nn.Parameter(torch.full((n_genes,), 0.5)) if architecture.detected_genes_slope else None

    def forward(
        self,
        control: Tensor,
        log_odds: Tensor,
        conditions: ConditionTensors,
        cell_type: Tensor,
    ) -> Tensor:
        """Predict the log-odds at the usual detected.

        Parameters
        ----------
        control
            The control signal in [0, 1], shape `(n, n_genes)`.
        log_odds
            Where to start: the log-odds in the control cells, shape `(n, n_genes)`.
        conditions
            The perturbations.
        cell_type
            Index of the cell type, shape `(n,)`. Read only where cell types have an index.

        Returns
        -------
        Shape `(n, n_genes)`.
        """
        if not self.architecture.use_control_moments:
            control = torch.zeros_like(control)
        condition = self.condition(conditions) if self.condition is not None else None
        embedded = self.cell_type(cell_type) if self.cell_type is not None else None
        features = self.of_control(control)
        if embedded is not None:
            features = features + embedded
        if self.molecule is not None:
            features = features + self.molecule(conditions)
        modulation = condition if condition is not None else features.new_zeros(features.shape[0], 1)
        out = log_odds + self.out(self.block(features, modulation))
        if self.grn is not None:
            keep = conditions.keep_nodes(self.grn.gene_embedding.shape[0])
            if not self.architecture.knock_out:
                keep = torch.ones_like(keep)
            out = out + self.grn(control[..., None], keep, embedded, condition, conditions)
        return out if self.direct is None or condition is None else out + self.direct(condition)

    def at_detected_genes(self, log_odds: Tensor, detected: Tensor) -> Tensor:
        """Shift the log-odds `(n, n_genes)` to cells of a depth in s.d. from the usual, shape `(n,)`."""
        return log_odds if self.slope is None else log_odds + self.slope * detected[:, None]
