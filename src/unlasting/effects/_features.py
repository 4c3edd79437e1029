"""Condition features: numbers whose weighted products are the expected similarity between effects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from scipy import sparse

from unlasting.effects._dose import DoseCurves
from unlasting.effects._families import FAMILIES, GENERIC, FeatureFamilies
from unlasting.effects._similarity import MolecularSimilarity
from unlasting.effects._vocabulary import DRUG, GENE, Target, TargetVocabulary
from unlasting.screen import Perturbation

_SOURCE_SHARE: Final = 0.88
_SHARES: Final = {"identity": 0.1, "molecule": 0.1, "drug identity": 0.88, GENERIC: 0.02}
"""Prior share in an effect's variance for a source of knowledge about genes, and for each other kind of feature.

Unrelated perturbations share little, unless the screen shows more.
"""

_SHARES_WITH_FEW_DRUGS: Final = {"molecule": 0.88, "drug identity": 0.1}
"""With one or two trained drugs the usual similarity between molecules is unknown, and untrained drugs inherit nothing."""


class ConditionFeatures:
    """Describe conditions by features.

    A target has features from its prior or molecule, a generic feature for its kind, and an identity if it was trained.
    An untrained drug has shares in the identities that belong to similar trained drugs. A combination is the sum over
    its targets, and a trained one has an identity as well. A drug's features are multiplied by its Hill curve: its
    effect has one direction, and rises with the dose, between and beyond the trained doses.

    Parameters
    ----------
    vocabulary
        Targets and trained conditions.
    dose_curves
        Hill curves; the prior ones by default.
    similarity
        Similarity between molecules; the prior one by default.
    """

    def __init__(
        self,
        vocabulary: TargetVocabulary,
        dose_curves: DoseCurves | None = None,
        similarity: MolecularSimilarity | None = None,
    ) -> None:
        self.vocabulary = vocabulary
        self.dose_curves = dose_curves or DoseCurves.prior(vocabulary)
        self.similarity = similarity or MolecularSimilarity()
        trained, drugs = vocabulary.trained_conditions, vocabulary.trained_drugs
        self._gene = {name: row for row, name in enumerate(vocabulary.embedded)}
        self._trained = {target: i for i, target in enumerate(vocabulary.trained_targets)}
        combinations = dict.fromkeys(vocabulary.named(p) for p in trained if len(p.targets) > 1)
        self._combination = {named: i for i, named in enumerate(combinations)}
        self._trained_together = {self._targets(p) for p in trained}
        self._shares: dict[Target, np.ndarray] = dict(zip(drugs, np.eye(len(drugs)), strict=True))
        with_molecule = [i for i, (_, smiles) in enumerate(drugs) if smiles in vocabulary.molecule_row]
        self._compared = np.array(with_molecule, dtype=np.int64)
        self._families = {name: (family, len(family.describe(""))) for name, family in FAMILIES.items()}
        taken = sorted(self._families.keys() & {*_SHARES, *self._sources()})
        if taken:
            raise ValueError(
                f"The kernel family {taken[0]!r} has the name of features that are there already. Register it in `FAMILIES` under "
                "another name."
            )
        described = self._describe(trained)
        self._columns = np.unique(described.indices)
        squared, kinds = described[:, self._columns].power(2), self._kinds()[self._columns]
        sources = list(dict.fromkeys(self._sources()))
        shares = dict.fromkeys(sources, _SOURCE_SHARE) | _SHARES
        shares |= {} if len(self._compared) > 2 else _SHARES_WITH_FEW_DRUGS
        shares |= {name: family.share for name, (family, _) in self._families.items()}
        self._scale = np.ones(len(self._columns), dtype=np.float32)
        for kind, share in shares.items():
            length = np.asarray(squared[:, np.flatnonzero(kinds == kind)].sum(axis=1)).ravel()
            if (length > 0).any():
                self._scale[kinds == kind] = np.sqrt(share / length[length > 0].mean())
        self.families = FeatureFamilies(kinds, self._are_terms()[self._columns], shares, [*sources, *self._families])

    def __len__(self) -> int:
        return len(self._columns)

    def __call__(self, perturbations: Sequence[Perturbation]) -> sparse.csr_matrix:
        """Describe conditions, shape `(n_conditions, n_features)`; the control has zeros.

        Raises
        ------
        ValueError
            If a combination names a molecule twice.
        """
        return self._scaled(self._describe(perturbations))

    def untrained(self, perturbations: Sequence[Perturbation]) -> sparse.csr_matrix:
        """Describe the part of conditions that was not trained, shape `(n_conditions, n_features)`.

        An untrained target is part of it. A trained one is, in an untrained combination, as far as the other targets
        act. The part is thus linear in each dose, and 0 for trained conditions at any dose.
        """
        return self._scaled(self._describe(perturbations, self._untrained_gates))

    def are_described(self, perturbations: Sequence[Perturbation]) -> np.ndarray:
        """Test whether every target has features, shape `(n_conditions,)`."""
        parts = dict.fromkeys(Perturbation((name,)) for p in perturbations for name in p.targets)
        described = dict(zip(parts, np.diff(self(list(parts)).indptr) > 0, strict=True))
        return np.array(
            [all(described[Perturbation((name,))] for name in p.targets) for p in perturbations], dtype=bool
        )

    def strength(self, perturbations: Sequence[Perturbation]) -> np.ndarray:
        """Get the share of a full effect, 0 for the control and 1 with any gene, shape `(n_conditions,)`."""
        return np.array([_any_acts(self._gates(p)) for p in perturbations])

    def _targets(self, perturbation: Perturbation) -> frozenset[Target]:
        return frozenset(map(self.vocabulary.target, perturbation.targets))

    def _gates(self, perturbation: Perturbation) -> list[float]:
        """Get the share of every target's full effect."""
        doses = zip(perturbation.targets, perturbation.doses, strict=True)
        return [self._gate(self.vocabulary.target(name), dose) for name, dose in doses]

    def _untrained_gates(self, perturbation: Perturbation) -> list[float]:
        """Get the untrained part of :meth:`_gates`."""
        gates = self._gates(perturbation)
        if self._targets(perturbation) in self._trained_together:
            return [0.0] * len(gates)
        is_trained = [self.vocabulary.target(name) in self._trained for name in perturbation.targets]
        others = [_any_acts(gates[:place] + gates[place + 1 :]) for place in range(len(gates))]
        return [
            gate * (other if trained else 1.0) for gate, other, trained in zip(gates, others, is_trained, strict=True)
        ]

    def _sizes(self) -> list[int]:
        features, molecules = self.vocabulary.features, self.vocabulary.molecules
        widths = [width for _, width in self._families.values()]
        return [features.shape[1], molecules.shape[1], len(self._trained), 3, *widths]

    def _drug_shares(self, drug: Target) -> np.ndarray:
        """Get a drug's shares in the trained drugs, itself if it was trained, shape `(n_trained_drugs,)`."""
        if drug not in self._shares:
            shares = np.zeros(len(self.vocabulary.trained_drugs))
            if drug[1] in self.vocabulary.molecule_row and len(self._compared) > 2:
                compared = [self.vocabulary.trained_drugs[i] for i in self._compared]
                similarity = self.vocabulary.similarity([drug, *compared], compared)
                reference = similarity[1:][~np.eye(len(compared), dtype=bool)]
                shares[self._compared] = self.similarity.shares(similarity[0], reference)
            self._shares[drug] = shares
        return self._shares[drug]

    def _sources(self) -> list[str]:
        """Get the source of every prior feature."""
        known = self.vocabulary
        return ["prior"] * known.features.shape[1] if known.feature_source is None else list(known.feature_source)

    def _are_terms(self) -> np.ndarray:
        """Test which columns have a relevance of their own: all but those of embeddings."""
        known, are_terms = self.vocabulary, np.ones(sum(self._sizes()) + len(self._combination), dtype=bool)
        are_terms[: known.features.shape[1]] = False if known.feature_is_term is None else known.feature_is_term
        return are_terms

    def _kinds(self) -> np.ndarray:
        """Get every column's kind."""
        _, molecules, _, generic, *_ = self._sizes()
        identities = ["drug identity" if kind == DRUG else "identity" for kind, _ in self._trained]
        combinations = ["identity"] * len(self._combination)
        further = [name for name, (_, width) in self._families.items() for _ in range(width)]
        return np.array(
            self._sources() + ["molecule"] * molecules + identities + [GENERIC] * generic + further + combinations
        )

    def _scaled(self, described: sparse.csr_matrix) -> sparse.csr_matrix:
        """Select the features that trained conditions have, with the scale of their kind."""
        scaled = described[:, self._columns]
        scaled.data *= self._scale[scaled.indices]
        return scaled

    def _describe(
        self, perturbations: Sequence[Perturbation], gates: Callable[[Perturbation], list[float]] | None = None
    ) -> sparse.csr_matrix:
        """Describe conditions, or the part with other gates; no entry is a zero."""
        known = self.vocabulary
        place: dict[str, int] = {}
        acting, combined = _Entries(), _Entries()
        for row, perturbation in enumerate(perturbations):
            known.require_distinct(perturbation)
            for name, gate in zip(perturbation.targets, (gates or self._gates)(perturbation), strict=True):
                acting.add(row, place.setdefault(name, len(place)), gate)
            combination = self._combination.get(known.named(perturbation))
            if combination is not None and gates is None:
                combined.add(row, combination, 1.0)
        n = len(perturbations)
        parts = [
            acting.matrix(n, len(place)) @ self._targets_alone(list(place)),
            combined.matrix(n, len(self._combination)),
        ]
        described = sparse.csr_matrix(sparse.hstack(parts, format="csr"))
        described.eliminate_zeros()
        described.sort_indices()
        return described

    def _targets_alone(self, names: Sequence[str]) -> sparse.csr_matrix:
        """Describe targets at their full effect, shape `(n_targets, n_features)`."""
        known, sizes = self.vocabulary, self._sizes()
        starts = np.cumsum([0, *sizes[1:]])
        genes: list[int] = []
        with_prior, rest = _Entries(), _Entries()
        for row, name in enumerate(names):
            target = kind, known_as = known.target(name)
            if kind == GENE and known_as in self._gene:
                with_prior.add(row, len(genes), 1.0)
                genes.append(self._gene[known_as])
            if kind == DRUG:
                if known_as in known.molecule_row:
                    rest.add_all(row, starts[0], known.molecules[known.molecule_row[known_as]])
                for drug, share in zip(known.trained_drugs, self._drug_shares(target), strict=True):
                    rest.add(row, starts[1] + self._trained[drug], share)
            elif target in self._trained:
                rest.add(row, starts[1] + self._trained[target], 1.0)
            rest.add(row, starts[2] + kind, 1.0)
            for (family, _), start in zip(self._families.values(), starts[3:], strict=False):
                rest.add_all(row, start, family.describe(name))
        prior = with_prior.matrix(len(names), len(genes)) @ sparse.csr_matrix(known.features[genes], dtype=np.float32)
        return sparse.hstack([prior, rest.matrix(len(names), starts[-1])], format="csr")

    def _gate(self, target: Target, dose: float | None) -> float:
        """Get the share of a target's full effect at a dose in uM, 1 without a dose."""
        if dose is None:
            return 1.0
        return self.dose_curves.share_of_effect(self._drug_shares(target), dose)


class _Entries:
    """Entries of a sparse matrix, one after the other."""

    def __init__(self) -> None:
        self._entries: list[tuple[int, int, float]] = []

    def add(self, row: int, column: int, value: float) -> None:
        self._entries.append((row, column, value))

    def add_all(self, row: int, start: int, values: Sequence[float]) -> None:
        """Add neighbouring columns of a row."""
        self._entries += [(row, start + column, value) for column, value in enumerate(values)]

    def matrix(self, n_rows: int, n_columns: int) -> sparse.csr_matrix:
        """Make the matrix, in single precision."""
        row, column, value = zip(*self._entries, strict=True) if self._entries else ((), (), ())
        return sparse.csr_matrix((np.array(value, dtype=np.float32), (row, column)), (n_rows, n_columns))


def _any_acts(gates: Sequence[float]) -> float:
    """Combine shares of full effects: linear in each, and 1 where one target has its full effect."""
    return 1.0 - float(np.prod(1.0 - np.asarray(gates)))
