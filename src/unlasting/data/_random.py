"""Random numbers that belong to a cell, not to its place in a batch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np


def cell_noise(
    names: Sequence[str], replicates: Sequence[int], n_genes: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the noise of the silent genes and the latent of the mask for (source cell, replicate, seed).

    Parameters
    ----------
    names
        Names of the source cells.
    replicates
        How many cells were made from this source before.
    n_genes
        Number of genes.
    seed
        The user's seed.

    Returns
    -------
    Standard normal and uniform numbers, both float32 of shape `(n_cells, n_genes)`.
    """
    eps = np.empty((len(names), n_genes), dtype=np.float32)
    uniform = np.empty_like(eps)
    for row, (name, replicate) in enumerate(zip(names, replicates, strict=True)):
        digest = hashlib.blake2b(f"{seed}\0{name}\0{replicate}".encode(), digest_size=16).digest()
        rng = np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))
        rng.standard_normal(dtype=np.float32, out=eps[row])
        rng.random(dtype=np.float32, out=uniform[row])
    return eps, uniform
