"""From AnnData to tensors."""

from unlasting.data._blocks import CHUNK
from unlasting.data._fields import (
    GRAPH,
    PERTURBATION,
    POPULATION,
    SPLIT,
    GraphField,
    PerturbationField,
    PopulationField,
    SplitField,
    split_codes,
)
from unlasting.data._random import cell_noise
from unlasting.data._splitter import CellSplitter

__all__ = [
    "CHUNK",
    "CellSplitter",
    "GRAPH",
    "GraphField",
    "PERTURBATION",
    "POPULATION",
    "PerturbationField",
    "PopulationField",
    "SPLIT",
    "SplitField",
    "cell_noise",
    "split_codes",
]
