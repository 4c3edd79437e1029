"""Linear maps from embedded targets to effects."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData
from sklearn.linear_model import Ridge, RidgeCV

from unlasting.baselines._base import Baseline, Shift, ZeroAware, embedding_of, rows_of, side_by_side
from unlasting.baselines._protocol import NoPrediction
from unlasting.baselines._training_cells import Effects
from unlasting.screen import Condition

PENALTIES = np.logspace(-3, 4, 15)
MIN_TARGETS = 3


class _Ridge(Baseline):
    """Ridge regression on a target embedding.

    The penalty is chosen by leaving out each trained perturbation, for the error in mean changes.
    """

    embedding_: pd.DataFrame | None
    _maps: dict[str, list[Ridge]]

    def _predicted(self, condition: Condition, effects: Effects) -> np.ndarray:
        """Predict the effects, each row by its own map."""
        features = rows_of(self.embedding_, self.training_.targets(condition.perturbation))
        if condition.cell_type not in self._maps:
            known = self._known(effects)
            changes = self.training_.effects(condition.cell_type)
            embedded = np.array(list(known.values()))
            penalty = RidgeCV(alphas=PENALTIES).fit(embedded, np.array([changes[key] for key in known])).alpha_
            found = np.array([effects[key] for key in known])
            rows = found.reshape(len(found), -1, len(self.training_.genes)).swapaxes(0, 1)
            self._maps[condition.cell_type] = [Ridge(alpha=penalty).fit(embedded, row) for row in rows]
        return np.concatenate([ridge.predict(features[None, :]) for ridge in self._maps[condition.cell_type]])

    def _known(self, effects: Effects) -> dict[tuple[str, str], np.ndarray]:
        """Embed the trained perturbations with known targets."""
        found = {}
        for perturbation, dose in effects:
            try:
                found[perturbation, dose] = rows_of(self.embedding_, self.training_.targets(perturbation))
            except NoPrediction:
                continue
        if len(found) < MIN_TARGETS:
            raise NoPrediction(f"fewer than {MIN_TARGETS} perturbations with known targets are trained")
        return found


class Linear(_Ridge, Shift):
    """Control cells plus a change that ridge regression predicts from embedded targets.

    After the linear model by :cite:t:`ahlmanneltze2025linear`, with the penalty chosen by leaving out each trained
    perturbation in turn.

    Parameters
    ----------
    embedding
        One row for each target, names as its index. If `None`, principal component loadings from the mean
        training profiles (for measured targets) beside the embeddings from :func:`unlasting.pp.grn` and
        :func:`unlasting.pp.molecules`, each zero for names that it lacks. A combination is the sum of its targets; the
        dose is not used.
    n_components
        Number of principal components.
    """

    def __init__(self, embedding: pd.DataFrame | None = None, *, n_components: int = 10) -> None:
        self.embedding = embedding
        self.n_components = n_components

    def _learn(self, adata: AnnData) -> None:
        self.embedding_ = embedding_of(adata, self.embedding, self.training_)
        if self.embedding is None:
            known = [] if self.embedding_ is None else [self.embedding_]
            self.embedding_ = side_by_side([self._loadings(), *known])
        self._maps = {}

    def _shift(self, condition: Condition) -> np.ndarray:
        return self._predicted(condition, self.training_.effects(condition.cell_type))[0]

    def _loadings(self) -> pd.DataFrame:
        """Compute a row for each measured gene from the mean training profiles."""
        profiles = self.training_.profiles
        _, scale, axes = np.linalg.svd(profiles - profiles.mean(axis=0), full_matrices=False)
        return pd.DataFrame((axes.T * scale)[:, : self.n_components], index=self.training_.genes)


class ZeroAwareRidge(_Ridge, ZeroAware):
    """Control cells under effects that ridge regression predicts from the prior.

    Parameters
    ----------
    embedding
        One row for each target, names as its index. If `None`, the embeddings from :func:`unlasting.pp.grn`
        and :func:`unlasting.pp.molecules`. A combination is the sum of its targets; the dose is not used.
    """

    def __init__(self, embedding: pd.DataFrame | None = None) -> None:
        self.embedding = embedding

    def _learn(self, adata: AnnData) -> None:
        self.embedding_ = embedding_of(adata, self.embedding, self.training_)
        self._maps = {}

    def _effects(self, condition: Condition) -> np.ndarray:
        effects = self._predicted(condition, self._off_target(condition.cell_type))
        return self._with_on_target(effects, condition)


class PublishedLinear(Shift):
    """The linear model by :cite:t:`ahlmanneltze2025linear` as published: ridge .1 and 10 principal components.

    Trained mean profiles are `G W P' + b`: `G` holds the genes' principal component scores, `P` its
    rows for the targets, and `b` the mean over perturbations. Only measured targets have a row.
    """

    penalty = 0.1
    n_components = 10

    def _learn(self, adata: AnnData) -> None:
        self._maps: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}

    def _shift(self, condition: Condition) -> np.ndarray:
        if condition.cell_type not in self._maps:
            self._maps[condition.cell_type] = self._fitted(condition.cell_type)
        genes, weights, mean = self._maps[condition.cell_type]
        return genes @ weights @ self._row(genes, condition.perturbation) + mean

    def _fitted(self, cell_type: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Solve for the weights between genes and targets in closed form."""
        effects = self.training_.effects(cell_type)
        changes = np.array(list(effects.values())).T  # (n_genes, n_perturbations)
        left, scale, _ = np.linalg.svd(changes - changes.mean(axis=0), full_matrices=False)
        genes = (left * scale)[:, : self.n_components]
        rows, known = [], []
        for i, (perturbation, _) in enumerate(effects):
            try:
                rows.append(self._row(genes, perturbation))
            except NoPrediction:
                continue
            known.append(i)
        if len(known) < MIN_TARGETS:
            raise NoPrediction(f"fewer than {MIN_TARGETS} perturbations with measured targets are trained")
        targets, wanted = np.array(rows), changes[:, known]
        mean = wanted.mean(axis=1)
        ridge = self.penalty * np.eye(genes.shape[1])
        between = genes.T @ (wanted - mean[:, None]) @ targets
        weights = np.linalg.solve(genes.T @ genes + ridge, between) @ np.linalg.inv(targets.T @ targets + ridge)
        return genes, weights, mean

    def _row(self, genes: np.ndarray, perturbation: str) -> np.ndarray:
        """Sum the targets' rows.

        Raises
        ------
        NoPrediction
            If a target is not measured.
        """
        targets = self.training_.targets(perturbation)
        own = self.training_.own_genes(perturbation)
        if len(own) < len(targets):
            raise NoPrediction("its targets are not measured")
        return genes[own].sum(axis=0)
