"""The networks together with their losses and sampling."""

from unlasting.module._presets import LAPTOP, PAPER_RESPONSE_FDR, PRESETS, NetworkTraining, Preset
from unlasting.module._unlasting import NetworkName, UnlastingModule

__all__ = ["LAPTOP", "PAPER_RESPONSE_FDR", "PRESETS", "NetworkName", "NetworkTraining", "Preset", "UnlastingModule"]
