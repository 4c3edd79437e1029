"""From perturbations to the tensors that the networks read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from unlasting._perturbation import Perturbation
from unlasting.data._features import ConditionFeatures
from unlasting.data._vocabulary import Target, TargetVocabulary
from unlasting.nn import DRUG, GENE, NO_DOSE, ConditionTensors


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
