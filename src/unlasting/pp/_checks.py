"""What every step of `pp` asks of an AnnData before it writes anything."""

from __future__ import annotations

from typing import Any

import numpy as np
from anndata import AnnData
from scipy import sparse

from unlasting.screen import is_in_memory


def require_whole(adata: AnnData, step: str) -> None:
    """Refuse an AnnData that cannot be written to, or whose cells or genes cannot be told apart.

    Raises
    ------
    TypeError
        If it is no AnnData.
    ValueError
        If it is empty, a view or backed, or names are repeated.
    """
    if not isinstance(adata, AnnData):
        raise TypeError(f"`adata` is a {type(adata).__name__}; `pp.{step}` needs an AnnData.")
    if adata.n_obs == 0 or adata.n_vars == 0:
        raise ValueError(f"`adata` is empty: {adata.n_obs} cells x {adata.n_vars} genes.")
    if adata.is_view:
        raise ValueError(
            f"`adata` is a view of another AnnData, and `pp.{step}` writes into it. "
            "Make it an object of its own first: `adata = adata.copy()`."
        )
    for axis, names in (("var", adata.var_names), ("obs", adata.obs_names)):
        if not names.is_unique:
            repeated = names[names.duplicated()][0]
            raise ValueError(
                f"`adata.{axis}_names` holds {repeated!r} more than once. Call `adata.{axis}_names_make_unique()`."
            )


def counts_of(adata: AnnData) -> sparse.csr_matrix:
    """Get the raw counts in `X`, shape `(n_cells, n_genes)`, float32.

    Raises
    ------
    ValueError
        If `X` holds anything but finite whole numbers from zero, or a cell has no counts.
    """
    _require_matrix(adata)
    # scipy has no sparse matrix of half precision
    counts = sparse.csr_matrix(adata.X.astype(np.float32) if adata.X.dtype == np.float16 else adata.X)
    values = counts.data
    if not np.isfinite(values).all():
        raise ValueError(
            f"`adata.X` holds {int((~np.isfinite(values)).sum())} NaN or infinite values. Remove or replace them first."
        )
    if values.size and values.min() < 0:
        raise ValueError(
            f"`adata.X` holds negative values (the smallest is {values.min():g}), as scaled data do. "
            "Raw counts are expected: put them into `adata.X`."
        )
    fractional = values[values != np.rint(values)]
    if fractional.size:
        raise ValueError(
            f"`adata.X` holds fractions (such as {fractional[0]:g}), as normalised or log-transformed data do. "
            "Raw counts are expected: put them back, for example with `adata.X = adata.layers['counts'].copy()`."
        )
    counts = counts.astype(np.float32)
    counts.sum_duplicates()
    counts.eliminate_zeros()
    return counts


def require_log_normalised(adata: AnnData) -> None:
    """Refuse an `X` that cannot be log-normalised expression.

    Raises
    ------
    ValueError
        If values are missing, negative, infinite, or whole numbers only, as raw counts are.
    """
    _require_matrix(adata)
    values = adata.X.data if sparse.issparse(adata.X) else np.asarray(adata.X)
    if not np.isfinite(values).all():
        raise ValueError("`adata.X` holds NaN or infinite values. Remove or replace them first.")
    if values.size and (values.min() < 0 or (values == np.rint(values)).all()):
        held = "negative values, as scaled data do" if values.min() < 0 else "whole numbers only, as raw counts do"
        raise ValueError(
            f"`adata.X` holds {held}. Log-normalised values are expected: call `unlasting.pp.prepare(adata)` on raw counts."
        )


def _require_matrix(adata: AnnData) -> None:
    """Refuse an AnnData whose `X` is not in memory, or holds no numbers."""
    if adata.isbacked:
        raise ValueError("`adata` is backed by a file. Read it into memory first: `adata = adata.to_memory()`.")
    if adata.X is None:
        raise ValueError("`adata.X` is empty; expression is expected there.")
    if not is_in_memory(adata.X):
        raise ValueError(
            f"`adata.X` is a {type(adata.X).__name__}, which is not in memory. Read it first: `adata = adata.to_memory()`."
        )
    if adata.X.dtype.kind not in "biuf":
        raise ValueError(f"`adata.X` holds values of type {adata.X.dtype}; real numbers are expected.")


def row_sums(matrix: Any) -> np.ndarray:
    """Sum each row in double precision, shape `(n_rows,)`."""
    return np.asarray(matrix.sum(axis=1, dtype=np.float64)).ravel()
