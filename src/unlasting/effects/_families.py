"""Further kernel families: features that targets share, beside their prior, molecule and identity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


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
