"""Which cells of a perturbation responded to it, and which nonresponding."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

import torch
from torch import Tensor, nn

N_DIRECTION_GENES: Final = 50
"""How many genes tell responders from non-responding cells."""


@dataclass(frozen=True)
class ResponderFit:
    """Mixtures of responders and non-responding cells, in one number for each cell.

    That number is the place of a cell along the change from controls to perturbed cells, in s.d. of the controls around
    their mean. Cells that nonresponding are spread as the controls are, `N(0, 1)`, responders as `N(separation, spread^2)`.

    Parameters
    ----------
    genes, weights
        The direction in each condition and population, shape `(n_conditions, n_populations, n_direction_genes)`.
    centre
        Where the controls are along it, shape `(n_conditions, n_populations)`.
    nonresponding
        Share of the non-responding cells, 0 where nothing tells them apart, shape `(n_conditions, n_populations)`.
    separation, spread
        Mean and s.d. of the responders, shape `(n_conditions, n_populations)`.
    of_trained
        Share of the cells of every trained condition that nonresponding, over the populations where responders are clearly apart from
        controls, or that of other doses where they never are, shape `(n_trained,)`.
    """

    genes: Tensor
    weights: Tensor
    centre: Tensor
    nonresponding: Tensor
    separation: Tensor
    spread: Tensor
    of_trained: Tensor

    @classmethod
    def empty(cls, n_conditions: int, n_populations: int, n_trained: int) -> ResponderFit:
        """Get mixtures without a cell that nonresponding."""
        pair = (n_conditions, n_populations)
        genes = torch.zeros(*pair, N_DIRECTION_GENES, dtype=torch.long)
        zero, one = torch.zeros(pair), torch.ones(pair)
        return cls(genes, torch.zeros(genes.shape), zero, zero.clone(), one, one.clone(), torch.zeros(n_trained))


class Responders(nn.Module):
    """Tells, of cells of registered conditions, how likely each responded.

    Parameters
    ----------
    fit
        What was learnt from the training cells.
    """

    def __init__(self, fit: ResponderFit) -> None:
        super().__init__()
        for f in fields(fit):
            self.register_buffer(f.name, getattr(fit, f.name).clone())
        self.genes: Tensor
        self.weights: Tensor
        self.centre: Tensor
        self.nonresponding: Tensor
        self.separation: Tensor
        self.spread: Tensor
        self.of_trained: Tensor

    def forward(self, cells: Tensor, condition: Tensor, population: Tensor) -> Tensor:
        """Get the probability that a cell responded; 1 where nothing is known of non-responding cells.

        Parameters
        ----------
        cells
            Log-normalised expression, shape `(n_cells, n_genes)`.
        condition, population
            Codes of every cell, shape `(n_cells,)`.

        Returns
        -------
        Shape `(n_cells,)`.
        """
        pair = (condition, population)
        place = (cells.gather(1, self.genes[pair]) * self.weights[pair]).sum(-1) - self.centre[pair]
        separation, spread, nonresponding = self.separation[pair], self.spread[pair], self.nonresponding[pair]
        # Beyond either mean it is that of the mean: a wider normal would win on the far side of the other.
        place = place.clamp(min=0.0).minimum(separation)
        odds = torch.log1p(-nonresponding) - nonresponding.log()
        odds = odds - spread.log() - 0.5 * ((place - separation) / spread).square() + 0.5 * place.square()
        return torch.sigmoid(odds)
