"""Deadlines in a heap, by the monotonic clock: a step of the wall clock moves none of them."""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable


class Deadline:
    """One action at one time. `cancel()` may be called at any time, also after it ran."""

    __slots__ = ("action", "when")

    def __init__(self, when: float, action: Callable[[], None]) -> None:
        self.when = when
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        # The entry stays in the heap until its time; without its action it keeps nothing alive.
        self.action = None


class Deadlines:
    """The heap. Actions run in order of time; those of one time in the order they were set."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Deadline]] = []
        self._order = itertools.count()

    def after(self, seconds: float, action: Callable[[], None]) -> Deadline:
        """Run `action` once, `seconds` from now."""
        deadline = Deadline(time.monotonic() + seconds, action)
        heapq.heappush(self._heap, (deadline.when, next(self._order), deadline))
        return deadline

    def timeout(self) -> float | None:
        """Seconds until the next action (0 when one is due), None when there is none."""
        while self._heap and self._heap[0][2].action is None:
            heapq.heappop(self._heap)
        return max(0.0, self._heap[0][0] - time.monotonic()) if self._heap else None

    def run(self) -> None:
        """Run what is due now; what an action sets for now runs in the next call."""
        now = time.monotonic()
        due = []
        while self._heap and self._heap[0][0] <= now:
            due.append(heapq.heappop(self._heap)[2])
        for deadline in due:
            action, deadline.action = deadline.action, None
            if action is not None:
                action()
