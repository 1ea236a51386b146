"""What several of these tests want: that nothing is left open; two sockets."""

import gc
import os
import socket
from collections.abc import Iterator

import pytest


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
