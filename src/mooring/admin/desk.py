"""Answers requests on the control socket, in worker 0.

Why there: the supervisor must not read a byte of a client and has no way to the connections, and a worker has every
method of `Server`. The supervisor binds the socket, once, and only worker 0 is given it. So it stays while workers come
and go, and whoever asks while worker 0 is being replaced waits in the kernel's queue until the next one serves.

Everything runs in the worker's loop, between handlers. Reading and writing wait for nobody: a client that stalls costs
one of CLIENTS places, for TIME_LIMIT. Who may ask is a matter of the socket's permissions, 0600.
"""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import fields
from typing import Any, Protocol

from mooring.admin import requests
from mooring.admin.requests import LINE_LIMIT, Answer, Request
from mooring.app.search import Found, FoundConnection, Search
from mooring.errors import AdminError, MooringError
from mooring.net.refusals import RefusalLog
from mooring.types import ClientInfo

log = logging.getLogger("mooring.control")

CLIENTS = 32  # at the same time; more are refused
TIME_LIMIT = 5.0  # seconds for a request to arrive, and for its answer to be taken

_FIELDS = [field.name for field in fields(ClientInfo)]


class Controlled(Protocol):
    """What is asked of a mooring.Server, which stands above this."""

    def search(self, search: Search, fd: int = ...) -> Found: ...
    def connections_of(self, user: str | int) -> list[int]: ...
    def get_client_info(self, fd: int) -> ClientInfo | None: ...
    def push_user(self, user: str | int, data: str | bytes, opcode: int = ...) -> None: ...
    def publish(self, topic: str, data: str | bytes, opcode: int = ...) -> None: ...
    def disconnect(self, fd: int, code: int = ..., reason: str = ...) -> bool: ...
    def disconnect_user(self, user: str | int, code: int = ..., reason: str = ...) -> None: ...
    def close(self, fd: int) -> bool: ...
    def reload(self) -> None: ...
    def shutdown(self) -> None: ...
    def stats(self) -> dict[str, Any]: ...
    def push(self, fd: int, data: str | bytes, opcode: int = ...) -> bool: ...


class Tally(Protocol):
    """Where refusals are counted and logged; see mooring.worker.Worker."""

    control_refused: int
    refusals: RefusalLog


