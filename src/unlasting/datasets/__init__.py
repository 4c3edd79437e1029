"""Screens: shipped with the package, downloaded, and simulated with known counterfactuals.

A downloaded file is kept in the folder `cache`, by default the cache folder of the operating system, and checked. A failed
download raises a `ConnectionError`, and a file with another checksum a `ValueError`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from unlasting.datasets._sciplex3 import sciplex3, sciplex3_drugs
from unlasting.datasets._screens import SOURCES, Source, adamson, kang, norman, norman_mini, papalexi
from unlasting.datasets._simulate import simulate_screen
from unlasting.datasets._simulate_drugs import simulate_drug_screen

DATASETS: dict[str, Callable[..., Any]] = {
    "adamson": adamson,
    "kang": kang,
    "norman": norman,
    "norman_mini": norman_mini,
    "papalexi": papalexi,
    "sciplex3": sciplex3,
}
"""Functions that load a real screen, by name. A new entry is an attribute of the module too."""

__all__ = [
    "DATASETS",
    "SOURCES",
    "Source",
    "adamson",
    "kang",
    "norman",
    "norman_mini",
    "papalexi",
    "sciplex3",
    "sciplex3_drugs",
    "simulate_drug_screen",
    "simulate_screen",
]


def __getattr__(name: str) -> Any:
    """Look a registered data set up."""
    if name in DATASETS:
        return DATASETS[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; data sets: {', '.join(DATASETS)}")
