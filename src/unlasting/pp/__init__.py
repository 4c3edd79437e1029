"""Before training: split a screen, normalise it, and build its graph of genes."""

from unlasting.pp._grn import grn
from unlasting.pp._guides import assign_guides
from unlasting.pp._prepare import prepare
from unlasting.pp._split import split

__all__ = ["assign_guides", "grn", "prepare", "split"]
