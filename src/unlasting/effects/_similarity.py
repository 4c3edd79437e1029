"""Find out how far drugs with similar molecules act alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.special import expit, softmax

from unlasting.effects._dose import DoseCurves, DrugAlone, drugs_alone
from unlasting.effects._moments import MeasuredEffects
from unlasting.effects._vocabulary import TargetVocabulary

_LOG2_SHARPNESS: Final = np.arange(0.0, 4.0)
_UNLIKE: Final = np.arange(-0.5, 3.1, 0.5)
_USUAL: Final = (2.0, 0.5)
_SPREAD: Final = (1.5, 1.0)
"""What is known of both numbers of :class:`MolecularSimilarity` (of the first, its logarithm to base 2) before anything is seen."""
_SAME: Final = 1e-6
"""Range of similarities, of at most 1, that is rounding."""
_FEWEST: Final = 4
"""Drugs that are compared, below which leaving one out tells nothing."""
_LEAST_ERROR: Final = 0.02
"""Error of drugs that are left out, relative to no effect, below which it is as good as none."""


@dataclass(frozen=True)
class MolecularSimilarity:
    """Which share of an untrained drug each trained one is, as the similarity of their molecules tells.

    Parameters
    ----------
    sharpness
        How fast shares fall with the similarity, in s.d. between the molecules of trained drugs.
    unlike
        How much more similar than those usually are, in such s.d., a molecule has to be to count more than nothing.
    """

    sharpness: float = 2.0 ** _USUAL[0]
    unlike: float = _USUAL[1]

    def shares(self, similarity: np.ndarray, usual: np.ndarray) -> np.ndarray:
        """Share a drug among the trained ones, and what is like none of them.

        Parameters
        ----------
        similarity
            Of its molecule with those of the trained drugs, shape `(n_trained_drugs,)`.
        usual
            Similarities between the latter.

        Returns
        -------
        Shares, at most 1 together, shape `(n_trained_drugs,)`. None at all where all trained molecules are equally similar.
        """
        if np.ptp(usual) < _SAME:
            return np.zeros(len(similarity))
        standardised = (similarity - usual.mean()) / usual.std()
        return softmax(self.sharpness * np.append(standardised, self.unlike))[:-1]


def fit_molecular_similarity(
    vocabulary: TargetVocabulary, measured: MeasuredEffects, curves: DoseCurves
) -> MolecularSimilarity:
    """Find the likeness with which trained drugs are well predicted from the others.

    The full effect of each trained drug is told from those of the others, by their shares in it, and compared with the
    measured one, in every population of controls. The logarithm of the mean squared error, noise removed, counts once for each drug
    with an effect, against what is usual: few drugs say little. The mean over what is left is taken.

    Parameters
    ----------
    vocabulary
        Knows the trained conditions and the molecules.
    measured
        The effects in the training cells.
    curves
        How the effects of trained drugs rise with the dose.

    Returns
    -------
    The molecular_similarity; what is usual if fewer than four trained drugs with a molecule were measured alone in a population.
    """
    grid = [[MolecularSimilarity(float(2.0**log2), float(unlike)) for unlike in _UNLIKE] for log2 in _LOG2_SHARPNESS]
    error, sizes = np.zeros((len(_LOG2_SHARPNESS), len(_UNLIKE))), np.zeros(len(vocabulary.trained_drugs))
    similarity = vocabulary.similarity(vocabulary.trained_drugs, vocabulary.trained_drugs)
    for drugs, products in _products_of_full_effects(vocabulary, measured, curves):
        if len(drugs) < _FEWEST:
            continue
        sizes[drugs] += np.diag(products)
        for place, drug in enumerate(drugs):
            others = np.delete(np.arange(len(drugs)), place)
            among = similarity[np.ix_(drugs[others], drugs[others])]
            usual = among[~np.eye(len(others), dtype=bool)]
            shares = np.array([[one.shares(similarity[drug, drugs[others]], usual) for one in row] for row in grid])
            error += products[place, place] - 2.0 * shares @ products[others, place]
            error += (shares @ products[np.ix_(others, others)] * shares).sum(axis=-1)
    if sizes.sum() <= 0:
        return MolecularSimilarity()
    # A few strong drugs decide the error, however many there are.
    n_drugs = sizes.sum() ** 2 / (sizes**2).sum()
    relative = np.log(np.maximum(error / sizes.sum(), _LEAST_ERROR))
    of_sharpness, of_unlike = (
        ((values - usual) / spread) ** 2
        for values, usual, spread in zip((_LOG2_SHARPNESS, _UNLIKE), _USUAL, _SPREAD, strict=True)
    )
    weights = softmax(-0.5 * (n_drugs * relative + of_sharpness[:, None] + of_unlike))
    return MolecularSimilarity(
        float(2.0 ** (weights.sum(axis=1) @ _LOG2_SHARPNESS)), float(weights.sum(axis=0) @ _UNLIKE)
    )


def _products_of_full_effects(
    vocabulary: TargetVocabulary, measured: MeasuredEffects, curves: DoseCurves
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Multiply the full effects of drugs with a molecule with each other, noise removed, in each population: drugs, products."""
    known = set(vocabulary.smiles)
    of_populations: dict[int, list[DrugAlone]] = {}
    for alone in drugs_alone(vocabulary, measured):
        if vocabulary.trained_drugs[alone.drug][1] in known:
            of_populations.setdefault(alone.population, []).append(alone)
    for population in of_populations.values():
        effects, variances, of_controls = [], [], []
        for alone in population:
            half, slope = (np.float64(of[alone.drug]) for of in (curves.half_doses, curves.slopes))
            curve = expit(slope * (alone.log_doses - np.log(half)))
            weights = np.linalg.solve(alone.noise, curve)
            variances.append(1.0 / (curve @ weights))
            weights *= variances[-1]
            effects.append((weights @ alone.values).ravel())
            of_controls.append(np.sqrt(alone.of_controls) * weights.sum())
        # The error of the controls is in the effects of all drugs of the population.
        noise = np.outer(of_controls, of_controls)
        np.fill_diagonal(noise, variances)
        values = np.stack(effects)
        yield np.array([alone.drug for alone in population]), values @ values.T - values.shape[1] * noise
