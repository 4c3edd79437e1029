"""Kernel families: features that targets share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np

GENERIC: Final = "generic"
"""The family common to all perturbations."""


@dataclass(frozen=True)
class KernelFamily:
    """A kernel between targets: the product of their features.

    Parameters
    ----------
    share
        Prior share in an effect's variance; the screen then decides the weight of each feature.
    describe
        Computes the features of a target from its name, always as many; zeros without knowledge.
    """

    share: float
    describe: Callable[[str], Sequence[float]]


FAMILIES: dict[str, KernelFamily] = {}
"""Registered families by name, used in every fit. Register them before a saved model is loaded."""


@dataclass(frozen=True)
class FeatureFamilies:
    """The family of every feature, and those among which the screen decides.

    Parameters
    ----------
    names
        Family of every feature, shape `(n_features,)`.
    is_term
        Whether a feature has a relevance of its own. Others share that of their family, shape `(n_features,)`.
    shares
        Prior share in an effect's variance by family, where it is the only one compared.
    compared
        Families that describe the same targets: each of them alone, and none, is a candidate.
    """

    names: np.ndarray
    is_term: np.ndarray
    shares: dict[str, float]
    compared: Sequence[str]

    @classmethod
    def single(cls, n_features: int) -> Self:
        """Make one family, whose features have relevances of their own."""
        return cls(np.full(n_features, "features"), np.ones(n_features, dtype=bool), {}, [])

    @property
    def specific(self) -> np.ndarray:
        """1 for features that distinguish targets, else 0, shape `(n_features,)`."""
        return (self.names != GENERIC).astype(np.float32)

    @property
    def tied(self) -> list[np.ndarray]:
        """Columns of the features that share one relevance."""
        own = [np.flatnonzero((self.names == name) & ~self.is_term) for name in dict.fromkeys(self.names)]
        return [columns for columns in own if len(columns)]

    def candidates(self) -> np.ndarray:
        """Get relevances before the screen is seen, shape `(n_candidates, n_features)`.

        Each compared family alone, then none with much that all perturbations share, then none.
        """
        compared = [name for name in self.compared if (self.names == name).any()]
        others = ~np.isin(self.names, compared)
        candidates = [others | (self.names == name) for name in compared]
        if (is_generic := self.names == GENERIC).any():
            candidates.append(others * np.where(is_generic, _MOSTLY_SHARED / self.shares[GENERIC], 1.0))
        return np.stack([*candidates, others]).astype(float)


_MOSTLY_SHARED: Final = 0.88
"""Share of the generic feature where nothing else tells targets apart: that of a source of knowledge."""
