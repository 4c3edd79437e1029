"""The published drug branch: what a molecule is, and at what dose."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from unlasting.effects import ConditionTensors
from unlasting.nn._conditions import dose_gate


class MoleculeEncoder(nn.Module):
    """Sum the embeddings of the molecules of a condition, each scaled by a learnt gate of its dose.

    Parameters
    ----------
    molecules
        Embeddings of all molecules, shape `(n_molecules, n_features)`. They belong to the screen, and are not saved
        with the weights.
    out_features
        Width of the result.
    """

    def __init__(self, molecules: Tensor, out_features: int) -> None:
        super().__init__()
        self.register_buffer("molecules", molecules, persistent=False)
        self.molecules: Tensor
        self.of_molecule = nn.Linear(molecules.shape[1], out_features)
        self.potency = nn.Parameter(torch.tensor([math.log(math.log1p(1.0)), 0.0]))

    def forward(self, conditions: ConditionTensors) -> Tensor:
        """Embed the drugs of conditions, zero where there is none, as `(n_conditions, out_features)`."""
        is_drug = conditions.molecule >= 0
        embedded = self.of_molecule(self.molecules[conditions.molecule.clamp(min=0)])  # (n_conditions, n_slots, out)
        gate = dose_gate(conditions.dose, *self.potency.unbind()) * is_drug
        return (gate[..., None] * embedded).sum(1)


class MoleculeFusion(nn.Module):
    """Put `Phi_f(features || F)` in place of a gene's features under a drug, with the embedding `F` of its molecule.

    Parameters
    ----------
    molecules
        Embeddings of all molecules, shape `(n_molecules, n_features)`.
    features
        Width of the genes' features.
    """

    def __init__(self, molecules: Tensor, features: int) -> None:
        super().__init__()
        self.molecule = MoleculeEncoder(molecules, features)
        self.of_gene = nn.Linear(features, features)
        self.of_molecule = nn.Linear(features, features, bias=False)

    def forward(self, genes: Tensor, conditions: ConditionTensors) -> Tensor:
        """Fuse the features `(n_cells, n_nodes, features)` of cells that have a drug; the others stay."""
        fused = self.of_gene(genes) + self.of_molecule(self.molecule(conditions))[:, None]
        has_drug = (conditions.molecule >= 0).any(-1)
        return torch.where(has_drug[:, None, None], functional.silu(fused), genes)
