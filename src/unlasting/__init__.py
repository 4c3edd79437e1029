"""Predict single cells under perturbations, measured or not."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unlasting import baselines, datasets, effects, io, metrics, module, nn, pl, pp, tl, train
    from unlasting._report import report
    from unlasting.model import UnlastingModel

__version__ = version("unlasting")
__all__ = [
    "UnlastingModel",
    "__version__",
    "baselines",
    "datasets",
    "effects",
    "io",
    "metrics",
    "module",
    "nn",
    "pl",
    "pp",
    "report",
    "tl",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import a namespace on first use: torch and scvi-tools take seconds, and not every task needs them."""
    if name == "UnlastingModel":
        return import_module("unlasting.model").UnlastingModel
    if name == "report":
        return import_module("unlasting._report").report
    if name in __all__:
        return import_module(f"unlasting.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List all public names, loaded or not."""
    return __all__
