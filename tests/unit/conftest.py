"""What several of these tests want: that nothing is left open; two sockets; a scoreboard, and the time to be set."""

import gc
import os
import socket
from collections.abc import Iterator

import pytest

from mooring.monitor.scoreboard import new_scoreboard


@pytest.fixture
def descriptors() -> Iterator[None]:
    """The test gives back every descriptor that it opened."""
    gc.collect()  # those that earlier tests left to the collector
    before = sorted(os.listdir("/proc/self/fd"))
    yield
    assert sorted(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends, neither of which blocks."""
    a, b = socket.socketpair()
    with a, b:
        a.setblocking(False)
        b.setblocking(False)
        yield a, b


@pytest.fixture
def scoreboard() -> Iterator[int]:
    """The descriptor of an empty one."""
    made = new_scoreboard()
    yield made
    os.close(made)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic time, to be set."""
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now
