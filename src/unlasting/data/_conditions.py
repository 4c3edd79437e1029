"""From perturbations to the tensors that the networks read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from unlasting._perturbation import Perturbation, nearest_name
from unlasting.nn import ConditionTensors


@dataclass(frozen=True)
class TargetVocabulary:
    """Everything that is known of targets by name.

    Parameters
    ----------
    nodes
        Names of the nodes of the graph, the measured genes first.
    trained
        Names of the targets that occur in training cells.
    embedded
        Names of the genes that the prior knows.
    embedding
        Their embeddings, rows of length one, shape `(n_embedded, n_features)`.
    """

    nodes: Sequence[str]
    trained: Sequence[str]
    embedded: Sequence[str]
    embedding: np.ndarray

    def similarity(self, targets: Sequence[str]) -> np.ndarray:
        """Get the prior similarity to every trained target, `-inf` where the prior knows either not.

        Returns
        -------
        Shape `(n_targets, n_trained)`.
        """
        row = {name: i for i, name in enumerate(self.embedded)}
        similarity = np.full((len(targets), len(self.trained)), -np.inf, dtype=np.float32)
        known = [i for i, name in enumerate(targets) if name in row]
        known_trained = [j for j, name in enumerate(self.trained) if name in row]
        if known and known_trained:
            ours = self.embedding[[row[targets[i]] for i in known]]
            theirs = self.embedding[[row[self.trained[j]] for j in known_trained]]
            similarity[np.ix_(known, known_trained)] = ours @ theirs.T
        return similarity

    def unknown(self, targets: Sequence[str]) -> list[str]:
        """Get the targets of which neither graph nor prior nor training cells know anything."""
        known = {*self.nodes, *self.trained, *self.embedded}
        return sorted({name for name in targets if name not in known})

    def tensors(self, perturbations: Sequence[Perturbation]) -> ConditionTensors:
        """Write perturbations as tensors.

        Parameters
        ----------
        perturbations
            The conditions, in the order wanted.

        Returns
        -------
        One row for every perturbation.

        Raises
        ------
        ValueError
            If nothing at all is known of a target.
        """
        targets = sorted({name for p in perturbations for name in p.targets})
        unknown = self.unknown(targets)
        if unknown:
            names = {*self.nodes, *self.trained, *self.embedded}
            raise ValueError(
                f"Nothing is known of the target {unknown[0]!r}"
                + (f" and {len(unknown) - 1} more ({unknown[1:6]})" if len(unknown) > 1 else "")
                + f": it was not trained, it is no gene of the panel, and the prior has no embedding for it."
                f"{nearest_name(unknown[0], names)} Give it to `pp.grn(..., targets=[...])` before training, with a "
                "prior that knows it."
            )
        n_slots = max([len(p.targets) for p in perturbations], default=0) or 1
        place = {name: i for i, name in enumerate(targets)}
        node = {name: i for i, name in enumerate(self.nodes)}
        trained = {name: i for i, name in enumerate(self.trained)}
        index = np.full((len(perturbations), n_slots), -1, dtype=np.int64)
        for row, perturbation in enumerate(perturbations):
            index[row, : len(perturbation.targets)] = [place[name] for name in perturbation.targets]
        # One more row for empty slots, which the index -1 finds.
        similarity = np.vstack([self.similarity(targets), np.full((1, len(self.trained)), -np.inf)])
        nodes = np.array([node.get(name, -1) for name in targets] + [-1])
        identities = np.array([trained.get(name, -1) for name in targets] + [-1])
        return ConditionTensors(
            node=torch.from_numpy(nodes[index]),
            identity=torch.from_numpy(identities[index]),
            similarity=torch.from_numpy(similarity[index].astype(np.float32)),
            filled=torch.from_numpy(index >= 0),
        )
