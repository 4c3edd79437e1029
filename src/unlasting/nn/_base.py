"""The base shared by denoiser and mask network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unlasting.effects import ConditionTensors
from unlasting.nn._architecture import Architecture
from unlasting.nn._attention import SharedGraph
from unlasting.nn._conditions import ConditionEncoder
from unlasting.nn._grn_block import GRNBlock
from unlasting.nn._layers import TimeEmbedding
from unlasting.nn._molecules import MoleculeEncoder


class ConditionedNetwork(nn.Module):
    """A network over genes that depends on time, cell type, control signal and perturbation.

    A subclass takes the first six parameters and sets the last two itself.

    Parameters
    ----------
    graph
        The graph over `n_nodes` nodes, the measured genes first.
    n_genes
        Number of measured genes.
    n_features
        Number of features per condition.
    n_cell_types
        Number of cell types with an index.
    architecture
        Sizes and switches.
    molecules
        All molecule embeddings, shape `(n_molecules, n_features)`, for perturbations without a learnt embedding,
        as published.
    n_inputs
        Number of inputs per gene to the GRN block.
    timed
        Whether the network depends on the diffusion time.
    """

    def __init__(
        self,
        graph: SharedGraph,
        n_genes: int,
        n_features: int,
        n_cell_types: int,
        architecture: Architecture,
        molecules: Tensor | None = None,
        *,
        n_inputs: int,
        timed: bool,
    ) -> None:
        super().__init__()
        self.architecture = a = architecture
        self.time = TimeEmbedding(a.time_frequencies, a.largest_frequency, a.width) if timed else None
        self.cell_type = nn.Embedding(n_cell_types, a.width) if a.cell_type_index else None
        self.condition = ConditionEncoder(n_features, a.condition_features) if a.condition_features else None
        molecules = None if a.condition_features else molecules
        context_features = a.width if timed or a.cell_type_index else 0
        self.grn = (
            GRNBlock(graph, n_genes, a, context_features=context_features, n_inputs=n_inputs, molecules=molecules)
            if a.use_grn
            else None
        )
        self.molecule = MoleculeEncoder(molecules, a.width) if molecules is not None and not a.use_grn else None

    def visible(self, control: Tensor) -> Tensor:
        """Return the control signal, or zeros where the architecture hides it."""
        return control if self.architecture.use_control_moments else torch.zeros_like(control)

    def embedded(
        self, conditions: ConditionTensors, cell_type: Tensor, t: Tensor | None = None
    ) -> tuple[Tensor | None, Tensor | None]:
        """Embed the context, shape `(n_cells, width)`, and the perturbation, `(n_cells, condition_features)`."""
        context = self.time(t) if self.time is not None else None
        if self.cell_type is not None:
            learnt = self.cell_type(cell_type)
            context = learnt if context is None else context + learnt
        return context, self.condition(conditions) if self.condition is not None else None
