"""Posterior variance of effects, calibrated by leaving trained conditions and contexts out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, Self

import numpy as np
from scipy.special import expit, log_expit, logsumexp, ndtr, softmax

from unlasting.effects._contexts import aligned
from unlasting.effects._sparsity import EffectEvidence, Sparsity, absent, described_pairs
from unlasting.effects._spectrum import Rotated, Spectrum

TRAINED: Final = 0
DOSE: Final = 1
TARGET: Final = 2
COMBINATION: Final = 3
CONTEXT: Final = 4

QUESTIONS: Final = {
    TRAINED: "trained condition",
    DOSE: "unseen dose",
    TARGET: "unseen target",
    COMBINATION: "unseen combination",
    CONTEXT: "unseen context",
}
"""Kinds of question, by the part that training cells lack."""

FACTORS: Final = 2.0 ** np.arange(-4.0, 7.0)
"""Candidate factors for the variance in one condition."""

_PRIOR_CONDITIONS: Final = 4.0
"""Left-out conditions that the prior over factors and slopes counts for: with few, intervals are wide."""
_PRIOR_FACTORS: Final = softmax(-0.5 * (np.log2(FACTORS) / 1.5) ** 2)
_PRIOR_SLOPE_VARIANCE: Final = 0.25
INACTIVE_FACTOR: Final = 2.0**-6
"""Factor for the variance in a condition without an effect: far below, but not exactly zero."""
_ACTIVITY_PRIOR: Final = (np.array([1.0, 0.5]), np.array([2.0, 1.0]))
"""Prior mean and s.d. for the log-odds of an effect at a typical predicted size, and for their slope on its logarithm."""
_CORRELATED_OUTPUTS: Final = 10.0
"""Outputs that count as one independent output in the likelihood for a factor, since genes vary together."""
_MAX_LOG: Final = 4.0
"""Largest log ratio to a typical predicted size that counts."""
_MAX_OUTPUTS: Final = 1_500
_MAX_GROUPS: Final = 200
"""Outputs, and groups of left-out conditions, that calibrate: each group needs all sizes."""
_MIN_WEIGHT: Final = 1e-4
"""Posterior weight below which a size is skipped."""
_ROUNDS: Final = 20
ROUNDING: Final = 1e-20
"""Squared predictions, relative to measured effects, that are rounding."""


@dataclass(frozen=True)
class LeftOut:
    """A group of measurements to leave out.

    Parameters
    ----------
    question
        Kind of question, see `QUESTIONS`.
    rows
        Measurements left out together, shape `(n_left_out,)`.
    asked
        Whether each of them is then predicted, shape `(n_left_out,)`.
    """

    question: int
    rows: np.ndarray
    asked: np.ndarray


@dataclass(frozen=True)
class EffectMoments:
    """Posterior of effects in some conditions, on the scale with unit variance over cells.

    Parameters
    ----------
    mean
        Posterior mean, shape `(n, n_outputs)`.
    variance
        Variance that the factors multiply, shape `(n, n_outputs)`.
    relative
        Variance of the slope between true and predicted effects, which a condition's effects share, shape `(n,)`.
    unscaled
        The mean before its slope, shape `(n, n_outputs)`.
    factors
        Weights of `FACTORS`, shape `(n, n_factors)`.
    inactive
        Probability that the condition has no effect beside those on its targets, shape `(n,)`.
    on_target_mean, on_target
        Mean and variance of on-target effects, shape `(n, n_outputs)`.
    null
        Probability that no perturbation acts on an output, shape `(n_outputs,)`.
    absent
        Probability that the perturbation does not act on a gene, shape `(n, n_genes)`.
    question
        Kind of question, shape `(n,)`.
    """

    mean: np.ndarray
    variance: np.ndarray
    relative: np.ndarray
    unscaled: np.ndarray
    factors: np.ndarray
    inactive: np.ndarray
    on_target_mean: np.ndarray
    on_target: np.ndarray
    null: np.ndarray
    absent: np.ndarray
    question: np.ndarray

    @property
    def total(self) -> np.ndarray:
        """Mean squared error around the mean, shape `(n, n_outputs)`."""
        active, inactive = (1.0 - self.inactive)[:, None], self.inactive[:, None]
        spread = (self.factors @ FACTORS)[:, None] * self.variance + self.relative[:, None] * self.unscaled**2
        shift = INACTIVE_FACTOR * self.variance + (self.mean - self.on_target_mean) ** 2
        return active * spread + inactive * shift + self.on_target


@dataclass(frozen=True)
class EffectPosterior:
    """Posterior of effects: mixtures of Gaussians over effect sizes, in closed form.

    At each effect size, effects and errors are Gaussian, so that conditioning on the training cells is exact. The total
    variance contains the noise of few cells, the error of control cells, and the distance to trained targets and contexts.

    Calibration leaves trained conditions, or contexts, out. A condition has no effect, the more often the smaller its
    predicted effects are, or its true effects are a slope times their prediction plus independent errors, whose variance has
    one factor for each condition. Slopes and factors vary between conditions; their distributions, and the share of
    conditions without an effect, are estimated for every kind of question.

    Parameters
    ----------
    condition, context
        Codes of the measurements, shape `(n_measured,)`.
    spectrum
        Covariance between effects at size one, beside that between errors.
    measured
        Measured effects on the scale with unit variance over cells, shape `(n_measured, n_outputs)`.
    candidates
        Candidate effect sizes, shape `(n_sizes,)`.
    sizes
        Posterior weight of every size, shape `(n_sizes, n_outputs)`.
    profiles
        Mean expression in the contexts' control cells, shape `(n_contexts, n_genes)`.
    factors
        Weights of `FACTORS` for each kind of question, shape `(n_questions, n_factors)`.
    slope_variance
        Variance of the slope between conditions for each kind of question, shape `(n_questions,)`.
    activity
        Log-odds of an effect at a typical predicted size, their slope on its logarithm, and that logarithm, shape
        `(n_questions, 3)`.
    weights
        Weights of outputs in a predicted size, shape `(n_outputs,)`.
    n_left_out
        Number of left-out conditions behind each calibration, shape `(n_questions,)`.
    sparsity
        Log-odds of an effect on a gene, see :class:`Sparsity`, shape `(3,)`.
    absent
        Probability that a measured perturbation does not act on a gene, shape `(n_measured, n_genes)`.
    """

    condition: np.ndarray
    context: np.ndarray
    spectrum: Spectrum
    measured: np.ndarray
    candidates: np.ndarray
    sizes: np.ndarray
    profiles: np.ndarray
    factors: np.ndarray
    slope_variance: np.ndarray
    activity: np.ndarray
    weights: np.ndarray
    n_left_out: np.ndarray
    sparsity: np.ndarray
    absent: np.ndarray

    @classmethod
    def fit(
        cls,
        *,
        condition: np.ndarray,
        context: np.ndarray,
        spectrum: Spectrum,
        measured: np.ndarray,
        candidates: np.ndarray,
        sizes: np.ndarray,
        noise_ratio: np.ndarray,
        importance: np.ndarray,
        profiles: np.ndarray,
        groups: Sequence[LeftOut],
        slopes: Mapping[int, float],
    ) -> Self:
        """Calibrate the posterior.

        Parameters
        ----------
        condition, context, spectrum, measured, candidates, sizes, profiles
            As above.
        noise_ratio
            Error variance of each output over that, above 1 where a gene is detected less often than in the whole screen, shape
            `(n_measured, n_outputs)`.
        importance
            Squared change in mean expression by a unit effect, shape `(n_outputs,)`.
        groups
            Measurements to leave out.
        slopes
            Slope of effects on their prediction, by kind of question.
        """
        outputs = np.flatnonzero(importance > 0)
        if len(outputs) > _MAX_OUTPUTS:
            outputs = np.sort(np.random.default_rng(0).choice(outputs, _MAX_OUTPUTS, replace=False))
        prior = np.log(np.maximum(sizes.mean(axis=1), 1e-12))
        factors = np.tile(_PRIOR_FACTORS, (len(QUESTIONS), 1))
        factors[TRAINED] = FACTORS == 1.0
        slope_variance = np.full(len(QUESTIONS), _PRIOR_SLOPE_VARIANCE)
        slope_variance[TRAINED] = 0.0
        activity = np.tile([*_ACTIVITY_PRIOR[0], np.nan], (len(QUESTIONS), 1))
        n_left_out = np.zeros(len(QUESTIONS))
        for question in QUESTIONS:
            chosen = [group for group in groups if group.question == question]
            if len(chosen) > _MAX_GROUPS:
                order = np.random.default_rng(0).permutation(len(chosen))[:_MAX_GROUPS]
                chosen = [chosen[i] for i in np.sort(order)]
            if not chosen:
                continue
            found = LeftOutEffects.of(
                chosen, spectrum, candidates, prior, measured[:, outputs], noise_ratio[:, outputs]
            )
            factors[question], slope_variance[question], activity[question] = calibrate(
                found, importance[outputs], slopes[question], len(importance) / len(outputs)
            )
            n_left_out[question] = len(found)
        pairs = np.column_stack([condition, context])
        sparsity, missing = _sparsity(pairs, spectrum, noise_ratio, measured, candidates, sizes)
        single = (
            measured,
            candidates,
            sizes,
            profiles,
            factors,
            slope_variance,
            activity,
            importance,
            n_left_out,
            sparsity,
            missing,
        )
        arrays = (aligned(np.asarray(array, dtype=np.float32)) for array in single)
        return cls(condition, context, spectrum.stored(), *arrays)

    @cached_property
    def rotated(self) -> Rotated:
        """Measured effects in the diagonal form."""
        return self.spectrum.rotate(self.measured)

    def moments(
        self,
        kernel: np.ndarray,
        shrunken_kernel: np.ndarray,
        prior: np.ndarray,
        question: np.ndarray,
        similarity: np.ndarray,
        row: np.ndarray,
        outputs: np.ndarray | slice = slice(None),
    ) -> EffectMoments:
        """Compute the posterior in some conditions.

        Parameters
        ----------
        kernel
            Covariance with the measurements at size one, shape `(n, n_measured)`.
        shrunken_kernel
            The same times the slopes of untrained targets and contexts.
        prior
            Prior variance at size one, shape `(n,)`.
        question
            Kind of question, shape `(n,)`.
        similarity
            Correlation between the control cells' mean expression and the nearest trained context, shape `(n,)`.
        row
            A measurement of the condition in its context, -1 without any, shape `(n,)`.
        outputs
            Outputs to compute: those on detection and on expressed values, and any others.
        """
        kernel, shrunken_kernel = (one.astype(np.float32) for one in (kernel, shrunken_kernel))
        projected, to_mean = (one @ self.spectrum.root for one in (kernel, shrunken_kernel))
        rotated, sizes, n_directions = self.rotated[outputs], self.sizes[:, outputs], projected.shape[1]
        beyond = kernel[:, : len(rotated.beyond)] @ rotated.beyond
        shrunken = self.candidates / (
            1.0 + self.candidates * self.spectrum.variances[:, None]
        )  # (n_variances, n_sizes)
        weights = shrunken @ sizes
        average, rest = weights[:n_directions] * rotated.leading, weights[n_directions:].sum(axis=0)
        mean = projected @ average + rest * beyond
        second = np.zeros_like(mean)
        for size in np.flatnonzero(self.candidates > 0):
            columns = np.flatnonzero(sizes[size] > _MIN_WEIGHT)
            at_size = (projected * shrunken[:n_directions, size]) @ rotated.leading[:, columns]
            at_size += shrunken[n_directions:, size].sum() * beyond[:, columns]
            second[:, columns] += sizes[size, columns] * at_size**2
        explained = self.candidates * self.spectrum.explained(shrunken, kernel, projected)
        unexplained = np.maximum(self.candidates * prior[:, None] - explained, 0.0)
        variance = np.maximum(second - mean**2, 0.0) + unexplained.astype(np.float32) @ sizes
        # control cells unlike all trained ones: as much of the effect is unknown as their profile does not share
        unshared = (1.0 - np.clip(similarity, 0.0, 1.0) ** 2).astype(np.float32)
        variance += unshared[:, None] * (prior[:, None].astype(np.float32) * (self.candidates @ sizes))
        relative = self.slope_variance[question] + unshared
        scaled = to_mean @ average + rest * (shrunken_kernel[:, : len(rotated.beyond)] @ rotated.beyond)
        return EffectMoments(
            mean=scaled,
            variance=variance,
            relative=relative,
            unscaled=mean,
            factors=self.factors[question],
            inactive=self._inactive(scaled**2 @ self.weights[outputs], question),
            on_target_mean=np.zeros_like(mean),
            on_target=np.zeros_like(mean),
            null=sizes[self.candidates == 0].sum(axis=0),
            absent=self._absent(mean, variance, sizes, row),
            question=question,
        )

    def _absent(self, mean: np.ndarray, variance: np.ndarray, sizes: np.ndarray, row: np.ndarray) -> np.ndarray:
        """Get the probability that perturbations do not act on a gene, shape `(n, n_genes)`."""
        change = slice(2 * self.absent.shape[1])
        described = described_pairs(mean[:, change], variance[:, change], self.candidates @ sizes[:, change])
        return np.where((row >= 0)[:, None], self.absent[row], absent(described, self.sparsity))

    def _inactive(self, size: np.ndarray, question: np.ndarray) -> np.ndarray:
        """Get the probability that conditions have no effect by their predicted size, 0 for trained ones, shape `(n,)`."""
        log_odds, rise, typical = self.activity[question].T
        logarithm = np.where(np.isnan(typical), 0.0, np.log(np.maximum(size, 1e-30)) - typical)
        return np.where(question == TRAINED, 0.0, expit(-log_odds - rise * np.clip(logarithm, -_MAX_LOG, _MAX_LOG)))

    def similarity(self, context: np.ndarray, means: np.ndarray) -> np.ndarray:
        """Correlate control cells' mean expression with the nearest context that has measurements, shape `(n,)`.

        Parameters
        ----------
        context
            Codes, -1 for a new context, shape `(n,)`.
        means
            Mean expression in control cells, shape `(n, n_genes)`.
        """
        trained = np.unique(self.context)
        known = np.isin(context, trained)
        profiles = np.where((context >= 0)[:, None], self.profiles[np.maximum(context, 0)], means)
        first, second = (
            _standardised(np.asarray(rows, dtype=np.float64)) for rows in (profiles, self.profiles[trained])
        )
        return np.where(known, 1.0, (first @ second.T).max(axis=1))


def _sparsity(
    pair: np.ndarray,
    spectrum: Spectrum,
    noise_ratio: np.ndarray,
    measured: np.ndarray,
    candidates: np.ndarray,
    sizes: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Estimate the log-odds of an effect, and the probability that measured ones are zero, shape `(n_measured, n_genes)`.

    `pair` are codes of condition and context, shape `(n_measured, 2)`, no two the same.
    """
    change = slice(2 * (measured.shape[1] // 3))
    likeliest = candidates[1:][sizes[1:, change].argmax(axis=0)]
    evidence = EffectEvidence.of(spectrum, measured[:, change], likeliest)
    evidence = replace(evidence, noise=evidence.noise * noise_ratio[:, change])
    sparsity, missing = Sparsity.fit(evidence, candidates @ sizes[:, change])
    return sparsity.coefficients, missing


@dataclass(frozen=True)
class LeftOutEffects:
    """Left-out effects beside their prediction: arrays `(n_asked, n_outputs)`."""

    measured: np.ndarray
    predicted: np.ndarray
    variance: np.ndarray
    noise: np.ndarray

    @classmethod
    def of(
        cls,
        groups: Sequence[LeftOut],
        spectrum: Spectrum,
        candidates: np.ndarray,
        log_prior: np.ndarray,
        measured: np.ndarray,
        noise_ratio: np.ndarray | float = 1.0,
    ) -> list[Self]:
        """Predict each group from all other measurements; the posterior over sizes does not see it either."""
        found: list[tuple[list[np.ndarray], ...]] = [([], [], [], []) for _ in groups]
        noise = spectrum.own[:, None] * np.broadcast_to(noise_ratio, measured.shape)
        needed = np.unique(np.concatenate([group.rows for group in groups]))
        rotated = spectrum.rotate(measured)
        for size in candidates:
            inflated = 1.0 + size * spectrum.variances
            shrunken = 1.0 / inflated
            solved = spectrum.combine(shrunken, rotated, needed)
            explained = spectrum.combine_covariance(shrunken, rotated, needed)
            rest = spectrum.log_determinant(inflated) + spectrum.quadratic(shrunken, rotated)
            for group, (log_density, means, variances, errors) in zip(groups, found, strict=True):
                rows, place = group.rows, np.searchsorted(needed, group.rows)
                precision = spectrum.block(shrunken, rows)
                conditional = np.linalg.inv(precision)
                error = conditional @ solved[place]  # measured minus expected from all others
                quadratic = (error * solved[place]).sum(axis=0)
                log_density.append(-0.5 * (rest - quadratic + np.linalg.slogdet(precision)[1]))
                means.append(size * (explained[place] - spectrum.covariance_block(shrunken, rows) @ error))
                variances.append(np.diag(conditional) - spectrum.own[rows])
                errors.append(error)
        return [
            cls._averaged(group, log_prior, noise, *map(np.array, parts))
            for group, parts in zip(groups, found, strict=True)
        ]

    @classmethod
    def _averaged(
        cls,
        group: LeftOut,
        log_prior: np.ndarray,
        noise: np.ndarray,
        log_density: np.ndarray,
        means: np.ndarray,
        variances: np.ndarray,
        errors: np.ndarray,
    ) -> Self:
        """Average over sizes, which are the first axis."""
        weights = softmax(log_density + log_prior[:, None], axis=0)[:, None]
        mean, error = ((weights * part).sum(axis=0) for part in (means, errors))
        spread = (weights * errors**2).sum(axis=0) - error**2
        variance = np.maximum((weights * variances[:, :, None]).sum(axis=0) + spread, 0.0)
        asked = group.asked
        return cls((error + mean)[asked], mean[asked], variance[asked], noise[group.rows][asked])


def calibrate(
    found: Sequence[LeftOutEffects], weight: np.ndarray, slope: float, share: float
) -> tuple[np.ndarray, float, np.ndarray]:
    """Estimate weights of factors, the variance of the slope, and the activity, by expectation and maximisation.

    `share` is the number of outputs for each calibrating one.
    """
    likelihood = np.zeros((len(found), len(FACTORS)))
    weights, (centre, sd) = _PRIOR_FACTORS, _ACTIVITY_PRIOR
    size = np.log([max(share * slope**2 * (weight * one.predicted**2).sum(axis=1).mean(), 1e-30) for one in found])
    typical = float(np.median(size))
    design = np.column_stack([np.ones(len(found)), np.clip(size - typical, -_MAX_LOG, _MAX_LOG)])
    coefficients, active = centre, np.ones(len(found))
    inactive = np.array([_log_density(one, 0.0, INACTIVE_FACTOR, 0.0) for one in found])
    for _ in range(_ROUNDS):
        slope_variance = _slope_variance(found, weight, slope, active)
        for row, one in enumerate(found):
            likelihood[row] = [_log_density(one, slope, factor, slope_variance) for factor in FACTORS]
        log_odds = design @ coefficients
        joint = likelihood + np.log(weights) + log_expit(log_odds)[:, None]
        evidence = logsumexp(joint, axis=1)
        active = expit(evidence - inactive - log_expit(-log_odds))
        posterior = active[:, None] * np.exp(joint - evidence[:, None])
        weights = (_PRIOR_CONDITIONS * _PRIOR_FACTORS + posterior.sum(axis=0)) / (_PRIOR_CONDITIONS + active.sum())
        # one Newton step towards the logistic regression of activity on predicted size
        rate = expit(log_odds)
        gradient = design.T @ (active - rate) - (coefficients - centre) / sd**2
        curvature = (design.T * (rate * (1.0 - rate))) @ design + np.diag(1.0 / sd**2)
        coefficients = coefficients + np.linalg.solve(curvature, gradient)
        coefficients[1] = max(coefficients[1], 0.0)
    return weights, slope_variance, np.array([*coefficients, typical])


def _log_density(one: LeftOutEffects, slope: float, factor: float, slope_variance: float) -> float:
    """Compute the log density of left-out effects, tempered for correlation between genes."""
    variance = factor * one.variance + one.noise + slope_variance * one.predicted**2
    square = (one.measured - slope * one.predicted) ** 2
    return float(-0.5 * (np.log(variance) + square / variance).sum() / _CORRELATED_OUTPUTS)


def _slope_variance(found: Sequence[LeftOutEffects], weight: np.ndarray, slope: float, active: np.ndarray) -> float:
    """Estimate the variance between active conditions in the slope of true on predicted effects, corrected for noise."""
    excess, total = _PRIOR_CONDITIONS * _PRIOR_SLOPE_VARIANCE, _PRIOR_CONDITIONS
    squares = np.array([(weight * one.predicted**2).sum() for one in found])
    typical = squares.mean()
    for one, square, probability in zip(found, squares, active, strict=True):
        if square <= ROUNDING * (weight * one.measured**2).sum():
            continue
        difference = (weight * one.predicted * (one.measured - slope * one.predicted)).sum() / square
        error = (weight**2 * one.predicted**2 * (one.variance + one.noise)).sum() / square**2
        evidence = probability * min(square / typical, 1.0)  # a prediction of nothing has no slope
        excess += evidence * (difference**2 - error)
        total += evidence
    return float(np.clip(excess / total, 0.01, 1.0))


def _standardised(rows: np.ndarray) -> np.ndarray:
    centred = rows - rows.mean(axis=1, keepdims=True)
    return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)


def sign_probability(mean: np.ndarray, variance: np.ndarray, fixed: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Compute the probability that effects are positive, shape `(n, n_outputs)`.

    Parameters
    ----------
    mean
        Posterior mean, shape `(n, n_outputs)`.
    variance, fixed
        Variance with and without the factor, shape `(n, n_outputs)`.
    factors
        Weights of `FACTORS`, shape `(n, n_factors)`.
    """
    positive = np.zeros(mean.shape)
    for weights, factor in zip(factors.T, FACTORS, strict=True):
        if weights.max() > _MIN_WEIGHT:
            positive += weights[:, None] * ndtr(mean / np.sqrt(np.maximum(factor * variance + fixed, 1e-30)))
    return positive
