"""Handshakes that wait for the application, each for a limited time.

All of them have the same limit, so the first that came is the first to be late: a dict in its order and one timer do.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

from mooring._core.reactor import Reactor
from mooring.gateway.handshake import Accepted


class PendingHandshake(NamedTuple):
    """One that the gateway would accept: its verdict, and the request as workers get it."""

    verdict: Accepted
    request: bytes
    deadline: float


class PendingHandshakes:
    """`late(fd)` is called for one that was not taken within `timeout` seconds; it is forgotten then."""

    def __init__(self, reactor: Reactor, timeout: float, late: Callable[[int], None]) -> None:
        self._reactor = reactor
        self._timeout = timeout
        self._late = late
        self._waiting: dict[int, PendingHandshake] = {}
        self._armed = False

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, fd: int, verdict: Accepted, request: bytes) -> None:
        """From now on it waits."""
        self._waiting[fd] = PendingHandshake(verdict, request, time.monotonic() + self._timeout)
        self._arm()

    def take(self, fd: int) -> PendingHandshake | None:
        """It does not wait any more. None: it did not, it was late or its client has left."""
        return self._waiting.pop(fd, None)

    def _arm(self) -> None:
        if not self._armed and self._waiting:
            self._armed = True
            first = next(iter(self._waiting.values()))
            self._reactor.call_later(max(0.0, first.deadline - time.monotonic()), self._look)

    def _look(self) -> None:
        self._armed = False
        now = time.monotonic()
        late = []
        for fd, waiting in self._waiting.items():
            if waiting.deadline > now:
                break
            late.append(fd)
        for fd in late:
            if self.take(fd) is not None:
                self._late(fd)
        self._arm()
