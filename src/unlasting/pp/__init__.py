"""Before training: split a screen, normalise it, build its gene graph and represent its molecules."""

from unlasting.pp._check import check
from unlasting.pp._grn import grn
from unlasting.pp._guides import assign_guides
from unlasting.pp._molecules import molecules
from unlasting.pp._prepare import prepare
from unlasting.pp._priors import PRIORS, Prior
from unlasting.pp._split import SPLIT_KINDS, split

__all__ = ["PRIORS", "SPLIT_KINDS", "Prior", "assign_guides", "check", "grn", "molecules", "prepare", "split"]
