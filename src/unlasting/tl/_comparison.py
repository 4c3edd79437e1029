"""Comparison between predicted cells and one half of the true test cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unlasting.metrics import METRICS, Metric, emd_per_gene, mean_distance
from unlasting.tl._differential import Differential, Moments, differential
from unlasting.tl._protocol import ALL

_TABLES = ("predicted_score", "predicted_lfc", "predicted_pvalue")
CONTROLS = ("control", "observed_control")


def compares_conditions(metric: Metric) -> bool:
    """Whether a metric compares mean changes over all conditions together."""
    return "predicted_effects" in metric.needs


def compares_tables(metric: Metric) -> bool:
    """Whether a metric compares two differential-expression tables."""
    return any(need in _TABLES for need in metric.needs)


def accepts_means(metric: Metric) -> bool:
    """Whether a metric accepts mean profiles instead of predicted cells."""
    if compares_tables(metric):
        return not {"predicted_score", "predicted_pvalue"} & set(metric.needs)
    return metric.takes_means or compares_conditions(metric)


class Comparison:
    """Compare samples with one half of a condition's test cells; its own quantities are computed once.

    Controls are disjoint halves of the training controls: moments, and cells by name for metrics that read them.
    `reference` is the mean profile over training perturbations and `weights` are gene weights, both of shape `(n_genes,)`.
    """

    def __init__(
        self,
        observed: np.ndarray,
        control: Moments,
        observed_control: Moments,
        reference: np.ndarray,
        weights: np.ndarray,
        metrics: Sequence[Metric],
        gene_sets: Mapping[str, np.ndarray],
        control_cells: Mapping[str, np.ndarray],
    ) -> None:
        self.observed = observed
        self.control = control
        self.observed_control = observed_control
        self.metrics = metrics
        self.gene_sets = gene_sets
        vectors = {"reference": reference, "weights": weights}
        self.cells = {"observed": observed, **control_cells, **vectors}
        self.means = {
            "observed": observed.mean(axis=0, dtype=np.float64),
            "control": control.mean,
            "observed_control": observed_control.mean,
            **vectors,
        }
        self._within = {
            name: mean_distance(_genes(observed, columns), unbiased=True)
            for name, columns in gene_sets.items()
            if any(metric is METRICS["e_distance"] for metric in metrics)
        }
        self._tables: dict[int, Differential] = {}

    def change(self, sample: np.ndarray) -> np.ndarray:
        """Compute a sample's mean change from the controls, shape `(n_genes,)`."""
        return sample.mean(axis=0, dtype=np.float64) - self.control.mean

    @property
    def observed_change(self) -> np.ndarray:
        """The test cells' mean change from the other half of the controls, shape `(n_genes,)`."""
        return self.means["observed"] - self.means["observed_control"]

    def values(self, sample: np.ndarray) -> dict[tuple[str, str], float]:
        """Compute each metric over each gene set, by both names."""
        found: dict[tuple[str, str], float] = {}
        means = {"predicted": sample.mean(axis=0, dtype=np.float64), **self.means}
        cells = {"predicted": sample, **self.cells}
        per_gene: np.ndarray | None = None
        table: Differential | None = None
        for metric in self.metrics:
            if compares_tables(metric):
                table = table or differential(Moments.compute(sample), self.control)
                found[metric.name, ALL] = float(metric.function(**self._columns(metric, table, len(sample))))
                continue
            for name, columns in self.gene_sets.items():
                if metric is METRICS["emd"]:
                    per_gene = emd_per_gene(sample, self.observed) if per_gene is None else per_gene
                    value = per_gene[columns].mean()
                elif metric is METRICS["e_distance"]:
                    x, y = _genes(sample, columns), _genes(self.observed, columns)
                    value = 2 * mean_distance(x, y) - mean_distance(x, unbiased=True) - self._within[name]
                else:
                    source = means if metric.takes_means else cells
                    value = metric.function(**{need: _genes(source[need], columns) for need in metric.needs})
                found[metric.name, name] = float(value)
        return found

    def _columns(self, metric: Metric, table: Differential, n_cells: int) -> dict[str, Any]:
        """Select columns from both tables; p-values depend on cell numbers, so both have equally many cells."""
        if n_cells not in self._tables:
            self._tables[n_cells] = differential(Moments.compute(self.observed[:n_cells]), self.observed_control)
        tables = {"predicted": table, "observed": self._tables[n_cells]}
        asked = {need: need.split("_") for need in metric.needs}
        return {need: getattr(tables[group], column) for need, (group, column) in asked.items()}


def _genes(values: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Select genes, without a copy where all are selected."""
    return values if len(columns) == values.shape[-1] else values[..., columns]
