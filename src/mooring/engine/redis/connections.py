"""Two connections to one server: one that asks, one that listens.

Theory
    redis-py has the protocol, TLS and the login; what it does about errors is not wanted here. Its clients connect
    again and send again by themselves, and a subscriber is not told what it has missed meanwhile. So only its
    connections are used, each for one life: what goes wrong with either ends both (Lost), and whoever owns them
    begins anew.

    Requests go out at once and are answered in order. A request that has no answer within its limit ends the
    connections as well: answers that come later would be taken for those of others, and a server that stands still
    looks like this. Whether such a request was carried out nobody knows.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import NoScriptError, RedisError, ResponseError

from mooring.engine.redis.scripts import Script

__all__ = ["Heard", "Lost", "Pair", "Resolve"]

#: Called with channel and message.
Heard = Callable[[bytes, bytes], None]

#: A new connection to the server that is the master now, not yet opened.
Resolve = Callable[[], Awaitable[AbstractConnection]]


class Lost(Exception):
    """The connections are given up, and why."""


class Pair:
    """See the module's text. After `open`, `run` has to run as long as it is used; after that, `close`."""

    def __init__(self, asking: AbstractConnection, listening: AbstractConnection, heard: Heard, limit: float) -> None:
        self._asking = asking
        self._listening = listening
        self._heard = heard
        self._limit = limit
        self._why = ""  # it was given up
        self._given_up = asyncio.Event()
        self._asked: deque[asyncio.Future[Any]] = deque()
        self._confirming: dict[bytes, asyncio.Future[None]] = {}

    @classmethod
    async def open(cls, resolve: Resolve, heard: Heard, limit: float) -> "Pair":
        """Raises Lost."""
        opened: list[AbstractConnection] = []
        try:
            async with asyncio.timeout(limit):
                for _ in range(2):
                    connection = await resolve()
                    opened.append(connection)
                    _connect_once(connection)
                    await connection.connect()  # type: ignore[no-untyped-call]
        except BaseException as problem:
            for connection in opened:
                await connection.disconnect(nowait=True)
            if isinstance(problem, TimeoutError):
                raise Lost(f"it did not let us in within {limit:g} s") from None
            if isinstance(problem, RedisError | OSError):
                raise Lost(str(problem)) from problem
            raise
        asking, listening = opened
        return cls(asking, listening, heard, limit)

    async def run(self) -> None:
        """Reads what comes, until the connections are given up. Raises Lost then."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._read_answers())
                group.create_task(self._listen())
                group.create_task(self._end_when_given_up())
        except* Lost as problems:
            self.give_up(str(problems.exceptions[0]))
        raise Lost(self._why)

    async def close(self) -> None:
        """What it holds is let go."""
        self.give_up("it is closed")
        await self._asking.disconnect(nowait=True)
        await self._listening.disconnect(nowait=True)

    def give_up(self, why: str) -> None:
        """All that wait for an answer have Lost."""
        if self._why:
            return
        self._why = why
        self._given_up.set()
        for waiting in (*self._asked, *self._confirming.values()):
            if not waiting.done():
                waiting.set_exception(Lost(why))
                waiting.exception()  # who has gone away need not look at it
        self._asked.clear()
        self._confirming.clear()

    async def call(self, *command: bytes | str | int) -> Any:
        """The answer to a command. Raises ResponseError, with what the server says; and Lost."""
        self._check()
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        packed = _packed(command)
        self._asked.append(answer)
        try:
            async with asyncio.timeout(self._limit):
                # written before it first waits, so requests go out in the order of `_asked`
                await self._asking.send_packed_command(packed, check_health=False)
                return await answer
        except TimeoutError:
            self.give_up(f"no answer within {self._limit:g} s")
        except ResponseError:
            raise
        except (RedisError, OSError) as problem:
            self.give_up(str(problem))
        raise Lost(self._why)

    async def script(self, script: Script, keys: list[bytes], arguments: list[bytes | str | int]) -> Any:
        """As `call`. A server that does not know the script is told it."""
        try:
            return await self.call("EVALSHA", script.sha, len(keys), *keys, *arguments)
        except NoScriptError:
            return await self.call("EVAL", script.text, len(keys), *keys, *arguments)

    async def subscribe(self, channels: Iterable[bytes]) -> None:
        """Returns when the server has confirmed all of them. Raises Lost."""
        self._check()
        loop = asyncio.get_running_loop()
        new = {channel: loop.create_future() for channel in channels}
        if not new:
            return
        self._confirming.update(new)
        try:
            async with asyncio.timeout(self._limit):
                await self._listening.send_command("SUBSCRIBE", *new, check_health=False)
                for confirmed in new.values():
                    await confirmed
                return
        except TimeoutError:
            self.give_up(f"no answer to a subscription within {self._limit:g} s")
        except (RedisError, OSError) as problem:
            self.give_up(str(problem))
        raise Lost(self._why)

    async def unsubscribe(self, channels: Iterable[bytes]) -> None:
        """Does not wait: what comes until then is not wanted. Raises Lost."""
        self._check()
        gone = list(channels)
        if gone:
            try:
                await self._listening.send_command("UNSUBSCRIBE", *gone, check_health=False)
            except (RedisError, OSError) as problem:
                self.give_up(str(problem))
                raise Lost(self._why) from problem

    def _check(self) -> None:
        if self._why:
            raise Lost(self._why)

    async def _end_when_given_up(self) -> None:
        await self._given_up.wait()
        raise Lost(self._why)

    async def _read_answers(self) -> None:
        while True:
            answer: Any
            try:
                answer = await self._asking.read_response(disable_decoding=True, disconnect_on_error=False)
            except ResponseError as refused:
                answer = refused
            except (RedisError, OSError) as problem:
                raise Lost(str(problem)) from problem
            waiting = self._asked.popleft()
            if waiting.done():  # cancelled: nobody wants it
                continue
            if isinstance(answer, Exception):
                waiting.set_exception(answer)
            else:
                waiting.set_result(answer)

    async def _listen(self) -> None:
        while True:
            try:
                told = await self._listening.read_response(disable_decoding=True, disconnect_on_error=False)
            except (RedisError, OSError) as problem:
                raise Lost(f"subscription: {problem}") from problem
            kind = told[0]
            if kind == b"message":
                self._heard(told[1], told[2])
            elif kind == b"subscribe":
                confirmed = self._confirming.pop(told[1], None)
                if confirmed is not None and not confirmed.done():
                    confirmed.set_result(None)


def _packed(command: Sequence[bytes | str | int]) -> bytes:
    """The request as the protocol has it. redis-py's own takes three times as long for many words."""
    words = [b"*%d\r\n" % len(command)]
    for one in command:
        word = one if type(one) is bytes else str(one).encode()
        words.append(b"$%d\r\n%b\r\n" % (len(word), word))
    return b"".join(words)


def _connect_once(connection: AbstractConnection) -> None:
    """redis-py opens a closed connection again when something is sent: a gap that nobody would hear of."""
    used = False

    async def connected(connection: AbstractConnection) -> None:
        nonlocal used
        if used:
            raise Lost("it was closed")
        used = True
        await connection.on_connect()

    connection.redis_connect_func = connected
