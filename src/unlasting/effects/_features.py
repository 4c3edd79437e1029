"""Describe conditions by numbers, so that similar ones are expected to have similar effects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from scipy import sparse

from unlasting.effects._dose import DoseCurves
from unlasting.effects._similarity import MolecularSimilarity
from unlasting.effects._vocabulary import DRUG, GENE, Target, TargetVocabulary
from unlasting.screen import Perturbation

_SHARES: Final = {"prior": 0.88, "identity": 0.1, "molecule": 0.1, "identity of drugs": 0.88, "generic": 0.02}
"""What the variance of an effect is divided into before anything of the screen is seen. What perturbations that have
nothing to do with each other share is small, until the screen shows that it is not."""

_SHARES_OF_FEW_DRUGS: Final = {"molecule": 0.88, "identity of drugs": 0.1}
"""Among one or two trained drugs nothing tells how similar two molecules usually are, and no identity is inherited."""


class ConditionFeatures:
    """Describe conditions by numbers whose weighted product tells how alike their effects are expected to be.

    A target is described by what the prior (or its molecule) says, by being a perturbation of its kind at all, and, if
    it was trained, by being itself; an untrained drug is partly those trained drugs whose molecules are like its own. A
    combination is the sum of its targets, and a trained one is something of its own as well. The description of a drug is
    multiplied by a saturating function of its dose, which is 0 at dose 0: what a drug does has one direction at all doses,
    and so rises with the dose, between and beyond the trained ones.

    Parameters
    ----------
    vocabulary
        What is known of targets, and the trained conditions.
    dose_curves
        How the effects of the trained drugs, and last of any other, rise with the dose. `None`: as is usual.
    molecular_similarity
        How far drugs with similar molecules act alike. `None`: as is usual.
    """

    def __init__(
        self,
        vocabulary: TargetVocabulary,
        dose_curves: DoseCurves | None = None,
        molecular_similarity: MolecularSimilarity | None = None,
    ) -> None:
        self.vocabulary = vocabulary
        trained = vocabulary.trained_conditions
        self._gene = {name: row for row, name in enumerate(vocabulary.embedded)}
        self._trained = {target: i for i, target in enumerate(vocabulary.trained_targets)}
        combinations = dict.fromkeys(vocabulary.named(p) for p in trained if len(p.targets) > 1)
        self._combination = {named: i for i, named in enumerate(combinations)}
        drugs = vocabulary.trained_drugs
        self._dose_curves = dose_curves or DoseCurves.usual(vocabulary)
        self._molecular_similarity = molecular_similarity or MolecularSimilarity()
        self._shares: dict[Target, np.ndarray] = dict(zip(drugs, np.eye(len(drugs)), strict=True))
        with_molecule = [i for i, (_, smiles) in enumerate(drugs) if smiles in vocabulary.molecule_row]
        self._compared = np.array(with_molecule, dtype=np.int64)
        of_trained = self._describe(trained)
        self._columns = np.flatnonzero(np.abs(of_trained).sum(axis=0) > 0)
        squared, kinds = of_trained[:, self._columns] ** 2, self._kinds_of_columns()[self._columns]
        self._scale = np.ones(len(self._columns), dtype=np.float32)
        shares = _SHARES if len(self._compared) > 2 else _SHARES | _SHARES_OF_FEW_DRUGS
        for kind, share in shares.items():
            length = squared[:, kinds == kind].sum(axis=1)
            if (length > 0).any():
                self._scale[kinds == kind] = np.sqrt(share / length[length > 0].mean())
        self.specific = (kinds != "generic").astype(np.float32)  # whether a column tells targets apart

    def __len__(self) -> int:
        return len(self._columns)

    def __call__(self, perturbations: Sequence[Perturbation]) -> np.ndarray:
        """Describe conditions, shape `(n_conditions, n_features)`; the control is described by zeros."""
        return self._describe(perturbations)[:, self._columns] * self._scale

    def scale_as(self, described: np.ndarray) -> None:
        """Scale the columns as they were when a model was fitted, by its description of the trained conditions."""
        own = self._describe(self.vocabulary.trained_conditions)[:, self._columns]
        scale = (own * described).sum(axis=0) / (own**2).sum(axis=0)
        self._scale = np.where(np.isclose(scale, self._scale, rtol=1e-4), self._scale, scale).astype(np.float32)

    def _sizes(self) -> list[int]:
        features, molecules = self.vocabulary.features, self.vocabulary.molecules
        return [features.shape[1], molecules.shape[1], len(self._trained), 3]

    def _shares_of(self, drug: Target) -> np.ndarray:
        """Tell which share of a drug each trained one is: itself if it was trained; shape `(n_trained_drugs,)`."""
        if drug not in self._shares:
            shares = np.zeros(len(self.vocabulary.trained_drugs))
            if drug[1] in self.vocabulary.molecule_row and len(self._compared) > 2:
                compared = [self.vocabulary.trained_drugs[i] for i in self._compared]
                similarity = self.vocabulary.similarity([drug, *compared], compared)
                usual = similarity[1:][~np.eye(len(compared), dtype=bool)]
                shares[self._compared] = self._molecular_similarity.shares(similarity[0], usual)
            self._shares[drug] = shares
        return self._shares[drug]

    def _kinds_of_columns(self) -> np.ndarray:
        """Tell prior, identity and generic columns apart."""
        genes, molecules, _, generic = self._sizes()
        identities = ["identity of drugs" if kind == DRUG else "identity" for kind, _ in self._trained]
        own = ["identity"] * len(self._combination)
        return np.array(["prior"] * genes + ["molecule"] * molecules + identities + ["generic"] * generic + own)

    def _describe(self, perturbations: Sequence[Perturbation]) -> np.ndarray:
        names = sorted({name for p in perturbations for name in p.targets})
        sizes = self._sizes()
        starts = np.concatenate([[0], np.cumsum(sizes)])
        targets = np.zeros((len(names), starts[-1]), dtype=np.float32)
        for row, name in enumerate(names):
            kind, known_as = target = self.vocabulary.target(name)
            if target[1] in self._gene and kind == GENE:
                features = self.vocabulary.features[self._gene[known_as]]
                targets[row, : sizes[0]] = features.toarray().ravel() if sparse.issparse(features) else features
            if kind == DRUG and known_as in self.vocabulary.molecule_row:
                targets[row, starts[1] : starts[2]] = self.vocabulary.molecules[self.vocabulary.molecule_row[known_as]]
            if kind == DRUG:
                for drug, share in zip(self.vocabulary.trained_drugs, self._shares_of(target), strict=True):
                    targets[row, starts[2] + self._trained[drug]] = share
            elif target in self._trained:
                targets[row, starts[2] + self._trained[target]] = 1.0
            targets[row, starts[3] + kind] = 1.0
        place = {name: row for row, name in enumerate(names)}
        described = np.zeros((len(perturbations), starts[-1]), dtype=np.float32)
        combinations = np.zeros((len(perturbations), len(self._combination)), dtype=np.float32)
        for row, perturbation in enumerate(perturbations):
            for name, dose in zip(perturbation.targets, perturbation.doses, strict=True):
                described[row] += self._gate(self.vocabulary.target(name), dose) * targets[place[name]]
            own = self._combination.get(self.vocabulary.named(perturbation))
            if own is not None:
                combinations[row, own] = 1.0
        return np.concatenate([described, combinations], axis=1)

    def _gate(self, target: Target, dose: float | None) -> float:
        """Get the share of the full effect of a target at a dose in uM; all of it without a dose."""
        if not dose:
            return 1.0 if dose is None else 0.0
        return self._dose_curves.share_of_effect(self._shares_of(target), dose)
