"""Hill curves: the share of its full effect that a drug has at a dose."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import torch
from scipy.special import expit, softmax

from unlasting.effects._moments import MeasuredEffects
from unlasting.effects._vocabulary import Target, TargetVocabulary

_OFFSETS: Final = np.linspace(-3.0, 3.0, 61) * np.log(10.0)
"""Candidate half doses: three powers of ten on both sides of a drug's middle trained dose."""
_RELATIVE_SPREAD: Final = 1 / 6
"""Prior s.d. for a log half dose, relative to the range of trained doses, which are chosen to contain it."""
_MIN_SPREAD: Final = np.log(10.0) / 3
_LOG_SLOPES: Final = np.linspace(np.log(0.5), np.log(4.0), 13)
_PRIOR_LOG_SLOPE: Final = np.log(1.4)
_LOG_SLOPE_SPREAD: Final = 0.35
"""Prior s.d. for a log Hill slope: most slopes are between .7 and 2.8."""


def hill(log_dose: Any, log_half_dose: Any, slope: Any) -> Any:
    """Compute the share of the full effect by Hill's equation :cite:p:`hill1910possible`, for arrays or tensors."""
    exponent = slope * (log_dose - log_half_dose)
    return torch.sigmoid(exponent) if isinstance(exponent, torch.Tensor) else expit(exponent)


@dataclass(frozen=True)
class DoseCurves:
    """Hill curves for drugs.

    Parameters
    ----------
    half_doses
        Doses in uM with half of the effect, for the trained drugs and, last, any other, shape `(n_trained_drugs + 1,)`.
    slopes
        Hill slopes, shape `(n_trained_drugs + 1,)`.
    """

    half_doses: np.ndarray
    slopes: np.ndarray

    @classmethod
    def prior(cls, vocabulary: TargetVocabulary) -> Self:
        """Get the expected curves before any measurement: half the effect at a drug's middle dose."""
        middles = [_middle_and_range(doses)[0] for doses in _trained_doses(vocabulary)]
        half_doses = np.exp([*middles, np.median(middles) if middles else 0.0]).astype(np.float32)
        return cls(half_doses, np.full_like(half_doses, np.exp(_PRIOR_LOG_SLOPE)))

    @classmethod
    def fit(cls, vocabulary: TargetVocabulary, measured: MeasuredEffects) -> Self:
        """Estimate half dose and slope for each trained drug.

        A single drug's effect is a full effect in each control population times a Hill curve. Full effects are normally
        distributed with the most likely variance, and so a curve's likelihood has a closed form. Log half dose and log
        slope take their posterior means. Without an effect, or with one dose, they stay near the drug's middle dose and
        a slope of 1.4.

        Returns
        -------
        Curves for the trained drugs in the vocabulary's order, and last their median for any other drug.
        """
        likelihoods = np.zeros((len(vocabulary.trained_drugs), len(_LOG_SLOPES), len(_OFFSETS)))
        centres = [_middle_and_range(doses) for doses in _trained_doses(vocabulary)]
        for drug in single_drugs(vocabulary, measured):
            log_halves = centres[drug.place][0] + _OFFSETS
            curves = hill(drug.log_doses, log_halves[:, None], np.exp(_LOG_SLOPES)[:, None, None])
            likelihoods[drug.place] += sum(_log_likelihood(curves, drug.noise, values) for values in drug.values)
        slope_penalty = ((_LOG_SLOPES - _PRIOR_LOG_SLOPE) / _LOG_SLOPE_SPREAD) ** 2
        found = []
        for likelihood, (middle, dose_range) in zip(likelihoods, centres, strict=True):
            half_penalty = (_OFFSETS / max(_RELATIVE_SPREAD * dose_range, _MIN_SPREAD)) ** 2
            weights = softmax(likelihood - 0.5 * (slope_penalty[:, None] + half_penalty))
            found.append((weights.sum(axis=0) @ (middle + _OFFSETS), weights.sum(axis=1) @ _LOG_SLOPES))
        if not found:
            return cls.prior(vocabulary)
        log_half, log_slope = np.array([*found, np.median(found, axis=0)]).T
        return cls(np.exp(log_half).astype(np.float32), np.exp(log_slope).astype(np.float32))

    def share_of_effect(self, shares: np.ndarray, dose: float) -> float:
        """Get the share of the full effect at a dose in uM above 0.

        Parameters
        ----------
        shares
            Shares that the trained drugs have in this one, at most 1 together, shape `(n_trained_drugs,)`.
        dose
            Dose in uM.
        """
        weights = np.append(shares, 1.0 - shares.sum())
        log_half, log_slope = (weights @ np.log(part.astype(np.float64)) for part in (self.half_doses, self.slopes))
        return float(hill(np.log(dose), log_half, np.exp(log_slope)))


