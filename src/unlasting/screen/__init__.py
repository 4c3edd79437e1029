"""Screens: perturbations, keys, checks, chemistry."""

from unlasting.screen._cells import Cells, Condition, sample
from unlasting.screen._checks import (
    MissingKeyError,
    check_cells,
    check_genes,
    check_log_normalised,
    expression,
    integer_counts,
    is_in_memory,
    not_none,
    require_choices,
    require_column,
    require_integers,
    require_numbers,
    require_switches,
)
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
from unlasting.screen._counts import counts_per_unit, is_counts, rounded_counts, screen_counts
from unlasting.screen._doses import DOSE_UNITS, MICROMOLAR, from_micromolar, in_micromolar
from unlasting.screen._files import use_plain_strings
from unlasting.screen._keys import ScreenKeys, split_hash
from unlasting.screen._labels import require_perturbed, review_labels, target_by_guide, warn_of_labels
from unlasting.screen._logging import listed, logger
from unlasting.screen._perturbation import Perturbation, canonical_labels, nearest_name, parse_labels, split_label
from unlasting.screen._scale import Scale
from unlasting.screen._symbols import GeneNames, present_symbol, symbol_candidates

__all__ = [
    "COUNTS_LAYER",
    "Cells",
    "Condition",
    "DOSE_UNITS",
    "GeneNames",
    "MICROMOLAR",
    "MissingKeyError",
    "PREDICTION_KEY",
    "Perturbation",
    "SMILES_DELIMITER",
    "SPLITS",
    "SPLIT_KEY",
    "Scale",
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
    "compared_by",
    "counts_per_unit",
    "expression",
    "from_micromolar",
    "in_micromolar",
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
    "present_symbol",
    "require_choices",
    "require_column",
    "require_integers",
    "require_numbers",
    "require_perturbed",
    "require_rdkit",
    "require_switches",
    "review_labels",
    "rounded_counts",
    "sample",
    "screen_counts",
    "smiles_by_name",
    "split_hash",
    "split_label",
    "symbol_candidates",
    "tanimoto_similarity",
    "target_by_guide",
    "use_plain_strings",
    "warn_of_labels",
]
