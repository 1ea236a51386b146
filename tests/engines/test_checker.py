"""The trial finds what is wrong: engines that lack a part, each under a fault that this part is for."""

import hashlib
from dataclasses import replace

import pytest

from engines.scenarios import answers_are_lost, back_from_a_snapshot, deaf, the_last_message_is_lost
from mooring.engine.redis import appender
from mooring.engine.redis.appender import Appender
from mooring.engine.redis.follower import Follower
from mooring.engine.redis.scripts import Script
from support.brokers import SERVERS, Broker
from support.trial import QUICK, Trial

PROGRAM = SERVERS.get("redis") or SERVERS.get("valkey")
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="neither Redis nor Valkey is here")


@pytest.fixture
def broker():
    with Broker(PROGRAM) as one:
        yield one


def change(monkeypatch, *changes):
    """The script that appends, with some of its text replaced."""
    text = appender.APPEND.text
    for old, new in changes:
        assert text.count(old) == 1
        text = text.replace(old, new)
    monkeypatch.setattr(appender, "APPEND", Script(text, hashlib.sha1(text).hexdigest()))


NO_DONE = (b"if last <= stored then", b"if false then")
NO_HOLE = (b"if first ~= stored + 1 and not (stored < base and first == base) then", b"if false then")
NO_CHAIN = (b"elseif facts[i][2] ~= generation then", b"elseif false then")


def found(trial, *words):
    faults = trial.faults()
    assert any(all(word in fault for word in words) for fault in faults), faults


def test_without_numbers_lost_answers_double_publications(broker, run, monkeypatch):
    change(monkeypatch, NO_DONE, NO_HOLE)

    async def test():
        async with Trial(broker.path) as trial:
            await answers_are_lost(trial)
            found(trial, "history", "doubled")

    run(test())


def test_without_a_chain_a_position_means_two_things(broker, run, monkeypatch):
    change(monkeypatch, NO_CHAIN)

    async def test():
        async with Trial(broker.path) as trial:
            await back_from_a_snapshot(trial, broker)
            found(trial, "means")

    run(test())


def test_without_repair_a_snapshot_loses_what_was_acknowledged(broker, run, monkeypatch):
    change(monkeypatch, NO_HOLE)
    monkeypatch.setattr(Appender, "compare", lambda self, stored, expected: None)

    async def test():
        async with Trial(broker.path) as trial:
            await back_from_a_snapshot(trial, broker)
            found(trial, "history", "missing")

    run(test())


def test_without_ids_what_is_sent_again_is_told_again(broker, run, monkeypatch):
    monkeypatch.setattr(Follower, "_see", lambda self, followed, publisher, number: None)

    async def test():
        async with Trial(broker.path) as trial:
            await back_from_a_snapshot(trial, broker)
            found(trial, "node", "doubled")

    run(test())


def test_without_counters_a_lost_end_is_never_noticed(broker, run, monkeypatch):
    monkeypatch.setattr(Follower, "compare", lambda self, generation, counters: None)

    async def test():
        async with Trial(broker.path) as trial:
            await the_last_message_is_lost(trial)
            found(trial, "node 2", "1 of", "missing")

    run(test())


def test_without_a_heartbeat_who_is_deaf_stays_so(broker, run):
    async def test():
        async with Trial(broker.path, replace(QUICK, beat_limit=1000.0)) as trial:
            await deaf(trial)
            found(trial, "node 2", "missing")

    run(test())


def test_with_gaps_that_are_not_mended_a_cut_loses(broker, run, monkeypatch):
    monkeypatch.setattr(Follower, "_fall_behind", _fall_behind_only_to_begin)

    async def test():
        async with Trial(broker.path) as trial:
            for place in trial.followers:
                place.cut()
                await trial.goes_on(0.2)
            await trial.ends(0.5)
            found(trial, "node 2", "missing")

    run(test())


_mended = Follower._fall_behind


def _fall_behind_only_to_begin(self, topic, followed):
    if followed.asked:
        _mended(self, topic, followed)
    else:
        followed.position = followed.position._replace(offset=followed.position.offset + 10_000)
