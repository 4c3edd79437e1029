"""A screen's training cells, all that a baseline sees."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData

from unlasting.baselines._protocol import NO_CONTEXT, NoPrediction
from unlasting.baselines._zero_aware import ControlExpression, control_expression, hurdle_effects
from unlasting.screen import TRAIN, Cells, Condition, GeneNames, Perturbation, ScreenKeys

BLOCK = 4096
"""Number of cells that are dense at a time."""
MAX_CONTROLS = 2000
"""Number of control cells per cell type from which quantiles are taken."""

Effects = dict[tuple[str, str], np.ndarray]
"""Effects by perturbation and dose."""


class Expression(NamedTuple):
    """Number of cells, and for each gene the number that express it and the summed values, shape `(n_genes,)`."""

    n_cells: int
    n_expressed: np.ndarray
    total: np.ndarray


class TrainingCells:
    """The screen's cells that are labelled `train`, condition by condition.

    Parameters
    ----------
    adata
        The screen, log-normalised.
    **labels
        Columns and label names, if other than recorded.
    """

    def __init__(self, adata: AnnData, **labels: Any) -> None:
        self.keys = ScreenKeys.read(adata, **labels)
        self.cells = Cells.read(adata, self.keys)
        self.genes, self._panel = adata.var_names, GeneNames(adata.var_names)
        split = self.keys.split(adata)
        in_training = np.ones(adata.n_obs, dtype=bool) if split is None else split == TRAIN
        by_condition = {c: rows[in_training[rows]] for c, rows in self.cells.conditions.items()}
        by_condition = {c: rows for c, rows in by_condition.items() if len(rows)}
        self._controls = {c.cell_type: rows for c, rows in by_condition.items() if c.perturbation == self.keys.control}
        self.perturbed: Mapping[Condition, np.ndarray] = {
            c: rows for c, rows in by_condition.items() if c.perturbation != self.keys.control
        }
        if not self._controls:
            raise ValueError(
                f"No control is labelled 'train' in `adata.obs[{self.keys.split_key!r}]`, and every baseline starts from training "
                "controls. Label the controls 'train', as `pp.split` does."
            )
        self.embedding: pd.DataFrame | None = None
        self.has_embedding = False
        self._expression: dict[Condition, Expression] = {}
        self._control_expression: dict[str, ControlExpression] = {}
        self._hurdle_effects: dict[Condition, np.ndarray] = {}

    def controls(self, cell_type: str) -> np.ndarray:
        """Find a cell type's controls.

        Raises
        ------
        NoPrediction
            If there is none.
        """
        if cell_type not in self._controls:
            raise NoPrediction("there are no training controls of this cell type")
        return self._controls[cell_type]

    def perturbed_in(self, cell_type: str) -> dict[Condition, np.ndarray]:
        """Find a cell type's perturbed cells, condition by condition."""
        return {c: rows for c, rows in self.perturbed.items() if c.cell_type == cell_type}

    def elsewhere(self, condition: Condition) -> list[Condition]:
        """List the same perturbation at the same dose in other cell types that have controls.

        Raises
        ------
        NoPrediction
            If there is none.
        """
        other = [
            c
            for c in self.perturbed
            if (c.perturbation, c.dose) == (condition.perturbation, condition.dose)
            and c.cell_type != condition.cell_type
            and c.cell_type in self._controls
        ]
        if not other:
            raise NoPrediction(NO_CONTEXT)
        return other

    def effects(self, cell_type: str) -> Effects:
        """Mean changes, shape `(n_genes,)`, in a cell type, or over all types if nothing is trained in it.

        Raises
        ------
        NoPrediction
            If nothing is trained, or nowhere with controls.
        """
        return self._by_perturbation(cell_type, self.change)

    def hurdle_effects(self, cell_type: str) -> Effects:
        """Effects on detection and on expressed values, shape `(2, n_genes)`, otherwise as :meth:`effects`."""
        return self._by_perturbation(cell_type, self.hurdle_effect)

    def _by_perturbation(self, cell_type: str, effect: Callable[[Condition], np.ndarray]) -> Effects:
        found: dict[tuple[str, str], list[np.ndarray]] = {}
        for condition in self.perturbed_in(cell_type) or self.perturbed:
            if condition.cell_type in self._controls:
                found.setdefault((condition.perturbation, condition.dose), []).append(effect(condition))
        if not found:
            raise NoPrediction("no perturbation is trained")
        return {key: np.mean(effects, axis=0) for key, effects in found.items()}

    def change(self, condition: Condition) -> np.ndarray:
        """Compute a trained condition's mean change from the controls of its cell type, shape `(n_genes,)`."""
        return self.mean(condition) - self.mean(Condition(self.keys.control, condition.cell_type))

    def hurdle_effect(self, condition: Condition) -> np.ndarray:
        """Estimate a trained condition's effects on detection and on expressed values, shape `(2, n_genes)`."""
        if condition not in self._hurdle_effects:
            control = self.control_expression(condition.cell_type)
            self._hurdle_effects[condition] = hurdle_effects(*self.expression(condition), control)
        return self._hurdle_effects[condition]

    def mean(self, condition: Condition) -> np.ndarray:
        """Compute a condition's mean profile, shape `(n_genes,)`."""
        n_cells, _, total = self.expression(condition)
        return total / n_cells

    def expression(self, condition: Condition) -> Expression:
        """Count and sum a condition's training cells, gene by gene."""
        if condition not in self._expression:
            is_control = condition.perturbation == self.keys.control
            rows = self.controls(condition.cell_type) if is_control else self.perturbed[condition]
            n_expressed, total = np.zeros(len(self.genes), dtype=int), np.zeros(len(self.genes))
            for start in range(0, len(rows), BLOCK):
                block = self.cells.values(rows[start : start + BLOCK])
                n_expressed += (block > 0).sum(axis=0)
                total += block.sum(axis=0)
            self._expression[condition] = Expression(len(rows), n_expressed, total)
        return self._expression[condition]

    def control_expression(self, cell_type: str) -> ControlExpression:
        """Summarise a cell type's controls."""
        if cell_type not in self._control_expression:
            rows = np.random.default_rng(0).permutation(self.controls(cell_type))[:MAX_CONTROLS]
            sampled = control_expression(self.cells.values(rows), self._typical_value)
            n_cells, n_expressed, total = self.expression(Condition(self.keys.control, cell_type))
            mean = np.where(n_expressed > 0, total / np.maximum(n_expressed, 1), sampled.mean)
            self._control_expression[cell_type] = sampled._replace(rate=(n_expressed + 0.5) / (n_cells + 1), mean=mean)
        return self._control_expression[cell_type]

    @cached_property
    def _typical_value(self) -> np.ndarray:
        """Mean expressed value per gene over all conditions, shape `(n_genes,)`."""
        found = [self.expression(condition) for condition in self._conditions]
        return sum(f.total for f in found) / np.maximum(sum(f.n_expressed for f in found), 1)

    def targets(self, perturbation: str) -> tuple[str, ...]:
        """Read a perturbation's targets."""
        return Perturbation.parse(perturbation, control=self.keys.control, delimiter=self.keys.delimiter).targets

    def own_genes(self, perturbation: str) -> np.ndarray:
        """Find the columns of a perturbation's measured targets."""
        places = self.genes.get_indexer([self._panel.find(name) for name in self.targets(perturbation)])
        return places[places >= 0]

    @property
    def _conditions(self) -> list[Condition]:
        return [*(Condition(self.keys.control, cell_type) for cell_type in self._controls), *self.perturbed]

    @cached_property
    def profiles(self) -> np.ndarray:
        """Mean profiles for all conditions, controls included, shape `(n_conditions, n_genes)`."""
        return np.array([self.mean(condition) for condition in self._conditions])
