"""How soon a process that crashed is started again.

The first crashes of a series cost nothing: most are single accidents, and clients wait. A series that goes
on is a process that can't live, so each further restart waits twice as long, up to a limit, and a little at
random so that many workers which died of one cause do not all come back at one instant. A series ends when
a process has served for `restart_window` seconds; were it enough that few crashes lie in the window, the
waiting itself would make room for the next free ones and the loop would run on at full speed.
"""

from __future__ import annotations

import random

FIRST_DELAY = 0.1  # seconds
JITTER = 0.25  # a delay is shortened by up to this part


class Restarts:
    """The series of crashes of one slot."""

    def __init__(self, free: int, window: float, longest: float) -> None:
        self._free = free
        self._window = window
        self._longest = longest
        self._crashes = 0

    def delay(self, served: float) -> float:
        """Seconds to wait after a process which had served for `served` seconds (0: was never ready)."""
        if served and served >= self._window:
            self._crashes = 0
        self._crashes += 1
        waits = self._crashes - self._free
        if waits <= 0:
            return 0.0
        # The exponent is bounded too: 2.0 ** 1100 is an OverflowError after a long night.
        delay = min(FIRST_DELAY * 2.0 ** min(waits - 1, 32), self._longest)
        return delay * random.uniform(1.0 - JITTER, 1.0)

    @property
    def crashes(self) -> int:
        """How long the series is."""
        return self._crashes

    def reset(self) -> None:
        """New code serves: the series of the old one says nothing about it."""
        self._crashes = 0
