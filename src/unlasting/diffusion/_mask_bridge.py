"""The bridge for the mask of expressed genes: a uniform latent for every cell and gene."""

from __future__ import annotations

import torch
from torch import Tensor

_BELOW_ONE = 1.0 - 2.0**-20


def mask_latent(mask: Tensor, probability: Tensor, uniform: Tensor) -> Tensor:
    """Encode a mask: uniform in `[0, p)` where the gene is on, in `[p, 1)` where it is off.

    Over cells in which a gene is on with probability p the latent is uniform in [0, 1), while the values' latent
    is standard normal.

    Parameters
    ----------
    mask
        Whether a gene is expressed, shape `(n_cells, n_genes)`.
    probability
        Expression rate in such cells, shape `(n_cells, n_genes)`.
    uniform
        Uniform numbers in [0, 1), shape `(n_cells, n_genes)`.

    Returns
    -------
    The latent, shape `(n_cells, n_genes)`.
    """
    uniform = uniform.clamp(max=_BELOW_ONE)
    return torch.where(mask.bool(), uniform * probability, probability + uniform * (1.0 - probability))


def bridge_mask(latent: Tensor, probability: Tensor) -> Tensor:
    """Decode a mask: on where the latent is below the probability, shape `(n_cells, n_genes)`."""
    return latent < probability
