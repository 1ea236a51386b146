"""The engine over one server, Redis or Valkey: connects, beats, begins anew; the rest is in the units beside it."""

import asyncio
import contextlib
import itertools
import random
import secrets
import time
from collections.abc import Callable
from typing import Any

from redis.exceptions import ReadOnlyError, ResponseError

from mooring.engine.contract import Answer, Listener, PublishOutcome, Refused
from mooring.engine.history import Since
from mooring.engine.letters import Append
from mooring.engine.redis.appender import Appender
from mooring.engine.redis.connections import Lost, Pair
from mooring.engine.redis.follower import Follower
from mooring.engine.redis.options import Options
from mooring.engine.redis.packing import PUBLISHER_IDLE, Names
from mooring.engine.redis.reading import Question, ask
from mooring.engine.redis.scripts import BEAT
from mooring.engine.redis.servers import Resolver
from mooring.journal import own_logger
from mooring.types import Position

__all__ = ["RedisEngine"]

log = own_logger("mooring.engine")

PUBLISHER_BYTES = 9  # of chance: two nodes, or two lives of one, do not have the same
REFRESHES = 8  # of all that is followed, in the time after which a server forgets what nobody asks for
WATCH = 5.0  # seconds from one question whether the master is still the same to the next
SAY_AGAIN = 60.0  # seconds from one line about the same trouble to the next
EXPIRE = 0.25  # seconds from one look for who has waited for too long to the next
CLOSED = "the engine is closed"
_FORGET = int(PUBLISHER_IDLE * 1000)


