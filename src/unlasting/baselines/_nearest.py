"""The most similar target by the prior."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from anndata import AnnData

from unlasting.baselines._base import Baseline, ZeroAware, embedding_of, rows_of
from unlasting.baselines._dose import dose_distance
from unlasting.baselines._protocol import NoPrediction
from unlasting.metrics import e_distance
from unlasting.screen import Condition

MAX_CELLS = 200
"""Sample size when the threshold is chosen."""


class TargetSimilarity(Baseline):
    """A baseline that compares targets by the prior."""

    def __init__(self, embedding: pd.DataFrame | None = None) -> None:
        self.embedding = embedding

    def _learn(self, adata: AnnData) -> None:
        self.embedding_ = embedding_of(adata, self.embedding, self.training_)
        self._thresholds: dict[str, float] = {}
        self._unit_rows: dict[str, np.ndarray] = {}

    def _nearest(self, condition: Condition, others: Iterable[Condition]) -> tuple[Condition, float]:
        """Find the most similar other perturbation, at the nearest dose, and its similarity.

        Raises
        ------
        NoPrediction
            If the embedding lacks a target, or all other perturbations.
        """
        wanted = self._unit_row(condition)
        similarity = {}
        for other in others:
            if other.perturbation != condition.perturbation:
                try:
                    similarity[other] = round(float(wanted @ self._unit_row(other)), 10)  # hides rounding
                except NoPrediction:
                    continue
        if not similarity:
            raise NoPrediction("no other perturbation with known targets is trained in this cell type")
        # ties go to the nearest dose, then by name
        found = min(similarity, key=lambda c: (-similarity[c], dose_distance(condition, c), c))
        return found, similarity[found]

    def _unit_row(self, condition: Condition) -> np.ndarray:
        name = condition.perturbation
        if name not in self._unit_rows:
            row = rows_of(self.embedding_, self.training_.targets(name))
            self._unit_rows[name] = row / (np.linalg.norm(row) or 1.0)
        return self._unit_rows[name]


class NearestTarget(TargetSimilarity):
    """Cells of the other trained perturbation whose targets are most similar by the prior, at the nearest dose.

    Parameters
    ----------
    embedding
        One row for each target, names as its index; their cosine is the similarity, and a combination is the sum over
        its targets. If `None`, the embedding from :func:`unlasting.pp.grn` for genes beside that from
        :func:`unlasting.pp.molecules` for drugs.
    """

    def _rows(self, condition: Condition) -> np.ndarray:
        found, _ = self._nearest(condition, self.training_.perturbed_in(condition.cell_type))
        return self.training_.perturbed[found]


class ZeroAwareNearestTarget(ZeroAware, TargetSimilarity):
    """Control cells under the effects of the most similar trained perturbation.

    Its on-target effect is replaced by the mean on-target effect over trained perturbations.

    Parameters
    ----------
    embedding
        One row for each target, names as its index; their cosine is the similarity, and a combination is the sum over
        its targets. If `None`, the embedding from :func:`unlasting.pp.grn` for genes beside that from
        :func:`unlasting.pp.molecules` for drugs.
    """

    def _effects(self, condition: Condition) -> np.ndarray:
        effects = self._off_target(condition.cell_type)
        others = [Condition(name, condition.cell_type, dose) for name, dose in effects]
        found, _ = self._nearest(condition, others)
        return self._with_on_target(effects[found.perturbation, found.dose], condition)


class NearestTargetOrNothing(TargetSimilarity):
    """Cells of the most similar trained perturbation if it is similar enough, else control cells.

    The threshold is the smallest that minimises the summed E-distances when each trained perturbation is left out in
    turn. Targets more similar than all trained pairs are therefore always copied.

    Parameters
    ----------
    embedding
        One row for each target, names as its index; their cosine is the similarity, and a combination is the sum over
        its targets. If `None`, the embedding from :func:`unlasting.pp.grn` for genes beside that from
        :func:`unlasting.pp.molecules` for drugs.
    """

    def _rows(self, condition: Condition) -> np.ndarray:
        trained = self.training_.perturbed_in(condition.cell_type)
        controls = self.training_.controls(condition.cell_type)
        found, similarity = self._nearest(condition, trained)
        return self.training_.perturbed[found] if similarity > self.threshold(condition.cell_type) else controls

    def threshold(self, cell_type: str) -> float:
        """Choose the similarity above which the nearest target is used.

        Parameters
        ----------
        cell_type
            The cell type.

        Returns
        -------
        The threshold; infinite without trained pairs.
        """
        if cell_type not in self._thresholds:
            trained = self.training_.perturbed_in(cell_type)
            control = self._sampled(self.training_.controls(cell_type))
            found = []
            for condition, rows in trained.items():
                try:
                    nearest, similarity = self._nearest(condition, trained)
                except NoPrediction:
                    continue
                cells, guess = self._sampled(rows), self._sampled(trained[nearest])
                if min(len(cells), len(guess), len(control)) >= 2:
                    nothing, copied = (e_distance(x, cells, unbiased=True) for x in (control, guess))
                    found.append((similarity, nothing - copied))
            self._thresholds[cell_type] = best_threshold(found)
        return self._thresholds[cell_type]

    def _sampled(self, rows: np.ndarray) -> np.ndarray:
        return self.training_.cells.values(np.random.default_rng(0).permutation(rows)[:MAX_CELLS])


def best_threshold(found: list[tuple[float, float]]) -> float:
    """Find the smallest threshold with the largest total gain from pairs (similarity, gain) above it."""
    if not found:
        return np.inf
    thresholds = sorted({-np.inf, *(similarity for similarity, _ in found)})
    totals = [sum(gain for similarity, gain in found if similarity > threshold) for threshold in thresholds]
    return thresholds[int(np.argmax(totals))]
