"""The most similar target by the prior."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import numpy as np
import pandas as pd
from anndata import AnnData

from unlasting.baselines._base import Baseline, ZeroAware, embedding_of, embeddings_of, rows_of
from unlasting.baselines._dose import dose_distance
from unlasting.baselines._protocol import NoPrediction
from unlasting.metrics import e_distance
from unlasting.screen import Condition

MAX_CELLS = 200
"""Sample size when source and threshold are chosen."""


class TargetSimilarity(Baseline):
    """A baseline that compares targets by the prior.

    Among several sources it takes the one with the smallest summed E-distances when each trained perturbation is left out
    in turn, all sources together if they are level.
    """

    has_threshold: ClassVar[bool] = False
    """Whether targets that are not similar enough are not followed."""

    def __init__(self, embedding: pd.DataFrame | None = None) -> None:
        self.embedding = embedding

    def _learn(self, adata: AnnData) -> None:
        given = embedding_of(adata, self.embedding, self.training_)
        self._embeddings = {"prior": given} if self.embedding is not None else embeddings_of(adata, self.training_)
        self._choices: dict[str, tuple[str, float]] = {}
        self._unit_rows: dict[tuple[str, str], np.ndarray] = {}

    def _nearest(self, condition: Condition, others: Iterable[Condition]) -> tuple[Condition, float]:
        """Find the most similar other perturbation by the chosen source, at the nearest dose, and its similarity.

        Raises
        ------
        NoPrediction
            If the embedding lacks a target, or all other perturbations.
        """
        return self._nearest_by(self._choice(condition.cell_type)[0], condition, others)

    def _nearest_by(self, source: str, condition: Condition, others: Iterable[Condition]) -> tuple[Condition, float]:
        wanted = self._unit_row(source, condition)
        similarity = {}
        for other in others:
            if other.perturbation != condition.perturbation:
                try:
                    similarity[other] = round(float(wanted @ self._unit_row(source, other)), 10)  # hides rounding
                except NoPrediction:
                    continue
        if not similarity:
            raise NoPrediction("no other perturbation with known targets is trained in this cell type")
        # ties go to the nearest dose, then by name
        found = min(similarity, key=lambda c: (-similarity[c], dose_distance(condition, c), c))
        return found, similarity[found]

    def _unit_row(self, source: str, condition: Condition) -> np.ndarray:
        name = condition.perturbation
        if (source, name) not in self._unit_rows:
            row = rows_of(self._embeddings.get(source), self.training_.targets(name))
            self._unit_rows[source, name] = row / (np.linalg.norm(row) or 1.0)
        return self._unit_rows[source, name]

    def _choice(self, cell_type: str) -> tuple[str, float]:
        """Choose the source, and the similarity above which it is followed."""
        if cell_type not in self._choices:
            if len(self._embeddings) < 2 and not self.has_threshold:
                return next(iter(self._embeddings), "prior"), -np.inf
            trained = self.training_.perturbed_in(cell_type)
            control = self._sampled(self.training_.controls(cell_type))
            best = (next(iter(self._embeddings), "prior"), np.inf if self.has_threshold else -np.inf, 0.0)
            for source in self._embeddings:
                gains = self._gains(source, trained, control)
                threshold = best_threshold(gains) if self.has_threshold else -np.inf
                total = sum(gain for similarity, gain in gains if similarity > threshold)
                if gains and (total > best[2] or source == best[0]):
                    best = source, threshold, total
            self._choices[cell_type] = best[:2]
        return self._choices[cell_type]

    def _gains(
        self, source: str, trained: dict[Condition, np.ndarray], control: np.ndarray
    ) -> list[tuple[float, float]]:
        """Compare copies of the nearest target with controls, for each trained perturbation: similarity and gain."""
        found = []
        for condition, rows in trained.items():
            try:
                nearest, similarity = self._nearest_by(source, condition, trained)
            except NoPrediction:
                continue
            cells, guess = self._sampled(rows), self._sampled(trained[nearest])
            if min(len(cells), len(guess), len(control)) >= 2:
                nothing, copied = (e_distance(x, cells, unbiased=True) for x in (control, guess))
                found.append((similarity, nothing - copied))
        return found

    def _sampled(self, rows: np.ndarray) -> np.ndarray:
        return self.training_.cells.values(np.random.default_rng(0).permutation(rows)[:MAX_CELLS])


class NearestTarget(TargetSimilarity):
    """Cells of the other trained perturbation whose targets are most similar by the prior, at the nearest dose.

    Parameters
    ----------
    embedding
        One row for each target, names as its index; their cosine is the similarity, and a combination is the sum over
        its targets. If `None`, the embedding from :func:`unlasting.pp.grn` for genes beside that from
        :func:`unlasting.pp.molecules` for drugs, or that of one shipped source, if it is better for trained perturbations.
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
        :func:`unlasting.pp.molecules` for drugs, or that of one shipped source, if it is better for trained perturbations.
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
        :func:`unlasting.pp.molecules` for drugs, or that of one shipped source, if it is better for trained perturbations.
    """

    has_threshold = True

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
        return self._choice(cell_type)[1]


def best_threshold(found: list[tuple[float, float]]) -> float:
    """Find the smallest threshold with the largest total gain from pairs (similarity, gain) above it."""
    if not found:
        return np.inf
    thresholds = sorted({-np.inf, *(similarity for similarity, _ in found)})
    totals = [sum(gain for similarity, gain in found if similarity > threshold) for threshold in thresholds]
    return thresholds[int(np.argmax(totals))]
