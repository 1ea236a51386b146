"""Faults that happen to several engines: to the real one, and to some that lack a part."""

import asyncio

from support.middle import DROP, HOLD, PASS
from support.trial import SIZE, TOPICS

LAST = b"0:1000000"


async def answers_are_lost(trial):
    """Batches are carried out, and the publishers don't hear of it."""
    for _ in range(6):
        for place in trial.publishers:
            place.asks.down = HOLD
        await trial.goes_on(0.1)
        for place in trial.publishers:
            place.cut()
            place.asks.down = PASS
        await trial.goes_on(0.2)
    await trial.ends()


async def back_from_a_snapshot(trial, broker):
    """The server is killed, and has lost what came after the snapshot."""
    broker.ask("SAVE")
    await trial.goes_on(0.5)
    broker.kill()
    await trial.goes_on(0.1)
    await asyncio.to_thread(broker.start)
    await trial.goes_on(0.5)
    await trial.ends()


async def deaf(trial):
    """The first follower hears nothing, and its other connection works; nobody publishes after that."""
    trial.followers[0].listens.down = DROP
    await trial.goes_on(1.5)
    await trial.stops()
    trial.followers[0].listens.down = PASS
    await trial.ends()


async def the_last_message_is_lost(trial):
    """Whole messages are swallowed, on connections that work; then nobody publishes."""
    place, other, topic = trial.followers[0], trial.followers[1], TOPICS[0]
    await trial.stops()
    await place.node.until(lambda: all(set(trial.acknowledged[one]) <= set(place.node.data(one)) for one in TOPICS))
    await _right_after_a_heartbeat(place)
    place.listens.down = DROP
    trial.acknowledged[topic][LAST] = await trial.publishers[0].node.publish(topic, LAST, size=SIZE)
    await other.node.until(lambda: other.node.data(topic)[-1] == LAST)
    assert place.node.data(topic)[-1] != LAST
    place.listens.down = PASS
    await trial.ends()


async def _right_after_a_heartbeat(place):
    seen = place.node.engine.latency
    async with asyncio.timeout(10):
        while place.node.engine.latency == seen:
            await asyncio.sleep(0)
