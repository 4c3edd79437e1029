"""Checks of arguments and AnnData, each defined once."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from unlasting.screen._perturbation import nearest_name

if TYPE_CHECKING:
    from anndata import AnnData

_BLOCK = 8_192
_LARGEST_LOG = 15.0
"""Above every logarithm of normalised counts: `log1p` of a million is 13.8."""


class MissingKeyError(KeyError):
    """A `KeyError` that shows its message as it is written, without quotes."""

    __str__ = Exception.__str__


def not_none(**arguments: Any) -> dict[str, Any]:
    """Keep the optional arguments that are not `None`."""
    return {name: value for name, value in arguments.items() if value is not None}


def require_integers(minimum: int, **arguments: object) -> None:
    """Refuse arguments that are not integers from `minimum` on."""
    for name, value in arguments.items():
        if not isinstance(value, Integral) or isinstance(value, bool) or int(value) < minimum:
            raise ValueError(f"`{name}` is {value!r}; a whole number of at least {minimum} is needed.")


def require_numbers(**arguments: object) -> None:
    """Refuse arguments that are not finite numbers."""
    for name, value in arguments.items():
        if not isinstance(value, Real) or isinstance(value, bool) or not math.isfinite(value):
            raise ValueError(f"`{name}` is {value!r}; a number is needed.")


def require_switches(**arguments: object) -> None:
    """Refuse arguments that are neither `True` nor `False`."""
    for name, value in arguments.items():
        if not isinstance(value, bool):
            raise ValueError(f"`{name}` is {value!r}; choose `True` or `False`.")


def require_choices(choices: Collection[str], **arguments: object) -> None:
    """Refuse arguments that are not among the choices, and suggest the nearest."""
    for name, value in arguments.items():
        if value not in choices:
            raise ValueError(f"`{name}` is {value!r}; choose one of {list(choices)}.{nearest_name(value, choices)}")


def require_column(adata: AnnData, column: str, argument: str) -> None:
    """Refuse a column that `obs` lacks."""
    if column not in adata.obs:
        raise MissingKeyError(
            f"`{argument}` is {column!r}, but `adata.obs` has no such column (it has {list(map(str, adata.obs))})."
            f"{nearest_name(column, map(str, adata.obs))}"
        )


def check_cells(adata: AnnData, argument: str = "adata", *, writable: bool = False) -> None:
    """Refuse an object without cells, or with repeated cell or gene names; a view too if it is to be `writable`."""
    from anndata import AnnData  # takes a second, which the names of options need not wait for

    if not isinstance(adata, AnnData):
        raise TypeError(f"`{argument}` must be an AnnData, not {type(adata).__name__}.")
    if adata.n_obs == 0 or adata.n_vars == 0:
        raise ValueError(f"`{argument}` is empty: {adata.n_obs} cells x {adata.n_vars} genes.")
    if writable and adata.is_view:
        copied = 'copy("part.h5ad")' if adata.isbacked else "copy()"
        raise ValueError(f"`{argument}` is a view of another AnnData. Pass a copy: `{argument} = {argument}.{copied}`.")
    for axis, names, table in (("gene", adata.var_names, "var"), ("cell", adata.obs_names, "obs")):
        if not names.is_unique:
            repeated = names[names.duplicated()][0]
            raise ValueError(
                f"The {axis} name {repeated!r} is repeated. Call `{argument}.{table}_names_make_unique()`."
            )


def check_genes(adata: AnnData, var_names: Sequence[str]) -> None:
    """Refuse cells without the model's genes, or with these in another order."""
    if adata.n_vars == len(var_names) and np.array_equal(np.asarray(adata.var_names), np.asarray(var_names)):
        return
    missing = [name for name in var_names if name not in set(adata.var_names)]
    if missing:
        raise ValueError(
            f"{len(missing)} of the {len(var_names)} genes of the model are missing, {missing[0]!r} the first. "
            "Pass the raw counts of all measured genes to `model.prepare(adata)`; add genes that were measured and never "
            "detected as zeros. If they were not measured, train on the genes in common: `pp.prepare(adata, genes=...)`."
        )
    raise ValueError(
        "The genes are not those of the model in the same order. Pass `adata[:, model.get_var_names()].copy()`."
    )


def is_in_memory(matrix: Any) -> bool:
    """Whether a matrix is neither on disk nor still to be computed."""
    return matrix is None or isinstance(matrix, np.ndarray) or sparse.issparse(matrix)


def to_memory(adata: AnnData) -> AnnData:
    """Copy cells to memory, from a file too."""
    return adata.copy() if is_in_memory(adata.X) and not adata.isbacked else adata.to_memory()


