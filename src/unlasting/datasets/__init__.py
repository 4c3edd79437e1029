"""Screens that ship with the package."""

from unlasting.datasets._shipped import kang, norman_mini, papalexi

__all__ = ["kang", "norman_mini", "papalexi"]
