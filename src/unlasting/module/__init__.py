"""The networks together with their losses and sampling."""

from unlasting.module._presets import LAPTOP, PRESETS, NetworkTraining, Preset
from unlasting.module._unlasting import NetworkName, UnlastingModule

__all__ = ["LAPTOP", "PRESETS", "NetworkName", "NetworkTraining", "Preset", "UnlastingModule"]
