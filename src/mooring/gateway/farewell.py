"""Closing many clients one after the other, so that they do not all come back at the same moment.

Whoever is closed connects again, to a server that has just been started or to the one beside it. So the closes of a
drain are spread over the first part of its time; the rest is for the answers to the last of them. The first ones, which
is everybody on a small server, are closed at once, and none waits longer than at a slow but steady rate it must.
"""

import time
from collections.abc import Callable
from typing import Final

from mooring._core.reactor import Reactor

AT_ONCE: Final = 100  # clients
SLOWEST: Final = 100.0  # clients a second
SHARE: Final = 0.8  # of the time
STEP: Final = 0.05  # seconds


class Farewell:
    """Calls `close(fd)` for each of these within SHARE of `timeout` seconds."""

    def __init__(self, reactor: Reactor, fds: list[int], timeout: float, close: Callable[[int], object]) -> None:
        self._reactor = reactor
        self._left = fds[::-1]  # taken from its end
        self._close = close
        later = max(0, len(fds) - AT_ONCE)
        self._rate = max(SLOWEST, later / (SHARE * timeout)) if timeout > 0 else 0.0  # 0: at once
        self._all = later
        self._began = time.monotonic()
        self._next()

    def _next(self) -> None:
        seconds = time.monotonic() - self._began  # the loop may be late
        keep = max(0, self._all - int(seconds * self._rate)) if self._rate else 0
        while len(self._left) > keep:
            self._close(self._left.pop())
        if self._left:
            self._reactor.call_later(STEP, self._next)

    def hurry(self) -> None:
        """The rest at once."""
        self._rate = 0.0
        self._next()
