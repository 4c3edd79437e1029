"""What is fitted from the training cells before any network is trained."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class ScreenStatistics:
    """Moments of the training cells, all on the [0, 1] scale but the first.

    A *pool* is the control cells of one cell type and batch.

    Parameters
    ----------
    x_max
        The largest log-normalised value, shape `()`.
    base
        Mean of the expressed values of each gene, shape `(n_genes,)`.
    scale
        Standard deviation of the expressed values of each gene, shape `(n_genes,)`.
    typical_scale
        The s.d. of a typical expressed value, shape `()`.
    control_mean, control_sd
        Mean and s.d. of the control cells, zeros included, shape `(n_pools, n_genes)`.
    control_log_odds
        Log-odds that a gene is expressed in a control cell, shape `(n_pools, n_genes)`.
    depth_mean
        Mean log number of expressed genes of a cell, shape `(n_conditions, n_pools)`.
    depth_sd
        Its standard deviation among the controls, shape `(n_pools,)`.
    """

    x_max: Tensor
    base: Tensor
    scale: Tensor
    typical_scale: Tensor
    control_mean: Tensor
    control_sd: Tensor
    control_log_odds: Tensor
    depth_mean: Tensor
    depth_sd: Tensor

    @classmethod
    def empty(cls, n_genes: int, n_pools: int, n_conditions: int) -> ScreenStatistics:
        """Get placeholders of the right shapes, to be overwritten by a saved model."""
        gene, pool = torch.ones(n_genes), torch.zeros(n_pools, n_genes)
        one = torch.tensor(1.0)
        return cls(one, gene, gene, one, pool, pool, pool, torch.zeros(n_conditions, n_pools), torch.ones(n_pools))


class StatisticsBuffers(nn.Module):
    """The statistics as buffers, so that they are saved and moved with the networks."""

    def __init__(self, statistics: ScreenStatistics) -> None:
        super().__init__()
        for f in fields(statistics):
            self.register_buffer(f.name, getattr(statistics, f.name).clone())
        self.x_max: Tensor
        self.base: Tensor
        self.scale: Tensor
        self.typical_scale: Tensor
        self.control_mean: Tensor
        self.control_sd: Tensor
        self.control_log_odds: Tensor
        self.depth_mean: Tensor
        self.depth_sd: Tensor
