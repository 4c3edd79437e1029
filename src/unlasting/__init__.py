"""Predict, cell by cell, how cells respond to perturbations that nobody has measured."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unlasting import baselines, datasets, io, metrics, pl, pp, tl
    from unlasting.model import UnlastingModel

__version__ = version("unlasting")
__all__ = ["UnlastingModel", "__version__", "baselines", "datasets", "io", "metrics", "pl", "pp", "tl"]


def __getattr__(name: str) -> Any:
    """Import a namespace when it is first used: torch and scvi-tools take seconds, and not every task needs them."""
    if name == "UnlastingModel":
        return import_module("unlasting.model").UnlastingModel
    if name in __all__:
        return import_module(f"unlasting.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List what is public, loaded or not."""
    return __all__
