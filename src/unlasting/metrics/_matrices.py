"""Input checks for all metrics, and iteration block by block."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from scipy import sparse

Matrix: TypeAlias = np.ndarray | sparse.sparray | sparse.spmatrix

BLOCK_VALUES = 2**21
"""Approximate number of values that are dense at a time."""


def as_matrix(values: Any, argument: str, *, min_cells: int = 1) -> Matrix:
    """Check a matrix with cells and get it as float32 or float64, dense or in CSR form."""
    matrix = as_real_matrix(values.tocsr() if sparse.issparse(values) else values, argument, min_cells=min_cells)
    require_finite(matrix, argument)
    return matrix


def as_real_matrix(values: Any, argument: str, *, min_cells: int = 1) -> Matrix:
    """Do so in any sparse form, without a look at the values."""
    matrix = values if sparse.issparse(values) else np.asarray(values)
    if matrix.dtype not in (np.float32, np.float64):
        if matrix.dtype.kind not in "biuf":
            raise TypeError(f"`{argument}` holds {matrix.dtype} values, but real numbers are needed.")
        matrix = matrix.astype(np.float32 if matrix.dtype == np.float16 else np.float64)
    if matrix.ndim != 2:
        raise ValueError(
            f"`{argument}` has {matrix.ndim} dimensions, but a matrix of cells and genes is needed. A single cell is "
            "a matrix with one row."
        )
    n_cells, n_genes = matrix.shape
    if n_cells < min_cells or n_genes < 1:
        raise ValueError(
            f"`{argument}` has the shape {(n_cells, n_genes)}, but at least {min_cells} "
            f"{'cell' if min_cells == 1 else 'cells'} and one gene are needed."
        )
    return matrix


def require_finite(matrix: Matrix, argument: str) -> None:
    """Refuse missing and infinite values.

    Raises
    ------
    ValueError
        If there are any.
    """
    stored = matrix.data if sparse.issparse(matrix) else matrix
    if not np.isfinite(stored).all():
        raise ValueError(f"`{argument}` holds missing or infinite values. Remove or correct these cells.")


def as_pair(predicted: Any, observed: Any, *, min_cells: int = 1) -> tuple[Matrix, Matrix]:
    """Check predicted and observed cells, and that both have the same genes."""
    first = as_matrix(predicted, "predicted", min_cells=min_cells)
    second = as_matrix(observed, "observed", min_cells=min_cells)
    check_genes(first.shape[1], second.shape[1], "predicted", "observed")
    return first, second


def check_genes(first: int, second: int, *arguments: str) -> None:
    """Refuse different numbers of genes.

    Raises
    ------
    ValueError
        If they differ.
    """
    if first != second:
        raise ValueError(
            f"`{arguments[0]}` has {first} genes and `{arguments[1]}` has {second}. Both need the same genes in the "
            "same order."
        )


def dense(block: Any) -> np.ndarray:
    """Get a matrix block as an array."""
    return block.toarray() if sparse.issparse(block) else block


def slices(n: int, width: int) -> list[slice]:
    """Cut a range into slices."""
    return [slice(start, min(start + width, n)) for start in range(0, n, width)]


def row_blocks(matrix: Matrix) -> Iterator[np.ndarray]:
    """Iterate over read-only dense blocks, shape `(n_block_cells, n_genes)`."""
    for rows in slices(matrix.shape[0], max(1, BLOCK_VALUES // matrix.shape[1])):
        yield dense(matrix[rows])


def by_gene(matrix: Any) -> Matrix:
    """Get a matrix with one row per gene, from which genes are taken quickly."""
    return matrix.T.tocsr() if sparse.issparse(matrix) else matrix.T


def gene_blocks(*matrices: Matrix) -> Iterator[tuple[slice, list[np.ndarray]]]:
    """Iterate over the genes in several matrices: dense copies, shape `(n_block_genes, n_cells)`."""
    turned = [by_gene(matrix) for matrix in matrices]
    n_cells = max(matrix.shape[1] for matrix in turned)
    for genes in slices(turned[0].shape[0], max(1, BLOCK_VALUES // n_cells)):
        yield genes, [dense(m[genes]) if sparse.issparse(m) else np.array(m[genes], order="C") for m in turned]


def mean_profile(values: Any, argument: str) -> np.ndarray:
    """Get the cells' mean profile, or check one that is given, in float64, shape `(n_genes,)`."""
    if not sparse.issparse(values) and np.ndim(values) == 1:
        values = np.asarray(values)[None, :]
    matrix = as_matrix(values, argument)
    if sparse.issparse(matrix):  # its own mean would add float32 up in float32
        return np.asarray(np.ones(matrix.shape[0]) @ matrix) / matrix.shape[0]
    return matrix.mean(axis=0, dtype=np.float64)
