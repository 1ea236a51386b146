"""A node's engine with somebody who listens to it, for tests: what was asked is awaited, what was told is kept."""

import asyncio
from collections import defaultdict

from mooring.engine.letters import MOST, Append
from mooring.types import Position

LIMIT = 30.0  # seconds for anything, on a busy machine


class Node:
    """async with Node(engine) as node: ...; `told` has (epoch, offset, data) of each topic, in order."""

    def __init__(self, engine) -> None:
        self.engine = engine
        self.told: dict[str, list[tuple[str, int, bytes]]] = defaultdict(list)
        self.judged_as: dict[str, list] = defaultdict(list)
        self.why: list[str] = []  # it was disconnected
        self.excluded: list[bytes] = []
        self.connections = 0
        self._changed = asyncio.Event()

    def published(self, topic, epoch, kept, exclude):
        self.told[topic].append((epoch, kept.offset, kept.data))
        if exclude:
            self.excluded.append(exclude)
        self._changed.set()

    def judged(self, topic, verdict, position):
        self.judged_as[topic].append((verdict, position))
        self._changed.set()

    def connected(self):
        self.connections += 1
        self._changed.set()

    def disconnected(self, why):
        self.why.append(why)
        self._changed.set()

    async def __aenter__(self):
        self.engine.start(self)
        await self.until(lambda: self.connections)
        return self

    async def __aexit__(self, *problem):
        await self.engine.close()

    async def until(self, holds):
        """Until it holds; looked at whenever something was told."""
        async with asyncio.timeout(LIMIT):
            while not holds():
                self._changed.clear()
                await self._changed.wait()

    def data(self, topic):
        return [data for _, _, data in self.told[topic]]

    async def publish(self, topic, data, *, size=100, ttl=0.0, exclude=b""):
        """What became of it."""
        return await asked(self.engine.publish, Append(topic, 0, 1, data, size, ttl, exclude))

    async def follow(self, topic, position=None, most_bytes=MOST):
        return await asked(self.engine.follow, topic, position, most_bytes)

    async def since(self, topic, position=None, most=MOST, most_bytes=MOST):
        return await asked(self.engine.since, topic, position, most, most_bytes)


async def asked(question, *arguments):
    """The answer to something that is answered by a call."""
    answer = asyncio.get_running_loop().create_future()
    question(*arguments, answer.set_result)
    async with asyncio.timeout(LIMIT):
        return await answer


START = Position("", 0)  # of who has read nothing