@dataclass(frozen=True)
class SingleDrug:
    """Effects measured for one drug, alone and in one control population.

    Parameters
    ----------
    place
        Row among the trained drugs.
    context
        Code of the context.
    log_doses
        Log doses in uM, infinite without a dose, shape `(n_doses,)`.
    values
        Effects in their units, shape `(3, n_doses, n_genes)`.
    noise
        Error covariance, shape `(n_doses, n_doses)`. All doses share the controls' error, which must not look like
        a common effect.
    control_noise
        Variance in that shared error.
    """

    place: int
    context: int
    log_doses: np.ndarray
    values: np.ndarray
    noise: np.ndarray
    control_noise: float


def single_drugs(vocabulary: TargetVocabulary, measured: MeasuredEffects) -> Iterator[SingleDrug]:
    """Collect the effects measured for each single drug in each control population."""
    conditions, values = vocabulary.trained_conditions, measured.effects * measured.units
    rows = [conditions[code] for code in np.unique(measured.condition, return_inverse=True)[1]]
    doses = np.array([np.inf if p.doses[0] is None else p.doses[0] for p in rows])
    drugs = [vocabulary.target(p.targets[0]) if len(p.targets) == 1 else None for p in rows]
    for place, drug in enumerate(vocabulary.trained_drugs):
        same = np.array([other == drug for other in drugs]) & (doses > 0)
        for context in np.unique(measured.context[same]):
            own = same & (measured.context == context)
            cell_noise = 1.0 / measured.n_cells[own]
            control_noise = float((measured.noise[own] - cell_noise).mean())
            yield SingleDrug(
                place,
                int(context),
                np.log(doses[own]),
                values[own].swapaxes(0, 1),
                np.diag(cell_noise) + control_noise,
                control_noise,
            )


def _trained_doses(vocabulary: TargetVocabulary) -> list[list[float]]:
    """List each trained drug's doses in uM, alone or in combinations."""
    doses: dict[Target, list[float]] = {drug: [] for drug in vocabulary.trained_drugs}
    for perturbation in vocabulary.trained_conditions:
        for name, dose in zip(perturbation.targets, perturbation.doses, strict=True):
            if dose:
                doses[vocabulary.target(name)].append(dose)
    return list(doses.values())


def _middle_and_range(doses: Sequence[float]) -> tuple[float, float]:
    """Get middle and range on the log scale; 1 uM without any dose."""
    logarithms = np.log(doses or [1.0])
    return float((logarithms.min() + logarithms.max()) / 2), float(np.ptp(logarithms))


def _log_likelihood(curves: np.ndarray, noise: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Compute log-likelihoods at the most likely full effect, shape `(n_slopes, n_half_doses)`."""
    weighted = curves @ np.linalg.inv(noise)  # (n_slopes, n_half_doses, n_doses)
    precision = (weighted * curves).sum(axis=-1)
    explained = ((weighted @ values) ** 2).sum(axis=-1) / precision
    inflation = np.maximum(explained / values.shape[1], 1.0)  # of the variance of the best estimate of a full effect
    return 0.5 * (explained * (1.0 - 1.0 / inflation) - values.shape[1] * np.log(inflation))
