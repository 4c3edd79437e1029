"""The package logger."""

import logging
from collections.abc import Iterable

from rich.logging import RichHandler

logger = logging.getLogger("unlasting")
if not logger.handlers:
    logger.addHandler(RichHandler(show_path=False, show_time=False))
    if logger.level == logging.NOTSET:  # the user may have chosen one, since modules load when they are first used
        logger.setLevel(logging.INFO)
    logger.propagate = False


def listed(names: Iterable[object], most: int = 8) -> str:
    """Name the first entries, and count the others."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more


def duration(seconds: float) -> str:
    """Write a duration in whole minutes, or in hours from 90 minutes on."""
    minutes = seconds / 60
    if minutes >= 90:
        return f"{minutes / 60:.1f} hours"
    return f"{max(1, round(minutes))} minute{'s' if round(minutes) > 1 else ''}"
