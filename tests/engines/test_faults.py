"""Faults of server and network over Redis and Valkey: nothing is lost, doubled or misordered, or it has a name."""

import asyncio

import pytest

from engines.scenarios import answers_are_lost, back_from_a_snapshot, deaf, the_last_message_is_lost
from mooring.types import Verdict
from support.brokers import SERVERS, Broker
from support.middle import DROP, PASS
from support.trial import Trial

pytestmark = pytest.mark.parametrize("program", SERVERS.values(), ids=SERVERS)


@pytest.fixture
def broker(program):
    with Broker(program) as one:
        yield one


def test_nothing_happens(broker, run):
    """The trial itself: with no fault there is none."""

    async def test():
        async with Trial(broker.path) as trial:
            await trial.goes_on(0.5)
            await trial.ends()
            assert trial.faults() == []
            assert not trial.refused
            assert not trial.uncertain
            assert sum(map(len, trial.acknowledged.values())) > 200

    run(test())


def test_answers_are_lost(broker, run):
    async def test():
        async with Trial(broker.path) as trial:
            await answers_are_lost(trial)
            assert trial.faults() == []

    run(test())


def test_subscriptions_are_cut(broker, run):
    async def test():
        async with Trial(broker.path) as trial:
            for i in range(20):
                trial.places[i % 4].listens.cut()
                await trial.goes_on(0.05)
            await trial.ends()
            assert trial.faults() == []
            assert trial.counted("engine_repairs") > 0

    run(test())


@pytest.mark.parametrize("direction", ["up", "down", "both"])
def test_a_black_hole(broker, run, direction):
    async def test():
        async with Trial(broker.path) as trial:
            hit = (trial.publishers[0], trial.followers[0])
            for place in hit:
                for middle in (place.asks, place.listens):
                    if direction == "both":
                        middle.both(DROP)
                    else:
                        setattr(middle, direction, DROP)
            await trial.goes_on(0.3)
            for place in hit:
                await place.node.until(lambda place=place: place.node.why)
                # what was swallowed left a hole in the stream of bytes: these connections are of no use
                place.cut()
                place.both(PASS)
            await trial.goes_on(0.3)
            await trial.ends()
            assert trial.faults() == []

    run(test())


def test_only_the_subscription_is_deaf(broker, run):
    """The connection that asks goes on: the heartbeat finds it."""

    async def test():
        async with Trial(broker.path) as trial:
            await deaf(trial)
            assert trial.faults() == []
            assert "heartbeat" in trial.followers[0].node.why[0]

    run(test())


def test_a_message_is_lost_and_none_follows(broker, run):
    """Nothing is wrong with the connections: the counters find it."""

    async def test():
        async with Trial(broker.path) as trial:
            await the_last_message_is_lost(trial)
            assert trial.faults() == []
            assert not trial.followers[0].node.why

    run(test())


def test_the_server_stands_still(broker, run):
    async def test():
        async with Trial(broker.path) as trial:
            for _ in range(2):
                broker.freeze()
                await trial.goes_on(1.0)
                broker.thaw()
                await trial.goes_on(0.5)
            await trial.ends()
            assert trial.faults() == []

    run(test())


def test_the_server_is_killed_and_comes_back_from_a_snapshot(broker, run):
    async def test():
        async with Trial(broker.path) as trial:
            await back_from_a_snapshot(trial, broker)
            assert trial.faults() == []
            assert trial.counted("publications_sent_again") > 0
            assert Verdict.ROLLED_BACK in trial.verdicts
            assert Verdict.UNKNOWN_EPOCH not in trial.verdicts

    run(test())


def test_the_server_loses_everything(broker, run):
    async def test():
        async with Trial(broker.path) as trial:
            broker.kill()
            await asyncio.to_thread(broker.start)
            await trial.goes_on(0.3)
            broker.ask("FLUSHALL")
            await trial.goes_on(0.3)
            await trial.ends()
            assert trial.faults() == []
            assert trial.verdicts == {Verdict.UNKNOWN_EPOCH}
            assert set(trial.returned.values()) == {Verdict.UNKNOWN_EPOCH}

    run(test())
