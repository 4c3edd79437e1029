"""Training of the networks by Lightning."""

from unlasting.data import CellSplitter
from unlasting.train._callbacks import Checkpoint, Forecast, History, KeepBest, NetworkProgressBar
from unlasting.train._plan import HISTORY_PREFIX, NetworkPlan
from unlasting.train._resuming import check_checkpoint_place, read_checkpoint

__all__ = [
    "HISTORY_PREFIX",
    "CellSplitter",
    "Checkpoint",
    "Forecast",
    "History",
    "KeepBest",
    "NetworkPlan",
    "NetworkProgressBar",
    "check_checkpoint_place",
    "read_checkpoint",
]
