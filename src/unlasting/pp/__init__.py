"""Before training: split a screen, normalise it, build its graph of genes and represent its molecules."""

from unlasting.pp._grn import grn
from unlasting.pp._guides import assign_guides
from unlasting.pp._molecules import molecules
from unlasting.pp._prepare import prepare
from unlasting.pp._split import split

__all__ = ["assign_guides", "grn", "molecules", "prepare", "split"]
