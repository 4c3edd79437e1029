"""The networks together with their losses and sampling."""

from unlasting.module._presets import PRESETS, NetworkTraining, Preset
from unlasting.module._unlasting import NetworkName, UnlastingModule

__all__ = ["PRESETS", "NetworkName", "NetworkTraining", "Preset", "UnlastingModule"]
