"""How a perturbation reaches the networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unlasting.effects import ConditionTensors


def dose_gate(dose: Tensor, log_half: Tensor, log_slope: Tensor) -> Tensor:
    """Get the share of the full effect at each dose: a Hill curve of `log1p(dose)`, from 0 at dose 0 towards 1.

    Parameters
    ----------
    dose
        `log1p` of the dose in uM; what has no dose (-1) has its full effect. Any shape.
    log_half
        Log of the `log1p` dose of half the effect, of a shape that broadcasts.
    log_slope
        Log of the steepness, taken between -1 and 1, of a shape that broadcasts.
    """
    dosed = dose > 0
    log_dose = dose.masked_fill(~dosed, 1.0).log()  # the gradient must not meet log 0
    share = torch.sigmoid(log_slope.tanh().exp() * (log_dose - log_half))
    return torch.where(dosed, share, (dose < 0).to(share.dtype))


class ConditionEncoder(nn.Module):
    """Embed a condition linearly: generic, prior and identity of a target; a sum for a combination; zero for the control.

    What is linear in the features is so in the targets, knows no order of them, and vanishes at dose 0. A target that
    was not trained has no identity, and is embedded by what the prior says of it.

    Parameters
    ----------
    n_features
        Number of features of a condition.
    out_features
        Width of the embedding.
    """

    def __init__(self, n_features: int, out_features: int) -> None:
        super().__init__()
        self.of_features = nn.Linear(n_features, out_features, bias=False)
        nn.init.normal_(self.of_features.weight)

    def forward(self, conditions: ConditionTensors) -> Tensor:
        """Embed conditions, as `(n_conditions, out_features)`."""
        return self.of_features(conditions.features)
