"""Kernel over control populations: how far an effect in one population transfers to another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import torch

CONTEXT_SHARES: Final = (0.0, 0.25, 0.5, 0.75, 0.9)
"""Candidate shares for the variance that is particular to populations."""


@dataclass(frozen=True)
class ContextKernel:
    """Covariance `1 - share + share * correlation` between effects in two control populations.

    Parameters
    ----------
    profiles
        Centred mean expression with length one, shape `(n_populations, n_genes)`.
    centre
        Mean expression over populations, shape `(n_genes,)`.
    share
        Share in an effect's variance that is particular to populations, shape `()`.
    """

    profiles: np.ndarray
    centre: np.ndarray
    share: np.ndarray

    @classmethod
    def centred(cls, means: np.ndarray) -> Self:
        """Make a kernel without particular effects from mean expression, shape `(n_populations, n_genes)`."""
        centre = means.mean(axis=0)
        return cls(_unit(means - centre), centre, np.array(0.0))

    def __call__(self, means: np.ndarray) -> np.ndarray:
        """Compute covariances with the trained populations for mean expression `(n, n_genes)`, `(n, n_populations)`."""
        correlation = aligned(_unit(means.astype(self.centre.dtype) - self.centre)) @ self.profiles.T
        return 1.0 - self.share + self.share * correlation


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)


def aligned(array: np.ndarray) -> np.ndarray:
    """Copy to memory with torch's alignment, because products round by it: a loaded model equals the fitted one."""
    return torch.from_numpy(array).clone().numpy()
