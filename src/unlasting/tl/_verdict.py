"""By which rules predictions are judged, and what is found about one condition."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from unlasting.metrics import Metric, get_metric
from unlasting.screen import Condition, require_integers
from unlasting.tl._comparison import ALL

FLOOR = "noise floor"
NO_EFFECT = "no effect"
OBSERVED = "observed"
LEVEL = 0.05
"""Of the permutation test for a signal, and of the test for harm."""


@dataclass(frozen=True)
class Rules:
    """How predictions are judged: parameters of `tl.evaluate`."""

    metrics: Sequence[Metric]
    gene_sets: Sequence[str]
    n_repeats: int
    min_cells: int
    max_cells: int
    n_permutations: int
    n_bootstraps: int
    seed: int

    @classmethod
    def read(
        cls, metrics: str | Metric | Iterable[str | Metric], gene_sets: str | Iterable[str], **numbers: int
    ) -> Rules:
        """Look the metrics up, and refuse what cannot be meant.

        Raises
        ------
        KeyError
            If there is no metric of a name.
        ValueError
            If nothing is named, a set of genes is unknown, or a number is too small.
        """
        names: dict[str, list[Any]] = {
            argument: [given] if isinstance(given, str | Metric) else list(dict.fromkeys(given))
            for argument, given in (("metrics", metrics), ("gene_sets", gene_sets))
        }
        for argument, found in names.items():
            if not found:
                raise ValueError(f"`{argument}` is empty; name at least one.")
        for name in names["gene_sets"]:
            if name != ALL and not re.fullmatch(r"de[1-9]\d*", name):
                raise ValueError(
                    f"`gene_sets` names {name!r}; a set is 'all', or 'de' with a number, such as 'de20' for the 20 genes "
                    "that change most."
                )
        least = {"n_repeats": 1, "min_cells": 8, "max_cells": 2, "n_permutations": 19, "n_bootstraps": 20, "seed": 0}
        for argument, number in numbers.items():
            require_integers(least[argument], **{argument: number})
        return cls([get_metric(name) for name in names["metrics"]], names["gene_sets"], **numbers)


class LeftOut(Exception):
    """A condition cannot be judged; the message says why."""


@dataclass(frozen=True)
class Verdict:
    """What was found about one condition.

    Parameters
    ----------
    condition
        The condition.
    n_test
        Number of test cells.
    de_from, n_de_cells
        Where the cells come from that choose the DE genes (`train` or `test`), and their number.
    n_de_genes
        Number of genes that differ at all in these cells.
    top20
        Where the 20 genes are that change most.
    e_distance, p_value
        Distance of test cells from controls, and its p-value in the permutation test.
    n_cells
        By predictor: size of its samples.
    missing
        By predictor: why it has no prediction.
    values
        By predictor, metric and set of genes: value, and those of the floor and of no effect from as many cells;
        means over repeats, shape `(3,)`.
    changes
        By predictor, for the floor and for the test cells (`"observed"`): mean changes of each repeat, shape `(n_repeats, n_genes)`.
    harm
        By predictor, in a condition without a signal: EMD, EMD of no effect, and the p-value of the first being larger.
    """

    condition: Condition
    n_test: int
    de_from: str
    n_de_cells: int
    n_de_genes: int
    top20: np.ndarray
    e_distance: float
    p_value: float
    n_cells: dict[str, int]
    missing: dict[str, str]
    values: dict[str, dict[tuple[str, str], np.ndarray]] = field(default_factory=dict)
    changes: dict[str, np.ndarray] = field(default_factory=dict)
    harm: dict[str, tuple[float, float, float]] = field(default_factory=dict)

    @property
    def signal(self) -> bool:
        """Whether the test cells are farther from the controls than chance allows."""
        return self.p_value <= LEVEL
