"""Distances between predicted and observed cells: pure functions on arrays, and their registry.

Cells are dense or sparse matrices. Every function raises a `TypeError` for values that are no real numbers. It raises a
`ValueError` for empty arguments, for missing or infinite values, for negative counts, and for arguments with different
genes or conditions.
"""

from unlasting.metrics._calibration import dynamic_range_fraction
from unlasting.metrics._challenge import (
    direction_fidelity,
    direction_reach,
    lfc_nmae,
    noise_corrected_mse,
    perturbation_discrimination,
    significant_jaccard,
)
from unlasting.metrics._change import mse_change, pearson_change
from unlasting.metrics._differential import de_direction, de_lfc_spearman, de_overlap, de_recall
from unlasting.metrics._discrimination import (
    centroid_accuracy,
    discrimination_score,
    perturbation_spread,
    perturbed_reference,
)
from unlasting.metrics._distances import e_distance, mean_distance, mmd, resampled_e_distance
from unlasting.metrics._per_gene import emd, emd_per_gene, energy, energy_per_gene
from unlasting.metrics._pseudobulk import pseudobulk, pseudobulk_noise
from unlasting.metrics._rank_test import RankTable, rank_table, rank_test
from unlasting.metrics._registry import METRICS, Metric, get_metric, register
from unlasting.metrics._replicate import mean_response, replicate_summary
from unlasting.metrics._shape import bimodality_error, dispersion_error, sarle_coefficient
from unlasting.metrics._structure import (
    correlation_error,
    detected_genes_error,
    library_size_error,
    zero_fraction_error,
)
from unlasting.metrics._vcc2026 import VCC2026, Panel, vcc2026, vcc2026_scores, vcc2026_summary
from unlasting.metrics._weighted import de_auprc, gene_weights, weighted_mse, weighted_r2_change

__all__ = [
    "METRICS",
    "Metric",
    "Panel",
    "RankTable",
    "VCC2026",
    "bimodality_error",
    "centroid_accuracy",
    "correlation_error",
    "de_auprc",
    "de_direction",
    "de_lfc_spearman",
    "de_overlap",
    "de_recall",
    "detected_genes_error",
    "direction_fidelity",
    "direction_reach",
    "discrimination_score",
    "dispersion_error",
    "dynamic_range_fraction",
    "e_distance",
    "emd",
    "emd_per_gene",
    "energy",
    "energy_per_gene",
    "gene_weights",
    "get_metric",
    "lfc_nmae",
    "library_size_error",
    "mean_distance",
    "mean_response",
    "mmd",
    "mse_change",
    "noise_corrected_mse",
    "pearson_change",
    "perturbation_discrimination",
    "perturbation_spread",
    "perturbed_reference",
    "pseudobulk",
    "pseudobulk_noise",
    "rank_table",
    "rank_test",
    "replicate_summary",
    "register",
    "resampled_e_distance",
    "sarle_coefficient",
    "significant_jaccard",
    "vcc2026",
    "vcc2026_scores",
    "vcc2026_summary",
    "weighted_mse",
    "weighted_r2_change",
    "zero_fraction_error",
]
