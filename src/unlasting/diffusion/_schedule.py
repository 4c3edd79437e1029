"""Noise schedules."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class NoiseSchedule(nn.Module, ABC):
    """A variance-preserving schedule, `x_t = alpha x_0 + sigma eps` with `alpha^2 + sigma^2 = 1`.

    Time runs from 0 (data) to 1 (noise). A schedule is its log-SNR, `log(alpha^2 / sigma^2)`.
    """

    @abstractmethod
    def log_snr(self, t: Tensor) -> Tensor:
        """Get the log-SNR at times in [0, 1], shaped like `t`."""

    @abstractmethod
    def times(self, n_steps: int) -> Tensor:
        """Get the `n_steps + 1` times between which a solver steps, from data to noise."""

    @abstractmethod
    def sample_times(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw `n` times for training."""


def alpha_sigma(log_snr: Tensor) -> tuple[Tensor, Tensor]:
    """Get the scales of data and noise at a log-SNR."""
    return torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr).sqrt()


_GRID = 500
"""Times among which steps uniform in log-SNR are chosen: every training step of the published schedule."""


def log_snr_times(schedule: NoiseSchedule, n_steps: int) -> Tensor:
    """Get at most `n_steps + 1` times, nearest to uniform steps in log-SNR, from data to noise.

    Steps that fall on the same time count once.
    """
    grid = torch.linspace(0.0, 1.0, _GRID, device=schedule.times(1).device)
    log_snr = schedule.log_snr(grid)
    wanted = torch.linspace(float(log_snr[0]), float(log_snr[-1]), n_steps + 1, device=grid.device)
    return grid[(log_snr[:, None] - wanted).abs().argmin(0).unique()]


class LinearBetaSchedule(NoiseSchedule):
    """The published schedule: `n_train_steps` discrete steps with linear betas between `0.1 / T` and `20 / T`.

    Parameters
    ----------
    n_train_steps
        Number T of training steps.
    """

    def __init__(self, n_train_steps: int = 500) -> None:
        super().__init__()
        self.n_train_steps = n_train_steps
        betas = torch.linspace(0.1 / n_train_steps, 20.0 / n_train_steps, n_train_steps)
        log_alpha_bar = torch.log1p(-betas).cumsum(0)
        self.register_buffer("_log_snr", log_alpha_bar - torch.log(-torch.expm1(log_alpha_bar)), persistent=False)
        self._log_snr: Tensor

    def _index(self, t: Tensor) -> Tensor:
        """Get the nearest training step."""
        return (t * (self.n_train_steps - 1)).round().long()

    def log_snr(self, t: Tensor) -> Tensor:
        """Get the log-SNR at the nearest training step, shaped like `t`."""
        return self._log_snr[self._index(t)]

    def times(self, n_steps: int) -> Tensor:
        """Get `n_steps + 1` times, uniform over the training steps."""
        return torch.linspace(0.0, 1.0, n_steps + 1, device=self._log_snr.device)

    def sample_times(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw `n` training steps, uniformly."""
        device = self._log_snr.device
        index = torch.randint(self.n_train_steps, (n,), generator=generator, device=device)
        return index / (self.n_train_steps - 1)


class CosineSchedule(NoiseSchedule):
    """A continuous cosine schedule, centred where data with a given s.d. reach the noise level.

    For values with standard deviation `scale`, the angle `arctan(alpha scale / sigma)` falls linearly in time, so
    that equal steps in time are equal steps in visible signal. Expression values in [0, 1] have an
    s.d. between .04 and .19 within a gene, far below the unit variance that usual schedules assume.

    Parameters
    ----------
    scale
        Typical s.d. in the data.
    margin
        Share of the quarter circle left out at both ends. The smallest noise level is about
        `scale * margin * pi / 2`.
    crowding
        By how much a solver's first and last steps are shorter than its mean step, in [0, 1).
    """

    def __init__(self, scale: float = 0.07, margin: float = 0.01, crowding: float = 0.2) -> None:
        super().__init__()
        self.margin = margin
        self.crowding = crowding
        self.register_buffer("scale", torch.tensor(float(scale)))
        self.scale: Tensor

    def log_snr(self, t: Tensor) -> Tensor:
        """Get the log-SNR at times in [0, 1], shaped like `t`."""
        angle = 0.5 * math.pi * (self.margin + (1.0 - 2.0 * self.margin) * t)
        return -2.0 * (torch.log(torch.tan(angle)) + torch.log(self.scale))

    def times(self, n_steps: int) -> Tensor:
        """Get `n_steps + 1` times, the same from either end and denser towards both.

        Genes whose scale is not the schedule's turn fastest there, and a multistep solver starts there without a past.
        """
        uniform = torch.linspace(0.0, 1.0, n_steps + 1, device=self.scale.device)
        return uniform - self.crowding / (2.0 * math.pi) * torch.sin(2.0 * math.pi * uniform)

    def sample_times(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw `n` times, one in each n-th part of [0, 1] and in random order (a lower variance than free draws)."""
        device = self.scale.device
        strata = torch.randperm(n, generator=generator, device=device)
        return (strata + torch.rand(n, generator=generator, device=device)) / n
