"""Servers for the tests of engines: one of each kind for all tests that do it no harm."""

import asyncio
import itertools
from contextlib import AsyncExitStack

import pytest

from mooring.engine.local import LocalEngine
from mooring.engine.memory import MemoryEngine
from mooring.engine.redis.engine import RedisEngine
from mooring.engine.redis.options import Options
from mooring.engine.redis.servers import resolver_of
from support.brokers import SERVERS, Broker
from support.nodes import LIMIT, Node

_numbers = itertools.count()


@pytest.fixture(scope="session")
def brokers():
    """The shared server of a kind, started when it is first asked for."""
    started = {}

    def get(kind):
        if kind not in started:
            started[kind] = Broker(SERVERS[kind])
            started[kind].start()
        return started[kind]

    yield get
    for one in started.values():
        one.__exit__()


@pytest.fixture
def run():
    """Runs a coroutine, with a limit."""

    def runs(coroutine, limit=2 * LIMIT):
        async def limited():
            async with asyncio.timeout(limit):
                await coroutine

        asyncio.run(limited())

    return runs


@pytest.fixture(params=["memory", *SERVERS])
def engines(request, brokers):
    """`nodes(number)`, a context with so many nodes that share what is published; of memory there is one, that many
    times."""
    prefix = f"test{next(_numbers)}"

    class Nodes:
        kind = request.param

        def __init__(self, number, **options):
            self._number = number
            self._options = Options(prefix=prefix, **options)
            self._stack = AsyncExitStack()

        async def __aenter__(self):
            if self.kind == "memory":
                loop = asyncio.get_running_loop()
                one = await self._stack.enter_async_context(
                    Node(LocalEngine(MemoryEngine(loop.time, 1 << 24), loop.call_later))
                )
                return [one] * self._number
            resolver = resolver_of(brokers(self.kind).url)
            return [
                await self._stack.enter_async_context(Node(RedisEngine(resolver, self._options)))
                for _ in range(self._number)
            ]

        async def __aexit__(self, *problem):
            await self._stack.aclose()

    return Nodes
