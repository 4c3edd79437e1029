"""The training cells of a screen: all that a baseline may know."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
from anndata import AnnData

from unlasting.baselines._protocol import NoPrediction
from unlasting.screen import TRAIN, Cells, Condition, Perturbation, ScreenKeys

BLOCK = 4096
"""How many cells are dense at a time where a mean is taken."""


class TrainingCells:
    """The cells of a screen that are labelled `train`, condition by condition.

    Parameters
    ----------
    adata
        The screen, log-normalised.
    **labels
        Names of columns and the like, if other than recorded.
    """

    def __init__(self, adata: AnnData, **labels: Any) -> None:
        self.keys = ScreenKeys.read(adata, **labels)
        self.cells = Cells.read(adata, self.keys)
        self.genes = adata.var_names
        split = self.keys.split(adata)
        in_training = np.ones(adata.n_obs, dtype=bool) if split is None else split == TRAIN
        by_condition = {c: rows[in_training[rows]] for c, rows in self.cells.conditions.items()}
        by_condition = {c: rows for c, rows in by_condition.items() if len(rows)}
        self._controls = {c.cell_type: rows for c, rows in by_condition.items() if c.perturbation == self.keys.control}
        self.perturbed: Mapping[Condition, np.ndarray] = {
            c: rows for c, rows in by_condition.items() if c.perturbation != self.keys.control
        }
        self._means: dict[Condition, np.ndarray] = {}

    def controls(self, cell_type: str) -> np.ndarray:
        """Find the controls of a cell type.

        Raises
        ------
        NoPrediction
            If there is none.
        """
        if cell_type not in self._controls:
            raise NoPrediction("there are no training controls of this cell type")
        return self._controls[cell_type]

    def perturbed_in(self, cell_type: str) -> dict[Condition, np.ndarray]:
        """Find the perturbed cells of a cell type, condition by condition."""
        return {c: rows for c, rows in self.perturbed.items() if c.cell_type == cell_type}

    def effects(self, cell_type: str) -> dict[tuple[str, str], np.ndarray]:
        """Compute the mean change by perturbation and dose: in a cell type, or over all types if none is trained in it.

        Raises
        ------
        NoPrediction
            If nothing is trained, or nowhere with controls.
        """
        trained = self.perturbed_in(cell_type) or self.perturbed
        changes: dict[tuple[str, str], list[np.ndarray]] = {}
        for condition in trained:
            if condition.cell_type in self._controls:
                change = self.mean(condition) - self.mean(Condition(self.keys.control, condition.cell_type))
                changes.setdefault((condition.perturbation, condition.dose), []).append(change)
        if not changes:
            raise NoPrediction("no perturbation is trained")
        return {key: np.mean(found, axis=0) for key, found in changes.items()}

    def mean(self, condition: Condition) -> np.ndarray:
        """Compute the mean profile of a condition, shape `(n_genes,)`."""
        if condition not in self._means:
            is_control = condition.perturbation == self.keys.control
            rows = self.controls(condition.cell_type) if is_control else self.perturbed[condition]
            blocks = (self.cells.values(rows[i : i + BLOCK]) for i in range(0, len(rows), BLOCK))
            self._means[condition] = sum(block.sum(axis=0) for block in blocks) / len(rows)
        return self._means[condition]

    def targets(self, perturbation: str) -> tuple[str, ...]:
        """Get the targets of a perturbation."""
        return Perturbation.parse(perturbation, control=self.keys.control, delimiter=self.keys.delimiter).targets

    @cached_property
    def profiles(self) -> np.ndarray:
        """The mean profiles of all conditions, controls included, shape `(n_conditions, n_genes)`."""
        controls = [Condition(self.keys.control, cell_type) for cell_type in self._controls]
        return np.array([self.mean(condition) for condition in (*controls, *self.perturbed)])
