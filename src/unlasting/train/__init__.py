"""Training of the networks by Lightning."""

from unlasting.data import CellSplitter
from unlasting.train._callbacks import Checkpoint, KeepBest, NetworkProgressBar
from unlasting.train._plan import HISTORY_PREFIX, NetworkPlan

__all__ = ["HISTORY_PREFIX", "CellSplitter", "Checkpoint", "KeepBest", "NetworkPlan", "NetworkProgressBar"]