def expression(adata: AnnData, layer: str | None = None, *, in_memory: bool = False) -> Any:
    """Get a real matrix, shape `(n_cells, n_genes)`: a layer or `X`; refuse one on disk with `in_memory`."""
    if layer is not None and layer not in adata.layers:
        layers = [name for name in adata.layers if name is not None]  # anndata 0.13 lists X as None
        raise MissingKeyError(
            f"`layer` is {layer!r}, but `adata.layers` has only {layers}.{nearest_name(layer, layers)}"
        )
    matrix = adata.X if layer is None else adata.layers[layer]
    if matrix is None:
        raise ValueError("`adata.X` is empty; expression is expected there. Fill it, or name a `layer`.")
    if in_memory and (adata.isbacked or not is_in_memory(matrix)):
        raise ValueError("`adata` is backed by a file. Read it into memory first: `adata = adata.to_memory()`.")
    if matrix.dtype.kind not in "biuf":
        raise ValueError(
            f"The expression contains values of type {matrix.dtype}; real numbers are expected. Convert them, for example "
            "with `adata.X = adata.X.astype('float32')`."
        )
    return matrix


def use_one_index_width(matrix: Any) -> None:
    """Give the two index arrays in a sparse matrix one type, in place: scipy copies the longer one in each access otherwise."""
    if getattr(matrix, "format", None) in ("csr", "csc") and is_in_memory(matrix):
        kind = np.int32 if max(matrix.nnz, *matrix.shape) <= np.iinfo(np.int32).max else np.int64
        if matrix.indices.dtype != matrix.indptr.dtype:
            matrix.indices, matrix.indptr = (part.astype(kind, copy=False) for part in (matrix.indices, matrix.indptr))


def check_log_normalised(matrix: Any, origin: str = "The expression matrix") -> None:
    """Refuse values other than log-transformed normalised counts; a matrix on disk is read in blocks."""
    only_zeros = only_integers = True
    largest = 0.0
    for values in _values(matrix):
        _require_finite(values, origin)
        if (values < 0).any():
            raise ValueError(
                f"{origin} contains negative values, like scaled data. Log-normalised values are needed: call "
                "`unlasting.pp.prepare(adata)` on raw counts."
            )
        largest = max(largest, float(values.max(initial=0.0)))
        only_zeros = only_zeros and not values.any()
        only_integers = only_integers and bool((values == np.rint(values)).all())
    if only_zeros:
        raise ValueError(f"{origin} contains only zeros. Log-normalised values are needed.")
    if only_integers:
        raise ValueError(
            f"{origin} contains whole numbers only, like raw counts. Log-normalised values are needed: call "
            "`unlasting.pp.prepare(adata)` first."
        )
    if largest > _LARGEST_LOG:
        raise ValueError(
            f"{origin} contains values up to {largest:.6g}, like normalised values without a logarithm. Log-normalised values "
            "are needed: call `unlasting.pp.prepare(adata)` on raw counts, or take the logarithm: `np.log1p(X)`."
        )


def integer_counts(adata: AnnData) -> sparse.csr_matrix:
    """Get the raw counts in `X`, shape `(n_cells, n_genes)`, float32."""
    matrix = expression(adata, in_memory=True)
    # scipy has no sparse matrix of half precision
    counts = sparse.csr_matrix(matrix.astype(np.float32) if matrix.dtype == np.float16 else matrix)
    values = counts.data
    _require_finite(values, "`adata.X`")
    if values.size and values.min() < 0:
        raise ValueError(
            f"`adata.X` contains negative values (the smallest is {values.min():g}), like scaled data. "
            "Raw counts are needed: put them into `adata.X`."
        )
    fractional = values[values != np.rint(values)]
    if fractional.size:
        if values.max() > _LARGEST_LOG and not _has_one_total(counts):
            fix = (
                "like counts after the removal of ambient RNA. Raw counts are needed: round them, `adata.X.data = np.rint(adata.X.data)`, or "
                "`adata.X = np.rint(adata.X)` for a dense matrix."
            )
        else:
            fix = (
                "like normalised or log-transformed data. Raw counts are needed: put them back, for example with "
                "`adata.X = adata.layers['counts'].copy()`. Without raw counts, leave out `pp.prepare` if the values are "
                "log-normalised, and round them (`np.rint`) if they are counts after the removal of ambient RNA."
            )
        raise ValueError(f"`adata.X` contains fractions (such as {fractional[0]:g}), {fix}")
    counts = counts.astype(np.float32)
    counts.sum_duplicates()
    counts.eliminate_zeros()
    return counts


def _has_one_total(matrix: sparse.csr_matrix) -> bool:
    """Whether all cells have the same sum, as after normalisation."""
    totals = np.asarray(matrix.sum(axis=1, dtype=np.float64)).ravel()
    return float(np.ptp(totals)) < 1e-3 * max(float(totals.max(initial=0.0)), 1.0)


def _values(matrix: Any) -> Iterator[np.ndarray]:
    """Get the stored values, in blocks if they are not in memory in one piece."""
    if sparse.issparse(matrix):
        yield matrix.data
        return
    for start in range(0, matrix.shape[0], _BLOCK):
        rows = matrix[start : start + _BLOCK]
        yield np.asarray(rows.data if sparse.issparse(rows) else rows).ravel()


def _require_finite(values: np.ndarray, origin: str) -> None:
    """Refuse missing and infinite values."""
    n_bad = values.size - int(np.isfinite(values).sum())
    if n_bad:
        raise ValueError(f"{origin} contains {n_bad} NaN or infinite values. Remove or replace them first.")
