"""The logger of the package."""

import logging

from rich.logging import RichHandler

logger = logging.getLogger("unlasting")
if not logger.handlers:
    logger.addHandler(RichHandler(show_path=False, show_time=False))
    if logger.level == logging.NOTSET:  # the user may have chosen one, since modules load when they are first used
        logger.setLevel(logging.INFO)
    logger.propagate = False
