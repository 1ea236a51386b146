"""A reactor for tests of what goes by time: nothing runs until the test says how long it waits."""

import heapq
import itertools
from collections.abc import Callable


class Ticking:
    """`clock` is that of the fixture: the monotonic time, which `wait` moves from one timer to the next."""

    def __init__(self, clock: list[float]) -> None:
        self._clock = clock
        self._order = itertools.count()
        self._timers: list[tuple[float, int, Callable[[], object]]] = []

    def call_later(self, seconds: float, action: Callable[[], object]) -> None:
        heapq.heappush(self._timers, (self._clock[0] + seconds, next(self._order), action))

    def post(self, action: Callable[[], object]) -> None:
        """Behind what happens now."""
        self.call_later(0.0, action)

    @property
    def timers(self) -> int:
        """How many there are."""
        return len(self._timers)

    def wait(self, seconds: float = 0.0) -> None:
        """Everything that is due until then runs at its time."""
        end = self._clock[0] + seconds
        while self._timers and self._timers[0][0] <= end:
            when, _, action = heapq.heappop(self._timers)
            self._clock[0] = max(self._clock[0], when)
            action()
        self._clock[0] = end
