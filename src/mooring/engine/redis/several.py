"""Several servers at once, each with a part of the topics."""

import asyncio
import hashlib
from collections.abc import Callable, Mapping

from mooring.engine.contract import Answer, Engine, Listener, PublishOutcome
from mooring.engine.history import Kept
from mooring.engine.letters import Append
from mooring.engine.redis.engine import RedisEngine
from mooring.engine.redis.options import Options
from mooring.engine.redis.packing import partition_of
from mooring.engine.redis.servers import resolver_of, without_login
from mooring.types import Position, Verdict

__all__ = ["SeveralServers", "engine_at", "share"]


def engine_at(urls: str, options: Options | None = None) -> Engine:
    """Over the server that the URL names; of several URLs, with spaces between them, each server has a share of the
    topics. Raises ValueError for one that makes no sense."""
    options = options or Options()
    resolvers = {without_login(url): resolver_of(url) for url in urls.split()}
    if not resolvers:
        raise ValueError("the engine's URL is empty: write redis://host, for example")
    engines = {name: RedisEngine(resolver, options) for name, resolver in resolvers.items()}
    if len(engines) == 1:
        return next(iter(engines.values()))
    return SeveralServers(engines, options)


def share(partition: int, servers: list[str]) -> str:
    """Who has it: the one with the highest hash of its name and the partition (rendezvous hashing). So when a server
    comes or goes, no partition moves but to it or from it, and the order in which they are named is of no matter."""
    return max(servers, key=lambda name: hashlib.blake2b(f"{partition} {name}".encode(), digest_size=8).digest())


class SeveralServers:
    """The contract is Engine. What happens to one server concerns its topics alone."""

    def __init__(self, engines: Mapping[str, Engine], options: Options) -> None:
        self._engines = engines
        self._shares = [engines[share(one, list(engines))] for one in range(options.partitions)]
        self._down: set[str] = set(engines)

    def _of(self, topic: str) -> Engine:
        return self._shares[partition_of(topic.encode(), len(self._shares))]

    def start(self, listener: Listener) -> None:
        for name, engine in self._engines.items():
            engine.start(_Ear(self._down, name, listener))

    async def close(self) -> None:
        await asyncio.gather(*(engine.close() for engine in self._engines.values()))

    def publish(self, append: Append, answer: Callable[[PublishOutcome], None]) -> None:
        self._of(append.topic).publish(append, answer)

    def follow(self, topic: str, position: Position | None, most_bytes: int, answer: Answer) -> None:
        self._of(topic).follow(topic, position, most_bytes, answer)

    def unfollow(self, topic: str) -> None:
        self._of(topic).unfollow(topic)

    def since(self, topic: str, position: Position | None, most: int, most_bytes: int, answer: Answer) -> None:
        self._of(topic).since(topic, position, most, most_bytes, answer)

    def stats(self) -> dict[str, int]:
        total: dict[str, int] = {}
        for engine in self._engines.values():
            for name, number in engine.stats().items():
                total[name] = total.get(name, 0) + number
        return total


class _Ear:
    """Of one server: all of them work, or it is said which one does not."""

    def __init__(self, down: set[str], name: str, listener: Listener) -> None:
        self._down = down
        self._name = name
        self._listener = listener

    def published(self, topic: str, epoch: str, kept: Kept, exclude: bytes) -> None:
        self._listener.published(topic, epoch, kept, exclude)

    def judged(self, topic: str, verdict: Verdict, position: Position) -> None:
        self._listener.judged(topic, verdict, position)

    def connected(self) -> None:
        self._down.discard(self._name)
        if not self._down:
            self._listener.connected()

    def disconnected(self, why: str) -> None:
        self._down.add(self._name)
        self._listener.disconnected(f"{self._name}: {why}")
