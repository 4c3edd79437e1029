"""Posterior of changes in expression, and the trust that a prediction deserves."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

import numpy as np
from numpy.polynomial.hermite_e import hermegauss
from scipy.special import expit, ndtr

from unlasting.effects._posterior import FACTORS, INACTIVE_FACTOR, EffectMoments, sign_probability

ACTIVE_SHARE: Final = 0.005
"""Squared change in mean expression, as a share of the variance between control cells, from which a condition is active."""
_GRID: Final = 128
_NODES, _WEIGHTS = hermegauss(5)
"""Quadrature over the slope of true on predicted effects."""


@dataclass(frozen=True)
class ExpressionChanges:
    """Posterior of changes against control cells, in the mean over all cells of a condition, non-responding ones included.

    Effects are Gaussian on log-odds and on expressed values. Changes are linearised around their mean.

    Parameters
    ----------
    mean
        Change in mean log-normalised expression, shape `(n, n_genes)`.
    inactive_mean
        The same if the condition has no effect beside those on its targets, shape `(n, n_genes)`.
    variance, on_target
        Variance that a condition's factor multiplies, and that of on-target effects, shape `(n, n_genes)`.
    unscaled
        The change without the slope of untrained targets, linearised, shape `(n, n_genes)`.
    relative
        Variance of the slope between true and predicted changes, shape `(n,)`.
    factors
        Weights of the factors, shape `(n, n_factors)`.
    inactive
        Probability that the condition has no effect beside those on its targets, shape `(n,)`.
    null
        Probability that no perturbation acts on a gene, shape `(n_genes,)`.
    absent
        Probability that the perturbation does not act on a gene, shape `(n, n_genes)`.
    detection, detection_sd
        Change in the share of cells that express a gene, and its s.d., shape `(n, n_genes)`.
    expressed, expressed_sd
        Change in the mean of expressed values, and its s.d., shape `(n, n_genes)`.
    control_variance
        Variance between control cells, over all genes, shape `(n,)`.
    is_control
        Whether nothing is perturbed, shape `(n,)`.
    question
        Kind of question, see `QUESTIONS`, shape `(n,)`.
    """

    mean: np.ndarray
    inactive_mean: np.ndarray
    variance: np.ndarray
    on_target: np.ndarray
    unscaled: np.ndarray
    relative: np.ndarray
    factors: np.ndarray
    inactive: np.ndarray
    null: np.ndarray
    absent: np.ndarray
    detection: np.ndarray
    detection_sd: np.ndarray
    expressed: np.ndarray
    expressed_sd: np.ndarray
    control_variance: np.ndarray
    is_control: np.ndarray
    question: np.ndarray

    @classmethod
    def of(
        cls,
        moments: EffectMoments,
        units: np.ndarray,
        log_odds: np.ndarray,
        base: np.ndarray,
        scale: np.ndarray,
        responding: np.ndarray,
        control_variance: np.ndarray,
        is_control: np.ndarray,
    ) -> ExpressionChanges:
        """Convert effects on hurdle parameters.

        Parameters
        ----------
        moments
            Posterior of effects on log-odds and on expressed values, `2 * n_genes` outputs.
        units
            Factors that bring effects to unit variance over cells, shape `(2, n_genes)`.
        log_odds, base, scale
            Hurdle parameters of the control cells; the last two on the log-normalised scale, shape `(n, n_genes)`.
        responding
            Share of responding cells, shape `(n,)`.
        control_variance, is_control
            As above.
        """
        units, share = np.maximum(units, 1e-6), responding[:, None]

        def by_part(array: np.ndarray, power: int = 1) -> tuple[np.ndarray, np.ndarray]:
            first, second = np.split(array, 2, axis=-1)
            return first / units[0] ** power, second / units[1] ** power

        (change, shift), (raw_change, raw_shift) = by_part(moments.mean), by_part(moments.unscaled)
        before = expit(log_odds)
        rate, values = expit(log_odds + change), np.maximum(base + shift * scale, 0.0)
        by_log_odds, by_shift = rate * (1.0 - rate), rate * scale
        # where a gene is detected more often than in the screen, a unit of error is a smaller change
        local = np.maximum(units[:, None], np.sqrt([before * (1.0 - before), before]))
        shrunk = np.hstack(list((units[:, None] / local) ** 2))
        parts = [
            share**2 * ((values * by_log_odds) ** 2 * first + by_shift**2 * second)
            for first, second in (by_part(moments.variance * shrunk, 2), by_part(moments.on_target, 2))
        ]
        total = by_part(replace(moments, variance=moments.variance * shrunk).total, 2)
        target_change, target_shift = by_part(moments.on_target_mean)
        target_values = np.maximum(base + target_shift * scale, 0.0)
        null = np.split(moments.null, 2)
        return cls(
            mean=share * (rate * values - before * base),
            inactive_mean=share * (expit(log_odds + target_change) * target_values - before * base),
            variance=parts[0],
            on_target=parts[1],
            unscaled=share * (values * by_log_odds * raw_change + by_shift * raw_shift),
            relative=moments.relative,
            factors=moments.factors,
            inactive=moments.inactive,
            null=null[0] * null[1],
            absent=moments.absent,
            detection=share * (rate - before),
            detection_sd=share * by_log_odds * np.sqrt(total[0]),
            expressed=shift * scale,
            expressed_sd=scale * np.sqrt(total[1]),
            control_variance=control_variance,
            is_control=is_control,
            question=moments.question,
        )

    @cached_property
    def fixed(self) -> np.ndarray:
        """Variance without the factor, shape `(n, n_genes)`."""
        return self.relative[:, None] * self.unscaled**2 + self.on_target

    @cached_property
    def _active_variance(self) -> np.ndarray:
        """Variance in a condition with an effect, shape `(n, n_genes)`."""
        return (self.factors @ FACTORS)[:, None] * self.variance + self.fixed

    @cached_property
    def _inactive_variance(self) -> np.ndarray:
        """Variance in a condition without an effect, shape `(n, n_genes)`."""
        return INACTIVE_FACTOR * self.variance + self.on_target

    @cached_property
    def sd(self) -> np.ndarray:
        """Root mean squared error of `mean`, shape `(n, n_genes)`."""
        inactive = self.inactive[:, None]
        shift = self._inactive_variance + (self.mean - self.inactive_mean) ** 2
        return np.sqrt((1.0 - inactive) * self._active_variance + inactive * shift)

    @cached_property
    def false_sign_rate(self) -> np.ndarray:
        """Probability that a change has not the sign of its mean, shape `(n, n_genes)`.

        A change of zero has no sign, as in the local false sign rate :cite:p:`stephens2017false`.
        """
        acting = np.maximum(1.0 - self.null, 1e-6)
        mean = self.mean / acting
        # Given that perturbations act on the gene, mean and second moment are larger.
        extra = (self._active_variance + self.mean**2) / acting - mean**2 - self._active_variance
        positive = sign_probability(mean, self.variance, np.maximum(self.fixed + extra, 0.0), self.factors)
        # Without an effect, only targets change.
        own = ndtr(self.inactive_mean / np.sqrt(np.maximum(self.on_target, 1e-30)))
        own = np.where(self.inactive_mean != 0, np.stack([own, 1.0 - own]), 0.0)
        acts = (1.0 - self.inactive[:, None]) * (1.0 - self.absent)
        return 1.0 - (acts * np.stack([positive, 1.0 - positive]) + (1.0 - acts) * own).max(axis=0)

    @cached_property
    def _expected_size(self) -> np.ndarray:
        """Expected squared change over all genes, shape `(n,)`."""
        active = (self._active_variance + self.mean**2).sum(axis=1)
        inactive = (self._inactive_variance + self.inactive_mean**2).sum(axis=1)
        return np.asarray((1.0 - self.inactive) * active + self.inactive * inactive)

    @cached_property
    def expected_error(self) -> np.ndarray:
        """Expected normalised error: 0 is perfect, 1 no better than the control, shape `(n,)`."""
        error, size = (self.sd**2).sum(axis=1), self._expected_size
        return np.where(self.is_control, 0.0, error / np.maximum(size, 1e-30))

    @cached_property
    def p_better(self) -> np.ndarray:
        """Probability that the prediction is nearer to the truth than the control is, shape `(n,)`.

        It is nearer where the slope of true on predicted changes is above one half. It is .5 for a prediction without a
        change, such as the control.
        """
        square = np.maximum((self.mean**2).sum(axis=1), 1e-30)
        shared = self.relative * ((self.mean * self.unscaled).sum(axis=1) / square) ** 2
        fixed = shared + (self.mean**2 * self.on_target).sum(axis=1) / square**2
        free = (self.mean**2 * self.variance).sum(axis=1) / square**2
        probability = np.zeros(len(square))
        for weight, factor in zip(self.factors.T, FACTORS, strict=True):
            probability += weight * ndtr(0.5 / np.sqrt(np.maximum(fixed + factor * free, 1e-12)))
        nearer = ((self.mean - self.inactive_mean) ** 2).sum(axis=1) < (self.inactive_mean**2).sum(axis=1)
        probability = (1.0 - self.inactive) * probability + self.inactive * nearer
        return np.where(self.mean.any(axis=1), probability, 0.5)

    def _sizes(self, genes: np.ndarray | float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mixture for the squared change over some genes: weights, log means and log s.d., `(n, n_components)`.

        `genes` is 1 for these genes, else 0, shape `(n, n_genes)`.
        """
        free, own, mean, slope = (genes * part for part in (self.variance, self.on_target, self.mean, self.unscaled))

        def total(*factors: np.ndarray) -> np.ndarray:
            return np.einsum(",".join(["ng"] * len(factors)) + "->n", *factors, dtype=np.float64)

        squares = [total(mean, mean), total(mean, slope), total(slope, slope)]
        by_free = [total(free, mean, mean), total(free, mean, slope), total(free, slope, slope)]
        by_own = [total(own, mean, mean), total(own, mean, slope), total(own, slope, slope)]
        sums, seconds = (total(free), total(own)), (total(free, free), total(free, own), total(own, own))

        def at(parts: list[np.ndarray], step: np.ndarray) -> np.ndarray:
            return parts[0] + 2.0 * step * parts[1] + step**2 * parts[2]

        weights, means, variances = [], [], []
        for node, node_weight in zip(_NODES, _WEIGHTS / _WEIGHTS.sum(), strict=True):
            step = node * np.sqrt(self.relative)
            for place, factor in enumerate(FACTORS):
                weights.append((1.0 - self.inactive) * node_weight * self.factors[:, place])
                means.append(at(squares, step) + factor * sums[0] + sums[1])
                spread = factor**2 * seconds[0] + 2.0 * factor * seconds[1] + seconds[2]
                variances.append(2.0 * spread + 4.0 * (factor * at(by_free, step) + at(by_own, step)))
        spread, square = genes * self._inactive_variance, genes * self.inactive_mean**2
        weights.append(self.inactive)
        means.append((square + spread).sum(axis=1))
        variances.append((2.0 * spread**2 + 4.0 * spread * square).sum(axis=1))
        expected, variance = (np.maximum(np.stack(part, axis=1), 1e-30) for part in (means, variances))
        log_variance = np.log1p(variance / expected**2)
        return np.stack(weights, axis=1), np.log(expected) - 0.5 * log_variance, np.sqrt(np.maximum(log_variance, 1e-8))

    @property
    def distance(self) -> np.ndarray:
        """Expected E-distance to the control cells, shape `(n,)`.

        To second order it is the squared change over the typical distance between two control cells.
        """
        return self._expected_size / np.sqrt(2.0 * self.control_variance)

    def distance_quantiles(self, levels: np.ndarray) -> np.ndarray:
        """Compute quantiles of the E-distance to the control cells, shape `(n, n_levels)`."""
        found = _quantiles(*self._sizes(), levels)
        return np.where(self.is_control[:, None], 0.0, np.exp(found) / np.sqrt(2.0 * self.control_variance)[:, None])

    @cached_property
    def p_active(self) -> np.ndarray:
        """Probability that a perturbation changes anything beside its targets, shape `(n,)`.

        The squared change then exceeds 0.5 % of the variance between control cells.
        """
        weights, centre, sd = self._sizes((self.on_target == 0) & (self.inactive_mean == 0))
        threshold = np.log(ACTIVE_SHARE * self.control_variance)[:, None]
        return np.where(self.is_control, 0.0, np.minimum((weights * ndtr((centre - threshold) / sd)).sum(axis=1), 1.0))

    def along(self, direction: np.ndarray, levels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Project changes on a direction.

        Parameters
        ----------
        direction
            Weights, shape `(n_genes,)`.
        levels
            Levels of the quantiles.

        Returns
        -------
        The posterior mean, shape `(n,)`, quantiles, shape `(n, n_levels)`, and the probability that the projection is
        positive, shape `(n,)`.
        """
        mean, inactive = self.mean @ direction, self.inactive_mean @ direction
        free, own = self.variance @ direction**2, self.on_target @ direction**2
        shared = self.relative * (self.unscaled @ direction) ** 2
        weights = np.column_stack([(1.0 - self.inactive)[:, None] * self.factors, self.inactive])
        centre = np.column_stack([np.repeat(mean[:, None], len(FACTORS), axis=1), inactive])
        variance = np.column_stack([free[:, None] * FACTORS + (shared + own)[:, None], INACTIVE_FACTOR * free + own])
        sd = np.sqrt(np.maximum(variance, 1e-24))
        # without an effect there is no sign
        is_signed = np.column_stack([np.ones(self.factors.shape, dtype=bool), inactive != 0])
        positive = np.minimum((weights * is_signed * ndtr(centre / sd)).sum(axis=1), 1.0)
        return mean, _quantiles(weights, centre, sd, levels), positive


def _quantiles(weights: np.ndarray, centre: np.ndarray, sd: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Compute quantiles of mixtures of normal distributions, arguments `(n, n_components)`, result `(n, n_levels)`."""
    low, high = (centre - 5.0 * sd).min(axis=1), (centre + 5.0 * sd).max(axis=1)
    grid = low[:, None] + (high - low)[:, None] * np.linspace(0.0, 1.0, _GRID)
    below = np.zeros(grid.shape)
    for part in range(weights.shape[1]):
        column = slice(part, part + 1)
        if weights[:, part].max() > 1e-6:
            below += weights[:, column] * ndtr((grid - centre[:, column]) / sd[:, column])
    return np.stack([np.interp(levels, row, points) for row, points in zip(below, grid, strict=True)])
