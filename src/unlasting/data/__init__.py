"""From AnnData to tensors."""

from unlasting.data._cells import check_cells, check_genes, check_log_normalised, check_screen, expression
from unlasting.data._conditions import condition_tensors
from unlasting.data._doses import DoseCurves, fit_dose_curves
from unlasting.data._effects import fit_effects
from unlasting.data._features import ConditionFeatures
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
from unlasting.data._likeness import Likeness, fit_likeness
from unlasting.data._own_shifts import OwnShifts
from unlasting.data._random import cell_noise
from unlasting.data._responders import fit_responders
from unlasting.data._statistics import fit_statistics, has_whole_counts, row_blocks
from unlasting.data._vocabulary import KINDS, TargetVocabulary

__all__ = [
    "GRAPH",
    "KINDS",
    "PERTURBATION",
    "POOL",
    "SPLIT",
    "ConditionFeatures",
    "DoseCurves",
    "GraphField",
    "Likeness",
    "OwnShifts",
    "PerturbationField",
    "PoolField",
    "SplitField",
    "TargetVocabulary",
    "cell_noise",
    "check_cells",
    "check_genes",
    "check_log_normalised",
    "check_screen",
    "condition_tensors",
    "expression",
    "fit_dose_curves",
    "fit_effects",
    "fit_likeness",
    "fit_responders",
    "fit_statistics",
    "has_whole_counts",
    "row_blocks",
    "split_codes",
]
