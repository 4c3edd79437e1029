"""Predictors so simple that a model must beat them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import pandas as pd
from anndata import AnnData

from unlasting.baselines._base import Baseline, embedding_of, rows_of
from unlasting.baselines._protocol import NO_COMBINATION, NO_DOSE, NO_SINGLE_DRUG, NoPrediction
from unlasting.screen import Condition


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
            raise NoPrediction(NO_COMBINATION)
        doses = condition.dose.split("+") if condition.dose else [""] * len(targets)
        if len(doses) != len(targets):
            raise NoPrediction(f"it has {len(targets)} targets and {len(doses)} doses")
        singles = self.training_.effects(condition.cell_type)
        untrained = [name for name, dose in zip(targets, doses, strict=True) if (name, dose) not in singles]
        if untrained:
            raise NoPrediction(f"{', '.join(untrained)} alone is not trained")
        return np.sum([singles[single] for single in zip(targets, doses, strict=True)], axis=0)


class NearestTarget(Baseline):
    """Cells of the other trained perturbation whose targets are most similar by the prior, at the nearest dose.

    Parameters
    ----------
    embedding
        One row of numbers for each target, names as its index; their cosine is the similarity, and a combination is
        the sum of its targets. If `None`, the embedding of :func:`unlasting.pp.grn` for genes beside that of
        :func:`unlasting.pp.molecules` for drugs.
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
        # ten digits hide rounding; ties go to the nearest dose, then by name
        nearest = min(
            similarity, key=lambda other: (-round(similarity[other], 10), _dose_distance(condition, other), other)
        )
        return self.training_.perturbed[nearest]

    def _unit_row(self, condition: Condition) -> np.ndarray:
        row = rows_of(self.embedding_, self.training_.targets(condition.perturbation))
        return row / (np.linalg.norm(row) or 1.0)


class NearestDose(Baseline):
    """Cells of the same drugs in the same cell type at the other trained dose that is nearest on a logarithmic scale."""

    def _rows(self, condition: Condition) -> np.ndarray:
        trained = _other_doses(self.training_.perturbed_in(condition.cell_type), condition)
        return trained[min(trained, key=lambda other: (_dose_distance(condition, other), other))]


class DoseInterpolation(Baseline):
    """Cells of the same drug in the same cell type at the trained doses next to the wanted one, in proportion.

    The mean of such a mixture lies on the straight line between the two means, and its cells are real ones. The line is
    drawn over `log1p` of the dose in units of the lowest other trained dose: over the logarithm of the dose, but for
    the control, which is dose 0. Beyond the highest dose, cells at that dose.
    """

    def _drawn(self, condition: Condition, n_cells: int, rng: np.random.Generator) -> np.ndarray:
        trained = _other_doses(self.training_.perturbed_in(condition.cell_type), condition)
        if len(_log_doses(condition.dose)) > 1 or len(self.training_.targets(condition.perturbation)) > 1:
            raise NoPrediction(NO_SINGLE_DRUG)
        rows_at = {float(other.dose): rows for other, rows in trained.items()}
        wanted, lowest = float(condition.dose), min(rows_at)
        rows_at[0.0] = self.training_.controls(condition.cell_type)
        below = max(dose for dose in rows_at if dose < wanted)
        above = min((dose for dose in rows_at if dose > wanted), default=None)
        if above is None:
            return rng.permutation(rows_at[below])[:n_cells]
        start, place, end = np.log1p(np.array([below, wanted, above]) / lowest)
        share = (place - start) / (end - start)
        n = min(n_cells, len(rows_at[below]) / (1.0 - share), len(rows_at[above]) / share)
        n_above = round(share * n)
        numbers = {below: round(n) - n_above, above: n_above}
        return np.concatenate([rng.permutation(rows_at[dose])[:number] for dose, number in numbers.items()])


def _other_doses(trained: Mapping[Condition, np.ndarray], condition: Condition) -> dict[Condition, np.ndarray]:
    """Find the cells of the same perturbation at its other trained doses."""
    if not condition.dose:
        raise NoPrediction(NO_DOSE)
    others = {
        other: rows
        for other, rows in trained.items()
        if other.perturbation == condition.perturbation and other.dose not in ("", condition.dose)
    }
    if not others:
        raise NoPrediction("no other dose is trained in this cell type")
    return others


def _dose_distance(one: Condition, other: Condition) -> float:
    """Compare the doses of two conditions on a logarithmic scale; infinite if they have not as many."""
    doses = [_log_doses(condition.dose) for condition in (one, other)]
    return float(np.abs(doses[0] - doses[1]).sum()) if len(doses[0]) == len(doses[1]) else np.inf


def _log_doses(dose: str) -> np.ndarray:
    """Read the doses of the drugs, without the empty parts of gene targets."""
    return np.log([float(part) for part in dose.split("+") if part])
