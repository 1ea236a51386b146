"""Where log lines go, and in which form."""

import logging
import os
from typing import Any

from mooring.config import Settings

_handler: "logging.StreamHandler[Any] | None" = None


def log_to_stderr(settings: Settings, name: str) -> None:
    """Log lines of the package go to standard error, unless the application has said where they shall go."""
    logger = logging.getLogger("mooring")
    if logger.handlers:
        return
    global _handler
    _handler = logging.StreamHandler()
    log_as(name)
    logger.addHandler(_handler)
    logger.setLevel(settings.process.log_level.upper())
    logging.getLogger("mooring.access").setLevel(logging.INFO)  # it has a setting of its own
    logger.propagate = False


def log_as(name: str) -> None:
    """This process has another name from now on."""
    if _handler is not None:
        form = f"%(asctime)s %(levelname)-7s [{name}, {os.getpid()}] %(message)s"
        _handler.setFormatter(logging.Formatter(form))
