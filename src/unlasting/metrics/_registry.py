"""The metrics by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from unlasting.metrics._change import mse_change, pearson_change
from unlasting.metrics._differential import de_direction, de_lfc_spearman, de_overlap, de_recall
from unlasting.metrics._discrimination import centroid_accuracy, discrimination_score, perturbation_spread
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
from unlasting.metrics._weighted import de_auprc, weighted_mse, weighted_r2_change
from unlasting.screen import MissingKeyError, nearest_name

CELLS = ("predicted", "observed")
CHANGES = (*CELLS, "control", "observed_control")
LFC = ("predicted_lfc", "observed_lfc", "observed_pvalue")
EFFECTS = ("predicted_effects", "observed_effects")
NEEDS = (
    *CHANGES,
    "reference",
    "weights",
    *(f"{group}_{column}" for group in CELLS for column in ("score", "lfc", "pvalue")),
    *EFFECTS,
)
"""Arguments that a metric can ask for."""


@dataclass(frozen=True)
class Metric:
    """A metric with the facts needed to compute and read it.

    Parameters
    ----------
    name
        Name in tables.
    function
        Computes the metric from the arguments in `needs`, passed by name. It returns a number; from all conditions'
        effects, a number or one per condition.
    best_value
        Value for a perfect prediction from infinitely many cells.
    needs
        Arguments for `function`. Without an argument that starts with `predicted`, the cells `predicted` and `observed`
        come first, so that `("control",)` asks for three samples.

        - `predicted`, `observed`, `control`, `observed_control`: cells, shape `(n_cells, n_genes)`. The last two are
          disjoint halves from the training controls.
        - `reference`: mean profile over training perturbations, shape `(n_genes,)`.
        - `weights`: weights of genes by differential expression, shape `(n_genes,)`.
        - `predicted_` or `observed_` with `score`, `lfc` or `pvalue`: differential expression, shape `(n_genes,)`.
        - `predicted_effects`, `observed_effects`: mean changes, shape `(n_conditions, n_genes)`.
    meaning
        Meaning in one line.
    unit
        `expression` for the data's unit, `1` for none.
    larger_is_better
        Whether a larger value is better. `None`: the best value lies in between.
    takes_means
        Whether `function` is given mean profiles, shape `(n_genes,)`, instead of cells. Such a metric also scores
        predictions that are means.

    Raises
    ------
    ValueError
        If an argument in `needs` is unknown.
    """

    name: str
    function: Callable[..., Any]
    best_value: float
    needs: tuple[str, ...] = CELLS
    meaning: str = ""
    unit: str = "1"
    larger_is_better: bool | None = False
    takes_means: bool = False

    def __post_init__(self) -> None:
        needs = tuple(self.needs)
        if not any(need.startswith("predicted") for need in needs):
            needs = tuple(dict.fromkeys([*CELLS, *needs]))
        unknown = [need for need in needs if need not in NEEDS]
        if unknown:
            raise ValueError(
                f"`needs` of metric {self.name!r} holds {unknown[0]!r}.{nearest_name(unknown[0], NEEDS)} Choose from "
                f"{', '.join(NEEDS)}."
            )
        object.__setattr__(self, "needs", needs)

    def loss(self, value: float | np.ndarray) -> Any:
        """Turn values into losses, for which lower is better.

        Parameters
        ----------
        value
            Values of the metric.

        Returns
        -------
        The losses, shaped like `value`. Their zero has no meaning.
        """
        if self.larger_is_better is None:
            return abs(value - self.best_value)
        return -value if self.larger_is_better else value


METRICS: dict[str, Metric] = {}
"""The registered metrics by name."""


def register(metric: Metric) -> Metric:
    """Register a metric, so that its name can be given wherever metrics are asked for.

    Parameters
    ----------
    metric
        The metric. It replaces one with the same name.

    Returns
    -------
    The metric.

    Examples
    --------
    >>> from unlasting.metrics import METRICS, Metric, register
    >>> def mean_error(predicted, observed):
    ...     return abs(predicted.mean() - observed.mean())
    >>> metric = register(Metric("mean_error", mean_error, best_value=0.0))
    >>> METRICS.pop("mean_error").needs
    ('predicted', 'observed')
    """
    METRICS[metric.name] = metric
    return metric


def get_metric(name: str | Metric) -> Metric:
    """Get a metric by its name; a metric itself is returned as it is.

    Parameters
    ----------
    name
        A name in `METRICS`, or a metric.

    Returns
    -------
    The metric.

    Raises
    ------
    KeyError
        If no metric has this name.

    Examples
    --------
    >>> from unlasting.metrics import get_metric
    >>> metric = get_metric("pearson_change_centred")
    >>> metric.best_value, metric.needs
    (1.0, ('predicted', 'observed', 'reference'))
    """
    if isinstance(name, Metric):
        return name
    if name not in METRICS:
        raise MissingKeyError(
            f"There is no metric {name!r}.{nearest_name(name, METRICS)} Metrics are {', '.join(METRICS)}; add your own "
            "with `metrics.register`."
        )
    return METRICS[name]


def _pearson_change_centred(predicted: Matrix, observed: Matrix, reference: Matrix) -> float:
    return pearson_change(predicted, observed, reference)


def _of_effects(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Let a comparison between effects take them by the names in `needs`."""
    return lambda predicted_effects, observed_effects: function(predicted_effects, observed_effects, **options)


