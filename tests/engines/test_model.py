"""Redis and Valkey beside the engine in memory, which is the model: both are asked the same, and both answer the same.

Epochs have names of their own in each, and what has lost nothing may go on under the old name until somebody publishes.
So a position is known by what it stands for: the place where it was given."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mooring.engine.letters import MOST
from mooring.engine.local import LocalEngine
from mooring.engine.memory import MemoryEngine
from mooring.engine.redis.engine import RedisEngine
from mooring.engine.redis.servers import resolver_of
from mooring.types import Position
from support.brokers import SERVERS
from support.nodes import START, Node
from support.trial import QUICK

TOPICS = ("a", "b")
SIZES = st.sampled_from([1, 3, 100])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.sampled_from(TOPICS), st.integers(1, 5), SIZES),
        st.tuples(st.just("break_line"), st.just(""), st.just(0), st.just(0)),
        st.tuples(st.just("since"), st.sampled_from(TOPICS), st.integers(0, 30), st.sampled_from([1, 3, 1000])),
        st.tuples(st.just("end"), st.sampled_from(TOPICS), st.just(0), st.just(0)),
        st.tuples(st.just("invent"), st.sampled_from(TOPICS), st.integers(0, 20), st.just(0)),
    ),
    min_size=8,
    max_size=40,
)


@pytest.mark.parametrize("kind", SERVERS)
@given(steps=STEPS)
@settings(max_examples=100)
def test_the_same_is_asked_and_the_same_is_answered(brokers, kind, steps):
    async def test():
        async with asyncio.timeout(60):
            broker = brokers(kind)
            broker.ask("FLUSHALL")
            memory = MemoryEngine(asyncio.get_running_loop().time, 1 << 24)
            async with (
                Node(LocalEngine(memory, asyncio.get_running_loop().call_later)) as model,
                Node(RedisEngine(resolver_of(broker.url), QUICK)) as node,
            ):
                await Both(model, memory, node, broker).do(steps)

    asyncio.run(test())


class Both:
    def __init__(self, model, memory, node, broker):
        self.model, self.memory, self.node, self.broker = model, memory, node, broker
        self.given = {topic: [(START, START)] for topic in TOPICS}  # positions, as the two have said them
        self.number = 0
        self.breaks = 0

    async def do(self, steps):
        for what, topic, number, size in steps:
            await getattr(self, what)(topic, number, size)

    async def publish(self, topic, many, size):
        texts = [b"%d" % (self.number + i) for i in range(many)]
        self.number += many
        expected = [await self.model.publish(topic, text, size=size) for text in texts]
        got = await asyncio.gather(*(self.node.publish(topic, text, size=size) for text in texts))
        assert [one.offset for one in got] == [one.offset for one in expected]
        self.given[topic] += zip(expected, got, strict=True)

    async def end(self, topic, *_):
        await self.compare(topic, None, None, MOST)

    async def since(self, topic, number, most):
        positions = self.given[topic]
        await self.compare(topic, *positions[number % len(positions)], most)

    async def invent(self, topic, offset, *_):
        """Ahead of what there is, or of a line that is none."""
        expected, got = self.given[topic][-1]
        await self.compare(
            topic, expected._replace(offset=expected.offset + offset), got._replace(offset=got.offset + offset), MOST
        )
        await self.compare(topic, Position("none", offset), Position("none", offset), MOST)

    async def compare(self, topic, expected_position, position, most):
        expected = await self.model.since(topic, expected_position, most)
        got = await self.node.since(topic, position, most)
        assert got.verdict is expected.verdict
        assert got.position.offset == expected.position.offset
        assert got.end.offset == expected.end.offset
        assert [(one.offset, one.opcode, one.data) for one in got.publications] == [
            (one.offset, one.opcode, one.data) for one in expected.publications
        ]
        self.given[topic] += [(expected.position, got.position), (expected.end, got.end)]

    async def break_line(self, *_):
        """Without a loss: the server is a replica for a moment, of nobody."""
        self.broker.ask("REPLICAOF", "127.0.0.1", "1")
        self.broker.ask("REPLICAOF", "NO", "ONE")
        self.breaks += 1
        for history in self.memory._topics.values():
            history.break_line(f"break {self.breaks}")
