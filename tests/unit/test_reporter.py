"""How a process reports, and how late its loop is."""

from typing import Any

import pytest

from mooring.monitor.reporter import Reporter
from mooring.monitor.scoreboard import COPY
from support.scoreboards import place


class Loop:
    """Turns when it is told to."""

    def __init__(self, clock: list[float]) -> None:
        self.clock = clock
        self.due: list[tuple[float, Any]] = []

    def later(self, seconds: float, action: Any) -> None:
        self.due.append((self.clock[0] + seconds, action))

    def turn(self, late: float = 0.0) -> None:
        when, action = self.due.pop(0)
        self.clock[0] = when + late
        action()


def test_a_process_reports_each_second_and_tells_how_late_it_is(scoreboard: int, clock: list[float]):
    loop, counts = Loop(clock), {"connections": 0}
    reporter = Reporter(loop.later, scoreboard, 1, lambda: (dict(counts), {}))
    reporter.start()
    found = place(scoreboard).read()
    assert found is not None
    counts["connections"] = 1
    for late in (0.0, 0.2, 0.0):
        loop.turn(late)
    found = place(scoreboard).read()
    assert found is not None
    assert found[0].counts == {"connections": 1}
    *buckets, total = found[0].timings["loop_lag"][""]
    assert sum(buckets) == 4
    assert buckets[0] == 3
    assert total == pytest.approx(200_000, abs=5)
    reporter.stop()
    counts["connections"] = 2
    loop.turn()
    reporter.report()
    assert not loop.due
    found = place(scoreboard).read()
    assert found is not None
    assert found[0].counts == {"connections": 1}


def test_a_report_that_does_not_fit_is_said_once(scoreboard: int, clock: list[float], caplog: pytest.LogCaptureFixture):
    loop = Loop(clock)
    Reporter(loop.later, scoreboard, 1, lambda: ({"x": "y" * COPY}, {})).start()
    loop.turn()
    assert not loop.due
    assert [record.message.partition(":")[0] for record in caplog.records] == ["/metrics lacks this process"]
