"""Vocabulary of targets: genes, drugs and stimuli by name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Self

import numpy as np

from unlasting.screen import GeneNames, Perturbation, ScreenKeys, compared_by, nearest_name

GENE: Final = 0
DRUG: Final = 1
STIMULUS: Final = 2

KINDS: Final = {GENE: "gene targets", DRUG: "drugs", STIMULUS: "stimuli"}

Target = tuple[int, str]
"""Kind and name of a target; a drug has its canonical SMILES as name, so that two names for a molecule are one target."""


@dataclass(frozen=True)
class TargetVocabulary:
    """Known targets, with their priors and molecules.

    Parameters
    ----------
    nodes
        The graph's nodes by name, the measured genes first.
    trained_conditions
        Conditions in training cells, without the control.
    embedded
        Genes in the prior, by name.
    features
        Their features, dense or sparse, shape `(n_embedded, n_prior_features)`.
    drugs
        Canonical SMILES by drug name.
    smiles
        Canonical SMILES by row in `molecules`.
    molecules
        Embeddings with unit length, shape `(n_molecules, n_molecule_features)`.
    molecule_kind
        Embedding kind, as in :func:`unlasting.pp.molecules`.
    feature_source
        Source of each prior feature, shape `(n_prior_features,)`. `None`: one source.
    feature_is_term
        Whether a prior feature is a property by itself, with a relevance of its own, shape `(n_prior_features,)`. `None`:
        none is.
    """

    nodes: Sequence[str]
    trained_conditions: Sequence[Perturbation]
    embedded: Sequence[str]
    features: Any
    drugs: Mapping[str, str]
    smiles: Sequence[str]
    molecules: np.ndarray
    molecule_kind: str = "given"
    feature_source: np.ndarray | None = None
    feature_is_term: np.ndarray | None = None

    @classmethod
    def read(cls, graph: Mapping[str, Any], trained: Sequence[Perturbation]) -> Self:
        """Read the registered graph and the trained conditions."""
        return cls(
            nodes=list(graph["nodes"]),
            trained_conditions=[p for p in trained if not p.is_control],
            embedded=list(graph["embedded"]),
            features=graph["features"],
            drugs=dict(zip(graph["drugs"], graph["drug_smiles"], strict=True)),
            smiles=list(graph["smiles"]),
            molecules=graph["molecules"],
            molecule_kind=graph["molecule_kind"],
            feature_source=graph.get("feature_source"),
            feature_is_term=graph.get("feature_is_term"),
        )

    def similarity(self, drugs: Sequence[Target], others: Sequence[Target]) -> np.ndarray:
        """Compare molecules, 0 for unknown ones, shape `(n_drugs, n_others)`."""
        first, second = ([self.molecule_row.get(smiles, -1) for _, smiles in side] for side in (drugs, others))
        return self._compared[np.array(first, dtype=int)] @ self._compared[np.array(second, dtype=int)].T

    @cached_property
    def molecule_row(self) -> dict[str, int]:
        """Molecule rows by SMILES."""
        return {smiles: row for row, smiles in enumerate(self.smiles)}

    @cached_property
    def _compared(self) -> np.ndarray:
        """Vectors whose products are similarities; the last row, with zeros, is for unknown molecules."""
        rows = compared_by(self.molecules, self.molecule_kind).astype(np.float64)
        return np.concatenate([rows, np.zeros((1, rows.shape[1]))])

    @cached_property
    def trained(self) -> list[str]:
        """Target names in training cells."""
        return sorted({name for p in self.trained_conditions for name in p.targets})

    @cached_property
    def names_of_drugs(self) -> frozenset[str]:
        """All drug names and SMILES."""
        return frozenset({*self.drugs, *self.smiles})

    @cached_property
    def names_of_genes(self) -> frozenset[str]:
        """All genes in the graph or the prior."""
        return frozenset({*self.nodes, *self.embedded})

    @cached_property
    def gene_names(self) -> GeneNames:
        """All genes in the graph or the prior, found by any of their names."""
        return GeneNames([*self.nodes, *self.embedded], panel=self.nodes)

    def target(self, name: str) -> Target:
        """Classify a name: a known drug, else a gene in graph or prior under any of its names, else a stimulus."""
        if name in self.names_of_drugs:
            return DRUG, self.drugs.get(name, name)
        gene = self.gene_names.find(name)
        return (GENE, gene) if gene else (STIMULUS, name)

    def named(self, perturbation: Perturbation) -> frozenset[tuple[Target, float | None]]:
        """Write a perturbation in a form that is equal under all names of its molecules."""
        doses = zip(perturbation.targets, perturbation.doses, strict=True)
        return frozenset((self.target(name), dose) for name, dose in doses)

    @cached_property
    def trained_targets(self) -> list[Target]:
        """Trained targets in the order of their identities."""
        return sorted({self.target(name) for name in self.trained})

    @cached_property
    def trained_drugs(self) -> list[Target]:
        """Trained targets that are drugs."""
        return [target for target in self.trained_targets if target[0] == DRUG]

    @cached_property
    def node_row(self) -> dict[Target, int]:
        """Rows among the nodes by gene."""
        return {(GENE, name): row for row, name in enumerate(self.nodes)}

    def measured_targets(self, perturbation: Perturbation, n_genes: int) -> list[int]:
        """List the measured genes among the targets, as columns."""
        rows = (self.node_row.get(self.target(name), n_genes) for name in perturbation.targets)
        return [row for row in rows if row < n_genes]

    def require_distinct(self, perturbation: Perturbation) -> None:
        """Refuse a combination that names a molecule or a gene twice.

        Raises
        ------
        ValueError
            If it does.
        """
        first: dict[Target, str] = {}
        for name in perturbation.targets:
            kind, target = self.target(name)
            other, is_drug = first.setdefault((kind, target), name), kind == DRUG
            if other != name:
                raise ValueError(
                    f"{other!r} and {name!r} are one {'molecule' if is_drug else 'gene'}, {target!r}, and a combination can "
                    f"hold it only once. Name it once{', at the sum of the doses' if is_drug else ''}."
                )

    def require_known(
        self, perturbations: Sequence[Perturbation], control: str, delimiter: str = ScreenKeys.delimiter
    ) -> None:
        """Refuse unknown targets; `control` and `delimiter` are those of the labels.

        Raises
        ------
        ValueError
            If there are any.
        """
        known = set(self.trained_targets)
        names = sorted({name for p in perturbations for name in p.targets})
        unknown = [n for n in names if (target := self.target(n))[0] == STIMULUS and target not in known]
        if unknown:
            others = {*self.drugs, *self.trained}
            candidates = {*self.names_of_genes, *others}
            same = {name.casefold(): name for name in sorted(candidates)}.get(unknown[0].casefold())
            hint = f" Did you mean {same!r}?" if same else nearest_name(unknown[0], {*others, control})
            hint = hint or self.gene_names.hint(unknown[0])
            if unknown[0] == ScreenKeys.control:
                hint = f" The control is {control!r} here."
            parts = re.split(r"[\W_]+", unknown[0])
            if len(parts) > 1 and candidates.issuperset(parts):
                hint = f" A combination is written {delimiter.join(parts)!r}."
            raise ValueError(
                f"Nothing is known of the target {unknown[0]!r}"
                + (f" and {len(unknown) - 1} more ({unknown[1:6]})" if len(unknown) > 1 else "")
                + f": it was not trained, it is no gene of the panel, and the prior has no embedding for it."
                f"{hint} Give a gene to `pp.grn(..., targets=[...])` before training, with a prior that knows it, and a "
                "drug with its SMILES to `pp.molecules`. A stimulus has to be trained."
            )
