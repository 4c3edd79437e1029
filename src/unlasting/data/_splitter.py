"""Batches of training and validation cells."""

from __future__ import annotations

from typing import Any

import numpy as np
from scvi import REGISTRY_KEYS, settings
from scvi.data import AnnDataManager
from scvi.dataloaders import DataSplitter
from torch.utils.data import DataLoader

from unlasting.data._blocks import BlockCells, BlockSampler, in_order
from unlasting.data._fields import PERTURBATION, POPULATION
from unlasting.data._sampler import PassSampler
from unlasting.screen import is_in_memory


class CellSplitter(DataSplitter):
    """Divide training cells into steps, and each step among processes.

    Where the trainer limits the steps in an epoch, the next epoch continues the pass over the cells. `seed` sets their
    order. Every process scores all validation cells, and so the score does not depend on the number of processes. Cells on disk
    are read in blocks of neighbours that are mixed in memory, and validation cells once.

    Parameters
    ----------
    adata_manager
        The screen.
    parts
        Rows for training, validation and test.
    batch_size
        Cells in a step, over all processes.
    n_processes
        Number of processes that train together.
    """

    def __init__(
        self, adata_manager: AnnDataManager, parts: list[np.ndarray], batch_size: int, n_processes: int = 1
    ) -> None:
        n_train = len(parts[0])
        self.seed = 0
        super().__init__(
            adata_manager,
            external_indexing=parts,
            batch_size=min(batch_size, n_train),
            drop_last=n_train >= batch_size,
            data_and_attributes={REGISTRY_KEYS.X_KEY: np.float32, PERTURBATION: np.int64, POPULATION: np.int64},
        )
        self._n_processes = n_processes

    def train_dataloader(self) -> DataLoader:
        """Get this process's training cells, in another order in every pass."""
        options = dict(self.data_loader_kwargs)
        limit = self.trainer.limit_train_batches if self.trainer is not None else None
        on_disk = self._on_disk()
        sampler = (PassSampler if on_disk is None else BlockSampler)(
            len(self.train_idx),
            options.pop("batch_size"),
            limit if isinstance(limit, int) else None,
            seed=self.seed,
            rank=self.trainer.global_rank if self.trainer is not None else 0,
            n_processes=self._n_processes,
        )
        attributes = options.pop("data_and_attributes")
        if on_disk is None:
            cells = self.adata_manager.create_torch_dataset(indices=self.train_idx, data_and_attributes=attributes)
        else:
            cells = BlockCells(*on_disk, self.train_idx, REGISTRY_KEYS.X_KEY)
        if on_disk is None:  # an open file reaches no other process, and each would read all blocks
            options.setdefault("num_workers", settings.dl_num_workers)
            options.setdefault("persistent_workers", settings.dl_persistent_workers)
        return DataLoader(cells, sampler=sampler, batch_size=None, **options)  # the sampler gives whole batches

    def val_dataloader(self) -> DataLoader | None:
        """Get all validation cells, in their order."""
        on_disk = self._on_disk()
        if on_disk is None or not len(self.val_idx):
            return super().val_dataloader()
        batches = in_order(len(self.val_idx), self.data_loader_kwargs["batch_size"])
        return DataLoader(
            BlockCells(*on_disk, np.sort(self.val_idx), REGISTRY_KEYS.X_KEY), sampler=batches, batch_size=None
        )

    def _on_disk(self) -> tuple[Any, dict[str, np.ndarray]] | None:
        """Get expression on disk, beside the codes in memory; `None` for one in memory."""
        expression = self.adata_manager.get_from_registry(REGISTRY_KEYS.X_KEY)
        if is_in_memory(expression):
            return None
        return expression, {
            name: np.asarray(self.adata_manager.get_from_registry(name)) for name in (PERTURBATION, POPULATION)
        }
