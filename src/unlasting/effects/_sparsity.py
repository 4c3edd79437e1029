"""Probability that a perturbation does not act on a gene: effects are sparse, which no Gaussian prior contains."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Final, Self

import numpy as np
from scipy.special import expit

from unlasting.effects._spectrum import Spectrum

WIDTHS: Final = 4.0 ** np.arange(5)
"""Factors for the variance of an effect that is not zero: rare effects are larger than their prediction."""
_MAX_PAIRS: Final = 100_000
"""Pairs of measurement and gene that estimate the distribution."""
_ROUNDS: Final = 30


@dataclass(frozen=True)
class EffectEvidence:
    """Measured effects beside their prediction from all other measurements.

    Parameters
    ----------
    measured
        Measured effects without the expected error of control cells, shape `(n_measured, n_outputs)`.
    predicted, variance
        Mean and variance of the effect given all others, shape `(n_measured, n_outputs)`.
    noise
        Error variance given all others, shape `(n_measured, n_outputs)`.
    """

    measured: np.ndarray
    predicted: np.ndarray
    variance: np.ndarray
    noise: np.ndarray

    @classmethod
    def of(cls, spectrum: Spectrum, measured: np.ndarray, size: np.ndarray) -> Self:
        """Predict every measurement from all others, each output at one effect size.

        Parameters
        ----------
        spectrum
            Covariance between effects at size one, beside that between errors.
        measured
            Measured effects, shape `(n_measured, n_outputs)`.
        size
            Effect size, shape `(n_outputs,)`.
        """
        found = [np.zeros(measured.shape, dtype=np.float32) for _ in range(4)]
        sizes, place = np.unique(size, return_inverse=True)
        shrunken = 1.0 / (1.0 + sizes * spectrum.variances[:, None])
        rotated, diagonals = spectrum.rotate(measured), spectrum.diagonal(shrunken)  # of the precision
        shared = spectrum.shared
        control_errors = spectrum.rotate(shared)
        for one, (weights, diagonal) in enumerate(zip(shrunken.T, diagonals.T, strict=True)):
            outputs = np.flatnonzero(place == one)
            solved, through = (spectrum.combine(weights, part) for part in (rotated[outputs], control_errors))
            own = (shared * through).sum(axis=1)  # diagonal of the precision times the shared errors
            error = solved / diagonal[:, None]  # measured minus expected from all others
            control = shared @ (shared.T @ solved) - own[:, None] * error  # expected error of control cells
            unknown = (shared * (shared - shared @ (shared.T @ through))).sum(axis=1) + own**2 / diagonal
            errors = spectrum.own + np.maximum(unknown, 0.0)
            variance = np.maximum(1.0 / diagonal - errors, 0.0)
            adjusted = measured[:, outputs] - control
            for array, part in zip(
                found, (adjusted, adjusted - error, variance[:, None], errors[:, None]), strict=True
            ):
                array[:, outputs] = part
        return cls(*found)

    def __getitem__(self, place: Any) -> Self:
        """Select measurements, or pairs of measurement and output."""
        return type(self)(*(getattr(self, part.name)[place] for part in fields(self)))

    def log_ratios(self, widths: np.ndarray) -> np.ndarray:
        """Compute the log likelihood of an effect over that of none, shape `(n_widths, n_measured, n_outputs)`."""
        none = np.log(self.noise) + self.measured**2 / self.noise
        square = (self.measured - self.predicted) ** 2
        ratios = []
        for width in widths:
            total = self.noise + width * self.variance
            ratios.append(0.5 * (none - np.log(total) - square / total))
        return np.array(ratios)


@dataclass(frozen=True)
class Sparsity:
    """Distribution over effects that are zero, estimated on one screen.

    A perturbation acts on a gene with a probability whose log-odds are linear in the logarithm of the gene's effect size and
    in the prediction from other conditions. It then acts on detection, on expressed values, or on both.

    Parameters
    ----------
    coefficients
        Intercept and slopes of the log-odds, shape `(3,)`.
    widths
        Weights of `WIDTHS`, shape `(n_widths,)`.
    parts
        Share of effects on detection alone, on expressed values alone, and on both, shape `(3,)`.
    """

    coefficients: np.ndarray
    widths: np.ndarray
    parts: np.ndarray

    @classmethod
    def fit(cls, evidence: EffectEvidence, size: np.ndarray) -> tuple[Self, np.ndarray]:
        """Estimate the distribution by expectation and maximisation.

        Parameters
        ----------
        evidence
            Effects on detection, then those on expressed values, `2 * n_genes` outputs.
        size
            Expected effect size, shape `(2 * n_genes,)`.

        Returns
        -------
        The distribution, and the probability that each measured effect is zero, shape `(n_measured, n_genes)`.
        """
        n_measured, n_genes = len(evidence.measured), evidence.measured.shape[1] // 2
        pairs = np.arange(n_measured * n_genes)
        if len(pairs) > _MAX_PAIRS:
            pairs = np.random.default_rng(0).choice(pairs, _MAX_PAIRS, replace=False)
        row, gene = (part[:, None] for part in np.divmod(pairs, n_genes))
        outputs = gene + [0, n_genes]
        some = evidence[row, outputs]
        design = described_pairs(some.predicted, some.variance, size[outputs])[:, 0]
        chosen = some.log_ratios(WIDTHS)
        coefficients = np.array([-2.0, 0.0, 0.0])
        widths, parts = np.full(len(WIDTHS), 1.0 / len(WIDTHS)), np.full(3, 1.0 / 3.0)
        for _ in range(_ROUNDS):
            by_width = chosen + np.log(widths)[:, None, None]
            single = _log_sum(by_width, axis=0)  # (n_pairs, 2)
            joint = np.column_stack([single, single.sum(axis=1)]) + np.log(parts)
            evidence_for = _log_sum(joint, axis=1)
            log_odds = design @ coefficients
            active = expit(log_odds + evidence_for)
            part = active[:, None] * np.exp(joint - evidence_for[:, None])
            acts = np.column_stack([part[:, 0] + part[:, 2], part[:, 1] + part[:, 2]])
            weights = (acts * np.exp(by_width - single)).sum(axis=(1, 2))
            parts, widths = (
                (1.0 + part.sum(axis=0)) / (3.0 + active.sum()),
                (1.0 + weights) / (len(widths) + weights.sum()),
            )
            rate = expit(log_odds)
            gradient = design.T @ (active - rate) - 0.1 * coefficients * [0.0, 1.0, 1.0]
            curvature = (design.T * np.maximum(rate * (1.0 - rate), 1e-6)) @ design + np.diag([1e-3, 0.1, 0.1])
            coefficients = coefficients + np.clip(np.linalg.solve(curvature, gradient), -2.0, 2.0)
        found, zero = cls(coefficients, widths, parts), np.empty((n_measured, n_genes))
        step = max(1, _MAX_PAIRS // n_genes)
        for start in range(0, n_measured, step):
            rows = slice(start, start + step)
            block = evidence[rows]
            described = described_pairs(block.predicted, block.variance, size)
            zero[rows] = absent(described, coefficients, found.evidence(block.log_ratios(WIDTHS)))
        return found, zero

    def evidence(self, ratios: np.ndarray) -> np.ndarray:
        """Compute the log likelihood of an effect over that of none, shape `(n_measured, n_genes)`."""
        single = _log_sum(ratios + np.log(self.widths)[:, None, None], axis=0)
        detection, expressed = np.split(single, 2, axis=1)
        joint = np.stack([detection, expressed, detection + expressed], axis=-1) + np.log(self.parts)
        return _log_sum(joint, axis=-1)


def absent(described: np.ndarray, coefficients: np.ndarray, evidence: np.ndarray | float = 0.0) -> np.ndarray:
    """Compute the probability that effects are zero from their description and evidence, shape `(n, n_genes)`."""
    return np.asarray(expit(-(described @ coefficients) - evidence))


def described_pairs(predicted: np.ndarray, variance: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Describe pairs of condition and gene by the logarithm of effect size and prediction, shape `(n, n_genes, 3)`.

    Parameters
    ----------
    predicted, variance
        Mean and variance of effects given other conditions, shape `(n, 2 * n_genes)`.
    size
        Expected effect size, shape `(2 * n_genes,)` or `(n, 2 * n_genes)`.
    """
    certainty = predicted**2 / np.maximum(variance, 1e-12)
    by_part = np.log1p(sum(np.split(certainty, 2, axis=1)))
    sizes = np.log(np.maximum(sum(np.split(size, 2, axis=-1)), 1e-6))
    ones = np.ones(by_part.shape)
    return np.stack([ones, np.broadcast_to(sizes, by_part.shape), by_part], axis=-1)


def _log_sum(terms: np.ndarray, axis: int) -> np.ndarray:
    """Compute the logarithm of a sum of exponentials of finite terms: several times as fast as that of scipy."""
    largest = terms.max(axis=axis, keepdims=True)
    return np.asarray(np.log(np.exp(terms - largest).sum(axis=axis)) + largest.squeeze(axis))
