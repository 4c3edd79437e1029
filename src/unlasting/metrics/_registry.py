"""The metrics by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from unlasting.metrics._change import mse_change, pearson_change
from unlasting.metrics._differential import de_direction, de_lfc_spearman, de_overlap, de_recall
from unlasting.metrics._discrimination import discrimination_score, perturbation_spread
from unlasting.metrics._distances import e_distance, mmd
from unlasting.metrics._matrices import Matrix
from unlasting.metrics._per_gene import emd, energy
from unlasting.metrics._shape import bimodality_error, dispersion_error
from unlasting.metrics._structure import (
    correlation_error,
    detected_genes_error,
    library_size_error,
    zero_fraction_error,
)
from unlasting.metrics._systema import centroid_accuracy
from unlasting.metrics._weighted import de_auprc, weighted_mse, weighted_r2_change
from unlasting.screen import MissingKeyError, nearest_name


@dataclass(frozen=True)
class Metric:
    """A metric and what must be known to read it.

    Parameters
    ----------
    name
        Its name in tables.
    meaning
        What it measures, in one line.
    best_value
        The value of a perfect prediction from infinitely many cells.
    unit
        Its unit: `expression` is that of the data, `1` none.
    needs
        Names of the arguments of `function`: `predicted`, `observed`, `control`, `observed_control` are cells,
        `reference` is the mean profile of the training perturbations, `weights` are those of genes by differential
        expression; `predicted_score`, `predicted_lfc`,
        `predicted_pvalue` and their observed counterparts are columns of a table of differential expression;
        `predicted_effects` and `observed_effects` are the mean changes of all conditions together.
    function
        What computes it from these, passed by name. The result is a number; of the effects of all conditions, a number
        or one for each condition.
    larger_is_better
        Whether a larger value is better. `None`: the best value lies in between.
    """

    name: str
    meaning: str
    best_value: float
    unit: str
    needs: tuple[str, ...]
    function: Callable[..., Any]
    larger_is_better: bool | None = False

    def loss(self, value: float | np.ndarray) -> Any:
        """Turn values into losses, of which a lower one is better whatever the metric.

        Parameters
        ----------
        value
            Values of the metric.

        Returns
        -------
        The losses, in the shape of `value`. They order predictors; their zero means nothing.
        """
        if self.larger_is_better is None:
            return abs(value - self.best_value)
        return -value if self.larger_is_better else value


def get_metric(name: str) -> Metric:
    """Get a metric by its name.

    Parameters
    ----------
    name
        A name in `METRICS`.

    Returns
    -------
    The metric.

    Raises
    ------
    KeyError
        If there is no metric of that name.

    Examples
    --------
    >>> from unlasting.metrics import get_metric
    >>> metric = get_metric("pearson_change")
    >>> metric.best_value, metric.needs
    (1.0, ('predicted', 'observed', 'control', 'observed_control'))
    """
    if name not in METRICS:
        raise MissingKeyError(
            f"There is no metric {name!r}.{nearest_name(name, METRICS)} Metrics are {', '.join(METRICS)}."
        )
    return METRICS[name]


def _pearson_change_centred(predicted: Matrix, observed: Matrix, reference: Matrix) -> float:
    return pearson_change(predicted, observed, reference)


def _discrimination(predicted_effects: np.ndarray, observed_effects: np.ndarray, distance: Any) -> np.ndarray:
    return discrimination_score(predicted_effects, observed_effects, distance=distance)


def _perturbation_spread(predicted_effects: np.ndarray, observed_effects: np.ndarray) -> float:
    return perturbation_spread(predicted_effects, observed_effects)


def _centroid_accuracy(predicted_effects: np.ndarray, observed_effects: np.ndarray) -> np.ndarray:
    return centroid_accuracy(predicted_effects, observed_effects)


CELLS = ("predicted", "observed")
CHANGES = (*CELLS, "control", "observed_control")
LFC = ("predicted_lfc", "observed_lfc", "observed_pvalue")
EFFECTS = ("predicted_effects", "observed_effects")

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            "e_distance",
            "distance of the distributions of whole cells (unbiased, not rooted)",
            0.0,
            "expression",
            CELLS,
            partial(e_distance, unbiased=True),
        ),
        Metric("emd", "Wasserstein distance of each gene, mean over genes", 0.0, "expression", CELLS, emd),
        Metric(
            "energy",
            "energy distance of each gene, mean over genes (unbiased)",
            0.0,
            "expression",
            CELLS,
            partial(energy, unbiased=True),
        ),
        Metric("mmd", "squared maximum mean discrepancy, Gaussian kernel (unbiased)", 0.0, "1", CELLS, mmd),
        Metric(
            "pearson_change",
            "correlation over genes of the mean change from control",
            1.0,
            "1",
            CHANGES,
            pearson_change,
            larger_is_better=True,
        ),
        Metric(
            "pearson_change_centred",
            "correlation over genes of the mean difference from the mean training perturbation",
            1.0,
            "1",
            (*CELLS, "reference"),
            _pearson_change_centred,
            larger_is_better=True,
        ),
        Metric(
            "mse_change",
            "squared error of the mean change from control, mean over genes",
            0.0,
            "expression squared",
            CHANGES,
            mse_change,
        ),
        Metric(
            "weighted_mse",
            "squared error of the mean profile, weighted by the response of genes",
            0.0,
            "expression squared",
            (*CELLS, "weights"),
            weighted_mse,
        ),
        Metric(
            "weighted_r2_change",
            "explained variance of the mean difference from the mean training perturbation, weighted by the response",
            1.0,
            "1",
            (*CELLS, "reference", "weights"),
            weighted_r2_change,
            larger_is_better=True,
        ),
        Metric(
            "zero_fraction_error",
            "error in the share of cells without a gene, mean over genes",
            0.0,
            "1",
            CELLS,
            zero_fraction_error,
        ),
        Metric(
            "correlation_error",
            "error in the correlation of two genes, mean over pairs of genes",
            0.0,
            "1",
            CELLS,
            correlation_error,
        ),
        Metric(
            "library_size_error",
            "Wasserstein distance of library sizes, relative to their mean",
            0.0,
            "1",
            CELLS,
            library_size_error,
        ),
        Metric(
            "detected_genes_error",
            "Wasserstein distance of the number of expressed genes, relative to their mean",
            0.0,
            "1",
            CELLS,
            detected_genes_error,
        ),
        Metric(
            "dispersion_error",
            "error in the s.d. of expressed values, relative to the observed s.d.",
            0.0,
            "1",
            CELLS,
            dispersion_error,
        ),
        Metric(
            "bimodality_error",
            "error in Sarle's coefficient of expressed values, mean over genes",
            0.0,
            "1",
            CELLS,
            bimodality_error,
        ),
        *(
            Metric(
                f"discrimination_score_{distance}",
                f"rank of the own truth among all conditions by {distance} distance to the prediction",
                1.0,
                "1",
                EFFECTS,
                partial(_discrimination, distance=distance),
                larger_is_better=True,
            )
            for distance in ("l1", "l2", "cosine")
        ),
        Metric(
            "centroid_accuracy",
            "share of the other conditions that are farther from the prediction than the own truth",
            1.0,
            "1",
            EFFECTS,
            _centroid_accuracy,
            larger_is_better=True,
        ),
        Metric(
            "perturbation_spread",
            "how much predictions differ between conditions, relative to the truth",
            1.0,
            "1",
            EFFECTS,
            _perturbation_spread,
            larger_is_better=None,
        ),
        Metric(
            "de_overlap",
            "share of the significant genes that is among as many top predicted ones",
            1.0,
            "1",
            ("predicted_score", "observed_score", "predicted_pvalue", "observed_pvalue"),
            de_overlap,
            larger_is_better=True,
        ),
        Metric(
            "de_auprc",
            "average precision of the predicted ranking of genes for the significant genes",
            1.0,
            "1",
            ("predicted_score", "observed_pvalue"),
            de_auprc,
            larger_is_better=True,
        ),
        Metric(
            "de_direction",
            "share of the significant genes that changes in the predicted direction",
            1.0,
            "1",
            LFC,
            de_direction,
            larger_is_better=True,
        ),
        Metric(
            "de_lfc_spearman",
            "rank correlation of log-fold changes over the significant genes",
            1.0,
            "1",
            LFC,
            de_lfc_spearman,
            larger_is_better=True,
        ),
        Metric(
            "de_recall",
            "share of the significant genes that is significant in predicted cells",
            1.0,
            "1",
            ("predicted_pvalue", "observed_pvalue"),
            de_recall,
            larger_is_better=True,
        ),
    )
}
