"""Simple predictors behind the model's protocol, with which every prediction is compared."""

from typing import Final

from unlasting.baselines._base import Baseline, Shift, ZeroAware
from unlasting.baselines._context import (
    ContextTransfer,
    NearestContext,
    QuantileContextTransfer,
    ZeroAwareContextTransfer,
)
from unlasting.baselines._dose import DoseInterpolation, NearestDose
from unlasting.baselines._linear import Linear, PublishedLinear, ZeroAwareRidge
from unlasting.baselines._model import ModelPredictor
from unlasting.baselines._nearest import NearestTarget, NearestTargetOrNothing, ZeroAwareNearestTarget
from unlasting.baselines._protocol import NoPrediction, Predictor
from unlasting.baselines._simple import (
    Additive,
    MeanShift,
    NoEffect,
    Pooled,
    TrainedCells,
    ZeroAwareAdditive,
    ZeroAwareMeanShift,
)
from unlasting.baselines._zero_aware import ControlExpression, apply_effects, control_expression, hurdle_effects
from unlasting.screen import Condition

BASELINES: Final[dict[str, type[Baseline]]] = {
    "no effect": NoEffect,
    "mean shift": MeanShift,
    "zero-aware mean shift": ZeroAwareMeanShift,
    "pooled": Pooled,
    "linear": Linear,
    "published linear": PublishedLinear,
    "zero-aware ridge": ZeroAwareRidge,
    "additive": Additive,
    "zero-aware additive": ZeroAwareAdditive,
    "nearest target": NearestTarget,
    "nearest target or nothing": NearestTargetOrNothing,
    "zero-aware nearest target": ZeroAwareNearestTarget,
    "context transfer": ContextTransfer,
    "zero-aware context transfer": ZeroAwareContextTransfer,
    "quantile context transfer": QuantileContextTransfer,
    "nearest context": NearestContext,
    "nearest dose": NearestDose,
    "dose interpolation": DoseInterpolation,
    "training cells": TrainedCells,
}
"""The baselines by their names in tables. A new one is a file and a line here; one with `is_ceiling` is no rival."""

__all__ = [
    "BASELINES",
    "Additive",
    "Baseline",
    "Condition",
    "ContextTransfer",
    "ControlExpression",
    "DoseInterpolation",
    "Linear",
    "MeanShift",
    "ModelPredictor",
    "NearestContext",
    "NearestDose",
    "NearestTarget",
    "NearestTargetOrNothing",
    "NoEffect",
    "NoPrediction",
    "Pooled",
    "Predictor",
    "PublishedLinear",
    "QuantileContextTransfer",
    "Shift",
    "TrainedCells",
    "ZeroAware",
    "ZeroAwareAdditive",
    "ZeroAwareContextTransfer",
    "ZeroAwareMeanShift",
    "ZeroAwareNearestTarget",
    "ZeroAwareRidge",
    "apply_effects",
    "control_expression",
    "hurdle_effects",
]
