"""Callbacks of training."""

from __future__ import annotations

import copy
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, ProgressBar
from torch import Tensor
from tqdm.auto import tqdm


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
    """A bar over the training steps of a network, with its last loss and validation score."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._description = f"Training the {name}"
        self._disabled = False
        self._bar: tqdm | None = None

    def disable(self) -> None:
        """Show nothing, as Lightning asks of all processes but the first."""
        self._disabled = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin."""
        self._bar = tqdm(total=trainer.max_steps, desc=self._description, unit="step", disable=self._disabled)

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """Go on by a step."""
        if self._bar is not None:
            self._bar.update(trainer.global_step - self._bar.n)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show what was logged."""
        if self._bar is not None:
            self._bar.set_postfix({k: f"{v:.4f}" for k, v in trainer.progress_bar_metrics.items()})

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """End, also after an interruption."""
        if self._bar is not None:
            self._bar.close()
