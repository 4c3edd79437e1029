"""What perturbations do to the expression of their own targets, told apart from the rest of their effects."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from unlasting.effects._expected import N_PARAMETERS
from unlasting.effects._moments import MeasuredEffects
from unlasting.effects._statistics import HurdleParameters
from unlasting.effects._vocabulary import GENE, TargetVocabulary

_USUAL_FOLD: Final = {"knockout": 1.0, "knockdown": 0.25, "activation": 4.0}
"""Fold change of the own transcript that counts as that of one more target, and is all there is where none is trained and
measured. A cut gene may be transcribed as before; interference and activation act on transcription itself."""

_MOST_LOG_ODDS: Final = 7.0
"""Of being expressed: what is on or off in all but one of a thousand cells is so in all that are measured."""

_TELLING_LOG_ODDS: Final = 4.0
"""Above it, the share of cells without a gene says little of how many counts the others have."""


@dataclass(frozen=True)
class _Transcripts:
    """Genes of control cells: log-odds of being expressed, mean and s.d. of expressed values, each `(n_genes,)`."""

    log_odds: np.ndarray
    base: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, controls: HurdleParameters, x_max: float) -> _Transcripts:
        """Take the mean over populations, in log1p."""
        log_odds, base, scale = (
            part.double().numpy().mean(axis=0) for part in (controls.log_odds, controls.base, controls.scale)
        )
        return cls(np.clip(log_odds, -_MOST_LOG_ODDS, _MOST_LOG_ODDS), base * x_max, scale * x_max)

    @property
    def mean(self) -> np.ndarray:
        """The mean count, `(n_genes,)`: by the cells without one, or else by the normalised value of a single count."""
        mean = np.logaddexp(0.0, self.log_odds)
        normalised = np.expm1(self.base) * -np.expm1(-mean)
        tells = np.abs(self.log_odds) < _TELLING_LOG_ODDS
        by_value = normalised / np.median((normalised / mean)[tells]) if tells.any() else np.full_like(mean, np.inf)
        return np.where(self.log_odds < _TELLING_LOG_ODDS, mean, np.clip(by_value, mean, 1e3))

    def log_fold(self, shifts: np.ndarray) -> np.ndarray:
        """Get the change of the logarithm of the mean count, `(n_genes,)`, by shifts `(3, n_genes)`."""
        base = np.maximum(self.base + shifts[1] * self.scale, 0.1 * self.base)
        return self._log_rates(shifts[0]) + np.log(np.expm1(base) / np.expm1(self.base))

    def shifts(self, log_fold: float) -> np.ndarray:
        """Get the shifts of Poisson counts whose mean changes by a factor, `(3, n_genes)`; the s.d. stays."""
        mean = self.mean * np.exp(log_fold)
        log_odds = np.clip(mean + np.log(-np.expm1(-mean)), -_MOST_LOG_ODDS, _MOST_LOG_ODDS) - self.log_odds
        # never against the fold: a gene may be missing in more cells than its counts explain
        log_odds = np.where(log_odds * log_fold > 0, log_odds, 0.0)
        base = np.log1p(np.expm1(self.base) * np.exp(log_fold - self._log_rates(log_odds)))
        return np.stack([log_odds, (base - self.base) / self.scale, np.zeros_like(base)])

    def _log_rates(self, shift: np.ndarray) -> np.ndarray:
        """Get the change of the logarithm of the share of cells that express a gene, `(n_genes,)`."""
        return np.logaddexp(0.0, -self.log_odds) - np.logaddexp(0.0, -self.log_odds - shift)


@dataclass(frozen=True)
class OnTargetEffects:
    """Tells what perturbations do to the expression of their own targets apart from the rest of their effects.

    A knock-out loses some of its transcript, an activation gains. That is no effect that a similar target would share, which
    loses its own; and that of one gene says nothing of another in :func:`fit_effects`, whose features are the same for all
    genes.

    Parameters
    ----------
    is_own
        Which measured effects are those on a target, shape `(n_measured, n_genes)`.
    tells
        Which of them tell what is its own: where it is perturbed alone, or any if it never is, of the same shape.
    genes
        The transcripts of control cells, in the mean over populations: in a population that differs much from it, a fold is another one.
    usual_log_fold
        Change that counts as that of one more target.
    """

    is_own: np.ndarray
    tells: np.ndarray
    genes: _Transcripts
    usual_log_fold: float

    @classmethod
    def of(
        cls,
        vocabulary: TargetVocabulary,
        measured: MeasuredEffects,
        controls: HurdleParameters,
        x_max: float,
        mode: str,
    ) -> OnTargetEffects:
        """Find the effects on targets.

        Parameters
        ----------
        vocabulary
            Knows the trained conditions and which nodes are measured.
        measured
            The effects in the training cells.
        controls
            Genes of the control cells of every population, on the [0, 1] scale.
        x_max
            The largest log-normalised value.
        mode
            What happens to targets: `knockout`, `knockdown` or `activation`.
        """
        n_genes = measured.shifts.shape[2]
        gene_of = {name: gene for gene, name in enumerate(vocabulary.nodes[:n_genes])}
        codes = np.unique(measured.condition, return_inverse=True)[1]
        is_own, is_alone = np.zeros((len(codes), n_genes), dtype=bool), np.zeros((len(codes), 1), dtype=bool)
        for row, code in enumerate(codes):
            names = vocabulary.trained_conditions[code].targets
            is_alone[row] = len(names) == 1
            own = [gene_of[name] for name in names if name in gene_of and vocabulary.target(name)[0] == GENE]
            is_own[row, own] = True
        tells = is_own & (is_alone | ~(is_own & is_alone).any(axis=0))
        return cls(is_own, tells, _Transcripts.of(controls, x_max), float(np.log(_USUAL_FOLD[mode])))

    def separate(
        self, measured: MeasuredEffects, expected: np.ndarray | None = None
    ) -> tuple[np.ndarray, MeasuredEffects]:
        """Split the effects.

        Parameters
        ----------
        measured
            The effects in the training cells.
        expected
            What the rest is expected to be by the other conditions, of the shape of the shifts. Nothing if `None`.

        Returns
        -------
        own
            Shifts of each gene where it is the target, shape `(3, n_genes)`. Of a trained one the mean over what tells it,
            drawn to what is usual as far as it may be noise. What is usual, and that of any other, has the median fold
            change of trained ones and of the mode, which counts as one more target.
        rest
            The effects without them; what tells an own shift is as expected, if that is known.
        """
        trained = np.any(self.is_own, axis=0)
        if not trained.any():
            return self.genes.shifts(self.usual_log_fold), measured
        beside = measured.shifts if expected is None else measured.shifts - expected
        weights = (self.tells / measured.noise[:, None])[:, trained]
        found = np.einsum("ng,nsg->sg", weights, beside[:, :, trained]) / weights.sum(axis=0)
        own = self._usual(found, trained)
        usual = own[:, trained]
        noise = 1.0 / (weights.sum(axis=0) * measured.units[:, trained] ** 2)
        spread = np.maximum(((found - usual) ** 2 - noise).mean(axis=1, keepdims=True), 0.0)
        own[:, trained] = usual + spread / (spread + noise) * (found - usual)
        rest = measured.shifts - self.is_own[:, None] * own
        if expected is not None:
            rest = np.where(self.tells[:, None], expected, rest)
        return own, replace(measured, shifts=rest)

    def _usual(self, found: np.ndarray, trained: np.ndarray) -> np.ndarray:
        """Get what is usual of any gene, `(3, n_genes)`, from the shifts of trained ones, `(3, n_trained)`."""
        shifts = np.zeros((N_PARAMETERS, len(trained)))
        shifts[:, trained] = found
        n_trained = trained.sum()
        median = np.median(self.genes.log_fold(shifts)[trained])
        usual = self.genes.shifts((n_trained * median + self.usual_log_fold) / (n_trained + 1.0))
        usual[2] = np.median(found[2]) * n_trained / (n_trained + 1.0)
        return usual
