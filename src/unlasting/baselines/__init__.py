"""Simple predictors behind the protocol of the model, against which every prediction is judged."""

from typing import Final

from unlasting.baselines._base import Baseline
from unlasting.baselines._linear import Linear
from unlasting.baselines._model import ModelPredictor
from unlasting.baselines._protocol import NoPrediction, Predictor
from unlasting.baselines._simple import (
    Additive,
    DoseInterpolation,
    MeanShift,
    NearestDose,
    NearestTarget,
    NoEffect,
    Pooled,
)
from unlasting.screen import Condition

BASELINES: Final[dict[str, type[Baseline]]] = {
    "no effect": NoEffect,
    "mean shift": MeanShift,
    "pooled": Pooled,
    "linear": Linear,
    "additive": Additive,
    "nearest target": NearestTarget,
    "nearest dose": NearestDose,
    "dose interpolation": DoseInterpolation,
}
"""The baselines by the names that they have in tables."""

__all__ = [
    "BASELINES",
    "Additive",
    "Baseline",
    "Condition",
    "DoseInterpolation",
    "Linear",
    "MeanShift",
    "ModelPredictor",
    "NearestDose",
    "NearestTarget",
    "NoEffect",
    "NoPrediction",
    "Pooled",
    "Predictor",
]
