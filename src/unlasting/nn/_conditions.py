"""How a perturbation reaches the networks."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Final

import torch
from torch import Tensor, nn

GENE: Final = 0
DRUG: Final = 1
STIMULUS: Final = 2
_N_KINDS = 3
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
    identity
        Which trained target it is, -1 where it was not trained, shape `(n_conditions, n_slots)`.
    similarity
        Prior similarity to every trained target, `-inf` where nothing is known and between targets of different kinds,
        shape `(n_conditions, n_slots, n_trained)`.
    features
        What the expected effects depend on, shape `(n_conditions, n_features)`.
    """

    kind: Tensor
    node: Tensor
    molecule: Tensor
    dose: Tensor
    identity: Tensor
    similarity: Tensor
    features: Tensor

    def __getitem__(self, index: Tensor | slice) -> ConditionTensors:
        """Take some conditions, or repeat them."""
        return ConditionTensors(*(getattr(self, f.name)[index] for f in fields(self)))

    def __len__(self) -> int:
        return self.kind.shape[0]

    def to(self, device: torch.device | str) -> ConditionTensors:
        """Move all tensors to a device."""
        return ConditionTensors(*(getattr(self, f.name).to(device) for f in fields(self)))

    @property
    def filled(self) -> Tensor:
        """Whether the slot holds a target, shape `(n_conditions, n_slots)`."""
        return self.kind >= 0

    def is_control(self) -> Tensor:
        """Whether nothing is perturbed, shape `(n_conditions,)`."""
        return ~self.filled.any(-1)

    def null(self) -> ConditionTensors:
        """Get the control in the form of these conditions, one row."""
        empty = {"dose": NO_DOSE, "similarity": -torch.inf, "features": 0.0}
        tensors = ((f.name, getattr(self, f.name)) for f in fields(self))
        return ConditionTensors(*(t.new_full((1, *t.shape[1:]), empty.get(name, -1)) for name, t in tensors))

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
    """Embed a perturbation as a sum over its targets; the empty sum, zero, is the control.

    A target is `gate * (generic + identity)`, with one generic part for genes, drugs and stimuli each. The identity of
    a trained target is learnt. That of any other is a mixture of the learnt ones of its kind, weighted by a softmax of
    its prior similarity to them; one more place in the softmax stands for *none of these*, so that a target which
    resembles nothing falls back to the generic effect. The sharpness of the softmax and the weight of that place are
    learnt in episodes: the identity of some cells' targets is hidden in training, and has to be guessed from the other
    targets. The gate is 1 but for a drug with a dose: there it rises with the dose from 0, at a dose and a steepness
    that are read from the identity.

    Parameters
    ----------
    n_trained
        Number of trained targets.
    out_features
        Width of the embedding.
    """

    def __init__(self, n_trained: int, out_features: int) -> None:
        super().__init__()
        self.generic = nn.Parameter(torch.zeros(_N_KINDS, out_features))
        self.identity = nn.Parameter(torch.randn(n_trained, out_features) * out_features**-0.5)
        self.sharpness = nn.Parameter(torch.full((_N_KINDS,), 8.0))
        self.none_of_these = nn.Parameter(torch.full((_N_KINDS,), 1.5))
        self.usual_potency = nn.Parameter(torch.tensor([math.log(math.log1p(1.0)), 0.0]))
        self.of_potency = nn.Parameter(torch.zeros(out_features, 2))

    @torch.no_grad()
    def start_at_doses_of(self, conditions: ConditionTensors) -> None:
        """Begin with the half of the effect at the median dose of some conditions, in whatever range they are."""
        doses = conditions.dose[conditions.dose > 0]
        if doses.numel():
            self.usual_potency[0] = doses.log().median()

    def weights(self, conditions: ConditionTensors, hidden: Tensor | None = None) -> Tensor:
        """Get the share of every trained target in each slot, shape `(n_conditions, n_slots, n_trained)`.

        Parameters
        ----------
        conditions
            The conditions.
        hidden
            Whether the identities of a condition are to be guessed, shape `(n_conditions,)`. A hidden target does
            not see itself, nor the other targets of its combination. A stimulus is never hidden: nothing is known from
            which it could be guessed.
        """
        n_trained = self.identity.shape[0]
        positions = torch.arange(n_trained, device=conditions.identity.device)
        own = conditions.identity[..., None] == positions  # (n_conditions, n_slots, n_trained)
        known = conditions.identity >= 0
        kind = conditions.kind.clamp(min=0)
        silent = conditions.similarity.isinf()  # where the prior says nothing; kept out of the product's gradient
        similarity = self.sharpness[kind][..., None] * conditions.similarity.masked_fill(silent, 0.0)
        similarity = similarity.masked_fill(silent, -torch.inf)
        if hidden is not None:
            known = known & ~(hidden[:, None] & (kind != STIMULUS))
            similarity = similarity.masked_fill(own.any(1, keepdim=True) & hidden[:, None, None], -torch.inf)
        none = self.none_of_these[kind][..., None]
        guessed = torch.cat([similarity, none], dim=-1).softmax(-1)[..., :-1]
        return torch.where(known[..., None], own.to(guessed.dtype), guessed)

    def forward(self, conditions: ConditionTensors, hidden: Tensor | None = None) -> Tensor:
        """Embed conditions, as `(n_conditions, out_features)`."""
        identity = self.weights(conditions, hidden) @ self.identity  # (n_conditions, n_slots, out)
        potency = self.usual_potency + identity @ self.of_potency
        gate = dose_gate(conditions.dose, *potency.unbind(-1)) * conditions.filled
        embedded = self.generic[conditions.kind.clamp(min=0)] + identity
        return (gate[..., None] * embedded).sum(1)
