"""The supervisor's part of the scoreboard: it gives each process a place, and writes which processes there are.

The place of one that has ended is given to another as late as possible: its last words are there until then.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from mooring.journal import own_logger
from mooring.monitor.scoreboard import PLACES, TREE, Place, TreeReport
from mooring.supervisor.child import Child
from mooring.supervisor.slot import Slot
from mooring.supervisor.vitals import seen, supervisor_seen

log = own_logger("mooring.supervisor")

PERIOD = 1.0  # seconds between two reports, when nothing happens


class Scores:
    """Of the scoreboard `file` and the socket `listener`, on which the monitor answers; both stay the caller's. -1:
    there is none, and nothing is written."""

    def __init__(self, file: int = -1, listener: int = -1) -> None:
        self._file = file
        self._listener = listener
        self._free = deque(range(TREE + 1, PLACES))
        self._place = Place(file, TREE, TreeReport) if file >= 0 else None
        self._started = time.monotonic()

    @property
    def wanted(self) -> bool:
        """Whether anything is written."""
        return self._place is not None

    def payload(self, child: Child) -> dict[str, int]:
        """What a child is told of it; it is given a place, if there is one."""
        if self.wanted and self._free:
            child.place = self._free.popleft()
        listener = self._listener if child.spec.row.watches else -1
        return {"scoreboard": self._file, "place_of_report": child.place, "metrics": listener}

    def give_back(self, child: Child) -> None:
        """It has ended."""
        if child.place > TREE:
            self._free.append(child.place)
            child.place = -1

    def tell(
        self, phase: str, state: dict[str, Any], children: Iterable[Child], slot_of: Callable[[Child], Slot]
    ) -> None:
        """Writes how it stands."""
        if self._place is None:
            return
        processes = [supervisor_seen(self._started), *(seen(child, slot_of(child)) for child in children)]
        try:
            if not self._place.write(TreeReport(phase, state, processes)):
                log.error("/metrics and /ready tell nothing new: there are too many processes for the scoreboard")
                self._place = None
        except OSError as problem:
            log.error("/metrics and /ready tell nothing new: %s", problem)
            self._place = None
