"""The protocol for predictors: fitted to a screen, they give cells of a condition."""

from __future__ import annotations

from typing import Any, Final, Protocol, Self

import numpy as np
from anndata import AnnData

from unlasting.screen import Condition


class NoPrediction(LookupError):
    """A predictor does not apply to a condition, for the reason in the message."""


NO_COMBINATION: Final = "it is no combination"
NO_SINGLE_DRUG: Final = "it is no single drug"
NO_DOSE: Final = "it has no dose"
NO_CONTEXT: Final = "it is trained in no other cell type"
NOT_TRAINED: Final = "it is not trained"
BY_NATURE: Final = frozenset({NO_COMBINATION, NO_SINGLE_DRUG, NO_DOSE, NO_CONTEXT, NOT_TRAINED})
"""Reasons that lie in the question, not in the screen's preparation: reports need not warn."""


class Predictor(Protocol):
    """Anything that is fitted to a screen's training cells and then gives cells of a condition."""

    def fit(self, adata: AnnData, **labels: Any) -> Self:
        """Learn from the training cells.

        Parameters
        ----------
        adata
            The screen, log-normalised, shape `(n_cells, n_genes)`. Only cells labelled `train` may be learnt from;
            those labelled `val` may stop early or choose a model.
        **labels
            Columns and label names (`perturbation_key`, `control`, `cell_type_key`, `split_key`, `delimiter`), if
            other than recorded by `pp` or `setup_anndata`.

        Returns
        -------
        The predictor itself.
        """
        ...

    def predict(self, condition: Condition, n_cells: int, *, seed: int = 0) -> np.ndarray:
        """Give cells of a condition.

        Parameters
        ----------
        condition
            Perturbation, cell type and dose.
        n_cells
            Number of cells.
        seed
            The same seed gives the same cells.

        Returns
        -------
        Log-normalised cells, genes in the screen's order, shape `(n_cells, n_genes)`; fewer rows if the predictor has
        no more.

        Raises
        ------
        NoPrediction
            If the predictor does not apply to this condition.
        """
        ...
