"""Training of one network: loss, optimiser and weight averaging."""

from __future__ import annotations

import dataclasses
from typing import Any, Final

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from scvi import REGISTRY_KEYS
from torch import Tensor

from unlasting.data import PERTURBATION, POPULATION
from unlasting.module import NetworkName, NetworkTraining, UnlastingModule

HISTORY_PREFIX: Final[dict[NetworkName, str]] = {"denoiser": "denoiser", "mask_network": "mask"}
"""Prefix of each network's entries in the history."""


class NetworkPlan(pl.LightningModule):
    """Train one of the module's networks with AdamW, and average its weights.

    The denoiser's loss is the weighted squared error over expressed genes, the mask network's the binary
    cross-entropy. The validation score is the same loss on validation cells, with averaged weights and fixed noise.
    Lower is better.

    A subclass becomes a model's plan as its `_training_plan_cls`.

    Parameters
    ----------
    module
        The networks.
    network
        The network to train; only its parameters move.
    training
        Steps, learning rate, weight decay and averaging.
    lr, weight_decay, ema_decay
        Replacements for entries of `training`.
    warm_up_steps
        Steps in which the learning rate rises to `lr`; it then falls linearly to zero at the last step.
    """

    def __init__(
        self,
        module: UnlastingModule,
        network: NetworkName,
        training: NetworkTraining,
        *,
        lr: float | None = None,
        weight_decay: float | None = None,
        ema_decay: float | None = None,
        warm_up_steps: int = 50,
    ) -> None:
        super().__init__()
        given: dict[str, Any] = {"lr": lr, "weight_decay": weight_decay, "ema_decay": ema_decay}
        self.module = module
        self.network = network
        self.training_options = dataclasses.replace(training, **{k: v for k, v in given.items() if v is not None})
        self.warm_up_steps = warm_up_steps
        self.prefix = HISTORY_PREFIX[network]
        self.loss = module.denoising_loss if network == "denoiser" else module.mask_loss

    @property
    def max_steps(self) -> int:
        """Number of training steps."""
        return self.training_options.max_steps

    @property
    def validation_score(self) -> str:
        """Name of the validation score in the history."""
        return f"{self.prefix}_validation_score"

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Make AdamW, and a schedule with a short rise and a linear fall."""
        optimizer = torch.optim.AdamW(
            getattr(self.module, self.network).parameters(),
            lr=self.training_options.lr,
            weight_decay=self.training_options.weight_decay,
            betas=(0.9, 0.99),
            # Lightning clips no gradients of a fused optimiser in mixed precision.
            fused=not self.trainer.precision.endswith("mixed"),
        )

        def factor(step: int) -> float:
            return min(1.0, (step + 1) / self.warm_up_steps) * max(0.0, 1.0 - step / self.max_steps)

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def setup(self, stage: str) -> None:
        """Start all processes from the same networks; only the trained one exchanges gradients."""
        if self.trainer.world_size > 1:
            self.module.load_state_dict(self.trainer.strategy.broadcast(self.module.state_dict()))
        for name in HISTORY_PREFIX:
            getattr(self.module, name).requires_grad_(name == self.network)

    def teardown(self, stage: str) -> None:
        """Let both networks have gradients again."""
        for name in HISTORY_PREFIX:
            getattr(self.module, name).requires_grad_(True)

    def on_fit_start(self) -> None:
        """Switch to training mode, since an earlier fit ends in evaluation mode; each process draws its own noise."""
        self.module.train()
        if self.global_rank:
            torch.manual_seed(torch.initial_seed() + self.global_rank)

    def _score(self, name: str, batch: dict[str, Tensor], **options: Any) -> Tensor:
        """Compute and log a batch's loss."""
        x = batch[REGISTRY_KEYS.X_KEY]
        codes = (batch[key].long().flatten() for key in (PERTURBATION, POPULATION))
        loss = self.loss(x / self.module.statistics.x_max, *codes, **options)
        self.log(name, loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(x), sync_dist=True)
        return loss

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Compute a batch's loss."""
        return self._score(f"{self.prefix}_train_loss", batch)

    def on_train_batch_end(self, *args: Any) -> None:
        """Update the average, fast at first while it holds few steps, and stop at the last step."""
        step = self.global_step
        self.module.average(self.network, min(self.training_options.ema_decay, (1 + step) / (10 + step)))
        # The trainer does not get `max_steps`: with it, Lightning could not resume at the end of an epoch.
        if step >= self.max_steps:
            self.trainer.should_stop = True

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Log the validation score of a batch, with the same noise every time."""
        generator = torch.Generator(device=self.module.device).manual_seed(batch_idx)
        self._score(self.validation_score, batch, averaged=True, generator=generator)