def _register_all() -> None:
    def add(
        name: str,
        function: Callable[..., Any],
        best_value: float,
        needs: tuple[str, ...],
        meaning: str,
        unit: str = "1",
        larger: bool | None = False,
        means: bool = False,
    ) -> None:
        register(Metric(name, function, best_value, needs, meaning, unit, larger, means))

    unbiased_e = partial(e_distance, unbiased=True)
    add("e_distance", unbiased_e, 0.0, CELLS, "distance between distributions of cells (unbiased)", "expression")
    add("emd", emd, 0.0, CELLS, "Wasserstein distance, mean over genes", "expression")
    rooted_e = partial(e_distance, unbiased=True, sqrt=True)
    meaning = "square root of the unbiased E-distance, as in the published tables"
    add("e_distance_rooted", rooted_e, 0.0, CELLS, meaning, "square root of expression")
    unbiased_energy = partial(energy, unbiased=True)
    add("energy", unbiased_energy, 0.0, CELLS, "energy distance, mean over genes (unbiased)", "expression")
    add("mmd", mmd, 0.0, CELLS, "squared maximum mean discrepancy, Gaussian kernel (unbiased)")
    meaning = "correlation over genes of the mean change from control"
    add("pearson_change", pearson_change, 1.0, CHANGES, meaning, larger=True, means=True)
    meaning = "correlation over genes of the mean difference from the mean training perturbation"
    needs: tuple[str, ...] = (*CELLS, "reference")
    add("pearson_change_centred", _pearson_change_centred, 1.0, needs, meaning, larger=True, means=True)
    meaning = "squared error of the mean change from control, mean over genes"
    add("mse_change", mse_change, 0.0, CHANGES, meaning, "expression squared", means=True)
    meaning = "squared error of the mean profile, weighted by the response of genes"
    needs = (*CELLS, "weights")
    add("weighted_mse", weighted_mse, 0.0, needs, meaning, "expression squared", means=True)
    meaning = "explained variance of the mean difference from the mean training perturbation, weighted by the response"
    needs = (*CELLS, "reference", "weights")
    add("weighted_r2_change", weighted_r2_change, 1.0, needs, meaning, larger=True, means=True)
    meaning = "error in the share of cells that do not express a gene, mean over genes"
    add("zero_fraction_error", zero_fraction_error, 0.0, CELLS, meaning)
    meaning = "error in the correlation of two genes, mean over gene pairs"
    add("correlation_error", correlation_error, 0.0, CELLS, meaning)
    meaning = "Wasserstein distance of library sizes, relative to their mean"
    add("library_size_error", library_size_error, 0.0, CELLS, meaning)
    meaning = "Wasserstein distance of numbers of detected genes, relative to their mean"
    add("detected_genes_error", detected_genes_error, 0.0, CELLS, meaning)
    meaning = "error in the s.d. of expressed values, relative to the observed s.d."
    add("dispersion_error", dispersion_error, 0.0, CELLS, meaning)
    meaning = "error in Sarle's coefficient of expressed values, mean over genes"
    add("bimodality_error", bimodality_error, 0.0, CELLS, meaning)
    for distance in ("l1", "l2", "cosine"):
        score = _of_effects(discrimination_score, distance=distance)
        meaning = f"rank of the own truth among all conditions by {distance} distance to the prediction"
        add(f"discrimination_score_{distance}", score, 1.0, EFFECTS, meaning, larger=True)
    meaning = "share of the other conditions that are farther from the prediction than the own truth"
    add("centroid_accuracy", _of_effects(centroid_accuracy), 1.0, EFFECTS, meaning, larger=True)
    meaning = "differences of predictions between conditions, relative to the truth"
    add("perturbation_spread", _of_effects(perturbation_spread), 1.0, EFFECTS, meaning, larger=None)
    needs = ("predicted_score", "observed_score", "predicted_pvalue", "observed_pvalue")
    add(
        "de_overlap", de_overlap, 1.0, needs, "share of significant genes among as many top predicted ones", larger=True
    )
    meaning = "average precision of the predicted ranking of genes for the significant genes"
    add("de_auprc", de_auprc, 1.0, ("predicted_score", "observed_pvalue"), meaning, larger=True)
    meaning = "share of significant genes that change in the predicted direction"
    add("de_direction", de_direction, 1.0, LFC, meaning, larger=True)
    meaning = "rank correlation of log-fold changes over significant genes"
    add("de_lfc_spearman", de_lfc_spearman, 1.0, LFC, meaning, larger=True)
    needs = ("predicted_pvalue", "observed_pvalue")
    add(
        "de_recall",
        de_recall,
        1.0,
        needs,
        "share of significant genes that are significant in predicted cells",
        larger=True,
    )


_register_all()
