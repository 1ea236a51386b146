"""Tests marked `alone` have the machine for themselves, when a run has several processes.

They are those that ask how much a whole process or the kernel spends in a time; a neighbour's work would be in the
answer. What can be made robust is not marked: while such a test runs, every other process of the run waits.

Each test holds a lock while it runs: a shared one, or, if it is marked, an exclusive one. It goes through a turnstile
first, in which a marked test stays: no further test begins meanwhile, so its turn comes when those that run are over.
The locks are POSIX record locks, which a forked child does not have. They are waited for outside of a test's limit.
"""

import fcntl
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

TURNSTILE, ROOM = 0, 1  # which byte of the file is which lock


class Locks:
    """Of one process of a run."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)

    @contextmanager
    def held(self, how: int, which: int) -> Iterator[None]:
        fcntl.lockf(self._file, how, 1, which)
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, which)

    @contextmanager
    def inside(self, alone: bool) -> Iterator[None]:
        """Among others, or alone; waits for it."""
        if alone:
            with self.held(fcntl.LOCK_EX, TURNSTILE), self.held(fcntl.LOCK_EX, ROOM):
                yield
        else:
            with self.held(fcntl.LOCK_SH, TURNSTILE):
                fcntl.lockf(self._file, fcntl.LOCK_SH, 1, ROOM)
            try:
                yield
            finally:
                fcntl.lockf(self._file, fcntl.LOCK_UN, 1, ROOM)

    def close(self) -> None:
        os.close(self._file)


class Alone:
    """The plugin in each process that runs tests beside others."""

    def __init__(self, locks: Locks) -> None:
        self._locks = locks

    @pytest.hookimpl(wrapper=True, tryfirst=True)  # around the limit of pytest-timeout
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        with self._locks.inside(item.get_closest_marker("alone") is not None):
            return (yield)

    def pytest_unconfigure(self) -> None:
        self._locks.close()


@pytest.hookimpl(trylast=True)  # when the folder for temporary files is known
def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        folder = Path(str(config.option.basetemp)).parent  # all the processes of this run have theirs in it
        folder.mkdir(parents=True, exist_ok=True)
        config.pluginmanager.register(Alone(Locks(folder / "alone.lock")))
