"""Random numbers that depend on the cell, not on its place in a batch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np


def cell_noise(
    names: Sequence[str], replicates: Sequence[int], n_genes: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Draw all noise for (source cell, replicate, seed), float32.

    Replicates count earlier cells from the same source. Returns the latent for undetected genes (standard normal), the mask's
    latent and the rounding of counts (uniform), each with shape `(n_cells, n_genes)`, and whether the cell responds (uniform),
    shape `(n_cells,)`.
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
