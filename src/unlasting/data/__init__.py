"""From AnnData to tensors."""

from unlasting.data._fields import (
    GRAPH,
    PERTURBATION,
    POOL,
    SPLIT,
    GraphField,
    PerturbationField,
    PoolField,
    SplitField,
    split_codes,
)
from unlasting.data._random import cell_noise
from unlasting.data._splitter import CellSplitter

__all__ = [
    "CellSplitter",
    "GRAPH",
    "GraphField",
    "PERTURBATION",
    "POOL",
    "PerturbationField",
    "PoolField",
    "SPLIT",
    "SplitField",
    "cell_noise",
    "split_codes",
]
