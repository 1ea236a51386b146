"""Topics spread over several servers."""

import asyncio
from contextlib import ExitStack

import pytest

from mooring.engine.contract import Refused
from mooring.engine.redis.options import Options
from mooring.engine.redis.several import engine_at
from mooring.types import Position
from support.brokers import SERVERS, Broker
from support.nodes import START, Node
from support.trial import QUICK

PROGRAM = SERVERS.get("redis") or SERVERS.get("valkey")
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="neither Redis nor Valkey is here")
TOPICS = [f"t{i}" for i in range(60)]


@pytest.fixture
def servers():
    with ExitStack() as stack:
        yield [stack.enter_context(Broker(PROGRAM)) for _ in range(3)]


def test_each_server_has_a_share_and_nodes_agree_on_it(servers, run):
    urls = [one.url for one in servers]

    async def test():
        options = Options(partitions=64)
        async with (
            Node(engine_at(" ".join(urls), options)) as one,
            Node(engine_at(" ".join(urls[::-1]), options)) as other,
        ):
            assert one.connections == other.connections == 1, "it works when all of them do"
            await asyncio.gather(*(other.follow(topic) for topic in TOPICS))
            for text in (b"1", b"2"):
                await asyncio.gather(*(one.publish(topic, text) for topic in TOPICS))
            await other.until(lambda: all(len(other.told[topic]) == 2 for topic in TOPICS))
            assert all(other.data(topic) == [b"1", b"2"] for topic in TOPICS)
            assert [one.data for one in (await other.since("t7", START)).publications] == [b"1", b"2"]
            other.engine.unfollow("t7")
            assert one.engine.stats()["publications"] == 2 * len(TOPICS)
            shares = [len(server.ask("KEYS", "mooring:m:*")) for server in servers]
            assert sum(shares) == len(TOPICS)
            assert min(shares) > 5

    run(test())


def test_what_happens_to_one_concerns_its_topics_alone(servers, run):
    async def test():
        options = Options(**{**vars(QUICK), "patience": 0.5, "partitions": 64})
        async with Node(engine_at(" ".join(one.url for one in servers), options)) as node:
            lost = servers[1]
            lost.kill()
            await node.until(lambda: node.why)
            assert node.why[0].startswith(lost.url)
            outcomes = await asyncio.gather(*(node.publish(topic, b"1") for topic in TOPICS))
            refused = [one for one in outcomes if isinstance(one, Refused)]
            assert 5 < len(refused) < 40
            assert len([one for one in outcomes if isinstance(one, Position)]) == len(TOPICS) - len(refused)
            await asyncio.to_thread(lost.start)
            await node.until(lambda: node.connections == 2)
            outcomes = await asyncio.gather(*(node.publish(topic, b"2") for topic in TOPICS))
            assert all(isinstance(one, Position) for one in outcomes)

    run(test())
