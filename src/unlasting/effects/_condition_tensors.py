"""From perturbations to the tensors that the networks read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from unlasting.effects._features import ConditionFeatures
from unlasting.effects._vocabulary import DRUG, GENE, NO_DOSE, Target, TargetVocabulary
from unlasting.screen import Perturbation


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

    def down_weighted(self, share: Tensor) -> ConditionTensors:
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


def condition_tensors(perturbations: Sequence[Perturbation], features: ConditionFeatures) -> ConditionTensors:
    """Write perturbations as tensors.

    Parameters
    ----------
    perturbations
        The conditions, in the order wanted.
    features
        Describes conditions.

    Returns
    -------
    One row for every perturbation.

    Raises
    ------
    ValueError
        If a combination names a molecule twice.
    """
    vocabulary = features.vocabulary
    for perturbation in perturbations:
        _require_different(perturbation, vocabulary)
    names = sorted({name for p in perturbations for name in p.targets})
    targets = [vocabulary.target(name) for name in names]
    n_slots = max([len(p.targets) for p in perturbations], default=0) or 1
    place = {name: i for i, name in enumerate(names)}
    index = np.full((len(perturbations), n_slots), -1, dtype=np.int64)
    dose = np.full(index.shape, NO_DOSE, dtype=np.float32)
    for row, perturbation in enumerate(perturbations):
        index[row, : len(perturbation.targets)] = [place[name] for name in perturbation.targets]
        for slot, uM in enumerate(perturbation.doses):
            if uM is not None:
                dose[row, slot] = np.log1p(uM)

    def rows(of: Sequence[Target]) -> torch.Tensor:
        where = {target: i for i, target in enumerate(of)}
        # One more row for empty slots, which the index -1 finds.
        return torch.from_numpy(np.array([*(where.get(target, -1) for target in targets), -1])[index])

    return ConditionTensors(
        kind=torch.from_numpy(np.array([*(kind for kind, _ in targets), -1])[index]),
        node=rows([(GENE, name) for name in vocabulary.nodes]),
        molecule=rows([(DRUG, smiles) for smiles in vocabulary.smiles]),
        dose=torch.from_numpy(dose),
        features=torch.from_numpy(features(perturbations)),
    )


def _require_different(perturbation: Perturbation, vocabulary: TargetVocabulary) -> None:
    """Refuse a combination that names a molecule twice: it would count as two."""
    first: dict[Target, str] = {}
    for name in perturbation.targets:
        other = first.setdefault(vocabulary.target(name), name)
        if other != name:
            raise ValueError(
                f"{other!r} and {name!r} are one molecule, {vocabulary.target(name)[1]!r}, and a combination can hold it "
                "only once. Name it once, at the sum of the doses."
            )
