"""Conditions as tensors for the networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from torch import Tensor

from unlasting.effects._model import EffectsModel
from unlasting.effects._tensors import Rows
from unlasting.effects._vocabulary import DRUG
from unlasting.screen import Perturbation

NO_DOSE: Final = -1.0
_WEIGHT_POWER: Final = 4.0


@dataclass(frozen=True)
class ConditionTensors(Rows):
    """Conditions with one slot for every target in a combination.

    A control has no filled slot. Slots have no order.

    Parameters
    ----------
    kind
        0 for a gene, 1 for a drug, 2 for a stimulus, -1 for an empty slot, shape `(n_conditions, n_slots)`.
    node
        A gene's node in the graph, else -1, shape `(n_conditions, n_slots)`.
    molecule
        A drug's row among the molecules, else -1, shape `(n_conditions, n_slots)`.
    dose
        `log1p` of the dose in uM, -1 without a dose, shape `(n_conditions, n_slots)`.
    features
        Features that describe the condition, zero for the control, shape `(n_conditions, n_features)`.
    weight
        Weight for the features in the mask network, in [0, 1], shape `(n_conditions,)`. It is 1 for trained
        conditions at any dose. Elsewhere it falls with the support, since learnt corrections do not transfer.
    """

    kind: Tensor
    node: Tensor
    molecule: Tensor
    dose: Tensor
    features: Tensor
    weight: Tensor

    def down_weighted(self) -> ConditionTensors:
        """Multiply the features by their weight."""
        return replace(self, features=self.features * self.weight[:, None])

    @property
    def filled(self) -> Tensor:
        """Whether a slot holds a target, shape `(n_conditions, n_slots)`."""
        return self.kind >= 0

    def is_control(self) -> Tensor:
        """Whether nothing is perturbed, shape `(n_conditions,)`."""
        return ~self.filled.any(-1)

    def keep_nodes(self, n_nodes: int) -> Tensor:
        """Get 0 for targeted nodes and 1 for all others, shape `(n_conditions, n_nodes)`."""
        knocked = torch.zeros(len(self), n_nodes + 1, device=self.node.device)
        knocked.scatter_(1, torch.where(self.node < 0, n_nodes, self.node), 1.0)
        return 1.0 - knocked[:, :n_nodes]


def condition_tensors(perturbations: Sequence[Perturbation], effects: EffectsModel) -> ConditionTensors:
    """Write perturbations as tensors, one row each.

    Raises
    ------
    ValueError
        If a combination names a molecule twice.
    """
    vocabulary, features = effects.vocabulary, effects.features(perturbations).toarray()
    n_slots = max([len(p.targets) for p in perturbations], default=0) or 1
    kind = np.full((len(perturbations), n_slots), -1)
    node, molecule = kind.copy(), kind.copy()
    dose = np.full(kind.shape, NO_DOSE, dtype=np.float32)
    for row, perturbation in enumerate(perturbations):
        for slot, (name, uM) in enumerate(zip(perturbation.targets, perturbation.doses, strict=True)):
            target = vocabulary.target(name)
            kind[row, slot] = target[0]
            node[row, slot] = vocabulary.node_row.get(target, -1)
            if target[0] == DRUG:
                molecule[row, slot] = vocabulary.molecule_row.get(target[1], -1)
            if uM is not None:
                dose[row, slot] = np.log1p(uM)
    weight = np.where(effects.is_trained(perturbations), 1.0, effects.support(perturbations) ** _WEIGHT_POWER)
    arrays = (kind, node, molecule, dose, features, weight.astype(np.float32))
    return ConditionTensors(*(torch.from_numpy(array) for array in arrays))
