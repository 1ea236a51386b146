"""Handshakes that wait for the application: each has its time, and is late once."""

from typing import Any

import pytest

from mooring.gateway.handshake import Accepted
from mooring.gateway.pending import PendingHandshakes
from support.ticking import Ticking

VERDICT = Accepted("key", None)


@pytest.fixture
def reactor(clock: list[float]) -> Any:
    return Ticking(clock)


def test_one_that_is_taken_in_time_is_not_late(reactor: Any):
    late: list[int] = []
    waiting = PendingHandshakes(reactor, 5.0, late.append)
    waiting.add(7, VERDICT, b"request")
    reactor.wait(4.9)
    taken = waiting.take(7)
    assert taken is not None
    assert (taken.verdict, taken.request) == (VERDICT, b"request")
    assert waiting.take(7) is None
    reactor.wait(60.0)
    assert not late


def test_each_is_late_after_its_own_time_and_forgotten(reactor: Any):
    late: list[tuple[int, float]] = []
    waiting = PendingHandshakes(reactor, 5.0, lambda fd: late.append((fd, reactor._clock[0] - 1000)))
    waiting.add(1, VERDICT, b"")
    reactor.wait(2.0)
    waiting.add(2, VERDICT, b"")
    waiting.add(3, VERDICT, b"")
    waiting.take(2)
    reactor.wait(60.0)
    assert late == [(1, 5.0), (3, 7.0)]
    assert len(waiting) == 0


def test_there_is_one_timer_for_all_and_none_for_nobody(reactor: Any):
    waiting = PendingHandshakes(reactor, 5.0, lambda _fd: None)
    for fd in range(100):
        waiting.add(fd, VERDICT, b"")
    assert reactor.timers == 1
    reactor.wait(60.0)
    assert reactor.timers == 0


def test_who_is_late_may_come_again_from_within(reactor: Any):
    late: list[int] = []

    def again(fd: int) -> None:
        late.append(fd)
        if len(late) == 1:
            waiting.add(fd + 1, VERDICT, b"")

    waiting = PendingHandshakes(reactor, 5.0, again)
    waiting.add(1, VERDICT, b"")
    reactor.wait(9.9)
    assert late == [1]
    reactor.wait(0.1)
    assert late == [1, 2]
