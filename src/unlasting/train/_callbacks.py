"""Callbacks of training."""

from __future__ import annotations

import copy
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from unlasting._compat import ProgressBar


class KeepBest(Callback):
    """Put the averaged weights with the best validation score back at the end, also after an interruption."""

    def __init__(self) -> None:
        self.best = float("inf")
        self.best_step = 0
        self.seen_step = 0
        self._weights: dict[str, Tensor] | None = None

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Remember the weights if they are the best so far."""
        self.seen_step = trainer.global_step
        score = trainer.callback_metrics.get(pl_module.validation_score)
        if score is not None and float(score) < self.best:
            self.best, self.best_step = float(score), trainer.global_step
            self._weights = copy.deepcopy(pl_module.module.averaged[pl_module.network].state_dict())

    def restore(self, plan: Any) -> None:
        """Put the best weights back, if there are any."""
        if self._weights is not None:
            plan.module.averaged[plan.network].load_state_dict(self._weights)


class NetworkProgressBar(ProgressBar):
    """The progress bar of scvi-tools, with the name of the network that is trained."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say what is trained."""
        super().on_train_epoch_start(trainer, pl_module)
        self.main_progress_bar.set_description(f"Training the {self._name}")
