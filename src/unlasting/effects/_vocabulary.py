"""What is known of targets by name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np

from unlasting.screen import Perturbation, ScreenKeys, compared_by, nearest_name

GENE: Final = 0
DRUG: Final = 1
STIMULUS: Final = 2
NO_DOSE: Final = -1.0

KINDS: Final = {GENE: "gene targets", DRUG: "drugs", STIMULUS: "stimuli"}

Target = tuple[int, str]
"""Kind and name of a target; a drug goes by its canonical SMILES, so that two names of a molecule are one."""


@dataclass(frozen=True)
class TargetVocabulary:
    """Everything that is known of targets by name.

    Parameters
    ----------
    nodes
        Names of the nodes of the graph, the measured genes first.
    trained_conditions
        The conditions of training cells, without the control.
    embedded
        Names of the genes that the prior knows.
    features
        What the prior says of them, dense or sparse, shape `(n_embedded, n_prior_features)`.
    drugs
        Canonical SMILES of every drug by its name.
    smiles
        Canonical SMILES of the molecules.
    molecules
        Their embeddings, rows of length one, shape `(n_molecules, n_molecule_features)`.
    molecule_kind
        What these are, as :func:`unlasting.pp.molecules` names them.
    """

    nodes: Sequence[str]
    trained_conditions: Sequence[Perturbation]
    embedded: Sequence[str]
    features: Any
    drugs: Mapping[str, str]
    smiles: Sequence[str]
    molecules: np.ndarray
    molecule_kind: str = "given"

    @classmethod
    def read(cls, graph: Mapping[str, Any], trained: Sequence[Perturbation]) -> TargetVocabulary:
        """Take it from the registered graph and the trained conditions."""
        return cls(
            nodes=list(graph["nodes"]),
            trained_conditions=[p for p in trained if not p.is_control],
            embedded=list(graph["embedded"]),
            features=graph["features"],
            drugs=dict(zip(graph["drugs"], graph["drug_smiles"], strict=True)),
            smiles=list(graph["smiles"]),
            molecules=graph["molecules"],
            # models of earlier versions, which do not say, compare the embeddings as they are
            molecule_kind=graph.get("molecule_kind", "given"),
        )

    def similarity(self, drugs: Sequence[Target], others: Sequence[Target]) -> np.ndarray:
        """Compare the molecules of drugs, 0 where one is not known, shape `(n_drugs, n_others)`."""
        first, second = ([self.molecule_row.get(smiles, -1) for _, smiles in side] for side in (drugs, others))
        return self._compared[np.array(first, dtype=int)] @ self._compared[np.array(second, dtype=int)].T

    @cached_property
    def molecule_row(self) -> dict[str, int]:
        """Row of each molecule by its SMILES."""
        return {smiles: row for row, smiles in enumerate(self.smiles)}

    @cached_property
    def _compared(self) -> np.ndarray:
        """What molecules are compared by; the last row, of zeros, is for those that are not known."""
        rows = compared_by(self.molecules, self.molecule_kind).astype(np.float64)
        return np.concatenate([rows, np.zeros((1, rows.shape[1]))])

    @cached_property
    def trained(self) -> list[str]:
        """Names of the targets that occur in training cells."""
        return sorted({name for p in self.trained_conditions for name in p.targets})

    @cached_property
    def names_of_drugs(self) -> frozenset[str]:
        """Everything that names a drug."""
        return frozenset({*self.drugs, *self.smiles})

    @cached_property
    def names_of_genes(self) -> frozenset[str]:
        """Every gene of the graph or the prior."""
        return frozenset({*self.nodes, *self.embedded})

    def target(self, name: str) -> Target:
        """Say what a name is: a drug where it names one, else a gene where graph or prior know it, else a stimulus."""
        if name in self.names_of_drugs:
            return DRUG, self.drugs.get(name, name)
        return (GENE if name in self.names_of_genes else STIMULUS), name

    def named(self, perturbation: Perturbation) -> frozenset[tuple[Target, float | None]]:
        """Write a perturbation so that it is equal under all names of its molecules."""
        doses = zip(perturbation.targets, perturbation.doses, strict=True)
        return frozenset((self.target(name), dose) for name, dose in doses)

    @cached_property
    def trained_targets(self) -> list[Target]:
        """The trained targets in the order of their learnt identities."""
        return sorted({self.target(name) for name in self.trained})

    @cached_property
    def trained_drugs(self) -> list[Target]:
        """Those of them that are drugs."""
        return [target for target in self.trained_targets if target[0] == DRUG]

    def require_known(
        self, perturbations: Sequence[Perturbation], control: str, delimiter: str = ScreenKeys.delimiter
    ) -> None:
        """Refuse targets of which nothing is known; `control` and `delimiter` are how labels are written.

        Raises
        ------
        ValueError
            If there are any.
        """
        known = set(self.trained_targets)
        names = sorted({name for p in perturbations for name in p.targets})
        unknown = [n for n in names if (target := self.target(n))[0] == STIMULUS and target not in known]
        if unknown:
            hint = nearest_name(unknown[0], {*self.names_of_genes, *self.drugs, *self.trained, control})
            if unknown[0] == ScreenKeys.control:
                hint = f" The control is {control!r} here."
            parts = re.split(r"[\W_]+", unknown[0])
            if len(parts) > 1 and {*self.names_of_genes, *self.drugs, *self.trained}.issuperset(parts):
                hint = f" A combination is written {delimiter.join(parts)!r}."
            raise ValueError(
                f"Nothing is known of the target {unknown[0]!r}"
                + (f" and {len(unknown) - 1} more ({unknown[1:6]})" if len(unknown) > 1 else "")
                + f": it was not trained, it is no gene of the panel, and the prior has no embedding for it."
                f"{hint} Give a gene to `pp.grn(..., targets=[...])` before training, with a prior that knows it, and a "
                "drug with its SMILES to `pp.molecules`. A stimulus has to be trained."
            )
