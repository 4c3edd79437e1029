"""The model: setup, training, prediction and generation."""

from unlasting.model._unlasting import UnlastingModel

__all__ = ["UnlastingModel"]
