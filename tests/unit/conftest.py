"""What several of these tests want: that nothing is left open."""

import gc
import os
from collections.abc import Iterator

import pytest


@pytest.fixture
def descriptors() -> Iterator[None]:
    """The test gives back every descriptor that it opened."""
    gc.collect()  # those that earlier tests left to the collector
    before = sorted(os.listdir("/proc/self/fd"))
    yield
    assert sorted(os.listdir("/proc/self/fd")) == before
