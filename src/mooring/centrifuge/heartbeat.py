"""Pings and pongs of one client, on a clock that is handed in.

Pings go out on schedule, whatever else is sent: one of the libraries takes nothing else for a sign of life. The first
one comes after a part of the interval that `spread` (0 to 1) chooses, so that those who came together are not pinged
together.
"""

from enum import Enum

from mooring.centrifuge.limits import Timing


class Beat(Enum):
    """What is due."""

    PING = "ping"
    NO_PONG = "no pong"


class Heartbeat:
    """Begins with `start`."""

    __slots__ = ("_ping_at", "_pong_by", "_timing", "_unanswered")

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._ping_at: float | None = None
        self._pong_by: float | None = None
        self._unanswered = 0  # pings; there can be several where the interval is shorter than the client's time

    def start(self, now: float, spread: float) -> None:
        if self._timing.ping_interval:
            self._ping_at = now + self._timing.ping_interval * (1 + spread) / 2

    def pong(self) -> bool:
        """Whether there is a ping that it can be the answer to."""
        if not self._unanswered:
            return False
        self._unanswered -= 1
        self._pong_by = None
        return True

    def due(self, now: float, deaf: bool = False) -> Beat | None:
        """`deaf`: nothing of the client is read at the moment, so its pong can't have been seen."""
        if self._pong_by is not None and now >= self._pong_by:
            if not deaf:
                return Beat.NO_PONG
            self._pong_by = now + self._timing.pong_timeout
        if self._ping_at is None or now < self._ping_at:
            return None
        self._ping_at = now + self._timing.ping_interval
        if self._timing.pong:
            self._unanswered += 1
            if self._pong_by is None:
                self._pong_by = now + self._timing.pong_timeout
        return Beat.PING

    @property
    def deadline(self) -> float | None:
        """When something is due, if nothing happens before."""
        times = [at for at in (self._ping_at, self._pong_by) if at is not None]
        return min(times) if times else None
