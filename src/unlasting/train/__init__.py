"""Training of the networks by Lightning."""

from unlasting.train._callbacks import KeepBest, NetworkProgressBar
from unlasting.train._plan import HISTORY_PREFIX, NetworkPlan

__all__ = ["HISTORY_PREFIX", "KeepBest", "NetworkPlan", "NetworkProgressBar"]
