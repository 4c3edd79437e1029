"""The labels of a screen: perturbations, keys, checks, chemistry."""

from unlasting.screen._arguments import not_none, require_integers, require_numbers, require_switches
from unlasting.screen._cells import Cells, Condition, is_in_memory, refuse_counts, sample
from unlasting.screen._checks import check_cells, check_genes, check_log_normalised, check_screen, expression
from unlasting.screen._chemistry import (
    SMILES_DELIMITER,
    canonical_smiles,
    compared_by,
    morgan_counts,
    murcko_scaffold,
    one_molecule_each,
    require_rdkit,
    smiles_by_name,
    tanimoto_similarity,
)
from unlasting.screen._constants import COUNTS_LAYER, PREDICTION_KEY, SPLIT_KEY, SPLITS, TEST, TRAIN, UNS_KEY, VAL
from unlasting.screen._counts import counts_per_unit, integer_counts, is_counts, screen_counts
from unlasting.screen._errors import MissingKeyError
from unlasting.screen._keys import LABELS_OF_SPLIT, ScreenKeys, split_hash
from unlasting.screen._logging import listed, logger
from unlasting.screen._perturbation import Perturbation, canonical_labels, nearest_name, parse_labels, split_label

__all__ = [
    "COUNTS_LAYER",
    "Cells",
    "Condition",
    "LABELS_OF_SPLIT",
    "MissingKeyError",
    "PREDICTION_KEY",
    "Perturbation",
    "SMILES_DELIMITER",
    "SPLITS",
    "SPLIT_KEY",
    "ScreenKeys",
    "TEST",
    "TRAIN",
    "UNS_KEY",
    "VAL",
    "canonical_labels",
    "canonical_smiles",
    "check_cells",
    "check_genes",
    "check_log_normalised",
    "check_screen",
    "compared_by",
    "counts_per_unit",
    "expression",
    "integer_counts",
    "is_counts",
    "is_in_memory",
    "listed",
    "logger",
    "morgan_counts",
    "murcko_scaffold",
    "nearest_name",
    "not_none",
    "one_molecule_each",
    "parse_labels",
    "refuse_counts",
    "require_numbers",
    "require_rdkit",
    "require_switches",
    "require_integers",
    "sample",
    "screen_counts",
    "smiles_by_name",
    "split_hash",
    "split_label",
    "tanimoto_similarity",
]
