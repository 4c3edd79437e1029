"""The mixture of responding and non-responding cells in one condition, for arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from unlasting.effects._mixture import _MIN_CELLS, _Placed, _shares
from unlasting.effects._responders import ResponderFit, Responders

_LOWEST_SHARE = 1e-3
"""Share of non-responding cells where one mode explains all cells."""


@dataclass(frozen=True)
class ResponseMixture:
    """Mixture of responding and non-responding cells in one condition.

    Parameters
    ----------
    nonresponding
        Share of non-responding cells.
    separation, spread
        Mean and s.d. of the responding cells' scores, in s.d. of the controls.
    responders
        The mixture as the effects model stores it.
    """

    nonresponding: float
    separation: float
    spread: float
    responders: Responders

    @property
    def is_separated(self) -> bool:
        """Whether responding cells are clearly apart from controls."""
        return self.separation >= 1.0 + self.spread

    def probability(self, cells: np.ndarray) -> np.ndarray:
        """Compute the probability that each cell responded, missing without a clear separation, shape `(n_cells,)`."""
        if not self.is_separated:
            return np.full(len(cells), np.nan)
        codes = torch.zeros(len(cells), dtype=torch.long)
        return self.responders(torch.as_tensor(cells), codes, codes).numpy()


def fit_response_mixture(perturbed: np.ndarray, control: np.ndarray, seed: int = 0) -> ResponseMixture | None:
    """Fit the mixture of the effects model to one condition.

    Parameters
    ----------
    perturbed, control
        Cells, shape `(n_cells, n_genes)`.
    seed
        Seed of the halves that provide each other's direction.

    Returns
    -------
    The mixture, or `None` with too few cells.
    """
    if min(len(perturbed), len(control)) < _MIN_CELLS:
        return None
    placed = _Placed.of((0, 0), 0, len(perturbed), perturbed, control, np.random.default_rng(seed))
    ((_, nonresponding, separation, spread),) = _shares([placed])
    fit = ResponderFit.empty(1, 1, 1)
    nonresponding = max(nonresponding, _LOWEST_SHARE)
    placed.write(fit, nonresponding, separation, spread)
    return ResponseMixture(nonresponding, separation, spread, Responders(fit))
