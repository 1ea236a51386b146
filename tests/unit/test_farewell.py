"""Many clients are sent away one after the other, in time; a few at once."""

from typing import Any

import pytest

from mooring.gateway.farewell import AT_ONCE, SHARE, SLOWEST, Farewell
from support.ticking import Ticking


@pytest.fixture
def reactor(clock: list[float]) -> Any:
    return Ticking(clock)


def test_a_few_are_closed_at_once_in_order(reactor: Any):
    closed: list[int] = []
    Farewell(reactor, list(range(AT_ONCE)), 30.0, closed.append)
    assert closed == list(range(AT_ONCE))
    assert not reactor.timers


def test_nobody_waits_longer_than_the_slowest_rate_says(reactor: Any):
    closed: list[int] = []
    Farewell(reactor, list(range(AT_ONCE + 50)), 30.0, closed.append)
    assert len(closed) == AT_ONCE
    reactor.wait(50 / SLOWEST + 0.05)
    assert closed == list(range(AT_ONCE + 50))


def test_very_many_take_their_share_of_the_time_and_are_spread_over_it(reactor: Any):
    closed: list[int] = []
    many = 20_000
    Farewell(reactor, list(range(many)), 10.0, closed.append)
    reactor.wait(10.0 * SHARE / 2)
    assert many * 0.4 < len(closed) < many * 0.6
    reactor.wait(10.0 * SHARE / 2 + 0.05)
    assert len(closed) == many


def test_a_loop_that_was_kept_makes_up_for_it(reactor: Any, clock: list[float]):
    closed: list[int] = []
    Farewell(reactor, list(range(5_000)), 10.0, closed.append)
    clock[0] += 10.0 * SHARE
    reactor.wait()
    assert len(closed) == 5_000


@pytest.mark.parametrize("timeout", [0.0, -1.0])
def test_without_time_all_are_closed_at_once(reactor: Any, timeout: float):
    closed: list[int] = []
    Farewell(reactor, list(range(5_000)), timeout, closed.append)
    assert len(closed) == 5_000


def test_in_a_hurry_the_rest_is_closed_now(reactor: Any):
    closed: list[int] = []
    farewell = Farewell(reactor, list(range(5_000)), 30.0, closed.append)
    reactor.wait(1.0)
    assert len(closed) < 5_000
    farewell.hurry()
    assert closed == list(range(5_000))
    reactor.wait(30.0)
    assert len(closed) == 5_000, "each once"
