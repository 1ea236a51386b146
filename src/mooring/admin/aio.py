"""The same client for programs that have an event loop: `await mooring.connect_async(path)`.

Not an `async with`: a call is a connection of its own and nothing is open between two, so there is nothing to close. A
call that is cancelled closes its connection; like one that is late, it may have been carried out.
"""

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Iterable
from typing import Any, TypeVar, Unpack

from mooring.admin import calls
from mooring.admin.calls import Call, Exchange, SearchTerms, Tailing
from mooring.admin.client import AGAIN, TIMEOUT
from mooring.errors import ServerUnreachable

AT_ONCE = 8  # calls of one client under way; a server answers 32 clients at a time
CONNECT_AGAIN = 0.02  # seconds until a connect is tried again where the kernel's queue is full
T = TypeVar("T")


class AsyncControlClient:
    """What can be asked of a running server, in coroutines; made by `await mooring.connect_async(path)`.

    It has the methods of ControlClient, with the same results and errors. It may be kept for long, over reloads and
    restarts of the server, in one event loop. Calls that are awaited one after the other are carried out in that order;
    of those that are under way together 8 are asked at a time, in any order.
    """

    def __init__(self, path: str | os.PathLike[str], timeout: float = TIMEOUT) -> None:
        self._path = os.path.abspath(path)
        self._timeout = timeout
        self._places = asyncio.Semaphore(AT_ONCE)

    @property
    def path(self) -> str:
        """Of the control socket."""
        return self._path

    async def push(self, fd: int, data: str | bytes) -> bool:
        """Sends one message, a str as text and bytes as binary; False when the connection is no open WebSocket."""
        return await self._ask(calls.push(fd, data))

    async def push_user(self, user: str | int, data: str | bytes) -> None:
        """Sends one message to every connection of a user."""
        await self._ask(calls.push_user(user, data))

    async def publish(self, topic: str, data: str | bytes) -> None:
        """Sends one message to every connection in a topic."""
        await self._ask(calls.publish(topic, data))

    async def disconnect(self, fd: int, code: int = 1000, reason: str = "") -> bool:
        """Closes a connection, a WebSocket with that code and reason; False when it is gone already."""
        return await self._ask(calls.disconnect(fd, code, reason))

    async def disconnect_user(self, user: str | int, code: int = 1000, reason: str = "") -> int:
        """Closes every connection of a user; how many there were."""
        return await self._ask(calls.disconnect_user(user, code, reason))

    async def stats(self) -> dict[str, Any]:
        """What `Server.stats()` says."""
        return await self._ask(calls.stats())

    async def connections(self, user: str | int | None = None, **search: Unpack[SearchTerms]) -> list[dict[str, Any]]:
        """What is known of each connection, or of those that are wanted, as in ControlClient.connections()."""
        listed: list[dict[str, Any]] = (await self.listing(user, **search))["connections"]
        return listed

    async def listing(self, user: str | int | None = None, **search: Unpack[SearchTerms]) -> dict[str, Any]:
        """The same under "connections", and under "total" how many there are."""
        return await self._ask(calls.listing(user, **search))

    async def processes(self) -> list[dict[str, Any]]:
        """How each process is doing, as in ControlClient.processes()."""
        return await self._ask(calls.processes())

    async def inspect(self, fd: int) -> dict[str, Any] | None:
        """What is known of one connection; None when it is gone."""
        return await self._ask(calls.inspect(fd))

    async def tail(
        self,
        cause: str | Iterable[str] = (),
        *,
        user: str | int | None = None,
        path: str | None = None,
        listener: int | None = None,
        code: int | None = None,
    ) -> AsyncIterator[dict[str, Any]]:
        """Close records as connections end, as in ControlClient.tail(): `async for record in chat.tail(): ...`"""
        call = calls.tail(cause, user, path, listener, code)
        deadline = 0.0  # none has answered yet
        while True:
            tailing = Tailing()
            try:
                async for found in self._tail(call, tailing):
                    yield found
            except ServerUnreachable:
                if not (tailing.begun or time.monotonic() < deadline):
                    raise
            if tailing.begun:
                deadline = time.monotonic() + self._timeout
            await asyncio.sleep(AGAIN)

    async def _tail(self, call: Call[None], tailing: Tailing) -> AsyncIterator[dict[str, Any]]:
        exchange = Exchange(call, self._path, self._timeout)
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as talk:
            talk.setblocking(False)
            try:
                async with asyncio.timeout(self._timeout):
                    await self._open(talk, exchange)
                    await self._send(talk, exchange)
                    part = await loop.sock_recv(talk, 1 << 16)
                while part:
                    for found in tailing.feed(part):
                        yield found
                    part = await loop.sock_recv(talk, 1 << 16)
            except TimeoutError:
                raise exchange.late() from None
            except OSError as problem:
                raise exchange.unanswered(problem) from None
        if not tailing.begun:
            raise exchange.unanswered(ConnectionResetError("it has closed the connection without an answer"))

    async def reload(self) -> None:
        """Begins a reload, like `Server.reload()`; `stats()["tree"]` says when it is over."""
        await self._ask(calls.reload())

    async def shutdown(self) -> None:
        """Begins a stop, like `Server.shutdown()`; it returns before the server has ended."""
        await self._ask(calls.shutdown())

    async def _ask(self, call: Call[T]) -> T:
        exchange = Exchange(call, self._path, self._timeout)
        async with self._places:
            try:
                async with asyncio.timeout(self._timeout):
                    await self._converse(exchange)
            except TimeoutError:
                raise exchange.late() from None
        return exchange.result()

    async def _converse(self, exchange: Exchange[Any]) -> None:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as talk:
            talk.setblocking(False)
            await self._open(talk, exchange)
            try:
                await self._send(talk, exchange)
                while not exchange.done:
                    exchange.feed(await loop.sock_recv(talk, 1 << 16))
            except OSError as problem:
                raise exchange.unanswered(problem) from None

    async def _open(self, talk: socket.socket, exchange: Exchange[Any]) -> None:
        try:
            await _connect(talk, self._path)
        except OSError as problem:
            raise exchange.unreachable(problem) from None
        exchange.check(talk)

    async def _send(self, talk: socket.socket, exchange: Exchange[Any]) -> None:
        try:
            await asyncio.get_running_loop().sock_sendall(talk, exchange.line)
        except (BrokenPipeError, ConnectionResetError) as problem:
            exchange.unsent = problem


async def _connect(talk: socket.socket, path: str) -> None:
    """Not by the loop: a full queue of a Unix socket is EAGAIN, after which nothing is under way (unix(7))."""
    while True:
        try:
            talk.connect(path)
            return
        except BlockingIOError:
            await asyncio.sleep(CONNECT_AGAIN)


async def connect_async(path: str | os.PathLike[str], timeout: float = TIMEOUT) -> AsyncControlClient:
    """What connect() is, for programs that have an event loop: `chat = await mooring.connect_async(path)`.

    There is nothing to close. `timeout` in seconds is for each call. Raises ServerUnreachable when no server answers.
    """
    if timeout <= 0:
        raise ValueError(f"timeout={timeout}: must be more than 0 seconds")
    client = AsyncControlClient(path, timeout)
    await client.stats()
    return client
