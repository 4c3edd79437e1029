"""Checks of an expression matrix, before anything is computed from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from unlasting.screen._errors import MissingKeyError

if TYPE_CHECKING:
    from anndata import AnnData

_BLOCK = 8_192


def expression(adata: AnnData, layer: str | None) -> Any:
    """Get the matrix of log-normalised values, shape `(n_cells, n_genes)`.

    Raises
    ------
    KeyError
        If there is no such layer.
    ValueError
        If there is no `X`.
    """
    if layer is None and adata.X is None:
        raise ValueError("`adata.X` is empty; expression is expected there, or name its `layer`.")
    if layer is None:
        return adata.X
    if layer not in adata.layers:
        raise MissingKeyError(f"`layer` is {layer!r}, but `adata.layers` has only {list(adata.layers)}.")
    return adata.layers[layer]


def _values(matrix: Any) -> Iterator[np.ndarray]:
    """Get the stored values, in blocks of rows where they are not in memory in one piece."""
    if sparse.issparse(matrix):
        yield matrix.data
        return
    for start in range(0, matrix.shape[0], _BLOCK):
        rows = matrix[start : start + _BLOCK]
        yield np.asarray(rows.data if sparse.issparse(rows) else rows).ravel()


def check_cells(adata: AnnData, argument: str = "adata") -> None:
    """Refuse what holds no cells, or cells and genes that cannot be told apart.

    Raises
    ------
    TypeError
        If it is no AnnData.
    ValueError
        If it is empty, or has repeated names.
    """
    from anndata import AnnData  # takes a second, which the names of options need not wait for

    if not isinstance(adata, AnnData):
        raise TypeError(f"`{argument}` must be an AnnData, not {type(adata).__name__}.")
    if adata.n_obs == 0 or adata.n_vars == 0:
        raise ValueError(f"`{argument}` is empty: {adata.n_obs} cells x {adata.n_vars} genes.")
    for axis, names, mend in (("gene", adata.var_names, "var"), ("cell", adata.obs_names, "obs")):
        if not names.is_unique:
            repeated = names[names.duplicated()][0]
            raise ValueError(f"The {axis} name {repeated!r} is repeated. Call `{argument}.{mend}_names_make_unique()`.")


def check_screen(adata: AnnData, layer: str | None) -> None:
    """Refuse what cannot be trained on, and say what to do.

    Raises
    ------
    TypeError
        If it is no AnnData.
    ValueError
        If it is a view, empty, has repeated names, or values that are not log-normalised.
    """
    check_cells(adata)
    if adata.is_view:
        raise ValueError("`adata` is a view of another AnnData. Pass a copy: `adata = adata.copy()`.")
    check_log_normalised(expression(adata, layer))


def check_log_normalised(matrix: Any) -> None:
    """Refuse values that are not log1p of normalised counts.

    Raises
    ------
    ValueError
        If values are no numbers, missing, negative, infinite, or whole numbers as counts are.
    """
    if matrix.dtype.kind not in "biuf":
        raise ValueError(f"The expression matrix holds values of type {matrix.dtype}; real numbers are expected.")
    only_zeros = only_whole = True
    for values in _values(matrix):
        if not np.isfinite(values).all():
            raise ValueError("The expression matrix holds NaN or infinite values. Remove or replace them first.")
        if (values < 0).any():
            raise ValueError(
                "The expression matrix holds negative values, as scaled data do. Log-normalised counts are expected: "
                "start from raw counts and call `unlasting.pp.prepare(adata)`."
            )
        only_zeros = only_zeros and not values.any()
        only_whole = only_whole and bool((values == np.round(values)).all())
    if only_zeros:
        raise ValueError("The expression matrix holds only zeros.")
    if only_whole:
        raise ValueError(
            "The expression matrix holds whole numbers only, as raw counts do. Log-normalised values are expected: "
            "call `unlasting.pp.prepare(adata)` first."
        )


def check_genes(adata: AnnData, var_names: Sequence[str]) -> None:
    """Refuse cells that are not measured on the genes of the model, in its order.

    Raises
    ------
    ValueError
        If genes are missing, or in another order.
    """
    if adata.n_vars == len(var_names) and np.array_equal(np.asarray(adata.var_names), np.asarray(var_names)):
        return
    missing = [name for name in var_names if name not in set(adata.var_names)]
    if missing:
        raise ValueError(
            f"{len(missing)} of the {len(var_names)} genes of the model are missing, {missing[0]!r} the first. "
            "Prepare the cells with the genes and the normalisation of the training data."
        )
    raise ValueError(
        "The genes are not those of the model in the same order. Pass `adata[:, model.get_var_names()].copy()`."
    )
