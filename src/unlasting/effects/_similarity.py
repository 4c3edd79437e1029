"""Similarity between molecules: an untrained drug's shares in the trained ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from scipy.special import softmax

from unlasting.effects._dose import DoseCurves, SingleDrug, hill, single_drugs
from unlasting.effects._moments import MeasuredEffects
from unlasting.effects._vocabulary import TargetVocabulary

_LOG2_SHARPNESS: Final = np.arange(0.0, 4.0)
_THRESHOLDS: Final = np.arange(-0.5, 3.1, 0.5)
_PRIOR_MEAN: Final = (2.0, 0.5)
_PRIOR_SD: Final = (1.5, 1.0)
"""Prior for the two parameters of :class:`MolecularSimilarity`, log2 sharpness and threshold."""
_ROUNDING: Final = 1e-6
"""Range between similarities that is rounding."""
_MIN_DRUGS: Final = 4
"""Fewest drugs from which leaving one out is informative."""
_MIN_ERROR: Final = 0.02
"""Leave-one-out error, relative to no effect, below which differences do not count."""


@dataclass(frozen=True)
class MolecularSimilarity:
    """Softmax over standardised similarities, which gives trained drugs shares in an untrained one.

    Parameters
    ----------
    sharpness
        Slope for the log shares, per s.d. among the similarities between trained drugs.
    threshold
        Standardised similarity that weighs as much as no drug at all.
    """

    sharpness: float = 2.0 ** _PRIOR_MEAN[0]
    threshold: float = _PRIOR_MEAN[1]

    def shares(self, similarity: np.ndarray, reference: np.ndarray) -> np.ndarray:
        """Divide a drug among the trained ones and none.

        Parameters
        ----------
        similarity
            Similarities between its molecule and the trained drugs', shape `(n_trained_drugs,)`.
        reference
            Similarities between the trained drugs.

        Returns
        -------
        Shares, at most 1 together, shape `(n_trained_drugs,)`. All are 0 where trained molecules are equally similar.
        """
        if np.ptp(reference) < _ROUNDING:
            return np.zeros(len(similarity))
        standardised = (similarity - reference.mean()) / reference.std()
        return softmax(self.sharpness * np.append(standardised, self.threshold))[:-1]

    @classmethod
    def fit(cls, vocabulary: TargetVocabulary, measured: MeasuredEffects, curves: DoseCurves) -> Self:
        """Estimate both parameters by leaving trained drugs out.

        Each drug's full effect is predicted from the others by their shares, and compared with the measured one in
        every control population. The log mean squared error, corrected for noise, counts once for each effective drug
        against the prior. The posterior mean is taken; with fewer than four drugs in a population it is the prior mean.
        """
        grid = [[cls(float(2.0**log2), float(threshold)) for threshold in _THRESHOLDS] for log2 in _LOG2_SHARPNESS]
        error = np.zeros((len(_LOG2_SHARPNESS), len(_THRESHOLDS)))
        sizes = np.zeros(len(vocabulary.trained_drugs))
        similarity = vocabulary.similarity(vocabulary.trained_drugs, vocabulary.trained_drugs)
        for drugs, products in _products_of_full_effects(vocabulary, measured, curves):
            if len(drugs) < _MIN_DRUGS:
                continue
            sizes[drugs] += np.diag(products)
            for place, drug in enumerate(drugs):
                others = np.delete(np.arange(len(drugs)), place)
                between = similarity[np.ix_(drugs[others], drugs[others])]
                reference = between[~np.eye(len(others), dtype=bool)]
                shares = np.array(
                    [[one.shares(similarity[drug, drugs[others]], reference) for one in row] for row in grid]
                )
                error += products[place, place] - 2.0 * shares @ products[others, place]
                error += (shares @ products[np.ix_(others, others)] * shares).sum(axis=-1)
        if sizes.sum() <= 0:
            return cls()
        # A few strong drugs determine the error, whatever their number.
        n_drugs = sizes.sum() ** 2 / (sizes**2).sum()
        relative = np.log(np.maximum(error / sizes.sum(), _MIN_ERROR))
        sharpness_penalty, threshold_penalty = (
            ((values - mean) / sd) ** 2
            for values, mean, sd in zip((_LOG2_SHARPNESS, _THRESHOLDS), _PRIOR_MEAN, _PRIOR_SD, strict=True)
        )
        weights = softmax(-0.5 * (n_drugs * relative + sharpness_penalty[:, None] + threshold_penalty))
        return cls(float(2.0 ** (weights.sum(axis=1) @ _LOG2_SHARPNESS)), float(weights.sum(axis=0) @ _THRESHOLDS))


def _products_of_full_effects(
    vocabulary: TargetVocabulary, measured: MeasuredEffects, curves: DoseCurves
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Multiply full effects between drugs with a molecule, corrected for noise: drugs and products per population."""
    known = set(vocabulary.smiles)
    by_context: dict[int, list[SingleDrug]] = {}
    for drug in single_drugs(vocabulary, measured):
        if vocabulary.trained_drugs[drug.place][1] in known:
            by_context.setdefault(drug.context, []).append(drug)
    for drugs in by_context.values():
        effects, variances, control_errors = [], [], []
        for drug in drugs:
            half, slope = (np.float64(part[drug.place]) for part in (curves.half_doses, curves.slopes))
            curve = hill(drug.log_doses, np.log(half), slope)
            weights = np.linalg.solve(drug.noise, curve)
            variances.append(1.0 / (curve @ weights))
            weights *= variances[-1]
            effects.append((weights @ drug.values).ravel())
            control_errors.append(np.sqrt(drug.control_noise) * weights.sum())
        # All drugs in the population share the error of the controls.
        noise = np.outer(control_errors, control_errors)
        np.fill_diagonal(noise, variances)
        values = np.stack(effects)
        yield np.array([drug.place for drug in drugs]), values @ values.T - values.shape[1] * noise
