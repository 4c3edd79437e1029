"""Predictors so simple that a model must beat them."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import pandas as pd
from anndata import AnnData

from unlasting._cells import Condition
from unlasting.baselines._base import Baseline, embedding_of, rows_of
from unlasting.baselines._protocol import NoPrediction


class NoEffect(Baseline):
    """Training control cells of the cell type: nothing happens."""


class MeanShift(Baseline):
    """Control cells plus the mean change over all trained perturbations of the cell type.

    In a cell type without trained perturbations it is the mean change over the other types. Every cell moves by the
    same amount, so that values can be negative.
    """

    def _shift(self, condition: Condition) -> np.ndarray:
        return np.mean(list(self.training_.effects(condition.cell_type).values()), axis=0)


class Pooled(Baseline):
    """Perturbed training cells of all perturbations of the cell type, or of all types if none is trained in it."""

    def _rows(self, condition: Condition) -> np.ndarray:
        trained = self.training_.perturbed_in(condition.cell_type) or self.training_.perturbed
        if not trained:
            raise NoPrediction("no perturbation is trained")
        return np.concatenate(list(trained.values()))


class Additive(Baseline):
    """For combinations: control cells plus the sum of the mean changes of the single perturbations."""

    def _shift(self, condition: Condition) -> np.ndarray:
        targets = self.training_.targets(condition.perturbation)
        if len(targets) < 2:
            raise NoPrediction("it is no combination")
        doses = condition.dose.split("+") if condition.dose else [""] * len(targets)
        if len(doses) != len(targets):
            raise NoPrediction(f"it has {len(targets)} targets and {len(doses)} doses")
        singles = self.training_.effects(condition.cell_type)
        untrained = [name for name, dose in zip(targets, doses, strict=True) if (name, dose) not in singles]
        if untrained:
            raise NoPrediction(f"{', '.join(untrained)} alone is not trained")
        return np.sum([singles[single] for single in zip(targets, doses, strict=True)], axis=0)


class NearestTarget(Baseline):
    """Cells of the other trained perturbation whose targets are most similar by the prior.

    Parameters
    ----------
    embedding
        One row of numbers for each target, names as its index; their cosine is the similarity, and a combination is
        the sum of its targets. If `None`, the embedding of :func:`unlasting.pp.grn`.
    """

    def __init__(self, embedding: pd.DataFrame | None = None) -> None:
        self.embedding = embedding

    def fit(self, adata: AnnData, **labels: Any) -> Self:
        """Find the training cells and what the prior knows of their targets.

        Parameters
        ----------
        adata
            The screen, log-normalised, shape `(n_cells, n_genes)`. Cells labelled `val` or `test` are not looked at.
        **labels
            Names of columns and the like, if other than recorded.

        Returns
        -------
        The baseline itself.
        """
        super().fit(adata, **labels)
        self.embedding_ = embedding_of(adata, self.embedding)
        return self

    def _rows(self, condition: Condition) -> np.ndarray:
        wanted = self._unit_row(condition)
        similarity = {}
        for other in self.training_.perturbed_in(condition.cell_type):
            if other.perturbation != condition.perturbation:
                try:
                    similarity[other] = float(wanted @ self._unit_row(other))
                except NoPrediction:
                    continue
        if not similarity:
            raise NoPrediction("no other perturbation with known targets is trained in this cell type")
        # ten digits hide rounding; ties go to the same dose, then by name
        nearest = min(
            similarity, key=lambda other: (-round(similarity[other], 10), other.dose != condition.dose, other)
        )
        return self.training_.perturbed[nearest]

    def _unit_row(self, condition: Condition) -> np.ndarray:
        row = rows_of(self.embedding_, self.training_.targets(condition.perturbation))
        return row / (np.linalg.norm(row) or 1.0)


class NearestDose(Baseline):
    """Cells of the same drugs in the same cell type at the other trained dose that is nearest on a logarithmic scale."""

    def _rows(self, condition: Condition) -> np.ndarray:
        if not condition.dose:
            raise NoPrediction("it has no dose")
        trained = self.training_.perturbed_in(condition.cell_type)
        others = [c for c in trained if c.perturbation == condition.perturbation and c.dose not in ("", condition.dose)]
        if not others:
            raise NoPrediction("no other dose is trained in this cell type")
        wanted = _log_doses(condition.dose)
        return trained[min(others, key=lambda other: (np.abs(_log_doses(other.dose) - wanted).sum(), other))]


def _log_doses(dose: str) -> np.ndarray:
    """Read the doses of the drugs, without the empty parts of gene targets."""
    return np.log([float(part) for part in dose.split("+") if part])
