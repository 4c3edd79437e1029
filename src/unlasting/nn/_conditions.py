"""How a perturbation reaches the networks."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class ConditionTensors:
    """What the networks know of each condition: one slot for every target of a combination.

    A control has no filled slot. Slots are a set: their order changes nothing.

    Parameters
    ----------
    node
        Node of the graph that a target is, -1 where there is none, shape `(n_conditions, n_slots)`.
    identity
        Which trained target it is, -1 where it was not trained, shape `(n_conditions, n_slots)`.
    similarity
        Prior similarity to every trained target, `-inf` where the prior says nothing,
        shape `(n_conditions, n_slots, n_trained)`.
    filled
        Whether the slot holds a target, shape `(n_conditions, n_slots)`.
    """

    node: Tensor
    identity: Tensor
    similarity: Tensor
    filled: Tensor

    def __getitem__(self, index: Tensor | slice) -> ConditionTensors:
        """Take some conditions, or repeat them."""
        return ConditionTensors(*(getattr(self, f.name)[index] for f in fields(self)))

    def __len__(self) -> int:
        return self.node.shape[0]

    def to(self, device: torch.device | str) -> ConditionTensors:
        """Move all tensors to a device."""
        return ConditionTensors(*(getattr(self, f.name).to(device) for f in fields(self)))

    def is_control(self) -> Tensor:
        """Whether nothing is perturbed, shape `(n_conditions,)`."""
        return ~self.filled.any(-1)

    def keep_nodes(self, n_nodes: int) -> Tensor:
        """Get 0 for the nodes of targets and 1 for all others, shape `(n_conditions, n_nodes)`."""
        knocked = torch.zeros(len(self), n_nodes + 1, device=self.node.device)
        knocked.scatter_(1, torch.where(self.node < 0, n_nodes, self.node), 1.0)
        return 1.0 - knocked[:, :n_nodes]


class ConditionEncoder(nn.Module):
    """Embed a perturbation as a sum over its targets; the empty sum, zero, is the control.

    A target is `generic + identity`. The identity of a trained target is learnt. That of any other target is a
    mixture of the learnt ones, weighted by a softmax of its prior similarity to them; one more place in the softmax
    stands for *none of these*, so that a target which resembles nothing falls back to the generic effect. The
    sharpness of the softmax and the weight of that place are learnt in episodes: the identity of some cells'
    targets is hidden in training, and has to be guessed from the other targets.

    Parameters
    ----------
    n_trained
        Number of trained targets.
    out_features
        Width of the embedding.
    """

    def __init__(self, n_trained: int, out_features: int) -> None:
        super().__init__()
        self.generic = nn.Parameter(torch.zeros(out_features))
        self.identity = nn.Parameter(torch.randn(n_trained, out_features) * out_features**-0.5)
        self.sharpness = nn.Parameter(torch.tensor(8.0))
        self.none_of_these = nn.Parameter(torch.tensor(1.5))

    def weights(self, conditions: ConditionTensors, hidden: Tensor | None = None) -> Tensor:
        """Get the share of every trained target in each slot, shape `(n_conditions, n_slots, n_trained)`.

        Parameters
        ----------
        conditions
            The conditions.
        hidden
            Whether the identities of a condition are to be guessed, shape `(n_conditions,)`. A hidden target does
            not see itself, nor the other targets of its combination.
        """
        n_trained = self.identity.shape[0]
        positions = torch.arange(n_trained, device=conditions.identity.device)
        own = conditions.identity[..., None] == positions  # (n_conditions, n_slots, n_trained)
        known = conditions.identity >= 0
        silent = conditions.similarity.isinf()  # where the prior says nothing; kept out of the product's gradient
        similarity = (self.sharpness * conditions.similarity.masked_fill(silent, 0.0)).masked_fill(silent, -torch.inf)
        if hidden is not None:
            known = known & ~hidden[:, None]
            similarity = similarity.masked_fill(own.any(1, keepdim=True) & hidden[:, None, None], -torch.inf)
        none = self.none_of_these.expand(*similarity.shape[:-1], 1)
        guessed = torch.cat([similarity, none], dim=-1).softmax(-1)[..., :-1]
        return torch.where(known[..., None], own.to(guessed.dtype), guessed)

    def forward(self, conditions: ConditionTensors, hidden: Tensor | None = None) -> Tensor:
        """Embed conditions, as `(n_conditions, out_features)`."""
        embedded = self.generic + self.weights(conditions, hidden) @ self.identity  # (n_conditions, n_slots, out)
        return (embedded * conditions.filled[..., None]).sum(1)
