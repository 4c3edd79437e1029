"""The published drug branch: molecules and their doses."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from unlasting.effects import ConditionTensors
from unlasting.nn._conditions import dose_gate


def has_drug(conditions: ConditionTensors) -> Tensor:
    """Whether a condition contains a drug, shape `(n_conditions,)`."""
    return (conditions.molecule >= 0).any(-1)


class MoleculeEncoder(nn.Module):
    """Sum the embeddings of a condition's molecules, each scaled by a learnt dose gate.

    All molecule embeddings, shape `(n_molecules, n_features)`, are part of the screen and not saved with the weights.
    """

    def __init__(self, molecules: Tensor, out_features: int) -> None:
        super().__init__()
        self.register_buffer("molecules", molecules, persistent=False)
        self.molecules: Tensor
        self.molecule_proj = nn.Linear(molecules.shape[1], out_features)
        self.potency = nn.Parameter(torch.tensor([math.log(math.log1p(1.0)), 0.0]))

    def forward(self, conditions: ConditionTensors) -> Tensor:
        """Embed the drugs, zero for conditions without one, shape `(n_conditions, out_features)`."""
        is_drug = conditions.molecule >= 0
        embedded = self.molecule_proj(self.molecules[conditions.molecule.clamp(min=0)])  # (n_conditions, n_slots, out)
        gate = dose_gate(conditions.dose, *self.potency.unbind()) * is_drug
        return (gate[..., None] * embedded).sum(1)


class MoleculeFusion(nn.Module):
    """Replace the genes' features by `Phi_f(features || F)` under a drug with molecule embedding `F`."""

    def __init__(self, molecules: Tensor, features: int) -> None:
        super().__init__()
        self.molecule = MoleculeEncoder(molecules, features)
        self.gene_proj = nn.Linear(features, features)
        self.molecule_proj = nn.Linear(features, features, bias=False)

    def forward(self, genes: Tensor, conditions: ConditionTensors) -> Tensor:
        """Fuse features, shape `(n_cells, n_nodes, features)`; cells without a drug keep theirs."""
        fused = self.gene_proj(genes) + self.molecule_proj(self.molecule(conditions))[:, None]
        return torch.where(has_drug(conditions)[:, None, None], functional.silu(fused), genes)
