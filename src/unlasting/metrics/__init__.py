"""Distances between predicted and observed cells: pure functions on arrays, and their registry."""

from unlasting.metrics._change import mse_change, pearson_change
from unlasting.metrics._differential import de_direction, de_lfc_spearman, de_overlap, de_recall
from unlasting.metrics._discrimination import discrimination_score, perturbation_spread
from unlasting.metrics._distances import e_distance, mean_distance, mmd
from unlasting.metrics._per_gene import emd, emd_per_gene, energy, energy_per_gene
from unlasting.metrics._registry import METRICS, Metric, get_metric, register
from unlasting.metrics._shape import bimodality_error, dispersion_error, sarle_coefficient
from unlasting.metrics._structure import (
    correlation_error,
    detected_genes_error,
    library_size_error,
    zero_fraction_error,
)

__all__ = [
    "METRICS",
    "Metric",
    "bimodality_error",
    "correlation_error",
    "de_direction",
    "de_lfc_spearman",
    "de_overlap",
    "de_recall",
    "detected_genes_error",
    "discrimination_score",
    "dispersion_error",
    "e_distance",
    "emd",
    "emd_per_gene",
    "energy",
    "energy_per_gene",
    "get_metric",
    "library_size_error",
    "mean_distance",
    "mmd",
    "mse_change",
    "pearson_change",
    "perturbation_spread",
    "register",
    "sarle_coefficient",
    "zero_fraction_error",
]
