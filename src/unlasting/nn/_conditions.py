"""How a perturbation reaches the networks."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Final

import torch
from torch import Tensor, nn

GENE: Final = 0
DRUG: Final = 1
STIMULUS: Final = 2
NO_DOSE: Final = -1.0


@dataclass(frozen=True)
class ConditionTensors:
    """What the networks know of each condition: one slot for every target of a combination.

    A control has no filled slot. Slots are a set: their order changes nothing.

    Parameters
    ----------
    kind
        0 for a gene, 1 for a drug, 2 for a stimulus, -1 for an empty slot, shape `(n_conditions, n_slots)`.
    node
        Node of the graph that a gene is, -1 where there is none, shape `(n_conditions, n_slots)`.
    molecule
        Row of a drug among the molecules, -1 where there is none, shape `(n_conditions, n_slots)`.
    dose
        `log1p` of the dose in uM, -1 for what has none, shape `(n_conditions, n_slots)`.
    features
        What tells how alike two conditions are, zero for the control, shape `(n_conditions, n_features)`.
    """

    kind: Tensor
    node: Tensor
    molecule: Tensor
    dose: Tensor
    features: Tensor

    def __getitem__(self, index: Tensor | slice) -> ConditionTensors:
        """Take some conditions, or repeat them."""
        return ConditionTensors(*(getattr(self, f.name)[index] for f in fields(self)))

    def __len__(self) -> int:
        return self.kind.shape[0]

    def to(self, device: torch.device | str) -> ConditionTensors:
        """Move all tensors to a device."""
        return ConditionTensors(*(getattr(self, f.name).to(device) for f in fields(self)))

    def faded(self, share: Tensor) -> ConditionTensors:
        """Let networks see what tells conditions apart as far as a share in [0, 1], shape `(n_conditions,)`."""
        return replace(self, features=self.features * share[:, None])

    @property
    def filled(self) -> Tensor:
        """Whether the slot holds a target, shape `(n_conditions, n_slots)`."""
        return self.kind >= 0

    def is_control(self) -> Tensor:
        """Whether nothing is perturbed, shape `(n_conditions,)`."""
        return ~self.filled.any(-1)

    def null(self) -> ConditionTensors:
        """Get the control in the form of these conditions, one row."""
        empty = {"dose": NO_DOSE, "features": 0.0}
        tensors = ((f.name, getattr(self, f.name)) for f in fields(self))
        return ConditionTensors(*(t.new_full((1, *t.shape[1:]), empty.get(name, -1)) for name, t in tensors))

    @classmethod
    def concatenate(cls, parts: list[ConditionTensors]) -> ConditionTensors:
        """Put conditions one after the other."""
        return cls(*(torch.cat([getattr(part, f.name) for part in parts]) for f in fields(cls)))

    def keep_nodes(self, n_nodes: int) -> Tensor:
        """Get 0 for the nodes of targets and 1 for all others, shape `(n_conditions, n_nodes)`."""
        knocked = torch.zeros(len(self), n_nodes + 1, device=self.node.device)
        knocked.scatter_(1, torch.where(self.node < 0, n_nodes, self.node), 1.0)
        return 1.0 - knocked[:, :n_nodes]


def dose_gate(dose: Tensor, log_half: Tensor, log_slope: Tensor) -> Tensor:
    """Get the share of the full effect at each dose: a Hill curve of `log1p(dose)`, from 0 at dose 0 towards 1.

    Parameters
    ----------
    dose
        `log1p` of the dose in uM; what has no dose (-1) has its full effect. Any shape.
    log_half
        Log of the `log1p` dose of half the effect, of a shape that broadcasts.
    log_slope
        Log of the steepness, taken between -1 and 1, of a shape that broadcasts.
    """
    dosed = dose > 0
    log_dose = dose.masked_fill(~dosed, 1.0).log()  # the gradient must not meet log 0
    share = torch.sigmoid(log_slope.tanh().exp() * (log_dose - log_half))
    return torch.where(dosed, share, (dose < 0).to(share.dtype))


class ConditionEncoder(nn.Module):
    """Embed a condition linearly: generic, prior and identity of a target; a sum for a combination; zero for the control.

    What is linear in the features is so in the targets, knows no order of them, and vanishes at dose 0. A target that
    was not trained has no identity, and is embedded by what the prior says of it.

    Parameters
    ----------
    n_features
        Number of features of a condition.
    out_features
        Width of the embedding.
    """

    def __init__(self, n_features: int, out_features: int) -> None:
        super().__init__()
        self.of_features = nn.Linear(n_features, out_features, bias=False)
        nn.init.normal_(self.of_features.weight)

    def forward(self, conditions: ConditionTensors) -> Tensor:
        """Embed conditions, as `(n_conditions, out_features)`."""
        return self.of_features(conditions.features)
