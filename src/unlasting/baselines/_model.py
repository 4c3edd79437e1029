"""A generative model behind the baselines' protocol."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import numpy as np
from anndata import AnnData
from scipy import sparse

from unlasting.baselines._protocol import NoPrediction
from unlasting.screen import Condition


class ModelPredictor:
    """A model with `generate`, such as :class:`unlasting.UnlastingModel`, behind the baselines' protocol.

    Parameters
    ----------
    make
        Takes the screen, a copy that it may change, and returns a trained model.

    Examples
    --------
    >>> import unlasting as ul
    >>> def make(adata):
    ...     ul.UnlastingModel.setup_anndata(adata)
    ...     model = ul.UnlastingModel(adata)
    ...     model.train()
    ...     return model
    >>> predictor = ul.baselines.ModelPredictor(make)
    """

    def __init__(self, make: Callable[[AnnData], Any]) -> None:
        self.make = make

    def fit(self, adata: AnnData, **labels: Any) -> Self:
        """Make and train the model.

        Parameters
        ----------
        adata
            The screen.
        **labels
            Not used: `make` names the columns that it needs.

        Returns
        -------
        The predictor itself.
        """
        self.genes_ = adata.var_names
        self.model_ = self.make(adata.copy())
        return self

    def predict(self, condition: Condition, n_cells: int, *, seed: int = 0) -> np.ndarray:
        """Generate cells of a condition.

        Parameters
        ----------
        condition
            Perturbation, cell type and dose.
        n_cells
            How many cells are wanted.
        seed
            Passed on to the model.

        Returns
        -------
        Log-normalised cells, genes in the screen's order, shape `(n_cells, n_genes)`.

        Raises
        ------
        NoPrediction
            If the model refuses with a `ValueError`, whose message is kept.
        """
        where = {"cell_type": condition.cell_type, "dose": condition.dose}
        options = {name: value for name, value in where.items() if value}
        try:
            cells = self.model_.generate(condition.perturbation, n_cells, seed=seed, **options)
        except ValueError as error:
            raise NoPrediction(str(error)) from error
        values = cells[:, self.genes_].X
        return np.asarray(values.toarray() if sparse.issparse(values) else values, dtype=np.float32)
