"""On-target effects: the change in the perturbed gene's transcript, apart from all other effects."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np

from unlasting.effects._moments import N_PARAMETERS, HurdleParameters, MeasuredEffects
from unlasting.effects._vocabulary import TargetVocabulary

_PRIOR_FOLD: Final = {"knockout": 1.0, "knockdown": 0.25, "activation": 4.0}
"""Fold change that counts as one more trained target. A cut gene may be transcribed as before, whereas interference and
activation act on transcription."""
_MAX_LOG_ODDS: Final = 7.0
"""Log-odds of detection in all but one cell in a thousand: beyond it, estimates are noise."""
_MAX_INFORMATIVE_LOG_ODDS: Final = 4.0
"""Log-odds above which the share of cells without a gene hardly depends on its mean count."""


@dataclass(frozen=True)
class _Transcripts:
    """Genes in control cells: log-odds of detection, mean and s.d. for expressed values in log1p, each `(n_genes,)`."""

    log_odds: np.ndarray
    base: np.ndarray
    scale: np.ndarray

    @classmethod
    def average(cls, controls: HurdleParameters, x_max: float) -> Self:
        """Average over populations."""
        log_odds, base, scale = (
            part.double().numpy().mean(axis=0) for part in (controls.log_odds, controls.base, controls.scale)
        )
        return cls(np.clip(log_odds, -_MAX_LOG_ODDS, _MAX_LOG_ODDS), base * x_max, scale * x_max)

    @property
    def mean(self) -> np.ndarray:
        """Mean count from the cells without one, or else from a single count's normalised value, `(n_genes,)`."""
        mean = np.logaddexp(0.0, self.log_odds)
        normalised = np.expm1(self.base) * -np.expm1(-mean)
        is_informative = np.abs(self.log_odds) < _MAX_INFORMATIVE_LOG_ODDS
        by_value = np.full_like(mean, np.inf)
        if is_informative.any():
            by_value = normalised / np.median((normalised / mean)[is_informative])
        return np.where(self.log_odds < _MAX_INFORMATIVE_LOG_ODDS, mean, np.clip(by_value, mean, 1e3))

    def log_fold(self, effects: np.ndarray) -> np.ndarray:
        """Convert effects `(3, n_genes)` to log fold changes in the mean count, `(n_genes,)`."""
        base = np.maximum(self.base + effects[1] * self.scale, 0.1 * self.base)
        return self._log_rate_change(effects[0]) + np.log(np.expm1(base) / np.expm1(self.base))

    def effects(self, log_fold: float) -> np.ndarray:
        """Convert a log fold change in mean Poisson counts to effects `(3, n_genes)`; the s.d. stays."""
        mean = self.mean * np.exp(log_fold)
        log_odds = np.clip(mean + np.log(-np.expm1(-mean)), -_MAX_LOG_ODDS, _MAX_LOG_ODDS) - self.log_odds
        # never against the fold: a gene may be missing in more cells than its counts explain
        log_odds = np.where(log_odds * log_fold > 0, log_odds, 0.0)
        base = np.log1p(np.expm1(self.base) * np.exp(log_fold - self._log_rate_change(log_odds)))
        return np.stack([log_odds, (base - self.base) / self.scale, np.zeros_like(base)])

    def _log_rate_change(self, effect: np.ndarray) -> np.ndarray:
        """Convert effects on log-odds to changes in the log detection rate, `(n_genes,)`."""
        return np.logaddexp(0.0, -self.log_odds) - np.logaddexp(0.0, -self.log_odds - effect)


