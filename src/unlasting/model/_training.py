"""Training of a model's two networks."""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import signal
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pandas as pd
from lightning.pytorch.callbacks import EarlyStopping
from scipy import sparse
from scvi import REGISTRY_KEYS
from scvi.train import Trainer

from unlasting._compat import parse_device_args
from unlasting.data import CHUNK, GRAPH, PERTURBATION, POPULATION, SPLIT
from unlasting.model._base import ModelBase, seed_or_default
from unlasting.module import PAPER_RESPONSE_FDR, NetworkName, NetworkTraining
from unlasting.screen import SPLITS, UNS_KEY, is_in_memory, logger, not_none, require_integers, require_numbers
from unlasting.train import (
    CellSplitter,
    Checkpoint,
    Forecast,
    History,
    KeepBest,
    NetworkPlan,
    NetworkProgressBar,
    check_checkpoint_place,
    read_checkpoint,
)

_VALIDATIONS = (10, 25)
"""Number of validations until the last step, at least and at most."""
_VALIDATED_SHARE = 0.5
"""Validated cells for each trained cell at most: a validated cell takes a third of the time of a trained cell."""
_REACHED = 0.1
"""Share of the genes that a target reaches along two edges, below which networks without an embedding miss most effects."""

_LABEL_CELLS = "Label cells 'train', 'val' or 'test' with `unlasting.pp.split`, and set the model up again."
_SET_THE_CLASS = "Subclass the model, and set its `_data_splitter_cls`."
_REFUSED = {
    "train_size": _LABEL_CELLS,
    "validation_size": _LABEL_CELLS,
    "shuffle_set_split": _LABEL_CELLS,
    "external_indexing": _LABEL_CELLS,
    "datasplitter_kwargs": _SET_THE_CLASS,
    "load_sparse_tensor": _SET_THE_CLASS,
    "early_stopping_monitor": "Each network monitors its own validation score.",
    "n_epochs_kl_warmup": "The loss has no KL term: leave it out.",
    "n_steps_kl_warmup": "The loss has no KL term: leave it out.",
    "plan_config": "Give `plan_kwargs`.",
    "trainer_config": "Give its entries as arguments.",
}
"""Arguments of scvi-tools models without a meaning here, and their replacements."""


