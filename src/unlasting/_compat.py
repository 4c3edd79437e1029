"""Names of scvi-tools that are not public, in one place."""

from scvi.model._utils import parse_device_args
from scvi.train._progress import ProgressBar

__all__ = ["ProgressBar", "parse_device_args"]