class RedisEngine:
    """See the package's text; the contract is Engine."""

    def __init__(self, resolver: Resolver, options: Options | None = None) -> None:
        self._resolver = resolver
        self._options = options = options or Options()
        self.publisher = secrets.token_urlsafe(PUBLISHER_BYTES)
        self._epochs = itertools.count(1)
        self._names = names = Names(options, self.publisher)
        self._appender = Appender(options, names, self.publisher, time.monotonic, self._fresh)
        self._follower = Follower(options, names, self.publisher, time.monotonic, self._fresh)
        self._asking: dict[asyncio.Task[None], Answer] = {}
        self._pair: Pair | None = None  # that works
        self._ready = asyncio.Event()
        self._why = "Redis was not reached yet"
        self._problem = ""  # that was logged
        self._say_again = 0.0
        self._beat = 0
        self._echo: asyncio.Future[None] | None = None
        self._running: list[asyncio.Task[None]] = []
        self._closing = False
        self._listener: Listener | None = None
        self.latency = 0.0
        """Seconds that the last heartbeat took, from the one connection to the other."""
        self._counted = {"engine_connections": 0, "engine_bad_messages": 0}

    def _fresh(self) -> str:
        return f"{self.publisher}.{next(self._epochs):x}"

    # ------------------------------------------------------------------ the contract

    def start(self, listener: Listener) -> None:
        self._listener = listener
        self._follower.start(listener)
        self._running = [asyncio.create_task(self._work()), asyncio.create_task(self._expire())]

    async def close(self) -> None:
        if self._pair is not None:  # what was taken is sent, if there is somebody who takes it
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._options.call_limit):
                    await self._appender.empty.wait()
        self._closing = True
        tasks = [*self._running, *self._asking]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._appender.close()
        self._follower.close()
        asking, self._asking = self._asking, {}
        for told in asking.values():
            told(Refused(CLOSED))

    def publish(self, append: Append, answer: Callable[[PublishOutcome], None]) -> None:
        self._appender.publish(append, answer)

    def follow(self, topic: str, position: Position | None, most_bytes: int, answer: Answer) -> None:
        self._follower.follow(topic, position, most_bytes, answer)

    def unfollow(self, topic: str) -> None:
        self._follower.unfollow(topic)

    def since(self, topic: str, position: Position | None, most: int, most_bytes: int, answer: Answer) -> None:
        question = Question(topic, position, most, most_bytes)
        self._asking[asyncio.create_task(self._answer(question))] = answer

    def stats(self) -> dict[str, int]:
        return {**self._counted, **self._appender.counted, **self._follower.counted}

    # ------------------------------------------------------------------ questions

    async def _answer(self, question: Question) -> None:
        found: Since | Refused
        try:
            found = await self._found(question)
        except TimeoutError:
            found = Refused(self._why)
        except Exception as problem:  # a fault of ours
            log.exception("a question about %r has no answer", question.topic)
            found = Refused(repr(problem))
        task = asyncio.current_task()
        assert task is not None
        self._asking.pop(task)(found)

    async def _found(self, question: Question) -> Since | Refused:
        async with asyncio.timeout(self._options.patience):
            while True:
                await self._ready.wait()
                assert self._pair is not None
                try:
                    (found,) = await ask(self._pair, self._names, self._options, self._fresh(), [question])
                except ReadOnlyError as problem:
                    self._pair.give_up(str(problem))
                except ResponseError as problem:
                    return Refused(str(problem))
                except Lost:
                    self._ready.clear()
                else:
                    return Refused(found.why) if found.why else found.since()

    async def _expire(self) -> None:
        pause = self._options.idle / REFRESHES
        refresh_at = time.monotonic() + pause
        while True:
            await asyncio.sleep(EXPIRE)
            self._appender.expire()
            self._follower.expire()
            if time.monotonic() >= refresh_at:
                self._follower.refresh()
                refresh_at = time.monotonic() + pause

    # ------------------------------------------------------------------ connections

    async def _work(self) -> None:
        shortest, longest = self._options.backoff
        pause = shortest
        while True:
            began = time.monotonic()
            try:
                await self._connection()
            except Lost as problem:
                self._down(str(problem))
            except Exception as problem:  # a fault of ours: said, and begun anew
                log.exception("the engine's connections are closed")
                self._down(repr(problem))
            if time.monotonic() - began > longest:
                pause = shortest
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, longest)

    def _down(self, why: str) -> None:
        now = time.monotonic()
        if why != self._problem or now >= self._say_again:  # it may last for hours, with a try each two seconds
            self._problem, self._say_again = why, now + SAY_AGAIN
            log.warning("Redis can't be used: %s", why)
        self._why = self._appender.why = self._follower.why = f"Redis can't be used: {why}"

    async def _connection(self) -> None:
        """One life of the connections. Raises Lost."""
        pair = await Pair.open(self._resolver.connection, self._heard, self._options.call_limit)
        tasks = [asyncio.create_task(one) for one in (pair.run(), self._use(pair))]
        problem: BaseException = Lost(CLOSED)
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            problem = _cause([task.exception() for task in done])
        finally:
            pair.give_up(CLOSED)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await pair.close()
            works, self._pair = self._pair, None
            self._ready.clear()
            self._follower.cut()
            if works is not None and self._listener is not None and not self._closing:
                self._listener.disconnected(str(problem))
        raise problem

    async def _use(self, pair: Pair) -> None:
        await self._agree(pair)
        self._counted["engine_connections"] += 1
        await pair.subscribe([self._names.beat])
        await self._follower.subscribe(pair, self._follower.partitions)
        await self._heartbeat(pair)
        self._pair = pair
        self._ready.set()
        if self._problem:
            self._problem = ""
            log.info("Redis answers")
        assert self._listener is not None
        self._listener.connected()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._appender.run(pair))
            group.create_task(self._follower.run(pair))
            group.create_task(self._heartbeats(pair))
            group.create_task(self._watch())

    async def _watch(self) -> None:
        """A master that others have left behind may go on as if nothing were."""
        while True:
            await asyncio.sleep(WATCH)
            if await self._resolver.has_moved():
                raise Lost("another server is the master now")

    async def _agree(self, pair: Pair) -> None:
        """Nodes that share topics share their channels, or they would not hear each other."""
        mine = self._options.partitions
        try:
            await pair.call("HSETNX", self._names.facts, "partitions", mine)
            theirs = int(await pair.call("HGET", self._names.facts, "partitions"))
        except ResponseError as problem:
            raise Lost(str(problem)) from problem
        if theirs != mine:
            raise Lost(f"other nodes use {theirs} partitions, and this one {mine}: set the same number on all")

    # ------------------------------------------------------------------ what is heard

    def _heard(self, channel: bytes, message: bytes) -> None:
        if channel == self._names.beat:
            if self._echo is not None and not self._echo.done() and int(message) == self._beat:
                self._echo.set_result(None)
            return
        try:
            self._follower.heard(channel, message)
        except ValueError as problem:  # somebody else's; what follows it will be a gap
            self._counted["engine_bad_messages"] += 1
            log.warning("a message in channel %r makes no sense: %s", channel, problem)

    async def _heartbeats(self, pair: Pair) -> None:
        while True:
            await asyncio.sleep(self._options.beat_every)
            await self._heartbeat(pair)

    async def _heartbeat(self, pair: Pair) -> None:
        """Sends one, and hears it on the other connection. Raises Lost."""
        self._beat += 1
        self._echo = asyncio.get_running_loop().create_future()
        expected, began = self._appender.last, time.monotonic()
        keys = [self._names.publisher, self._names.counters]
        try:
            answer: list[Any] = await pair.script(BEAT, keys, [self._names.beat, self._beat, _FORGET])
        except ResponseError as problem:
            raise Lost(str(problem)) from problem
        role, generation, stored, counters = answer
        if role != b"master":
            raise Lost(f"the server is no master, but {role.decode()}")
        try:
            async with asyncio.timeout(self._options.beat_limit):
                await self._echo
        except TimeoutError:
            raise Lost(f"a heartbeat was not heard within {self._options.beat_limit:g} s") from None
        self.latency = time.monotonic() - began
        self._appender.compare(int(stored), expected)
        self._follower.compare(generation, dict(zip(map(int, counters[::2]), map(int, counters[1::2]), strict=True)))


def _cause(problems: list[BaseException | None]) -> BaseException:
    """Of a life of the connections: a fault of ours before what may be its consequence."""
    found: list[BaseException] = []
    for problem in problems:
        if isinstance(problem, BaseExceptionGroup):
            found += problem.exceptions
        elif problem is not None:
            found.append(problem)
    return next((one for one in found if not isinstance(one, Lost)), found[0])