class TrainingMixin(ModelBase):
    """`train`, for both networks."""

    _training_plan_cls: type[NetworkPlan] = NetworkPlan
    _data_splitter_cls: type[CellSplitter] = CellSplitter
    trainer: Trainer | None = None

    @property
    def history(self) -> dict[str, pd.DataFrame] | None:
        """Losses and validation scores by training step: `denoiser_train_loss`, `mask_validation_score`, and so on.

        The validation score is the training loss on validation cells, with averaged weights and fixed noise. Lower is
        better. The denoiser's is the squared error over expressed genes, the mask network's the cross-entropy.
        """
        return self.history_

    def train(
        self,
        *args: object,
        max_steps: int | None = None,
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
        plan_kwargs: Mapping[str, Any] | None = None,
        **trainer_kwargs: Any,
    ) -> None:
        """Train the denoiser, then the mask network.

        Both are validated at regular steps on cells labelled `val`, and keep the averaged weights with the best score.
        An interruption (Ctrl-C) keeps the weights so far. Another call continues from the current weights.

        Parameters
        ----------
        *args
            Refused: name all numbers, as in `train(max_steps=100)`.
        max_steps
            The denoiser's training steps at most. By default they grow with cells and conditions, as the preset's
            :class:`unlasting.module.NetworkTraining` describes. The learning rate falls to zero over them, and the mask
            network takes a share. 0: the effects model alone, without training a network.
        max_epochs
            The same in passes over the training cells. Give one of the two.
        batch_size
            The denoiser's cells in each step.
        lr
            The denoiser's initial learning rate.
        early_stopping
            Whether a network stops when its validation score no longer improves.
        early_stopping_patience
            Validations without improvement before it stops; there are 10 to 25 until the last step.
        accelerator, devices
            Hardware to train on, as for every scvi-tools model.
        seed
            Seed for weight updates and cell order; `scvi.settings.seed`, or 0, by default. The same seed gives the same model
            on the CPU.
        checkpoint
            A file for the training's state, written at regular steps in case the process is killed.
        resume
            A file that `checkpoint` wrote. Training continues with its optimiser, learning rate, averages and random
            numbers, and ends with the same weights. Model and arguments must be the same. Further checkpoints replace
            the file, unless `checkpoint` names another. The history starts at the checkpoint.
        show_progress
            Whether a progress bar is shown for each network.
        plan_kwargs
            Options for the training plan of both networks (:class:`unlasting.train.NetworkPlan`), such as
            `{"weight_decay": 1e-2}`.
        **trainer_kwargs
            For :class:`scvi.train.Trainer`, such as `precision="bf16-mixed"`, `logger`, or further `callbacks`.
            `strategy="ddp"` with several `devices` shares each step among processes, one for each device.

        Returns
        -------
        `None`. Updates the following fields:

        - `history`: losses and validation scores by each network's own training step.
        - `is_trained`: `True`.

        Raises
        ------
        TypeError
            If a number has no name, or a scvi-tools argument has no meaning here.
        ValueError
            If a number is out of range, both `max_steps` and `max_epochs` are given, `strategy` trains in processes
            that lose the best weights, or `resume` is no checkpoint of this training.
        IsADirectoryError
            If `checkpoint` is a folder.
        FileNotFoundError
            If `resume`, or the folder of `checkpoint`, does not exist.
        RuntimeError
            If the model was loaded without an AnnData.
        """
        if args:
            shown = ", ".join(map(repr, args))
            raise TypeError(f"`train({shown})` could mean steps or epochs. Name it: `train(max_steps={args[0]!r})`.")
        for name in _REFUSED.keys() & trainer_kwargs.keys():
            raise TypeError(f"`{name}` has no meaning for {type(self).__name__}. {_REFUSED[name]}")
        if self.adata is None:
            raise RuntimeError(
                "The model was loaded without an AnnData. Load it with one to train it: `load(dir, adata)`."
            )
        if max_steps is not None and max_epochs is not None:
            raise ValueError("Both `max_steps` and `max_epochs` are given. Give one.")
        require_integers(0, **not_none(seed=seed, max_steps=max_steps))
        require_integers(1, **not_none(max_epochs=max_epochs, batch_size=batch_size))
        require_integers(1, early_stopping_patience=early_stopping_patience)
        require_numbers(**not_none(lr=lr))
        if lr is not None and lr <= 0:
            raise ValueError(f"`lr` is {lr}; a learning rate above 0 is needed, such as 1e-3.")
        strategy = trainer_kwargs.get("strategy")
        if isinstance(strategy, str) and strategy.startswith(("ddp_spawn", "ddp_fork", "ddp_notebook")):
            raise ValueError(
                f"`strategy` is {strategy!r}: history and best weights would stay in processes that end. Train in a script "
                "with `strategy='ddp'`."
            )
        self.effects_model  # noqa: B018  fitted on first use
        condition, population = (
            np.asarray(self.adata_manager.get_from_registry(key)).ravel() for key in (PERTURBATION, POPULATION)
        )
        # a cell may count as non-responding: each population occurs with the control
        self.module.register_pairs(np.append(condition, np.zeros_like(population)), np.append(population, population))
        preset = self.preset
        if preset.mask_labels == "conditions" and preset.use_mask:
            self.module.use_detection_rates(*self._cells().detection_rates())
        if max_steps == 0 and not preset.use_effects:
            raise ValueError(
                "`max_steps=0` leaves the effects model alone, and this model has none (`use_effects=False`). Train for "
                "some steps, or use the default preset."
            )
        for_denoiser = _changed(preset.train_denoiser, batch_size=batch_size, lr=lr)
        if max_epochs is not None:
            n_train = int((self.adata_manager.get_from_registry(SPLIT) == 0).sum())
            max_steps = max_epochs * _steps_per_epoch(n_train, for_denoiser.batch_size)
        stages: dict[NetworkName, NetworkTraining] = {"denoiser": for_denoiser, "mask_network": preset.train_mask}
        if max_steps is None:
            size = len(self._parts()[0]), self.summary_stats["n_conditions"]
            stages = {name: training.for_screen(*size) for name, training in stages.items()}
        else:
            share = min(1.0, max_steps / for_denoiser.max_steps)
            steps = {"denoiser": max_steps, "mask_network": max(1, round(share * preset.train_mask.max_steps))}
            stages = {name: _changed(one, max_steps=steps[name], ceiling=None) for name, one in stages.items()}
        if not preset.use_mask:
            del stages["mask_network"]
        checkpoint = resume if checkpoint is None else checkpoint
        if checkpoint is not None:
            check_checkpoint_place(checkpoint)
        plan_kwargs = dict(plan_kwargs or {})
        described = {name: self._described(name, training, plan_kwargs) for name, training in stages.items()}
        if resume is not None and read_checkpoint(resume, self.module.state_dict(), described) == "mask_network":
            del stages["denoiser"]
        self.train_indices, self.validation_indices, self.test_indices = self._parts()
        self._warn_of_unreached_genes()
        if max_steps == 0:
            stages, self.is_trained_ = {}, True
        patience = early_stopping_patience if early_stopping else None
        seed = seed_or_default(seed)
        options: dict[str, Any] = {"accelerator": accelerator, "devices": devices, "enable_progress_bar": show_progress}
        for name, training in stages.items():
            plan = self._training_plan_cls(self.module, name, training, **plan_kwargs)
            written = None if checkpoint is None else (checkpoint, described[name])
            if not self._train_network(plan, patience, seed, written, resume, **{**options, **trainer_kwargs}):
                break
            resume = None

    def _train_network(
        self,
        plan: NetworkPlan,
        patience: int | None,
        seed: int,
        checkpoint: tuple[str | os.PathLike[str], dict[str, Any]] | None,
        resume: str | os.PathLike[str] | None,
        callbacks: Sequence[pl.Callback] = (),
        **trainer_kwargs: Any,
    ) -> bool:
        """Train one network; `True` unless interrupted."""
        pl.seed_everything(seed, workers=True, verbose=False)
        (train, val, test), batch_size, name = (
            self._parts(),
            plan.training_options.batch_size,
            plan.network.replace("_", " "),
        )
        has_validation, n_trained = len(val) > 0, plan.max_steps * min(batch_size, len(train))
        validated = _validated(val, n_trained, batch_size, seed)
        n_validations = int(np.clip(_VALIDATED_SHARE * n_trained / max(1, len(validated)), *_VALIDATIONS))
        # An epoch ends with a validation, wherever it is in a pass over the cells: checkpoints hold whole epochs.
        steps_per_epoch = max(1, min(math.ceil(plan.max_steps / n_validations), plan.max_steps // _VALIDATIONS[0]))
        keep_best, history = KeepBest(), History()
        callbacks = [history, keep_best, Forecast(name, len(train)), *callbacks]
        if trainer_kwargs["enable_progress_bar"]:
            callbacks.append(NetworkProgressBar(name))
        if patience is not None and has_validation:
            score = plan.validation_score
            callbacks.append(EarlyStopping(score, patience=patience, check_on_train_epoch_end=False, strict=False))
        if checkpoint is not None:
            callbacks.append(Checkpoint(*checkpoint))
        place = ("accelerator", "devices")
        *chosen, device = parse_device_args(*(trainer_kwargs[key] for key in place), return_device="torch")
        trainer_kwargs |= dict(zip(place, chosen, strict=True))
        options: dict[str, Any] = {
            "max_epochs": math.ceil(plan.max_steps / steps_per_epoch),  # the plan ends the last one at its last step
            "limit_train_batches": steps_per_epoch,
            "check_val_every_n_epoch": 1 if has_validation else None,
            "log_every_n_steps": min(10, steps_per_epoch),  # else Lightning warns of small screens
            "gradient_clip_val": 1.0,
            "simple_progress_bar": False,
            "use_distributed_sampler": False,  # the splitter distributes the cells
            "logger": False,  # the history does not depend on one
        }
        with _quiet_lightning():
            trainer = Trainer(callbacks=callbacks, **{**options, **trainer_kwargs})
        splitter = self._data_splitter_cls(
            self.adata_manager,
            [train, validated, np.concatenate([test, np.setdiff1d(val, validated)])],  # every cell is in a part
            batch_size,
            trainer.world_size,
        )
        splitter.seed = seed
        interrupted, handler = False, signal.getsignal(signal.SIGINT)
        try:
            with _quiet_lightning():
                if has_validation and resume is None:  # the initial weights are a candidate as well
                    trainer.validate(plan, datamodule=splitter, verbose=False)
                trainer.fit(plan, splitter, ckpt_path=resume)
                if has_validation and keep_best.seen_step < trainer.global_step and not trainer.interrupted:
                    trainer.validate(plan, splitter.val_dataloader(), verbose=False)  # so are the last ones
        except (KeyboardInterrupt, SystemExit):
            interrupted = True
            signal.signal(signal.SIGINT, handler)  # Lightning leaves Ctrl-C without effect
        interrupted = interrupted or trainer.interrupted
        keep_best.restore(plan)
        self.module.eval()
        self.to_device(device)
        self._extend_history(history, plan.prefix)
        self.trainer = trainer
        self.is_trained_ = True
        if interrupted:
            logger.warning(
                "Training was interrupted at step %d of the %s. Its weights are kept; continue with `train()`.",
                trainer.global_step,
                name,
            )
        else:
            logger.info(
                "The %s was trained for %d steps; best validation score %.4f at step %d.",
                name,
                trainer.global_step,
                keep_best.best,
                keep_best.best_step,
            )
        return not interrupted

    def _warn_of_unreached_genes(self) -> None:
        """Warn where perturbations act along edges alone, and the graph does not lead from the targets to the genes."""
        if self.preset.denoiser.condition_features or not self.preset.denoiser.use_grn:
            return
        graph, n_genes = self._state(GRAPH), self.summary_stats["n_vars"]
        nodes = {name: row for row, name in enumerate(np.asarray(graph["nodes"]).tolist())}
        named = {t for p in self._conditions(trained=True) for t in p.targets}
        targets = sorted({self.vocabulary.target(name)[1] for name in named} & nodes.keys())
        if not targets:
            return
        edges = np.asarray(graph["edge_index"])
        step = sparse.eye(len(nodes), format="csr") + sparse.csr_matrix(
            (np.ones(edges.shape[1]), edges), 2 * (len(nodes),)
        )
        reached = (step[[nodes[name] for name in targets]] @ step)[:, :n_genes]
        share = float(np.median(reached.getnnz(axis=1))) / n_genes
        if share < _REACHED:
            graph = {} if self.adata is None else self.adata.uns.get(UNS_KEY, {}).get("grn", {})
            fix = f"Add edges to the genes that respond: `pp.grn(adata, response_fdr={PAPER_RESPONSE_FDR:g})`."
            if "edges" in graph and "response" in set(graph["edges"]["origin"]):
                fix = "Few edges by response were found: use `preset='default'`, which needs none."
            logger.warning(
                "With preset %r a perturbation acts along two edges of the graph at most, and half of the trained targets reach "
                "%.1f %% of the genes or fewer. %s",
                self._preset_name,
                100 * share,
                fix,
            )

    def _parts(self) -> list[np.ndarray]:
        """Get the rows labelled `train`, `val` and `test`."""
        codes = np.asarray(self.adata_manager.get_from_registry(SPLIT)).ravel()
        return [np.flatnonzero(codes == code) for code in range(len(SPLITS))]

    def _described(self, name: NetworkName, training: NetworkTraining, plan_kwargs: dict[str, Any]) -> dict[str, Any]:
        """Describe a network's training for its checkpoints."""
        cells = {f"n_{part}": len(rows) for part, rows in zip(SPLITS, self._parts(), strict=True)}
        x = self.adata_manager.get_from_registry(REGISTRY_KEYS.X_KEY)
        order = "cells" if is_in_memory(x) or cells["n_train"] <= CHUNK else "blocks of cells on disk"
        return {
            "network": name,
            **dataclasses.asdict(training),
            "plan_kwargs": repr(plan_kwargs),
            **cells,
            "order": order,
        }

    def _extend_history(self, history: History, prefix: str) -> None:
        """Append recorded values to the history, each network's steps continuing its earlier ones."""
        merged = dict(self.history_ or {})
        done = max((int(frame.index.max()) for name, frame in merged.items() if name.startswith(prefix)), default=0)
        for name, values in history.values.items():
            new = pd.DataFrame({name: values}, dtype=float)
            new.index += done
            before = merged.get(name, new.iloc[:0])
            merged[name] = pd.concat([before[~before.index.isin(new.index)], new]).rename_axis("step")
        self.history_ = merged


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Silence Lightning's notes on devices and services at every fit."""
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


def _validated(rows: np.ndarray, n_trained: int, batch_size: int, seed: int) -> np.ndarray:
    """Draw the cells of each validation, so that ten validations take a small share of a training's time."""
    n = max(batch_size, int(_VALIDATED_SHARE * n_trained / _VALIDATIONS[0]))
    return rows if len(rows) <= n else np.sort(np.random.default_rng(seed).choice(rows, n, replace=False))


def _steps_per_epoch(n_train: int, batch_size: int) -> int:
    return max(1, n_train // batch_size)


def _changed(training: NetworkTraining, **changes: Any) -> NetworkTraining:
    return dataclasses.replace(training, **{k: v for k, v in changes.items() if v is not None})
