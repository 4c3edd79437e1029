"""Training of a model's two networks."""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import signal
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pandas as pd
from lightning.pytorch.callbacks import EarlyStopping
from scvi import settings
from scvi.train import Trainer

from unlasting._compat import SimpleLogger, parse_device_args
from unlasting.data import SPLIT, CellSplitter
from unlasting.model._base import ModelBase
from unlasting.model._resuming import check_checkpoint, read_checkpoint
from unlasting.module import NetworkName, NetworkTraining
from unlasting.screen import SPLITS, logger, not_none, require_integers, require_numbers
from unlasting.train import Checkpoint, KeepBest, NetworkPlan, NetworkProgressBar

_VALIDATIONS = 25
"""How often a network is validated on its way to `max_steps`."""


class TrainingMixin(ModelBase):
    """`train`, for both networks."""

    def train(
        self,
        max_steps: int | None = None,
        *,
        max_epochs: int | None = None,
        batch_size: int | None = None,
        lr: float | None = None,
        early_stopping: bool = True,
        early_stopping_patience: int = 6,
        accelerator: str = "auto",
        devices: int | Sequence[int] | str = "auto",
        seed: int | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        resume: str | os.PathLike[str] | None = None,
        show_progress: bool = True,
        **trainer_kwargs: Any,
    ) -> None:
        """Train the denoiser, then the mask network.

        Both are validated at regular steps on the cells labelled `val`; the averaged weights with the best validation
        score are kept. An interruption (Ctrl-C) keeps what was learnt. Training a trained model again goes on
        from its weights.

        Parameters
        ----------
        max_steps
            Training steps of the denoiser at most, over which the learning rate falls to zero; the mask network takes
            a share. By default as the preset says. Early stopping may end before.
        max_epochs
            The same as passes over the training cells. Give one of the two.
        batch_size
            Cells in a step, for the denoiser.
        lr
            Learning rate of the denoiser at the start.
        early_stopping
            Whether a network stops when its validation score has not improved for a while.
        early_stopping_patience
            For how many validations (25 fit in `max_steps`) the score may stand still.
        accelerator, devices
            Where to train, as for every scvi-tools model.
        seed
            Seed of weights' updates and order of cells; `scvi.settings.seed` by default. The same seed gives the same
            model on the CPU.
        checkpoint
            A file to which the state of the training is written at regular steps, in case the process is killed. It
            replaces the file of the steps before.
        resume
            Such a file, from which the training goes on as if nothing had happened: optimiser, learning rate, averages and
            random numbers are those of the checkpoint. The model and all arguments have to be as they were. It is
            written further, unless `checkpoint` names another. The history begins at the checkpoint.
        show_progress
            Whether a progress bar is shown for each network.
        **trainer_kwargs
            For :class:`scvi.train.Trainer`, such as `precision="bf16-mixed"`, further `callbacks`, or `strategy="ddp"`
            for several `devices`: a script is then run once for each, and every step is shared among them.

        Returns
        -------
        `None`. Updates the following fields:

        - `history`: losses and validation scores of both networks.
        - `is_trained`: `True`.

        Raises
        ------
        ValueError
            If a number is out of its range, both `max_steps` and `max_epochs` are given, `strategy` trains in processes
            that take the best weights with them, or `resume` is no checkpoint of this training.
        IsADirectoryError
            If `checkpoint` is a folder.
        FileNotFoundError
            If `resume` does not exist, or the folder of `checkpoint` does not.
        RuntimeError
            If the model was loaded without an AnnData.
        """
        if self.adata is None:
            raise RuntimeError(
                "The model was loaded without an AnnData. Load it with one to train it: `load(dir, adata)`."
            )
        if max_steps is not None and max_epochs is not None:
            raise ValueError("Both `max_steps` and `max_epochs` are given; they say the same. Give one.")
        require_integers(1, **not_none(max_steps=max_steps, max_epochs=max_epochs, batch_size=batch_size))
        require_integers(1, early_stopping_patience=early_stopping_patience)
        require_integers(0, **not_none(seed=seed))
        require_numbers(**not_none(lr=lr))
        if lr is not None and not 0 < lr < math.inf:
            raise ValueError(f"`lr` is {lr}; a learning rate above 0 is needed, such as 1e-3.")
        strategy = trainer_kwargs.get("strategy")
        if isinstance(strategy, str) and strategy.startswith(("ddp_spawn", "ddp_fork", "ddp_notebook")):
            raise ValueError(
                f"`strategy` is {strategy!r}: history and best weights would stay in processes that end. Train in a script "
                "with `strategy='ddp'`."
            )
        preset = self.preset
        of_denoiser = _changed(preset.train_denoiser, batch_size=batch_size, lr=lr)
        n_train = int((self.adata_manager.get_from_registry(SPLIT) == 0).sum())
        if max_epochs is not None:
            max_steps = max_epochs * _steps_per_epoch(n_train, of_denoiser.batch_size)
        share = 1.0 if max_steps is None else max_steps / of_denoiser.max_steps
        of_denoiser = _changed(of_denoiser, max_steps=max_steps)
        of_mask = _changed(preset.train_mask, max_steps=max(1, round(min(share, 1.0) * preset.train_mask.max_steps)))
        checkpoint = resume if checkpoint is None else checkpoint
        if checkpoint is not None and Path(checkpoint).is_dir():
            raise IsADirectoryError(f"`checkpoint` is {os.fspath(checkpoint)!r}, a folder. Name a file in it.")
        if checkpoint is not None and not Path(checkpoint).absolute().parent.is_dir():
            raise FileNotFoundError(
                f"The folder of `checkpoint` {os.fspath(checkpoint)!r} does not exist. Make it first."
            )
        options: dict[str, Any] = {
            "accelerator": accelerator,
            "devices": devices,
            "early_stopping": early_stopping,
            "early_stopping_patience": early_stopping_patience,
            "show_progress": show_progress,
            "seed": settings.seed if seed is None else seed,
            "checkpoint": checkpoint,
            **trainer_kwargs,
        }
        stages: dict[NetworkName, NetworkTraining] = {"denoiser": of_denoiser}
        if preset.use_mask:
            stages["mask_network"] = of_mask
        if resume is not None:
            described = read_checkpoint(resume, self.module.state_dict())
            check_checkpoint(resume, described, {name: self._described(name, stages[name]) for name in stages})
            if described["network"] == "mask_network":
                del stages["denoiser"]
        for name, training in stages.items():
            if not self._train_network(name, training, resume=resume, **options):
                break
            resume = None

    def _train_network(
        self,
        name: NetworkName,
        training: NetworkTraining,
        *,
        accelerator: str,
        devices: int | Sequence[int] | str,
        early_stopping: bool,
        early_stopping_patience: int,
        show_progress: bool,
        seed: int | None,
        checkpoint: str | os.PathLike[str] | None = None,
        resume: str | os.PathLike[str] | None = None,
        callbacks: Sequence[pl.Callback] = (),
        **trainer_kwargs: Any,
    ) -> bool:
        """Train one network, and say whether it came to its end."""
        if seed is not None:
            pl.seed_everything(seed, workers=True, verbose=False)
        codes = np.asarray(self.adata_manager.get_from_registry(SPLIT)).ravel()
        parts = [np.flatnonzero(codes == code) for code in range(3)]
        steps_per_epoch = _steps_per_epoch(len(parts[0]), training.batch_size)
        plan = NetworkPlan(self.module, name, training, training.max_steps)
        keep_best = KeepBest()
        accelerator, devices, device = parse_device_args(accelerator, devices, return_device="torch")
        callbacks = [keep_best, *callbacks]
        if show_progress:
            callbacks.append(NetworkProgressBar(name.replace("_", " ")))
        if early_stopping and len(parts[1]):
            callbacks.append(
                EarlyStopping(
                    plan.validation_score,
                    patience=early_stopping_patience,
                    check_on_train_epoch_end=False,
                    strict=False,
                )
            )
        n_epochs = math.ceil(training.max_steps / steps_per_epoch)
        epochs_between = max(1, round(n_epochs / _VALIDATIONS))
        if checkpoint is not None:
            callbacks.append(Checkpoint(checkpoint, self._described(name, training), epochs_between))
        options: dict[str, Any] = {
            "max_epochs": n_epochs,  # the last of which the plan ends at its last step
            "check_val_every_n_epoch": epochs_between if len(parts[1]) else None,
            "log_every_n_steps": min(10, steps_per_epoch),  # else Lightning warns of small screens
            "gradient_clip_val": 1.0,
            "simple_progress_bar": False,
            "enable_progress_bar": show_progress,
            "use_distributed_sampler": False,  # the splitter deals the cells out
            "logger": SimpleLogger(),  # with several processes the one of scvi-tools would write a file
        }
        with _quiet_lightning():
            trainer = Trainer(
                accelerator=accelerator, devices=devices, callbacks=callbacks, **{**options, **trainer_kwargs}
            )
        splitter = CellSplitter(self.adata_manager, parts, training.batch_size, trainer.world_size)
        interrupted, handler = False, signal.getsignal(signal.SIGINT)
        try:
            with _quiet_lightning():
                if len(parts[1]) and resume is None:  # where the networks start is a candidate as well
                    trainer.validate(plan, datamodule=splitter, verbose=False)
                trainer.fit(plan, splitter, ckpt_path=resume)
                if len(parts[1]) and keep_best.seen_step < trainer.global_step and not trainer.interrupted:
                    trainer.validate(plan, splitter.val_dataloader(), verbose=False)  # the last steps count as well
        except (KeyboardInterrupt, SystemExit):
            interrupted = True
            signal.signal(signal.SIGINT, handler)  # Lightning leaves Ctrl-C without effect
        interrupted = interrupted or trainer.interrupted
        keep_best.restore(plan)
        self.module.eval()
        self.to_device(device)
        self._extend_history(trainer, plan)
        self.trainer = trainer
        self.is_trained_ = True
        self.train_indices, self.validation_indices, self.test_indices = parts
        if interrupted:
            logger.warning(
                "Training was interrupted at step %d of the %s. What was learnt is kept; `train()` goes on from there.",
                trainer.global_step,
                name.replace("_", " "),
            )
        else:
            logger.info(
                "The %s was trained for %d steps; best validation score %.4f at step %d.",
                name.replace("_", " "),
                trainer.global_step,
                keep_best.best,
                keep_best.best_step,
            )
        return not interrupted

    def _described(self, name: NetworkName, training: NetworkTraining) -> dict[str, Any]:
        """Say what a training is, for its checkpoints."""
        codes = np.asarray(self.adata_manager.get_from_registry(SPLIT)).ravel()
        cells = {f"n_{part}": int((codes == code).sum()) for code, part in enumerate(SPLITS)}
        return {"network": name, **dataclasses.asdict(training), **cells}

    def _extend_history(self, trainer: Trainer, plan: NetworkPlan) -> None:
        """Append what was logged to the history, with steps that go on."""
        history = dict(self.history_ or {})
        logged = trainer.strategy.broadcast(getattr(trainer.logger, "history", None)) or {}  # the first process logs
        for key, frame in logged.items():
            if not key.startswith(plan.prefix):
                continue
            before = history.get(key)
            if before is not None:
                frame = frame.set_axis(frame.index + before.index.max() + 1)
                frame = pd.concat([before, frame])
            history[key] = frame
        self.history_ = history


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Leave out what Lightning says of devices, services and itself at every fit."""
    loggers = [logging.getLogger(f"lightning.pytorch.{name}") for name in ("utilities.rank_zero", "accelerators.cuda")]
    levels = [one.level for one in loggers]
    for one in loggers:
        one.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning, module="lightning")
            warnings.filterwarnings("ignore", message="early_stopping was automatically disabled")  # not ours
            yield
    finally:
        for one, level in zip(loggers, levels, strict=True):
            one.setLevel(level)


def _steps_per_epoch(n_train: int, batch_size: int) -> int:
    return max(1, n_train // batch_size)


def _changed(training: NetworkTraining, **changes: Any) -> NetworkTraining:
    return dataclasses.replace(training, **{k: v for k, v in changes.items() if v is not None})
