"""Embedding perturbations and doses."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unlasting.effects import ConditionTensors, hill


def dose_gate(dose: Tensor, log_half: Tensor, log_slope: Tensor) -> Tensor:
    """Share of the full effect at each dose: a Hill curve of `log1p(dose)`, from 0 at dose 0 towards 1.

    `dose` is `log1p` of the dose in uM, or -1 for targets without a dose, which have their full effect. `log_half` is the log of
    the `log1p` dose with half the effect. `log_slope` is the log steepness, squashed to [-1, 1].
    """
    dosed = dose > 0
    log_dose = dose.masked_fill(~dosed, 1.0).log()  # the gradient must not meet log 0
    share = hill(log_dose, log_half, log_slope.tanh().exp())
    return torch.where(dosed, share, (dose < 0).to(share.dtype))


class ConditionEncoder(nn.Module):
    """Embed conditions linearly, so that a combination is the sum of its targets and the control is zero."""

    def __init__(self, n_features: int, out_features: int) -> None:
        super().__init__()
        self.proj = nn.Linear(n_features, out_features, bias=False)
        nn.init.normal_(self.proj.weight)

    def forward(self, conditions: ConditionTensors) -> Tensor:
        """Embed conditions, shape `(n_conditions, out_features)`."""
        return self.proj(conditions.features)
