"""Joint posterior of effects in candidate conditions, for the choice of experiments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Self

import numpy as np

from unlasting.effects._model import EffectsModel
from unlasting.effects._products import products, squares
from unlasting.screen import Perturbation

_MIN_SHARE: Final = 0.01
"""Share of the variance below which an effect size is left out."""


class CandidateCovariance:
    """Posterior covariance between effects in candidate conditions, summed over genes.

    At one effect size effects are Gaussian, so that a further measurement changes the covariance by a rank of one, whatever
    its result. No library is needed: that of the field, BoTorch, evaluates acquisition functions for a few outputs whose
    kernel it fits itself, whereas this kernel and its effect sizes are shared by thousands of genes.

    Parameters
    ----------
    covariance
        Posterior covariance at every effect size, shape `(n_sizes, n, n)`.
    weights
        Squared changes in mean expression, summed over genes, by effect size, shape `(n_sizes,)`.
    noise
        Error variance of a further measurement.
    """

    def __init__(self, covariance: np.ndarray, weights: np.ndarray, noise: float) -> None:
        self.covariance = np.array(covariance, dtype=np.float64)
        self.weights, self.noise = weights, noise

    @classmethod
    def of(cls, effects: EffectsModel, perturbations: Sequence[Perturbation], context: np.ndarray) -> Self:
        """Condition on the training cells.

        An untrained target has as much variance as a typical trained condition; the part that its features lack is its own.
        A further measurement is as precise as the median one.

        Parameters
        ----------
        effects
            The fitted model.
        perturbations
            Candidates, shape `(n,)`.
        context
            Codes of their cell types, shape `(n,)`.
        """
        regression, posterior = effects.regression, effects.regression.posterior
        features, relevance, between = (
            effects.features(list(perturbations)),
            regression.relevance,
            regression.contexts.between(),
        )
        to_trained = products(features, relevance, regression.features)
        to_measured = to_trained[:, posterior.condition] * between[np.ix_(context, posterior.context)]
        among = products(features, relevance, features) * between[np.ix_(context, context)]
        typical = squares(regression.features, relevance).mean()
        own = np.where(effects.is_trained(perturbations), 0.0, np.maximum(typical - np.diag(among), 0.0))
        own = np.maximum(own, effects.missing(perturbations))
        among += np.diag(own)
        spectrum = posterior.spectrum
        projected = to_measured @ spectrum.root
        sizes = posterior.candidates.astype(np.float64)
        weights = posterior.sizes.astype(np.float64) @ posterior.weights
        share = sizes * weights
        kept = np.flatnonzero(share > _MIN_SHARE * max(share.sum(), 1e-30))
        covariance = [
            size * among - spectrum.product(size**2 / (1.0 + size * spectrum.variances), to_measured, projected)
            for size in sizes[kept]
        ]
        n = len(perturbations)
        return cls(np.reshape(covariance, (len(kept), n, n)), weights[kept], float(np.median(spectrum.errors.variance)))

    @property
    def variance(self) -> np.ndarray:
        """Expected squared error of each candidate's prediction, shape `(n,)`."""
        return self.weights @ np.diagonal(self.covariance, axis1=1, axis2=2)

    def gains(self) -> np.ndarray:
        """Compute the decrease in the sum of variances by one more measurement of each candidate, shape `(n,)`."""
        diagonal = np.diagonal(self.covariance, axis1=1, axis2=2)
        return self.weights @ ((self.covariance**2).sum(axis=2) / (diagonal + self.noise))

    def measure(self, candidate: int) -> None:
        """Condition on one more measurement."""
        for covariance in self.covariance:
            column = covariance[candidate].copy()
            covariance -= np.outer(column, column / (column[candidate] + self.noise))
