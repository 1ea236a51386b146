"""How a process reports: on a timer of its loop, which stands still when the loop does.

The same timer tells how late the loop is: it should have come at a certain time, and whatever ran then has put it off.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from mooring._core.latency import Latencies
from mooring.counters import ROWS
from mooring.journal import own_logger
from mooring.monitor.scoreboard import Place, Report
from mooring.net.log import dropped_lines
from mooring.net.report import errors_reported

log = own_logger("mooring.monitor")

LOOK = 0.25  # seconds between two looks at how late the loop is
REPORT_PERIOD = 1.0  # seconds between two reports

Counts = dict[str, Any]
Timings = dict[str, dict[str, list[int]]]


def counts_of(*parts: Counts) -> Counts:
    """What the parts of a process count together, and the process itself; of what is in the table of counters."""
    counts: Counts = {}
    for part in parts:
        for name, value in part.items():
            if name in ROWS:
                counts[name] = counts[name] + value if name in counts else value
    return counts | {"errors_reported": errors_reported(), "log_lines_dropped": dropped_lines()}


class Reporter:
    """Reports what `collect()` returns, from `start()` on, until this process ends."""

    def __init__(
        self,
        later: Callable[[float, Callable[[], None]], object],
        file: int,
        place: int,
        collect: Callable[[], tuple[Counts, Timings]],
    ) -> None:
        """`later(seconds, action)` is the loop's; `place` of the scoreboard `file`, which stays the caller's."""
        self._later = later
        self._place = Place(file, place, Report)
        self._collect = collect
        self._lag = Latencies()
        self._due = self._next = 0.0
        self._over = False

    def start(self) -> None:
        """Reports now, and again and again."""
        self._due = time.monotonic()
        self._look()

    def _look(self) -> None:
        if self._over:
            return
        now = time.monotonic()
        self._lag.note(0, max(0, int((now - self._due) * 1_000_000)))
        if now >= self._next:
            self._next = now + REPORT_PERIOD - LOOK / 2
            self.report()
        self._due = time.monotonic() + LOOK
        self._later(LOOK, self._look)

    def report(self) -> None:
        """Now, as it is due before this process ends."""
        if self._over:
            return
        try:
            counts, timings = self._collect()
            lag = {"loop_lag": {"": self._lag.counted(0)}}
            if self._place.write(Report(os.getpid(), counts, {**timings, **lag})):
                return
            log.error("/metrics lacks this process: it counts more than fits into its place of the scoreboard")
        except OSError as problem:
            log.error("/metrics lacks this process: its report can't be written: %s", problem)
        self._over = True

    def stop(self) -> None:
        """In a forked child: the place is the parent's."""
        self._over = True
