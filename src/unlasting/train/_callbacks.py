"""Callbacks of training."""

from __future__ import annotations

import copy
import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, ProgressBar
from torch import Tensor
from tqdm.auto import tqdm

from unlasting._files import replacing


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

    def state_dict(self) -> dict[str, Any]:
        """Get what a checkpoint holds of it."""
        return {"best": self.best, "best_step": self.best_step, "seen_step": self.seen_step, "weights": self._weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.best, self.best_step, self.seen_step = (state_dict[name] for name in ("best", "best_step", "seen_step"))
        self._weights = state_dict["weights"]


class Checkpoint(Callback):
    """Write the whole state of a training to a file, and take up what Lightning leaves out of it.

    Parameters
    ----------
    path
        The file, which is replaced as a whole.
    description
        What the training is, to be compared by who goes on with it.
    every_n_epochs
        How often it is written.
    """

    def __init__(self, path: str | os.PathLike[str], description: dict[str, Any], every_n_epochs: int) -> None:
        self._path = Path(path)
        self._description = description
        self._every_n_epochs = every_n_epochs
        self._stopped = False

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write."""
        if trainer.should_stop or (trainer.current_epoch + 1) % self._every_n_epochs == 0:
            # Lightning moves files from the folder of temporary ones, which is a copy where that is another disk. All
            # processes have to call it, and the first one writes.
            with replacing(self._path) if trainer.is_global_zero else nullcontext(self._path) as file:
                trainer.save_checkpoint(file, weights_only=False)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the description, the state of random numbers and whether early stopping has come."""
        checkpoint["unlasting"] = self._description
        checkpoint["stopped"] = trainer.should_stop
        checkpoint["random_state"] = torch.get_rng_state()
        checkpoint["random_state_cuda"] = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Go on with the random numbers of the checkpoint."""
        self._stopped = checkpoint["stopped"]
        torch.set_rng_state(checkpoint["random_state"].cpu())
        if len(checkpoint["random_state_cuda"]) == torch.cuda.device_count() > 0:
            torch.cuda.set_rng_state_all([state.cpu() for state in checkpoint["random_state_cuda"]])

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Train no further if early stopping had come."""
        trainer.should_stop = trainer.should_stop or self._stopped


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
        self._bar = tqdm(total=pl_module.max_steps, desc=self._description, unit="step", disable=self._disabled)

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
