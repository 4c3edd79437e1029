"""Training of the networks by Lightning."""

from unlasting.train._callbacks import Checkpoint, KeepBest, NetworkProgressBar
from unlasting.train._plan import HISTORY_PREFIX, NetworkPlan
from unlasting.train._splitter import CellSplitter

__all__ = ["HISTORY_PREFIX", "CellSplitter", "Checkpoint", "KeepBest", "NetworkPlan", "NetworkProgressBar"]
