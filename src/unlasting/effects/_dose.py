"""Find out how the effect of each drug rises with its dose."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from scipy.special import expit, softmax

from unlasting.effects._moments import MeasuredEffects
from unlasting.effects._vocabulary import Target, TargetVocabulary

_OFFSETS: Final = np.linspace(-3.0, 3.0, 61) * np.log(10.0)
"""Where half doses are looked for: three powers of ten on both sides of the middle of a drug's trained doses."""
_SPREAD_IN_RANGE: Final = 1 / 6
"""S.d. of the logarithm of a half dose before anything is seen, in ranges of the drug's trained doses: these are chosen so
that they hold it."""
_LEAST_SPREAD: Final = np.log(10.0) / 3
_LOG_SLOPES: Final = np.linspace(np.log(0.5), np.log(4.0), 13)
_USUAL_LOG_SLOPE: Final = np.log(1.4)
_SPREAD_OF_LOG_SLOPES: Final = 0.35
"""What is known of Hill slopes before anything is seen: most are between .7 and 2.8."""


@dataclass(frozen=True)
class DoseCurves:
    """Hill curves: the share of its full effect that each trained drug has at a dose.

    Parameters
    ----------
    half_doses
        Doses in uM at which the trained drugs, and last any other, have half of their effect, float32, shape
        `(n_trained_drugs + 1,)`.
    slopes
        Hill slopes of these curves, of the same shape.
    """

    half_doses: np.ndarray
    slopes: np.ndarray

    @classmethod
    def usual(cls, vocabulary: TargetVocabulary) -> Self:
        """Get what is expected of drugs before anything is seen: half of the effect in the middle of their own doses."""
        middles = [_middle_and_range(doses)[0] for doses in _trained_doses(vocabulary)]
        half_doses = np.exp([*middles, np.median(middles) if middles else 0.0]).astype(np.float32)
        return cls(half_doses, np.full_like(half_doses, np.exp(_USUAL_LOG_SLOPE)))

    def share_of_effect(self, shares: np.ndarray, dose: float) -> float:
        """Get the share of the full effect at a dose in uM of a drug that is partly each of the trained ones.

        Parameters
        ----------
        shares
            Which share of the drug each trained one is, at most 1 together, shape `(n_trained_drugs,)`.
        dose
            Dose in uM, above 0.
        """
        weights = np.append(shares, 1.0 - shares.sum())
        log_half, log_slope = (weights @ np.log(of.astype(np.float64)) for of in (self.half_doses, self.slopes))
        return float(expit(np.exp(log_slope) * (np.log(dose) - log_half)))


def fit_dose_curves(vocabulary: TargetVocabulary, measured: MeasuredEffects) -> DoseCurves:
    """Find the dose at which each trained drug has half of its effect, and how steeply it gets there.

    The effect of a drug alone is a full effect, of its own for every population of controls, times a Hill curve
    :cite:p:`hill1910possible`. With a normal distribution of full effects, whose variance is the most likely one for each
    kind of shift, the likelihood of a curve is known in closed form; the means of the logarithms of half dose and slope are
    taken. They stay near the middle of the drug's own doses and a slope of 1.4 for a drug that was seen at one dose, or does
    nothing.

    Parameters
    ----------
    vocabulary
        Knows the trained conditions.
    measured
        The effects in the training cells.

    Returns
    -------
    Curves of the trained drugs, in the order of `vocabulary.trained_drugs`, and last their median, for a drug that was
    not trained.
    """
    likelihoods = np.zeros((len(vocabulary.trained_drugs), len(_LOG_SLOPES), len(_OFFSETS)))
    centres = [_middle_and_range(doses) for doses in _trained_doses(vocabulary)]
    for alone in drugs_alone(vocabulary, measured):
        log_halves = centres[alone.drug][0] + _OFFSETS
        curves = expit(np.exp(_LOG_SLOPES)[:, None, None] * (alone.log_doses - log_halves[:, None]))
        likelihoods[alone.drug] += sum(_log_likelihood(curves, alone.noise, values) for values in alone.values)
    of_slopes = ((_LOG_SLOPES - _USUAL_LOG_SLOPE) / _SPREAD_OF_LOG_SLOPES) ** 2
    found = []
    for likelihood, (middle, dose_range) in zip(likelihoods, centres, strict=True):
        of_halves = (_OFFSETS / max(_SPREAD_IN_RANGE * dose_range, _LEAST_SPREAD)) ** 2
        weights = softmax(likelihood - 0.5 * (of_slopes[:, None] + of_halves))
        found.append((weights.sum(axis=0) @ (middle + _OFFSETS), weights.sum(axis=1) @ _LOG_SLOPES))
    if not found:
        return DoseCurves.usual(vocabulary)
    log_half, log_slope = np.array([*found, np.median(found, axis=0)]).T
    return DoseCurves(np.exp(log_half).astype(np.float32), np.exp(log_slope).astype(np.float32))


