"""Pings on schedule, pongs in time."""

import pytest

from mooring.centrifuge.heartbeat import Beat, Heartbeat
from mooring.centrifuge.limits import Timing


def beats(spread=0.0, **timing):
    heartbeat = Heartbeat(Timing(**{"ping_interval": 20, "pong_timeout": 8, **timing}))
    heartbeat.start(100, spread)
    return heartbeat


@pytest.mark.parametrize(("spread", "first"), [(0, 110), (0.5, 115), (1, 120)])
def test_the_first_ping(spread, first):
    heartbeat = beats(spread)
    assert heartbeat.deadline == first
    assert heartbeat.due(first - 0.01) is None
    assert heartbeat.due(first) is Beat.PING


def test_an_answered_ping():
    heartbeat = beats()
    assert heartbeat.due(110) is Beat.PING
    assert heartbeat.deadline == 118
    assert heartbeat.pong()
    assert heartbeat.deadline == 130
    assert heartbeat.due(130) is Beat.PING
    assert heartbeat.pong()
    assert not heartbeat.pong()


def test_a_ping_that_nobody_answers():
    heartbeat = beats()
    assert heartbeat.due(110) is Beat.PING
    assert heartbeat.due(117.9) is None
    assert heartbeat.due(118) is Beat.NO_PONG


def test_a_pong_that_can_not_be_seen_is_waited_for():
    heartbeat = beats()
    assert heartbeat.due(110) is Beat.PING
    assert heartbeat.due(118, deaf=True) is None
    assert heartbeat.deadline == 126
    assert heartbeat.due(126) is Beat.NO_PONG


def test_a_pong_may_take_longer_than_the_interval():
    """The first ping that is not answered counts, not the last one."""
    heartbeat = beats(ping_interval=2, pong_timeout=5)
    assert heartbeat.due(101) is Beat.PING
    assert heartbeat.due(103) is Beat.PING
    assert heartbeat.due(105) is Beat.PING
    assert heartbeat.due(106) is Beat.NO_PONG


def test_every_ping_may_have_its_pong():
    heartbeat = beats(ping_interval=2, pong_timeout=5)
    assert heartbeat.due(101) is Beat.PING
    assert heartbeat.due(103) is Beat.PING
    assert [heartbeat.pong() for _ in range(3)] == [True, True, False]
    assert heartbeat.deadline == 105


def test_without_pongs_and_without_pings():
    heartbeat = beats(pong=False)
    assert heartbeat.due(110) is Beat.PING
    assert heartbeat.deadline == 130
    assert not heartbeat.pong()
    silent = beats(ping_interval=0)
    assert silent.deadline is None
    assert silent.due(1e9) is None
    assert Heartbeat(Timing()).deadline is None
