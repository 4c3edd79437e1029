"""What can be judged: anything that is fitted to a screen and then gives cells of a condition."""

from __future__ import annotations

from typing import Any, Final, Protocol, Self

import numpy as np
from anndata import AnnData

from unlasting.screen import Condition


class NoPrediction(LookupError):
    """A predictor has nothing to say about a condition; the message says why."""


NO_COMBINATION: Final = "it is no combination"
NO_SINGLE_DRUG: Final = "it is no single drug"
NO_DOSE: Final = "it has no dose"
BY_NATURE: Final = frozenset({NO_COMBINATION, NO_SINGLE_DRUG, NO_DOSE})
"""Reasons for which a predictor does not apply to a condition, whatever the screen holds."""


class Predictor(Protocol):
    """Anything that is fitted to the training cells of a screen and then gives cells of a condition."""

    def fit(self, adata: AnnData, **labels: Any) -> Self:
        """Learn from the training cells.

        Parameters
        ----------
        adata
            The screen, log-normalised, shape `(n_cells, n_genes)`. Only cells labelled `train` may be learnt from, and
            those labelled `val` only to stop early or to choose.
        **labels
            Names of columns and the like (`perturbation_key`, `control`, `cell_type_key`, `split_key`, `delimiter`),
            if other than recorded by `pp` or `setup_anndata`.

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
            How many cells are wanted.
        seed
            The same seed gives the same cells.

        Returns
        -------
        Log-normalised cells, genes in the order of the screen, shape `(n_cells, n_genes)`; fewer rows if the
        predictor has no more.

        Raises
        ------
        NoPrediction
            If the predictor has nothing to say about this condition.
        """
        ...
