"""Fixtures for pytest, and the server's log in the report of a test that fails.

Name it in the `conftest.py` at the root of the tests: `pytest_plugins = ["mooring.testing.plugin"]`. It is not loaded
by itself: whoever has this package installed, for another project maybe, shall not have fixtures that they never asked
for, nor wait for its import.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack

import pytest

from mooring.testing.inside import InsideServer, in_process
from mooring.testing.process import ServedServer, serve
from mooring.testing.running import alive


@pytest.fixture(name="serve")
def _serve() -> Iterator[Callable[..., ServedServer]]:
    """`running = serve("chat:server", mode="base")`: what mooring.testing.serve gives, started, until the test ends."""
    with ExitStack() as stack:
        yield lambda *arguments, **options: stack.enter_context(serve(*arguments, **options))


@pytest.fixture(name="in_process")
def _in_process() -> Iterator[Callable[..., InsideServer]]:
    """`running = in_process(chat.server)`: what mooring.testing.in_process gives, started, until the test ends."""
    with ExitStack() as stack:
        yield lambda *arguments, **options: stack.enter_context(in_process(*arguments, **options))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Also of servers that several tests share."""
    report = yield
    if report.failed:
        for running in list(alive):
            report.sections.append((f"mooring log of {running.name}", running.log))
    return report
