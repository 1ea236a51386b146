"""Where log lines go, and in which form."""

import logging
import os

from mooring.config import Settings


def log_to_stderr(settings: Settings, name: str) -> None:
    """Log lines of the package go to standard error, unless the application has said where they shall go."""
    logger = logging.getLogger("mooring")
    if logger.handlers:
        return
    handler = logging.StreamHandler()
    form = f"%(asctime)s %(levelname)-7s [{name}, {os.getpid()}] %(message)s"
    handler.setFormatter(logging.Formatter(form))
    logger.addHandler(handler)
    logger.setLevel(settings.process.log_level.upper())
    logging.getLogger("mooring.access").setLevel(logging.INFO)  # it has a setting of its own
    logger.propagate = False
