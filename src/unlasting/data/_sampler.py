"""Order of the training cells."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch.utils.data import Sampler


class PassSampler(Sampler[Any]):
    """Batches from one pass over the cells after another, in a new order in every pass.

    An epoch has `n_batches`, a part of a pass or several; the next epoch continues where it ends. The order depends on seed
    and epoch alone, so that a resumed training gets the same batches.

    Parameters
    ----------
    n_cells
        Number of training cells.
    batch_size
        Cells in a step, over all processes.
    n_batches
        Steps in an epoch; those in a pass by default.
    seed
        Seed for the order.
    rank, n_processes
        This process, and the number of processes that share each batch.
    """

    def __init__(
        self,
        n_cells: int,
        batch_size: int,
        n_batches: int | None = None,
        *,
        seed: int = 0,
        rank: int = 0,
        n_processes: int = 1,
    ) -> None:
        self._n_cells = n_cells
        self._batch_size = min(batch_size, n_cells)
        self._n_batches = n_batches or n_cells // self._batch_size
        self._seed = seed
        self._share = slice(rank, None, n_processes)
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._n_batches

    def __iter__(self) -> Iterator[Any]:
        in_pass, order, ordered = self._n_cells // self._batch_size, np.arange(0), -1
        for step in range(self._epoch * self._n_batches, (self._epoch + 1) * self._n_batches):
            number, place = divmod(step, in_pass)
            if number != ordered:
                order, ordered = self.order(number), number
            yield self.batch(order, number, place)

    def order(self, number: int) -> np.ndarray:
        """Get the order of the cells in a pass, shape `(n_cells,)`."""
        return np.random.default_rng((self._seed, number)).permutation(self._n_cells)

    def batch(self, order: np.ndarray, number: int, place: int) -> Any:
        """Get this process's part of a batch, by its place in a pass."""
        return order[place * self._batch_size : (place + 1) * self._batch_size][self._share]
