"""Values other than zero of each gene in order, and the earth mover's distance between them."""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import numpy as np
from scipy import sparse

from unlasting._numba import compiled
from unlasting.metrics import _matrices
from unlasting.metrics._matrices import Matrix, slices

_GENES: Final = 128, 2048
"""Genes whose values are gathered in one pass over dense cells, at least and at most."""

_FEW_CELLS: Final = 750
_FEW_ZEROS: Final = 0.2
"""Below these, sorting zeros as well takes less time than leaving them out."""


class SortedValues(NamedTuple):
    """The sorted values of gene `g` are `values[first[g] : last[g]]`; its other values are zero."""

    values: np.ndarray
    first: np.ndarray
    last: np.ndarray


def earth_movers_distances(x: Matrix, y: Matrix) -> np.ndarray:
    """Compute the distance of each gene, shape `(n_genes,)`; sparse cells may have any form."""
    found, dtype, n_cells = np.empty(x.shape[1]), np.result_type(x.dtype, y.dtype), max(x.shape[0], y.shape[0])
    n_genes = len(found)
    if not (sparse.issparse(x) and sparse.issparse(y)):
        at_most = min(max(4 * _matrices.BLOCK_VALUES // n_cells, _GENES[0]), _GENES[1])
        n_genes = math.ceil(n_genes / math.ceil(n_genes / at_most))
    # fresh memory for each block would cost as much time as the gathering
    memory = [np.empty(n_genes * (cells.shape[0] + 1), dtype) if _has_zeros(cells) else None for cells in (x, y)]
    for genes in slices(len(found), n_genes):
        a, b = (_sorted(cells, genes, dtype, block) for cells, block in zip((x, y), memory, strict=True))
        _distances(*a, x.shape[0], *b, y.shape[0], found[genes])
    return found


def _sorted(cells: Matrix, genes: slice, dtype: Any, memory: np.ndarray | None) -> SortedValues:
    if sparse.issparse(cells):
        found = _of_sparse(cells, genes, dtype)
    elif memory is not None:
        found = _of_dense(cells, genes, memory)
    else:
        block = np.array(cells[:, genes].T, order="C", dtype=dtype)
        block.sort(axis=1)
        first = np.arange(len(block)) * len(cells)
        return SortedValues(block.ravel(), first, first + len(cells))
    values, first, last = found
    for start, stop in zip(first.tolist(), last.tolist(), strict=True):
        values[start:stop].sort()
    return found


def _has_zeros(cells: Matrix) -> bool:
    """Whether zeros of dense cells are worth leaving out, from a few of the cells."""
    if sparse.issparse(cells) or len(cells) < _FEW_CELLS:
        return False
    sample = cells[:: len(cells) // 32]
    return bool(np.count_nonzero(sample) <= (1 - _FEW_ZEROS) * sample.size)


def _of_dense(cells: np.ndarray, genes: slice, memory: np.ndarray) -> SortedValues:
    n_genes = genes.stop - genes.start
    if not cells.flags.c_contiguous:
        cells, genes = np.ascontiguousarray(cells[:, genes]), slice(0, n_genes)
    first = np.arange(n_genes) * (len(cells) + 1)
    last = first.copy()
    _gather(cells, genes.start, memory, last)
    return SortedValues(memory, first, last)


def _of_sparse(cells: Any, genes: slice, dtype: Any) -> SortedValues:
    cells = cells if cells.format in ("csr", "csc") else cells.tocsr()
    if genes.stop - genes.start < cells.shape[1]:
        cells = cells[:, genes]
    if not cells.has_canonical_format:  # entries of one place add up
        cells = cells.copy()
        cells.sum_duplicates()
    if cells.format == "csc":
        return SortedValues(cells.data.astype(dtype), cells.indptr[:-1], cells.indptr[1:])
    first = np.concatenate([[0], np.cumsum(np.bincount(cells.indices, minlength=cells.shape[1]))[:-1]])
    last, values = first.copy(), np.empty(cells.nnz, dtype=dtype)
    _scatter(cells.data, cells.indices, values, last)
    return SortedValues(values, first, last)


@compiled
def _gather(cells: np.ndarray, first_gene: int, values: np.ndarray, last: np.ndarray) -> None:
    """Append the values of each row other than zero to those of their genes, of which `last` counts the places."""
    n_genes = len(last)
    places = np.empty(n_genes + 1, np.int32)
    for row in range(len(cells)):
        cell, n_found = cells[row, first_gene : first_gene + n_genes], 0
        for gene in range(n_genes):
            places[n_found] = gene
            n_found += cell[gene] != 0  # no branch that a processor would have to guess
        for i in range(n_found):
            gene = places[i]
            values[last[gene]] = cell[gene]
            last[gene] += 1


@compiled
def _scatter(stored: np.ndarray, genes: np.ndarray, values: np.ndarray, last: np.ndarray) -> None:
    """Append stored values to those of their genes, of which `last` counts the places."""
    for i in range(len(stored)):
        gene = genes[i]
        values[last[gene]] = stored[i]
        last[gene] += 1


@compiled
def _distances(
    x: np.ndarray,
    x_first: np.ndarray,
    x_last: np.ndarray,
    n: int,
    y: np.ndarray,
    y_first: np.ndarray,
    y_last: np.ndarray,
    m: int,
    found: np.ndarray,
) -> None:
    """Write each gene's distance between `n` and `m` cells, from their sorted values."""
    for gene in range(len(found)):
        a, b = x[x_first[gene] : x_last[gene]], y[y_first[gene] : y_last[gene]]
        total, n_a, n_b = 0.0, len(a), len(b)
        if n == m and (n_a == 0 or a[0] >= 0) and (n_b == 0 or b[0] >= 0):
            n_both = min(n_a, n_b)  # the largest values of both; those below are compared with zeros
            for i in range(n_both):
                total += abs(np.float64(a[n_a - n_both + i]) - np.float64(b[n_b - n_both + i]))
            for i in range(n_a - n_both):
                total += a[i]
            for i in range(n_b - n_both):
                total += b[i]
            found[gene] = total / n
            continue
        # Both quantile functions are steps, of which each value's is 1 / n or 1 / m wide, and that of all zeros wider. In
        # units of 1 / (n m), all ends are whole numbers.
        start_a, start_b = np.searchsorted(a, 0) * m, np.searchsorted(b, 0) * n  # where the zeros start
        zeros_a, zeros_b = (n - n_a) * m, (m - n_b) * n
        value_a, value_b = 0.0, 0.0
        i, j, at, end_a, end_b = 0, 0, 0, 0, 0
        while at < n * m:
            if end_a == at:
                if at == start_a and zeros_a > 0:
                    value_a, end_a, zeros_a = 0.0, at + zeros_a, 0
                else:
                    value_a, end_a, i = np.float64(a[i]), at + m, i + 1
            if end_b == at:
                if at == start_b and zeros_b > 0:
                    value_b, end_b, zeros_b = 0.0, at + zeros_b, 0
                else:
                    value_b, end_b, j = np.float64(b[j]), at + n, j + 1
            end = min(end_a, end_b)
            total += abs(value_a - value_b) * (end - at)
            at = end
        found[gene] = total / (n * m)
