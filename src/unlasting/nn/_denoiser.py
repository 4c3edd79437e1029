"""The network that predicts expressed values from their noised state."""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor, nn

from unlasting.diffusion import LinearBetaSchedule, alpha_sigma
from unlasting.effects import ConditionTensors
from unlasting.nn._architecture import Architecture
from unlasting.nn._attention import SharedGraph
from unlasting.nn._base import ConditionedNetwork
from unlasting.nn._layers import ModulatedBlock, start_at_zero
from unlasting.nn._molecules import has_drug

_FIRST_SD: Final = 0.1
"""Standard deviation of expressed values on the [0, 1] scale from which the mixing gate learns each gene's own."""


class Denoiser(ConditionedNetwork):
    """Block, GRN block and Decoder: one network for source and target, with its base's parameters.

    The Block (an MLP) encodes the state, and the GRN block spreads the perturbation over the graph. Both are fused, and
    the Decoder (an MLP) predicts. Time, cell type and perturbation condition Block and Decoder.
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
        masked, width = architecture.mask_as_input, architecture.width
        sizes = (graph, n_genes, n_features, n_cell_types, architecture, molecules)
        super().__init__(*sizes, n_inputs=3 if masked else 2, timed=True)
        self.block_in = nn.Linear((2 if masked else 1) * n_genes, width)
        self.control_proj = None if architecture.grn_only else nn.Linear(n_genes, width, bias=False)
        context = width + architecture.condition_features
        self.block = nn.ModuleList(ModulatedBlock(width, context, architecture.dropout) for _ in range(2))
        self.fuse = nn.Linear(width + (n_genes if self.grn is not None else 0), width)
        self.decoder = nn.ModuleList(ModulatedBlock(width, context, architecture.dropout) for _ in range(2))
        self.out_norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, n_genes)
        # The width is a bottleneck between genes: a gene's own state and read-out pass beside it.
        self.gate = nn.Linear(width, n_genes) if architecture.state_gate else None
        start_at_zero(self.out, self.gate)
        self.schedule = LinearBetaSchedule() if architecture.mixing_gate else None

    def predicts_zero(self) -> bool:
        """Whether every prediction is zero, as before training."""
        if self.architecture.mixing_gate or type(self).forward is not Denoiser.forward:  # a network of one's own
            return False
        last = [*self.out.parameters()] + ([] if self.gate is None else [*self.gate.parameters()])
        if self.grn is not None and self.architecture.mask_as_input:
            last += [self.grn.read_out, self.grn.read_out_bias]
        return not self.architecture.control_residual and not any(bool(weights.any()) for weights in last)

    def forward(
        self,
        state: Tensor,
        t: Tensor,
        mask: Tensor,
        control: Tensor,
        conditions: ConditionTensors,
        cell_type: Tensor,
    ) -> Tensor:
        """Predict in the coordinates of the ODE, shape `(n_cells, n_genes)`.

        Parameters
        ----------
        state
            Network input from the noised cells, shape `(n_cells, n_genes)`.
        t
            Times in [0, 1], shape `(n_cells,)`.
        mask
            1 for expressed genes, else 0, shape `(n_cells, n_genes)`; read if `mask_as_input`.
        control
            Control signal in [0, 1], zero without one, shape `(n_cells, n_genes)`.
        conditions
            Perturbations, one per cell.
        cell_type
            Cell-type index, shape `(n_cells,)`; read if `cell_type_index`.
        """
        control = self.visible(control)
        embedded, condition = self.embedded(conditions, cell_type, t)
        context = torch.cat([x for x in (embedded, condition) if x is not None], dim=-1)
        if self.architecture.mask_as_input:
            # A silent gene is unobserved: the network sees the mask, not the noise in its place.
            per_gene: tuple[Tensor, ...] = (state * mask, mask, control)
            features = self.block_in(torch.cat(per_gene[:2], dim=-1))
        else:
            per_gene = (state, control)
            features = self.block_in(state)
        if self.control_proj is not None:
            features = features + self.control_proj(control)
        else:  # Eq. 9 has a control signal, Eq. 10 has none
            per_gene = (*per_gene[:-1], control * has_drug(conditions)[:, None])
        if self.molecule is not None:
            features = features + self.molecule(conditions)
        for block in self.block:
            features = block(features, context)
        if self.grn is not None:
            gene_wise = self.grn(torch.stack(per_gene, dim=-1), embedded, condition, conditions)
            features = torch.cat([features, gene_wise], dim=-1)
        features = self.fuse(features)
        for block in self.decoder:
            features = block(features, context)
        features = self.out_norm(features)
        out = self.out(features)
        gate = None if self.gate is None else self.gate(features)
        if gate is not None and self.schedule is not None:
            mean = out if self.grn is None else out + gene_wise
            log_snr = self.schedule.log_snr(t)[:, None]
            share = torch.sigmoid(log_snr + 2.0 * math.log(_FIRST_SD) + gate)
            out = (1.0 - share) * mean + share * per_gene[0] / alpha_sigma(log_snr)[0]
        else:
            out = out if gate is None else out + gate * per_gene[0]
            out = out + gene_wise if self.grn is not None and self.architecture.mask_as_input else out
        return out + control if self.architecture.control_residual else out
