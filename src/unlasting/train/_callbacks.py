"""Callbacks of a training: history, best weights, checkpoints and progress bars."""

from __future__ import annotations

import copy
import os
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, ProgressBar
from torch import Tensor
from tqdm.auto import tqdm

from unlasting._files import replacing
from unlasting.screen import duration, logger


class History(Callback):
    """Record logged values by training step, whatever logger a user gives.

    Values whose name contains `validation` are recorded after each validation, all others after each epoch.
    """

    def __init__(self) -> None:
        self.values: dict[str, dict[int, float]] = {}

    def _record(self, trainer: pl.Trainer, pl_module: Any, *, validation: bool) -> None:
        for name, value in trainer.callback_metrics.items():
            if name.startswith(pl_module.prefix) and ("validation" in name) == validation:
                self.values.setdefault(name, {})[trainer.global_step] = float(value)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Record training losses."""
        self._record(trainer, pl_module, validation=False)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Record validation scores."""
        self._record(trainer, pl_module, validation=True)


class KeepBest(Callback):
    """Keep the averaged weights with the best validation score."""

    def __init__(self) -> None:
        self.best = float("inf")
        self.best_step = 0
        self.seen_step = 0
        self._weights: dict[str, Tensor] | None = None

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Copy the weights if they are the best so far."""
        self.seen_step = trainer.global_step
        score = trainer.callback_metrics.get(pl_module.validation_score)
        if score is not None and float(score) < self.best:
            self.best, self.best_step = float(score), trainer.global_step
            self._weights = copy.deepcopy(pl_module.module.averaged[pl_module.network].state_dict())

    def restore(self, plan: Any) -> None:
        """Put the best weights back, if any."""
        if self._weights is not None:
            plan.module.averaged[plan.network].load_state_dict(self._weights)

    def state_dict(self) -> dict[str, Any]:
        """Get the entries for a checkpoint."""
        return {"best": self.best, "best_step": self.best_step, "seen_step": self.seen_step, "weights": self._weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume from a checkpoint."""
        self.best, self.best_step, self.seen_step = (state_dict[name] for name in ("best", "best_step", "seen_step"))
        self._weights = state_dict["weights"]


class Checkpoint(Callback):
    """Write a training's whole state to a file, with the random numbers that Lightning leaves out.

    Each checkpoint replaces the file as a whole. `description` holds network, options and cells, to compare when the
    training resumes.
    """

    def __init__(self, path: str | os.PathLike[str], description: dict[str, Any]) -> None:
        self._path = Path(path)
        self._description = description
        self._stopped = False

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the file."""
        # Lightning moves a temporary file, which is no atomic step across disks. All processes have to call it, and the
        # first one writes.
        with replacing(self._path) if trainer.is_global_zero else nullcontext(self._path) as file:
            trainer.save_checkpoint(file, weights_only=False)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the description, random states and the state of early stopping."""
        checkpoint["unlasting"] = self._description
        checkpoint["stopped"] = trainer.should_stop
        checkpoint["random_state"] = torch.get_rng_state()
        checkpoint["random_state_cuda"] = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Restore the random states."""
        self._stopped = checkpoint["stopped"]
        torch.set_rng_state(checkpoint["random_state"].cpu())
        if len(checkpoint["random_state_cuda"]) == torch.cuda.device_count() > 0:
            torch.cuda.set_rng_state_all([state.cpu() for state in checkpoint["random_state_cuda"]])

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop if early stopping had ended this training."""
        trainer.should_stop = trainer.should_stop or self._stopped


class Forecast(Callback):
    """Log a network's number of steps, with the time that they take if it exceeds a minute.

    The time is that of the second step: the first one prepares tables and kernels.
    """

    def __init__(self, name: str, n_train: int) -> None:
        self._name = name
        self._n_train = n_train
        self._n_seen = 0
        self._start = 0.0

    def on_train_batch_start(self, *args: Any) -> None:
        """Start the clock."""
        self._start = time.perf_counter()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *args: Any) -> None:
        """Log after the second step, or after the only one."""
        self._n_seen += 1
        left = pl_module.max_steps - trainer.global_step
        if self._n_seen != 2 and not (self._n_seen == 1 and left <= 0):
            return
        seconds = left * (time.perf_counter() - self._start)
        steps, n_cells = pl_module.max_steps, min(pl_module.training_options.batch_size, self._n_train)
        logger.info(
            "Training the %s for at most %d steps of %d cells (%.2g passes)%s.",
            self._name,
            steps,
            n_cells,
            steps * n_cells / self._n_train,
            f", about {duration(seconds)}" if seconds > 60 else "",
        )


class NetworkProgressBar(ProgressBar):
    """A bar over training steps, with the last loss and validation score."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._description = f"Training the {name}"
        self._disabled = False
        self._bar: tqdm | None = None

    def disable(self) -> None:
        """Show nothing: Lightning calls it in all processes but the first."""
        self._disabled = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the bar."""
        self._bar = tqdm(total=pl_module.max_steps, desc=self._description, unit="step", disable=self._disabled or None)

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """Advance by a step."""
        if self._bar is not None:
            self._bar.update(trainer.global_step - self._bar.n)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show logged values."""
        if self._bar is not None:
            self._bar.set_postfix({k: f"{v:.4f}" for k, v in trainer.progress_bar_metrics.items()})

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Close the bar, also after an interruption."""
        if self._bar is not None:
            self._bar.close()