class Desk:
    """Serves one control socket, from `open()` to `close()`."""

    def __init__(
        self,
        listener: socket.socket,
        server: Controlled,
        tally: Tally,
        *,
        can_reload: bool,
        processes: Callable[[], Awaitable[list[dict[str, Any]]]],
    ) -> None:
        """`listener` listens already; it is closed by `close()`. `processes` tells how each process is doing."""
        self._tally = tally
        self._processes = processes
        self._listener = listener
        self._server = server
        self._can_reload = can_reload
        self._clients = 0
        self._serving: asyncio.Server | None = None
        self._closed = False

    async def open(self) -> None:
        """Begins to answer; the loop of the handlers must run."""
        serving = await asyncio.start_server(self._client, sock=self._listener, backlog=CLIENTS, limit=LINE_LIMIT)
        self._serving = serving
        if self._closed:
            serving.close()

    def close(self) -> None:
        """Takes no more requests; those that have come are answered."""
        self._closed = True
        if self._serving is not None:
            self._serving.close()
        else:
            self._listener.close()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients += 1
        try:
            async with asyncio.timeout(TIME_LIMIT):
                answer = await self._converse(reader)
            if answer is None:
                return
            writer.write(requests.encode(answer))
            async with asyncio.timeout(TIME_LIMIT):
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except TimeoutError:
            self._count(f"it did not come, or its answer was not taken, within {TIME_LIMIT:g} s")
        except OSError:
            pass  # it has left
        finally:
            self._clients -= 1
            writer.transport.abort()

    async def _converse(self, reader: asyncio.StreamReader) -> Answer | None:
        """None: nothing was asked."""
        if self._clients > CLIENTS:
            return self._refused(f"{CLIENTS} others are asking at this moment; try again")
        try:
            line = await reader.readuntil(b"\n")
        except asyncio.LimitOverrunError:
            return self._refused(f"the request is too long: at most {LINE_LIMIT} bytes in one line")
        except asyncio.IncompleteReadError as cut:
            return self._refused("the request ended without a newline") if cut.partial else None
        try:
            request = requests.decode_request(line)
            if isinstance(request, requests.Processes):
                return Answer(ok=True, result=await self._processes())
            return Answer(ok=True, result=self._carry_out(request))
        except (MooringError, TypeError, ValueError) as problem:
            return self._refused(str(problem))
        except Exception:
            log.exception("a request on the control socket failed")
            return self._refused("it failed; the server's log says more")

    def _refused(self, why: str) -> Answer:
        self._count(why)
        return Answer(ok=False, error=why)

    def _count(self, why: str) -> None:
        self._tally.control_refused += 1
        self._tally.refusals.say(logging.INFO, "request on the control socket refused: %s", why[:300])

    def _carry_out(self, request: Request) -> Any:
        server = self._server
        match request:
            case requests.Stats():
                return server.stats()
            case requests.Connections():
                return self._connections(request)
            case requests.Inspect():
                found = server.search(Search(limit=1), request.fd) if 0 < request.fd < 1 << 63 else Found(0, [])
                return next(self._known(found.first), None)
            case requests.Push():
                return self._push(request)
            case requests.Kick():
                return self._kick(request)
            case requests.Reload():
                if not self._can_reload:
                    raise AdminError(
                        "a single process cannot replace itself without closing its connections; "
                        "use mode='process', or more than one worker"
                    )
                return server.reload()
            case requests.Stop():
                return server.shutdown()

    def _connections(self, request: requests.Connections) -> dict[str, Any]:
        found = self._server.search(request)
        return {"total": found.total, "connections": list(self._known(found.first))}

    def _known(self, rows: Iterable[FoundConnection]) -> Iterator[dict[str, Any]]:
        for row in rows:
            info = self._server.get_client_info(row.fd)
            if info is not None:  # else it has left since
                yield _shown(info, row)

    def _push(self, request: requests.Push) -> bool | None:
        _one_of(fd=request.fd, user=request.user, topic=request.topic)
        data = request.data
        opcode = 1 if isinstance(data, str) else 2
        if request.fd is not None:
            return self._server.push(request.fd, data, opcode)
        if request.user is not None:
            self._server.push_user(request.user, data, opcode)
        elif request.topic is not None:
            self._server.publish(request.topic, data, opcode)
        return None

    def _kick(self, request: requests.Kick) -> bool | int:
        """Whether it was there; of a user how many connections."""
        _one_of(fd=request.fd, user=request.user)
        if request.user is not None:
            count = len(self._server.connections_of(request.user))
            self._server.disconnect_user(request.user, request.code, request.reason)
            log.info("closing %d connections of the user %.300r", count, request.user)
            return count
        fd = request.fd or 0
        there = self._server.disconnect(fd, request.code, request.reason) or self._server.close(fd)
        if there:
            log.info("closing connection %d", fd)
        return there


def _one_of(**given: object) -> None:
    if sum(value is not None for value in given.values()) != 1:
        raise ValueError(f"give exactly one of {', '.join(given)}")


def _shown(info: ClientInfo, row: FoundConnection) -> dict[str, Any]:
    rates = {} if row.message_rate is None else {"message_rate": row.message_rate, "byte_rate": row.byte_rate}
    return {
        **{name: getattr(info, name) for name in _FIELDS},
        "state": info.state.name,
        "gateway": row.fd >> 57,
        "age": row.age,
        "idle": row.idle,
        "path": row.path.decode(errors="ignore"),  # it may have been cut inside a character
        "user": row.user.decode(),
        "topics": row.topics,
        "bytes_queued": row.queued,
        **rates,
    }
