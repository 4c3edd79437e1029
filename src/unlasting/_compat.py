"""Names of scvi-tools that are not public, in one place."""

from scvi.model._utils import parse_device_args
from scvi.train._logger import SimpleLogger

__all__ = ["SimpleLogger", "parse_device_args"]
