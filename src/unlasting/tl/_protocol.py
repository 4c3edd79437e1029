"""The evaluation protocol: parameters of `tl.evaluate`, checked once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from unlasting.metrics import Metric, get_metric
from unlasting.screen import require_integers

ALL = "all"
"""The set with all genes; every metric exists there."""
FLOOR = "noise floor"
NO_EFFECT = "no effect"
OBSERVED = "observed"
LEVEL = 0.05
"""Level in the tests for a signal and for a false-positive effect."""
METRICS = ("e_distance", "emd", "pearson_change", "pearson_change_centred", "correlation_error")
GENE_SETS = (ALL, "de20", "de40")
_SMALLEST = {"n_repeats": 1, "min_cells": 8, "max_cells": 2, "n_permutations": 19, "seed": 0}


@dataclass(frozen=True)
class Protocol:
    """Parameters of `tl.evaluate`."""

    metrics: Sequence[Metric]
    gene_sets: Sequence[str]
    n_repeats: int
    min_cells: int
    max_cells: int
    n_permutations: int
    seed: int

    @classmethod
    def read(
        cls, metrics: str | Metric | Iterable[str | Metric], gene_sets: str | Iterable[str], **numbers: int
    ) -> Protocol:
        """Look the metrics up and check all parameters."""
        listed = [metrics] if isinstance(metrics, str | Metric) else list(metrics)
        found = {metric.name: metric for metric in map(get_metric, listed)}
        sets = [gene_sets] if isinstance(gene_sets, str) else list(dict.fromkeys(gene_sets))
        for argument, given in (("metrics", found), ("gene_sets", sets)):
            if not given:
                raise ValueError(f"`{argument}` is empty; name at least one.")
        for name in sets:
            if name != ALL and not re.fullmatch(r"de[1-9]\d*", name):
                raise ValueError(
                    f"`gene_sets` names {name!r}; a set is 'all', or 'de' with a number, such as 'de20' for the 20 genes "
                    "with the largest change."
                )
        for argument, number in numbers.items():
            require_integers(_SMALLEST[argument], **{argument: number})
        return cls(list(found.values()), sets, **numbers)
