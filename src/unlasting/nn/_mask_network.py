"""The network that predicts the expressed genes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unlasting.effects import ConditionTensors
from unlasting.nn._architecture import Architecture
from unlasting.nn._attention import SharedGraph
from unlasting.nn._base import ConditionedNetwork
from unlasting.nn._layers import ModulatedBlock, start_at_zero


class MaskNetwork(ConditionedNetwork):
    """Log-odds that genes are expressed, from a GRN block without state and time, and an MLP, with its base's parameters.

    With `grn_only` there is an MLP only where there is no GRN block.

    The log-odds belong to a condition, not to a cell. With `detected_genes_slope` they are linear in the cell's number
    of detected genes, with a slope for each gene.
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
        sizes = (graph, n_genes, n_features, n_cell_types, architecture, molecules)
        super().__init__(*sizes, n_inputs=1, timed=False)
        width, conditioned = architecture.width, architecture.condition_features
        has_mlp = not (architecture.grn_only and architecture.use_grn)
        self.control_proj = nn.Linear(n_genes, width) if has_mlp else None
        self.block = ModulatedBlock(width, max(conditioned, 1), architecture.dropout) if has_mlp else None
        self.out = nn.Linear(width, n_genes) if has_mlp else None
        # The embedded target also acts on every gene directly; zero for the control.
        self.direct = nn.Linear(conditioned, n_genes, bias=False) if conditioned else None
        start_at_zero(self.out, self.direct)
        self.slope = nn.Parameter(torch.full((n_genes,), 0.5)) if architecture.detected_genes_slope else None

    def forward(self, control: Tensor, log_odds: Tensor, conditions: ConditionTensors, cell_type: Tensor) -> Tensor:
        """Predict the log-odds at the usual detected genes, shape `(n, n_genes)`.

        Parameters
        ----------
        control
            Control signal in [0, 1], shape `(n, n_genes)`.
        log_odds
            Log-odds before the network's correction, shape `(n, n_genes)`.
        conditions
            The perturbations.
        cell_type
            Cell-type index, shape `(n,)`; read if `cell_type_index`.
        """
        control = self.visible(control)
        embedded, condition = self.embedded(conditions, cell_type)
        out = log_odds
        if self.control_proj is not None and self.block is not None and self.out is not None:
            features = self.control_proj(control)
            if embedded is not None:
                features = features + embedded
            if self.molecule is not None:
                features = features + self.molecule(conditions)
            modulation = condition if condition is not None else features.new_zeros(features.shape[0], 1)
            out = out + self.out(self.block(features, modulation))
        if self.grn is not None:
            out = out + self.grn(control[..., None], embedded, condition, conditions)
        return out if self.direct is None or condition is None else out + self.direct(condition)

    def at_detected_genes(self, log_odds: Tensor, detected: Tensor) -> Tensor:
        """Shift log-odds `(n, n_genes)` to cells by their detected genes, in s.d. from the usual, shape `(n,)`."""
        return log_odds if self.slope is None else log_odds + self.slope * detected[:, None]
