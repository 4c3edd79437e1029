"""Kernel over contexts: how far an effect in one cell type transfers to another."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np
import torch
from scipy.special import softmax

SHARES: Final = np.array([0.0, 0.125, 0.25, 0.375, 0.5])
"""Candidate shares of the variance that is particular to contexts. Above one half, covariances could be negative."""
_LOG_PRIOR: Final = -2.0 * SHARES
"""Full transfer is likeliest where contexts are few or effects weak."""


@dataclass(frozen=True)
class ContextKernel:
    """Covariance `1 - share + share * correlation` between effects in two contexts.

    With shares up to one half it is positive semi-definite and non-negative, for unseen contexts too.

    Parameters
    ----------
    profiles
        Centred mean expression with length one in the control cells of every context, shape `(n_contexts, n_genes)`.
    centre
        Mean expression over contexts, shape `(n_genes,)`.
    weights
        Posterior weight of every candidate share, shape `(n_shares,)`.
    means
        Mean expression in the control cells of every context, shape `(n_contexts, n_genes)`.
    """

    profiles: np.ndarray
    centre: np.ndarray
    weights: np.ndarray
    means: np.ndarray

    @classmethod
    def centred(cls, means: np.ndarray) -> Self:
        """Make a kernel with full transfer from mean expression, shape `(n_contexts, n_genes)`."""
        centre = means.mean(axis=0)
        return cls(_unit(means - centre), centre, np.eye(len(SHARES))[0], means)

    def __call__(self, context: np.ndarray, means: np.ndarray) -> np.ndarray:
        """Compute covariances with the contexts.

        Parameters
        ----------
        context
            Codes, -1 for a new context, shape `(n,)`.
        means
            Mean expression in control cells, read for new contexts, shape `(n, n_genes)`.

        Returns
        -------
        Shape `(n, n_contexts)`.
        """
        known = (context >= 0)[:, None]
        profiles = np.where(known, self.profiles[np.maximum(context, 0)], _unit(means - self.centre))
        return self._covariance(profiles)

    def between(self) -> np.ndarray:
        """Compute covariances between the contexts, shape `(n_contexts, n_contexts)`."""
        return self._covariance(self.profiles)

    def candidates(self) -> list[Self]:
        """Get the kernel for each share alone."""
        return [replace(self, weights=weights) for weights in np.eye(len(SHARES))]

    def averaged_over(self, errors: np.ndarray) -> Self:
        """Average the shares by their squared errors for left-out effects, shape `(n_shares, n_left_out)`.

        Few strong effects determine the error, whatever their number.
        """
        total = errors.sum(axis=1)
        if errors.size == 0 or total.min() <= 0:
            return self
        best = errors[total.argmin()]
        n_effective = best.sum() ** 2 / (best**2).sum()
        return replace(self, weights=softmax(_LOG_PRIOR - 0.5 * n_effective * np.log(total / total.min())))

    def _covariance(self, profiles: np.ndarray) -> np.ndarray:
        share = self.weights @ SHARES
        return np.asarray(1.0 - share + share * (aligned(profiles) @ self.profiles.T))


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)


def aligned(array: np.ndarray) -> np.ndarray:
    """Copy to memory with torch's alignment, because products round by it: a loaded model equals the fitted one."""
    return torch.from_numpy(array).clone().numpy()