@dataclass(frozen=True)
class OnTargetEffects:
    """Separates on-target effects from all others.

    A knock-out loses some target transcripts, an activation gains some. Similar targets do not share that effect,
    and so it does not enter the regression over conditions.

    Parameters
    ----------
    is_target
        Measured effects on a target, shape `(n_measured, n_genes)`.
    is_informative
        Those where the target is perturbed alone, or any if it never is, shape `(n_measured, n_genes)`.
    transcripts
        Genes in control cells, averaged over populations.
    prior_log_fold
        Log fold change that counts as one more target.
    """

    is_target: np.ndarray
    is_informative: np.ndarray
    transcripts: _Transcripts
    prior_log_fold: float

    @classmethod
    def find(
        cls,
        vocabulary: TargetVocabulary,
        measured: MeasuredEffects,
        controls: HurdleParameters,
        x_max: float,
        mode: str,
    ) -> Self:
        """Find the measured effects on targets.

        Parameters
        ----------
        vocabulary
            Trained conditions and nodes.
        measured
            Effects in the training cells.
        controls
            Hurdle parameters in every control population, on the [0, 1] scale.
        x_max
            Largest log-normalised value.
        mode
            `knockout`, `knockdown` or `activation`.
        """
        n_genes = measured.effects.shape[2]
        codes = np.unique(measured.condition, return_inverse=True)[1]
        is_target, is_single = np.zeros((len(codes), n_genes), dtype=bool), np.zeros((len(codes), 1), dtype=bool)
        for row, code in enumerate(codes):
            perturbation = vocabulary.trained_conditions[code]
            is_single[row] = len(perturbation.targets) == 1
            is_target[row, vocabulary.measured_targets(perturbation, n_genes)] = True
        is_informative = is_target & (is_single | ~(is_target & is_single).any(axis=0))
        transcripts = _Transcripts.average(controls, x_max)
        return cls(is_target, is_informative, transcripts, float(np.log(_PRIOR_FOLD[mode])))

    def separate(
        self, measured: MeasuredEffects, expected: np.ndarray | None = None
    ) -> tuple[np.ndarray, MeasuredEffects]:
        """Split measured effects.

        Parameters
        ----------
        measured
            Effects in the training cells.
        expected
            Other effects on targets as predicted from other conditions, shape `(n_measured, 3, n_genes)`. `None`: none.

        Returns
        -------
        on_target
            Effect on each gene where it is the target, shape `(3, n_genes)`. For a trained target it is the mean over
            informative measurements, shrunken to the usual effect as far as it may be noise. The usual effect has the
            median fold change over trained targets and the prior; untrained targets have it.
        rest
            Effects without it. Informative measurements are replaced by `expected`, if given.
        """
        if not self.is_target.any():
            return self._estimate(measured, None)[0], measured
        on_target, _ = self._estimate(measured, expected)
        rest = measured.effects - self.is_target[:, None] * on_target
        if expected is not None:
            rest = np.where(self.is_informative[:, None], expected, rest)
        return on_target, replace(measured, effects=rest)

    def variance(self, measured: MeasuredEffects, expected: np.ndarray | None = None) -> np.ndarray:
        """Compute the posterior variance of every on-target effect, with arguments as in :meth:`separate`, `(3, n_genes)`.

        That of an untrained target is the spread over trained targets; the usual effect counts as one more deviation.
        """
        return self._estimate(measured, expected)[1]

    def _estimate(self, measured: MeasuredEffects, expected: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Estimate on-target effects with their variances."""
        trained = np.any(self.is_target, axis=0)
        if not trained.any():
            usual = self.transcripts.effects(self.prior_log_fold)
            return usual, usual**2
        remaining = measured.effects if expected is None else measured.effects - expected
        weights = (self.is_informative / measured.noise[:, None])[:, trained]
        found = np.einsum("ng,nsg->sg", weights, remaining[:, :, trained]) / weights.sum(axis=0)
        on_target = self._usual(found, trained)
        usual = on_target[:, trained]
        noise = 1.0 / (weights.sum(axis=0) * measured.units[:, trained] ** 2)
        spread = np.maximum(((found - usual) ** 2 - noise).mean(axis=1, keepdims=True), 0.0)
        n_trained = trained.sum()
        # as one more trained target, the prior counts with the square of its effect
        variance = (n_trained * spread + on_target**2) / (n_trained + 1.0)
        variance[:, trained] = spread * noise / np.maximum(spread + noise, 1e-30)
        on_target[:, trained] = usual + spread / (spread + noise) * (found - usual)
        return on_target, variance

    def _usual(self, found: np.ndarray, trained: np.ndarray) -> np.ndarray:
        """Get the usual effect on any gene, `(3, n_genes)`, from those on trained targets, `(3, n_trained)`."""
        effects = np.zeros((N_PARAMETERS, len(trained)))
        effects[:, trained] = found
        n_trained = trained.sum()
        median = np.median(self.transcripts.log_fold(effects)[trained])
        usual = self.transcripts.effects((n_trained * median + self.prior_log_fold) / (n_trained + 1.0))
        usual[2] = np.median(found[2]) * n_trained / (n_trained + 1.0)
        return usual
