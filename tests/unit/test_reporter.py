"""How a process reports, and how late its loop is."""

import os
from collections.abc import Iterator
from typing import Any

import pytest

from mooring.monitor.reporter import Reporter
from mooring.monitor.scoreboard import COPY, Place, Report, new_scoreboard

ME = os.getpid()


@pytest.fixture
def file() -> Iterator[int]:
    made = new_scoreboard()
    yield made
    os.close(made)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic time, to be set."""
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def place(file: int, number: int = 1) -> Place[Report]:
    return Place(file, number, Report)


def report(**counts: Any) -> Report:
    return Report(ME, counts)


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


def test_a_process_reports_each_second_and_tells_how_late_it_is(file: int, clock: list[float]):
    loop, counts = Loop(clock), {"connections": 0}
    reporter = Reporter(loop.later, file, 1, lambda: (dict(counts), {}))
    reporter.start()
    found = place(file).read()
    assert found is not None
    counts["connections"] = 1
    for late in (0.0, 0.2, 0.0):
        loop.turn(late)
    found = place(file).read()
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
    found = place(file).read()
    assert found is not None
    assert found[0].counts == {"connections": 1}


def test_a_report_that_does_not_fit_is_said_once(file: int, clock: list[float], caplog: pytest.LogCaptureFixture):
    loop = Loop(clock)
    Reporter(loop.later, file, 1, lambda: ({"x": "y" * COPY}, {})).start()
    loop.turn()
    assert not loop.due
    assert [record.message.partition(":")[0] for record in caplog.records] == ["/metrics lacks this process"]
