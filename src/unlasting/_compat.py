"""Private names of scvi-tools, in one place."""

from scvi.model._utils import parse_device_args

__all__ = ["parse_device_args"]