@dataclass(frozen=True)
class DrugAlone:
    """What was measured of a drug alone in a population of controls.

    Parameters
    ----------
    drug
        Its place among the trained drugs.
    population
        Code of the population.
    log_doses
        Logarithms of its doses in uM, infinite for a drug without a dose, shape `(n_doses,)`.
    values
        Shifts in their units, shape `(3, n_doses, n_genes)`.
    noise
        Covariance of their errors, shape `(n_doses, n_doses)`. That of the controls is in all doses, and must not look
        like an effect that all doses have.
    of_controls
        The variance of that error.
    """

    drug: int
    population: int
    log_doses: np.ndarray
    values: np.ndarray
    noise: np.ndarray
    of_controls: float


def drugs_alone(vocabulary: TargetVocabulary, measured: MeasuredEffects) -> Iterator[DrugAlone]:
    """Find what was measured of each drug alone, in each population of controls.

    Parameters
    ----------
    vocabulary
        Knows the trained conditions.
    measured
        The effects in the training cells.

    Yields
    ------
    The measurements of one drug in one population.
    """
    conditions, values = vocabulary.trained_conditions, measured.shifts * measured.units
    of_rows = [conditions[code] for code in np.unique(measured.condition, return_inverse=True)[1]]
    dose_of = np.array([np.inf if p.doses[0] is None else p.doses[0] for p in of_rows])
    drug_of = [vocabulary.target(p.targets[0]) if len(p.targets) == 1 else None for p in of_rows]
    for place, drug in enumerate(vocabulary.trained_drugs):
        rows = np.array([own == drug for own in drug_of]) & (dose_of > 0)
        for population in np.unique(measured.population[rows]):
            own = rows & (measured.population == population)
            of_cells = 1.0 / measured.n_cells[own]
            of_controls = float((measured.noise[own] - of_cells).mean())
            noise = np.diag(of_cells) + of_controls
            yield DrugAlone(
                place, int(population), np.log(dose_of[own]), values[own].swapaxes(0, 1), noise, of_controls
            )


def _trained_doses(vocabulary: TargetVocabulary) -> list[list[float]]:
    """List the doses in uM at which each trained drug was given, alone or with others."""
    doses: dict[Target, list[float]] = {drug: [] for drug in vocabulary.trained_drugs}
    for perturbation in vocabulary.trained_conditions:
        for name, dose in zip(perturbation.targets, perturbation.doses, strict=True):
            if dose:
                doses[vocabulary.target(name)].append(dose)
    return list(doses.values())


def _middle_and_range(doses: Sequence[float]) -> tuple[float, float]:
    """Get the middle and the range of the logarithms of doses; 1 uM without any."""
    logarithms = np.log(doses or [1.0])
    return float((logarithms.min() + logarithms.max()) / 2), float(np.ptp(logarithms))


def _log_likelihood(curves: np.ndarray, noise: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Compute the log-likelihood of curves at the most likely variance of full effects, (n_slopes, n_half_doses)."""
    weighted = curves @ np.linalg.inv(noise)  # (n_slopes, n_half_doses, n_doses)
    precision = (weighted * curves).sum(axis=-1)
    explained = ((weighted @ values) ** 2).sum(axis=-1) / precision
    inflation = np.maximum(explained / values.shape[1], 1.0)  # of the variance of the best estimate of a full effect
    return 0.5 * (explained * (1.0 - 1.0 / inflation) - values.shape[1] * np.log(inflation))
