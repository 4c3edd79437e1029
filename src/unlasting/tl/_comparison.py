"""One half of the true test cells, and everything that is compared with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unlasting.metrics import Metric, emd_per_gene, mean_distance
from unlasting.tl._differential import Differential, Moments, differential

ALL = "all"
"""The set of all genes, over which metrics of single conditions always exist."""

OF_CONDITIONS = "predicted_effects"
OF_TABLES = ("predicted_score", "predicted_lfc", "predicted_pvalue")
CONTROLS = ("control", "observed_control")


def is_of_conditions(metric: Metric) -> bool:
    """Whether a metric compares the mean changes of all conditions together."""
    return OF_CONDITIONS in metric.needs


def is_of_tables(metric: Metric) -> bool:
    """Whether a metric compares two tables of differential expression."""
    return any(need in OF_TABLES for need in metric.needs)


def is_of_means(metric: Metric) -> bool:
    """Whether a metric needs the mean profile of the predicted cells and nothing else of them."""
    if is_of_tables(metric):
        return not {"predicted_score", "predicted_pvalue"} & set(metric.needs)
    return metric.takes_means or is_of_conditions(metric)


class Comparison:
    """Compares samples with one half of the test cells of a condition.

    What depends on the test cells alone is computed once for all samples.

    Parameters
    ----------
    observed
        The test cells, shape `(n_cells, n_genes)`.
    control, observed_control
        Moments of disjoint halves of the training controls.
    reference
        Mean profile of the training perturbations, shape `(n_genes,)`.
    weights
        Weights of the genes by differential expression, shape `(n_genes,)`.
    metrics
        The metrics of single conditions.
    gene_sets
        Where the genes of each set are.
    control_cells
        Cells of the same halves, shape `(n_cells, n_genes)`, by the names in `Metric.needs`; read by metrics that need
        them.
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
        control_cells: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        self.observed = observed
        self.control_cells = control_cells or {}
        self.control = control
        self.observed_control = observed_control
        self.metrics = metrics
        self.gene_sets = gene_sets
        self.cells = {name: _genes(observed, places) for name, places in gene_sets.items()}
        self.profiles = {
            "observed": observed.mean(axis=0, dtype=np.float64),
            "control": control.mean,
            "observed_control": observed_control.mean,
            "reference": reference,
            "weights": weights,
        }
        wanted = {metric.name for metric in metrics}
        self._within = (
            {name: mean_distance(cells, unbiased=True) for name, cells in self.cells.items()}
            if "e_distance" in wanted
            else {}
        )
        self._tables: dict[int, Differential] = {}

    def change(self, sample: np.ndarray) -> np.ndarray:
        """Compute the mean change of a sample from the controls, shape `(n_genes,)`."""
        return sample.mean(axis=0, dtype=np.float64) - self.control.mean

    @property
    def observed_change(self) -> np.ndarray:
        """The mean change of the test cells from the other half of the controls, shape `(n_genes,)`."""
        return self.profiles["observed"] - self.profiles["observed_control"]

    def values(self, sample: np.ndarray) -> dict[tuple[str, str], float]:
        """Compute every metric over every set of genes, by the names of both."""
        found: dict[tuple[str, str], float] = {}
        mean = sample.mean(axis=0, dtype=np.float64)
        per_gene: np.ndarray | None = None
        table: Differential | None = None
        for metric in self.metrics:
            if is_of_tables(metric):
                table = table or differential(Moments.of(sample), self.control)
                found[metric.name, ALL] = float(metric.function(**self._columns(metric, table, len(sample))))
                continue
            for name, places in self.gene_sets.items():
                if metric.name == "emd":
                    per_gene = emd_per_gene(sample, self.observed) if per_gene is None else per_gene
                    value = float(per_gene[places].mean())
                elif metric.takes_means:
                    profiles = {"predicted": mean, **self.profiles}
                    value = metric.function(**{need: profiles[need][places] for need in metric.needs})
                elif metric.name == "e_distance":
                    cells = _genes(sample, places)
                    between = mean_distance(cells, self.cells[name])
                    value = 2 * between - mean_distance(cells, unbiased=True) - self._within[name]
                else:
                    value = metric.function(**{need: self._values(need, sample)[..., places] for need in metric.needs})
                found[metric.name, name] = float(value)
        return found

    def _values(self, need: str, sample: np.ndarray) -> np.ndarray:
        """Get an argument of a metric that compares cells."""
        cells = {"predicted": sample, "observed": self.observed, **self.control_cells}
        return cells[need] if need in cells else self.profiles[need]

    def _columns(self, metric: Metric, table: Differential, n_cells: int) -> dict[str, Any]:
        """Get what a metric needs of two tables; p-values depend on numbers of cells, so they are the same in both."""
        if n_cells not in self._tables:
            self._tables[n_cells] = differential(Moments.of(self.observed[:n_cells]), self.observed_control)
        tables = {"predicted": table, "observed": self._tables[n_cells]}
        asked = {need: need.split("_") for need in metric.needs}
        return {need: getattr(tables[group], column) for need, (group, column) in asked.items()}


def _genes(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Take genes, without a copy if it is all of them."""
    return values if len(places) == values.shape[1] else values[:, places]
