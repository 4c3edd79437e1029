"""How one network is trained."""

from __future__ import annotations

from typing import Any, Final

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from scvi import REGISTRY_KEYS
from torch import Tensor

from unlasting.data import PERTURBATION, POPULATION
from unlasting.module import NetworkName, NetworkTraining, UnlastingModule

HISTORY_PREFIX: Final[dict[NetworkName, str]] = {"denoiser": "denoiser", "mask_network": "mask"}
"""How the entries of the history begin."""

_WARM_UP_STEPS = 50


class NetworkPlan(pl.LightningModule):
    """Train one network of the module with AdamW and keep an average of its weights.

    The loss of the denoiser is the weighted squared error over expressed genes, that of the mask network the binary
    cross-entropy. The validation score is the same loss on the validation cells, with averaged weights and
    fixed noise: lower is better.

    Parameters
    ----------
    module
        The networks.
    network
        Which of them is trained; only its parameters move.
    training
        Learning rate, weight decay and averaging.
    max_steps
        Steps in all, over which the learning rate falls to zero.
    """

    def __init__(
        self, module: UnlastingModule, network: NetworkName, training: NetworkTraining, max_steps: int
    ) -> None:
        super().__init__()
        self.module = module
        self.network = network
        self.training_options = training
        self.max_steps = max_steps
        self.prefix = HISTORY_PREFIX[network]
        self.loss = module.denoising_loss if network == "denoiser" else module.mask_loss

    @property
    def validation_score(self) -> str:
        """Name of the validation score in the history."""
        return f"{self.prefix}_validation_score"

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Set AdamW up, with a short rise and a linear fall of the learning rate."""
        options = self.training_options
        optimizer = torch.optim.AdamW(
            getattr(self.module, self.network).parameters(),
            lr=options.lr,
            weight_decay=options.weight_decay,
            betas=(0.9, 0.99),
            # Lightning clips no gradients of a fused optimiser in mixed precision.
            fused=not self.trainer.precision.endswith("mixed"),
        )

        def factor(step: int) -> float:
            return min(1.0, (step + 1) / _WARM_UP_STEPS) * max(0.0, 1.0 - step / self.max_steps)

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def setup(self, stage: str) -> None:
        """Let all processes start from the same networks, and only the trained one have gradients to exchange."""
        if self.trainer.world_size > 1:
            self.module.load_state_dict(self.trainer.strategy.broadcast(self.module.state_dict()))
        for name in HISTORY_PREFIX:
            getattr(self.module, name).requires_grad_(name == self.network)

    def teardown(self, stage: str) -> None:
        """Leave the networks as they were found."""
        for name in HISTORY_PREFIX:
            getattr(self.module, name).requires_grad_(True)

    def on_fit_start(self) -> None:
        """Switch to training mode: an earlier fit leaves evaluation mode behind. Processes draw noise of their own."""
        self.module.train()
        if self.global_rank:
            torch.manual_seed(torch.initial_seed() + self.global_rank)

    def _batch(self, tensors: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        x0 = tensors[REGISTRY_KEYS.X_KEY] / self.module.statistics.x_max
        return x0, tensors[PERTURBATION].long().flatten(), tensors[POPULATION].long().flatten()

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Get the loss of a batch."""
        loss = self.loss(*self._batch(batch))
        options: dict[str, Any] = {"on_step": False, "on_epoch": True, "prog_bar": True, "sync_dist": True}
        self.log(f"{self.prefix}_train_loss", loss, batch_size=len(batch), **options)
        return loss

    def on_train_batch_end(self, *args: Any) -> None:
        """Move the average; it follows fast at first, as long as there is little to average. Stop at the last step."""
        step = self.global_step
        self.module.average(self.network, min(self.training_options.ema_decay, (1 + step) / (10 + step)))
        # The trainer is not told of `max_steps`: with it, Lightning does not go on at the end of an epoch as it would have.
        if step >= self.max_steps:
            self.trainer.should_stop = True

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Log the validation score of a batch, with noise that is the same every time."""
        generator = torch.Generator(device=self.module.device).manual_seed(batch_idx)
        score = self.loss(*self._batch(batch), averaged=True, generator=generator)
        n = batch[REGISTRY_KEYS.X_KEY].shape[0]
        self.log(self.validation_score, score, on_epoch=True, prog_bar=True, batch_size=n, sync_dist=True)
