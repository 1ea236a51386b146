"""Says how far a run of several processes is, and how long it will still take.

What each test took is kept in build/durations.json, and so the next run knows how much there is to do; tests without
an entry count as much as tests of their folder usually take. How fast that gets done is seen while it runs: the first
guess is what the last run did in a second, and it counts as much as half a minute of this one. A test that fails is
named at once. On a terminal the line is written again and again, in a log there is one each half minute.
"""

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

KEPT = Path("build", "durations.json")  # below the root of the tests
USUAL = {
    "unit": 0.05,
    "property": 0.1,
    "contract": 0.1,
    "engines": 1.0,
    "security": 0.25,
    "e2e": 1.2,
}  # seconds, on a small machine
USUALLY_DONE = 0.8  # seconds of tests that each process gets done in a second: two share a processor, and many wait
TRUST = 30.0  # seconds for which the rate of the last run counts
WORTH = 60.0  # seconds; how fast a shorter run went says little
IN_A_LOG = 30.0  # seconds between two lines
ON_A_TERMINAL = 1.0


class Estimate:
    """How long the tests that are not done will take. Times are in seconds."""

    def __init__(self, kept: dict[str, float], rate: float) -> None:
        self._kept = kept
        self._rate = rate
        self._left: dict[str, float] = {}
        self._done = 0.0

    def expect(self, tests: Iterable[str]) -> None:
        self._left = {test: self.of(test) for test in tests}

    def of(self, test: str) -> float:
        folder = test.split("/")[1] if test.startswith("tests/") else ""
        return self._kept.get(test, USUAL.get(folder, 0.1))

    def done(self, test: str) -> None:
        self._done += self._left.pop(test, 0.0)

    def left(self, elapsed: float) -> float:
        rate = (self._done + self._rate * TRUST) / (elapsed + TRUST)
        return sum(self._left.values()) / rate


def in_words(seconds: float) -> str:
    """As a person would say it: an estimate is no measurement."""
    if seconds < 50:
        return f"{max(10, round(seconds, -1)):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds >= 90 else "1 min"


def clock(seconds: float) -> str:
    return f"{seconds // 60:.0f}:{seconds % 60:02.0f}" if seconds % 60 < 59.5 else f"{seconds // 60 + 1:.0f}:00"


class Progress:
    """The plugin in the process that runs no test itself."""

    def __init__(
        self,
        reporter: pytest.TerminalReporter,
        processes: int,
        path: Path,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reporter = reporter
        self._processes = processes
        self._path = path
        self._now = now
        self._began = self._told = now()
        self._kept, rate = read(path)
        self._estimate = Estimate(self._kept, (rate or USUALLY_DONE) * processes)
        self._took: Counter[str] = Counter()
        self._total = self._count = self._failed = 0
        self._terminal = sys.stdout.isatty()
        self._silent = True  # the letters of pytest

    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        if not self._total and ids:
            self._total = len(ids)
            self._estimate.expect(ids)
            self._began = self._told = self._now()
            self._reporter.ensure_newline()
            self._reporter.write_line(
                f"{self._total:,} tests by {self._processes} processes: about {in_words(self._estimate.left(0))}"
                + ("" if self._kept else ", at a first guess")
            )

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._took[report.nodeid] += report.duration
        if report.failed:
            self._failed += 1
            self._reporter.ensure_newline()
            self._reporter.write_line(f"{'FAILED' if report.when == 'call' else 'ERROR'} {report.nodeid}", red=True)
        if report.when != "teardown":
            return
        self._count += 1
        self._estimate.done(report.nodeid)
        if self._now() - self._told >= (ON_A_TERMINAL if self._terminal else IN_A_LOG):
            self._told = self._now()
            (self._reporter.rewrite if self._terminal else self._reporter.write_line)(self.line())

    def line(self) -> str:
        elapsed = self._now() - self._began
        failed = f", {self._failed} failed" if self._failed else ""
        return (
            f"{clock(elapsed):>6}  {self._count:,} of {self._total:,} tests{failed}, "
            f"about {in_words(self._estimate.left(elapsed))} left  "
        )

    @pytest.hookimpl(wrapper=True)
    def pytest_report_teststatus(self) -> object:
        category, letter, word = yield
        return (category, "", "") if self._silent else (category, letter, word)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        self._silent = False  # the summary needs its words
        if self._count:
            took = self._now() - self._began
            rate = sum(self._took.values()) / took / self._processes if took > WORTH else None
            write(self._path, self._kept | {test: round(took, 3) for test, took in self._took.items()}, rate)


def read(path: Path) -> tuple[dict[str, float], float | None]:
    """What tests took, and how many seconds of tests one process got done in a second; nothing if it is not known."""
    try:
        kept = json.loads(path.read_text())
        return dict(kept["tests"]), kept["rate"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}, None


def write(path: Path, tests: dict[str, float], rate: float | None) -> None:
    """Without a rate the one that is there stays."""
    path.parent.mkdir(exist_ok=True)
    rate = rate or read(path)[1]
    new = path.with_suffix(".new")
    new.write_text(json.dumps({"rate": rate, "tests": tests}, indent=0))
    new.replace(path)


@pytest.hookimpl(trylast=True)  # when there is a reporter
def pytest_configure(config: pytest.Config) -> None:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    processes = len(getattr(config.option, "tx", None) or ())
    if processes and not hasattr(config, "workerinput") and reporter and config.option.verbose <= 0:
        config.pluginmanager.register(Progress(reporter, processes, config.rootpath / KEPT))
