"""Screens: shipped with the package, and simulated with a known truth."""

from unlasting.datasets._shipped import kang, norman_mini, papalexi
from unlasting.datasets._simulate import simulate_screen

__all__ = ["kang", "norman_mini", "papalexi", "simulate_screen"]
