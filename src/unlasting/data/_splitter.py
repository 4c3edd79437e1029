"""How the cells of a screen are dealt out for training."""

from __future__ import annotations

import numpy as np
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager
from scvi.dataloaders import AnnDataLoader, DataSplitter

from unlasting.data._fields import PERTURBATION, POPULATION


class CellSplitter(DataSplitter):
    """Deal the training cells out in steps, of which each process takes its share.

    Every process scores all validation cells: the score is then that of a single process, whatever their number.

    Parameters
    ----------
    adata_manager
        The screen.
    parts
        Rows of the training, validation and test cells.
    batch_size
        Cells in a step, over all processes.
    n_processes
        The number of processes that train together.
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
        """Get the training cells of this process, in another order in every epoch."""
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
