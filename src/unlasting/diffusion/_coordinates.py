r"""Coordinates for the probability-flow ODE, and the network's prediction target in them.

Every choice here has the form `d state / d clock = prediction`: the solver knows nothing else. With
:class:`NoiseCoordinates` and Euler's rule this is DDIM :cite:p:`song2021ddim` for a network that predicts x_0.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from unlasting.diffusion._schedule import alpha_sigma


class Coordinates(ABC):
    """A change of variables under which the probability-flow ODE is `d state / d clock = prediction`."""

    @abstractmethod
    def clock(self, log_snr: Tensor) -> Tensor:
        """Get every gene's clock, broadcastable to `(n_cells, n_genes)`; `log_snr` has shape `(n, 1)` or `()`."""

    @abstractmethod
    def noised(self, x0: Tensor, eps: Tensor, log_snr: Tensor) -> Tensor:
        """Get the state for data `x0` with noise `eps`, both `(n_cells, n_genes)`."""

    @abstractmethod
    def target(self, x0: Tensor, eps: Tensor, log_snr: Tensor) -> Tensor:
        """Get the network's prediction target, `(n_cells, n_genes)`."""

    @abstractmethod
    def network_input(self, state: Tensor, log_snr: Tensor) -> Tensor:
        """Get the network's input for a state, `(n_cells, n_genes)`; at time 1 this is the latent."""

    @abstractmethod
    def from_network_input(self, seen: Tensor, log_snr: Tensor) -> Tensor:
        """Undo :meth:`network_input`."""

    @abstractmethod
    def place(self, x0: Tensor, log_snr: Tensor) -> Tensor:
        """Get the state in which the ODE starts from data, `(n_cells, n_genes)`."""

    @abstractmethod
    def read(self, state: Tensor, log_snr: Tensor) -> Tensor:
        """Undo :meth:`place`."""


class NoiseCoordinates(Coordinates):
    """State `x_t / sigma`, clock `alpha / sigma`, prediction `x_0`: the published recipe."""

    def clock(self, log_snr: Tensor) -> Tensor:
        """Get `alpha / sigma`."""
        return torch.exp(0.5 * log_snr)

    def noised(self, x0: Tensor, eps: Tensor, log_snr: Tensor) -> Tensor:
        """Get `(alpha x_0 + sigma eps) / sigma`."""
        return self.clock(log_snr) * x0 + eps

    def target(self, x0: Tensor, eps: Tensor, log_snr: Tensor) -> Tensor:
        """Get `x_0`."""
        return x0

    def network_input(self, state: Tensor, log_snr: Tensor) -> Tensor:
        """Get `x_t`."""
        return state * alpha_sigma(log_snr)[1]

    def from_network_input(self, seen: Tensor, log_snr: Tensor) -> Tensor:
        """Get the state of `x_t`."""
        return seen / alpha_sigma(log_snr)[1]

    def place(self, x0: Tensor, log_snr: Tensor) -> Tensor:
        """Take the data as they are for `x_t`, as DDIM inversion does."""
        return self.from_network_input(x0, log_snr)

    def read(self, state: Tensor, log_snr: Tensor) -> Tensor:
        """Take `x_t` for the data."""
        return self.network_input(state, log_snr)


class AngleCoordinates(Coordinates):
    r"""Angles per gene: state `y = (x_t - a b) / sqrt(a^2 s^2 + sigma^2)`, clock `phi = arctan(a s / sigma)`.

    With the base b and scale s of each gene, this is the preconditioning by :cite:t:`karras2022edm` applied to the
    ODE. Write `x0_hat = b + c_skip (x_t - a b) + c_out F`; the probability flow's linear part then integrates
    exactly, which leaves `dy / dphi = F`. For Gaussian data with mean b and s.d. s, F is zero and every solver
    is exact. In training `y = sin(phi) y_0 + cos(phi) eps` and `F = cos(phi) y_0 - sin(phi) eps`, with
    `y_0 = (x_0 - b) / s`: the squared error in F is that in x_0, weighted by `1 / c_out^2`.

    Parameters
    ----------
    base
        Mean expressed value per gene, shape `(n_genes,)`, or per gene in each cell's condition,
        shape `(n_cells, n_genes)`.
    scale
        Their standard deviation, in the same shape.
    """

    def __init__(self, base: Tensor, scale: Tensor) -> None:
        self.base = base
        self.scale = scale

    def clock(self, log_snr: Tensor) -> Tensor:
        """Get every gene's angle."""
        return torch.atan(self.scale * torch.exp(0.5 * log_snr))

    def noised(self, x0: Tensor, eps: Tensor, log_snr: Tensor) -> Tensor:
        """Get `sin(phi) y_0 + cos(phi) eps`."""
        angle = self.clock(log_snr)
        return torch.sin(angle) * self.place(x0, log_snr) + torch.cos(angle) * eps

    def target(self, x0: Tensor, eps: Tensor, log_snr: Tensor) -> Tensor:
        """Get `cos(phi) y_0 - sin(phi) eps`."""
        angle = self.clock(log_snr)
        return torch.cos(angle) * self.place(x0, log_snr) - torch.sin(angle) * eps

    def network_input(self, state: Tensor, log_snr: Tensor) -> Tensor:
        """Get the state, which has unit variance at every time."""
        return state

    def from_network_input(self, seen: Tensor, log_snr: Tensor) -> Tensor:
        """Get the state."""
        return seen

    def place(self, x0: Tensor, log_snr: Tensor) -> Tensor:
        """Get `(x_0 - b) / s`: placing data at the smallest noise level without shrinking them."""
        return (x0 - self.base) / self.scale

    def read(self, state: Tensor, log_snr: Tensor) -> Tensor:
        """Get `b + s y`."""
        return self.base + self.scale * state
