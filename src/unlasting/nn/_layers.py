"""Small layers shared by the networks."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class TimeEmbedding(nn.Module):
    """Sinusoidal features for the diffusion time, up to the angular frequency `largest`, followed by a small MLP.

    `largest` is the scale at which the learnt function and the solver path are rough.
    """

    def __init__(self, n_frequencies: int, largest: float, out_features: int) -> None:
        super().__init__()
        half = n_frequencies // 2
        frequencies = torch.exp(-math.log(10_000.0) * torch.arange(half) / half)
        self.register_buffer("frequencies", largest * frequencies, persistent=False)
        self.frequencies: Tensor
        self.mlp = nn.Sequential(nn.Linear(2 * half, out_features), nn.SiLU(), nn.Linear(out_features, out_features))

    def forward(self, t: Tensor) -> Tensor:
        """Embed times in [0, 1], shape `(n,)`, as `(n, out_features)`."""
        angles = t[:, None] * self.frequencies
        return self.mlp(torch.cat([angles.sin(), angles.cos()], dim=-1))


class ModulatedBlock(nn.Module):
    """A residual layer whose normalised features are scaled and shifted by a context."""

    def __init__(self, width: int, context_features: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(context_features, 2 * width)
        self.inner = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.outer = nn.Linear(width, width)

    def forward(self, features: Tensor, context: Tensor) -> Tensor:
        """Transform features `(n, width)` under a context `(n, context_features)`."""
        scale, shift = self.modulation(context).chunk(2, dim=-1)
        inner = functional.silu(self.inner(self.norm(features) * (1.0 + scale) + shift))
        return features + self.outer(self.dropout(inner))


def start_at_zero(*layers: nn.Linear | None) -> None:
    """Let last layers give zero before training, so that networks start from the effects model."""
    for layer in layers:
        if layer is not None:
            nn.init.zeros_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
