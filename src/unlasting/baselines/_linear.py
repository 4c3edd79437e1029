"""A linear map from what is known of a target to the change that it causes."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import pandas as pd
from anndata import AnnData
from sklearn.linear_model import RidgeCV

from unlasting.baselines._base import Baseline, embedding_of, rows_of, side_by_side
from unlasting.baselines._protocol import NoPrediction
from unlasting.screen import Condition

PENALTIES = np.logspace(-3, 4, 15)
MIN_TARGETS = 3


class Linear(Baseline):
    """Control cells plus a change that ridge regression predicts from an embedding of the targets.

    After the linear model of :cite:t:`ahlmanneltze2025linear`, with the penalty chosen by leaving out each trained
    perturbation in turn. Every cell moves by the same amount, so that values can be negative.

    Parameters
    ----------
    embedding
        One row of numbers for each target, names as its index. If `None`, the principal component loadings of
        the mean training profiles (for measured targets) beside the embeddings of :func:`unlasting.pp.grn` (for all that
        the prior knows) and :func:`unlasting.pp.molecules` (for drugs), each zero where it knows nothing. A combination
        is the sum of its targets; the dose is not used.
    n_components
        Number of principal components.
    """

    def __init__(self, embedding: pd.DataFrame | None = None, *, n_components: int = 10) -> None:
        self.embedding = embedding
        self.n_components = n_components

    def fit(self, adata: AnnData, **labels: Any) -> Self:
        """Find the training cells and the embedding of targets.

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
        if self.embedding is None:
            known = [] if self.embedding_ is None else [self.embedding_]
            self.embedding_ = side_by_side([self._loadings(), *known])
        self._maps: dict[str, RidgeCV] = {}
        return self

    def _shift(self, condition: Condition) -> np.ndarray:
        features = rows_of(self.embedding_, self.training_.targets(condition.perturbation))
        if condition.cell_type not in self._maps:
            self._maps[condition.cell_type] = self._fitted(condition.cell_type)
        return self._maps[condition.cell_type].predict(features[None, :])[0]

    def _fitted(self, cell_type: str) -> RidgeCV:
        """Fit the map on the trained perturbations whose targets are known."""
        features, changes = [], []
        for (perturbation, _), change in self.training_.effects(cell_type).items():
            try:
                features.append(rows_of(self.embedding_, self.training_.targets(perturbation)))
            except NoPrediction:
                continue
            changes.append(change)
        if len(features) < MIN_TARGETS:
            raise NoPrediction(f"fewer than {MIN_TARGETS} perturbations with known targets are trained")
        return RidgeCV(alphas=PENALTIES).fit(np.array(features), np.array(changes))

    def _loadings(self) -> pd.DataFrame:
        """Compute a row for each measured gene from the mean profiles of the training cells."""
        profiles = self.training_.profiles
        _, scale, axes = np.linalg.svd(profiles - profiles.mean(axis=0), full_matrices=False)
        return pd.DataFrame((axes.T * scale)[:, : self.n_components], index=self.training_.genes)
