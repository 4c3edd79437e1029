"""Cells on disk: contiguous blocks in random order, several of which are mixed in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from anndata.abc import CSRDataset
from scipy import sparse
from torch.utils.data import Dataset

from unlasting.data._sampler import PassSampler

BLOCK: Final = 256
"""Neighbouring training cells that are read together: more are read faster, fewer are mixed better."""
CHUNK: Final = 16_384
"""Cells in memory, from which batches are drawn without replacement."""
_MAX_GAP: Final = 64
"""Rows between two cells that are read rather than skipped."""


@dataclass(frozen=True)
class Part:
    """Cells in a batch, as a part of the cells that are read together.

    Parameters
    ----------
    key
        Pass and number of the chunk.
    chunk
        Cells in the chunk, shape `(n_chunk,)`.
    place
        Place of the batch in the chunk.
    """

    key: tuple[int, int]
    chunk: np.ndarray
    place: slice


class BlockSampler(PassSampler):
    """Batches like those of :class:`PassSampler`, from blocks of neighbouring cells.

    In each pass, blocks have a new order, and cells have one within each chunk of blocks. Up to `CHUNK` cells have the order
    of :class:`PassSampler`.
    """

    def order(self, number: int) -> np.ndarray:
        """Get the order of the cells in a pass, shape `(n_cells,)`."""
        if self._n_cells <= self._chunk:
            return super().order(number)
        rng = np.random.default_rng((self._seed, number))
        blocks = rng.permutation(-(-self._n_cells // BLOCK))
        order = (blocks[:, None] * BLOCK + np.arange(BLOCK)).ravel()
        order = order[order < self._n_cells]
        for start in range(0, self._n_cells, self._chunk):
            rng.shuffle(order[start : start + self._chunk])
        return order

    def batch(self, order: np.ndarray, number: int, place: int) -> Part:
        """Get this process's part of a batch."""
        chunk, start = divmod(place * self._batch_size, self._chunk)
        rows = order[chunk * self._chunk : (chunk + 1) * self._chunk]
        share = slice(start + self._share.start, start + self._batch_size, self._share.step)
        return Part((number, chunk), rows, share)

    @property
    def _chunk(self) -> int:
        """Cells in a chunk: whole batches."""
        return max(1, CHUNK // self._batch_size) * self._batch_size


class BlockCells(Dataset):
    """Cells that are read in chunks, the last of which stays in memory.

    Parameters
    ----------
    expression
        Values on disk, sparse by rows or dense, shape `(n_cells, n_genes)`.
    codes
        Arrays in memory by name, one row for each cell.
    rows
        Rows of the cells in increasing order, shape `(n_chosen,)`.
    name
        Name of the expression in a batch.
    """

    def __init__(self, expression: Any, codes: Mapping[str, np.ndarray], rows: np.ndarray, name: str) -> None:
        self._expression = _SparseRows(expression) if isinstance(expression, CSRDataset) else expression
        self._codes, self._rows, self._name = codes, rows, name
        self._key: tuple[int, int] | None = None
        self._read: Any = None

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, part: Part) -> dict[str, np.ndarray]:
        if part.key != self._key:
            self._key, self._read = part.key, _read(self._expression, self._rows[part.chunk])
        rows, cells = self._rows[part.chunk[part.place]], self._read[part.place]
        cells = cells.toarray() if sparse.issparse(cells) else cells
        return {
            self._name: cells.astype(np.float32, copy=False),
            **{name: values[rows].astype(np.int64, copy=False) for name, values in self._codes.items()},
        }


def in_order(n_cells: int, batch_size: int) -> list[Part]:
    """Divide cells in their order into batches, which are read once and kept."""
    everything = np.arange(n_cells)
    return [Part((0, 0), everything, slice(at, at + batch_size)) for at in range(0, n_cells, batch_size)]


def _read(matrix: Any, rows: np.ndarray) -> Any:
    """Read rows in any order, by stretches of rows near each other."""
    ordered = np.sort(rows)
    parts = np.split(ordered, np.flatnonzero(np.diff(ordered) > _MAX_GAP) + 1)
    first, last = (np.array([part[end] for part in parts]) for end in (0, -1))
    read = [matrix[int(start) : int(stop) + 1] for start, stop in zip(first, last, strict=True)]
    stretch = np.searchsorted(first, rows, side="right") - 1
    place = rows - first[stretch] + (np.cumsum(last - first + 1) - (last - first + 1))[stretch]
    return (sparse.vstack(read, format="csr") if sparse.issparse(read[0]) else np.concatenate(read))[place]


class _SparseRows:
    """Stretches of rows in a sparse matrix on disk, of which anndata reads each with 10 ms of other work."""

    def __init__(self, dataset: Any) -> None:
        self._values, self._columns = dataset.group["data"], dataset.group["indices"]
        self._starts, self._n_columns = dataset.group["indptr"][:], dataset.shape[1]

    def __getitem__(self, rows: slice) -> sparse.csr_matrix:
        starts = self._starts[rows.start : rows.stop + 1]
        inside = slice(int(starts[0]), int(starts[-1]))
        parts = self._values[inside], self._columns[inside], starts - starts[0]
        return sparse.csr_matrix(parts, (len(starts) - 1, self._n_columns))
