"""The logger of the package."""

import logging

from rich.logging import RichHandler

logger = logging.getLogger("unlasting")
if not logger.handlers:
    logger.addHandler(RichHandler(show_path=False, show_time=False))
    logger.setLevel(logging.INFO)
    logger.propagate = False
