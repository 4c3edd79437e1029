"""Screens: shipped with the package, downloaded, and simulated with a known truth."""

from unlasting.datasets._download import adamson, norman, sciplex3
from unlasting.datasets._shipped import kang, norman_mini, papalexi, sciplex3_drugs
from unlasting.datasets._simulate import simulate_screen
from unlasting.datasets._simulate_drugs import simulate_drug_screen

__all__ = [
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
