"""Describe conditions by numbers, so that similar ones are expected to have similar effects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import sparse

from unlasting._perturbation import Perturbation
from unlasting.nn import DRUG, GENE

if TYPE_CHECKING:
    from unlasting.data._conditions import TargetVocabulary

_SHARES: Final = {"prior": 0.8, "identity": 0.1, "generic": 0.1}
"""What the variance of an effect is divided into before anything of the screen is seen."""


class ConditionFeatures:
    """Describe conditions by numbers whose weighted product tells how alike their effects are expected to be.

    A target is described by what the prior (or its molecule) says, by being a perturbation of its kind at all, and, if
    it was trained, by being itself. A combination is the sum of its targets, and a trained one is something of its own
    as well. The description of a drug is multiplied by a saturating function of its dose, which is 0 at dose 0: what a
    drug does has one direction at all doses, and so rises with the dose, between and beyond the trained ones.

    Parameters
    ----------
    vocabulary
        What is known of targets.
    trained
        The trained conditions, without the control.
    """

    def __init__(self, vocabulary: TargetVocabulary, trained: Sequence[Perturbation]) -> None:
        self.vocabulary = vocabulary
        self._gene = {name: row for row, name in enumerate(vocabulary.embedded)}
        self._molecule = {name: row for row, name in enumerate(vocabulary.smiles)}
        self._trained = {target: i for i, target in enumerate(vocabulary.trained_targets)}
        combinations = dict.fromkeys(vocabulary.named(p) for p in trained if len(p.targets) > 1)
        self._combination = {named: i for i, named in enumerate(combinations)}
        doses = [dose for p in trained for dose in p.doses if dose]
        half_doses = vocabulary.half_doses
        self._half_dose = {} if half_doses is None else dict(zip(vocabulary.trained_drugs, half_doses, strict=False))
        usual = float(np.exp(np.median(np.log(doses)))) if doses else 1.0
        self._usual_half_dose = usual if half_doses is None else half_doses[-1]
        of_trained = self._describe(trained)
        self._columns = np.flatnonzero(np.abs(of_trained).sum(axis=0) > 0)
        squared, kinds = of_trained[:, self._columns] ** 2, self._kinds_of_columns()[self._columns]
        self._scale = np.ones(len(self._columns), dtype=np.float32)
        for kind, share in _SHARES.items():
            length = squared[:, kinds == kind].sum(axis=1)
            if (length > 0).any():
                self._scale[kinds == kind] = np.sqrt(share / length[length > 0].mean())
        self.specific = (kinds != "generic").astype(np.float32)  # whether a column tells targets apart

    def __len__(self) -> int:
        return len(self._columns)

    def __call__(self, perturbations: Sequence[Perturbation]) -> np.ndarray:
        """Describe conditions, shape `(n_conditions, n_features)`; the control is described by zeros."""
        return self._describe(perturbations)[:, self._columns] * self._scale

    def _sizes(self) -> list[int]:
        features, molecules = self.vocabulary.features, self.vocabulary.molecules
        return [features.shape[1], molecules.shape[1], len(self._trained), 3]

    def _kinds_of_columns(self) -> np.ndarray:
        """Tell prior, identity and generic columns apart."""
        kinds = np.repeat(["prior", "prior", "identity", "generic"], self._sizes())
        return np.concatenate([kinds, ["identity"] * len(self._combination)])

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
            if kind == DRUG and known_as in self._molecule:
                targets[row, starts[1] : starts[2]] = self.vocabulary.molecules[self._molecule[known_as]]
            if target in self._trained:
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

    def _gate(self, target: tuple[int, str], dose: float | None) -> float:
        """Get the share of the full effect of a target at a dose in uM; all of it without a dose."""
        if not dose:
            return 1.0 if dose is None else 0.0
        return 1.0 / (1.0 + float(self._half_dose.get(target, self._usual_half_dose)) / dose)
