"""From log-normalised expression back to integer counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from unlasting.screen._checks import is_in_memory
from unlasting.screen._constants import COUNTS_LAYER, UNS_KEY

if TYPE_CHECKING:
    from anndata import AnnData

SNAP = 0.01
"""How far a value may lie from an integer that it means."""


def is_counts(matrix: Any) -> bool:
    """Whether a matrix holds integers from 0 and not zeros only."""
    values = matrix.data if sparse.issparse(matrix) else np.asarray(matrix)
    return bool(values.size and values.any() and (values >= 0).all() and (values == np.rint(values)).all())


def find_screen_counts(adata: AnnData) -> Any:
    """Find the raw counts of a normalised screen, shape `(n_cells, n_genes)`: in the layer, or in `X`; else `None`."""
    layer = _counts_layer(adata)
    found = (matrix for matrix in (adata.layers.get(layer), adata.X) if matrix is not None and is_in_memory(matrix))
    return next((matrix for matrix in found if is_counts(matrix)), None)


def screen_counts(adata: AnnData) -> sparse.csr_array:
    """Get the raw counts of a prepared screen, shape `(n_cells, n_genes)`.

    Raises
    ------
    ValueError
        If there is no layer with counts.
    """
    layer = _counts_layer(adata)
    if layer not in adata.layers or not is_counts(adata.layers[layer]):
        raise ValueError(
            f"Integer counts are needed, but `adata.layers[{layer!r}]` does not hold them. Keep the raw counts: "
            f"`adata.layers[{layer!r}] = adata.X.copy()` before normalisation, as `pp.prepare` does."
        )
    return sparse.csr_array(adata.layers[layer], dtype=np.float64)


def _counts_layer(adata: AnnData) -> str:
    return adata.uns.get(UNS_KEY, {}).get("prepare", {}).get("counts_layer", COUNTS_LAYER)


def counts_per_unit(counts: sparse.csr_array, expression: Any) -> np.ndarray:
    """Compute for each cell how many counts one unit of normalised expression is, shape `(n_cells,)`.

    Parameters
    ----------
    counts
        Counts, shape `(n_cells, n_genes)`.
    expression
        `log1p` of the same counts after normalisation to any total.
    """
    normalised = sparse.csr_array(expression, dtype=np.float64, copy=True)
    np.expm1(normalised.data, out=normalised.data)
    total = np.asarray(normalised.sum(axis=1)).ravel()
    return np.divide(np.asarray(counts.sum(axis=1)).ravel(), total, out=np.ones(len(total)), where=total > 0)


def rounded_counts(expression: Any, per_unit: np.ndarray, rng: np.random.Generator) -> sparse.csr_array:
    """Turn log-normalised cells into integer counts.

    A value between two integers becomes one of them at random, so that means are kept.

    Parameters
    ----------
    expression
        `log1p` of normalised counts, shape `(n_cells, n_genes)`. Negative values become 0.
    per_unit
        How many counts one unit of normalised expression is, shape `(n_cells,)`.
    rng
        Source of the random numbers.

    Returns
    -------
    The counts, float32 of shape `(n_cells, n_genes)`.
    """
    counts = sparse.csr_array(expression, dtype=np.float64, copy=True)
    values = np.expm1(np.maximum(counts.data, 0.0)) * np.repeat(per_unit, np.diff(counts.indptr))
    near = np.rint(values)
    counts.data = np.where(np.abs(values - near) <= SNAP, near, np.floor(values + rng.random(len(values))))
    counts.eliminate_zeros()
    return counts.astype(np.float32)
