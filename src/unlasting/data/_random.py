"""Random numbers that depend on the cell, not on its place in a batch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np


def cell_noise(
    names: Sequence[str], replicates: Sequence[int], n_genes: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Draw all noise for (source cell, replicate, seed).

    Parameters
    ----------
    names
        Source cells by name.
    replicates
        Number of earlier cells from the same source.
    n_genes
        Number of genes.
    seed
        The user's seed.

    Returns
    -------
    eps
        Standard normal, the latent for undetected genes, shape `(n_cells, n_genes)`, float32 as all others.
    mask
        Uniform, the mask's latent, shape `(n_cells, n_genes)`.
    rounding
        Uniform, for rounding counts up or down, shape `(n_cells, n_genes)`.
    response
        Uniform, whether the cell responds, shape `(n_cells,)`.
    """
    eps = np.empty((len(names), n_genes), dtype=np.float32)
    mask, rounding = np.empty_like(eps), np.empty_like(eps)
    response = np.empty(len(names), dtype=np.float32)
    for row, (name, replicate) in enumerate(zip(names, replicates, strict=True)):
        digest = hashlib.blake2b(f"{seed}\0{name}\0{replicate}".encode(), digest_size=16).digest()
        rng = np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))
        rng.standard_normal(dtype=np.float32, out=eps[row])
        rng.random(dtype=np.float32, out=mask[row])
        response[row] = rng.random(dtype=np.float32)
        rng.random(dtype=np.float32, out=rounding[row])
    return eps, mask, rounding, response
