"""Batches of training and validation cells."""

from __future__ import annotations

import numpy as np
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager
from scvi.dataloaders import AnnDataLoader, DataSplitter

from unlasting.data._fields import PERTURBATION, POPULATION


class CellSplitter(DataSplitter):
    """Divide training cells into steps, and each step among processes.

    Every process scores all validation cells, and so the score does not depend on the number of processes.

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
        super().__init__(
            adata_manager,
            external_indexing=parts,
            batch_size=min(batch_size, n_train),
            drop_last=n_train >= batch_size,
            data_and_attributes={REGISTRY_KEYS.X_KEY: np.float32, PERTURBATION: np.int64, POPULATION: np.int64},
        )
        self._n_processes = n_processes

    def train_dataloader(self) -> AnnDataLoader:
        """Get this process's training cells, in another order in every epoch."""
        options = dict(self.data_loader_kwargs)
        options["batch_size"] = max(1, options["batch_size"] // self._n_processes)
        return AnnDataLoader(
            self.adata_manager,
            indices=self.train_idx,
            shuffle=True,
            drop_last=self.drop_last,
            distributed_sampler=self._n_processes > 1,
            **options,
        )
