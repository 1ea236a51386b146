"""Answers requests on the control socket, in worker 0.

Why there: the supervisor must not read a byte of a client and has no way to the connections, and a worker has every
method of `Server`. The supervisor binds the socket, once, and only worker 0 is given it. So it stays while workers come
and go, and whoever asks while worker 0 is being replaced waits in the kernel's queue until the next one serves.

Everything runs in the worker's loop, between handlers. Reading and writing wait for nobody: a client that stalls costs
one of CLIENTS places, for TIME_LIMIT. Who may ask is a matter of the socket's permissions, 0600.
"""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import fields
from functools import partial
from typing import Any, NamedTuple, Protocol

from mooring.admin import requests
from mooring.admin.calls import peer_uid
from mooring.admin.finder import Finder
from mooring.admin.requests import LINE_LIMIT, Answer, Request
from mooring.app.search import Found, FoundConnection, Search
from mooring.errors import AdminError, MooringError
from mooring.journal import own_logger
from mooring.net.refusals import RefusalLog
from mooring.types import ClientInfo, CloseRecord

log = own_logger("mooring.control")

CLIENTS = 32  # at the same time; more are refused
TIME_LIMIT = 5.0  # seconds for a request to arrive, and for its answer to be taken
TAILS = 4  # of these clients may look at close records
TAIL_LIMIT = 60.0  # seconds for which one of them may take nothing
TAIL_BATCH = 200  # records in a line
FINISH = 0.5  # seconds that whoever has asked is waited for when this process ends
ACCEPT_AGAIN = 0.5  # seconds

_FIELDS = [field.name for field in fields(ClientInfo)]


class Controlled(Protocol):
    """What is asked of a mooring.Server, which stands above this."""

    def connections_of(self, user: str | int) -> list[int]: ...
    def get_client_info(self, fd: int) -> ClientInfo | None: ...
    def push_user(self, user: str | int, data: str | bytes, opcode: int | None = ...) -> None: ...
    def publish(self, topic: str, data: str | bytes, opcode: int | None = ...) -> object: ...
    def disconnect(self, fd: int, code: int = ..., reason: str = ...) -> bool: ...
    def disconnect_user(self, user: str | int, code: int = ..., reason: str = ...) -> None: ...
    def close(self, fd: int) -> bool: ...
    def reload(self) -> None: ...
    def shutdown(self) -> None: ...
    def stats(self) -> dict[str, Any]: ...
    def push(self, fd: int, data: str | bytes, opcode: int | None = ...) -> bool: ...


class Tail(Protocol):
    """Close records for one who looks; see mooring.worker.ends."""

    @property
    def over(self) -> bool: ...
    def end(self) -> None: ...
    async def take(self, most: int, timeout: float) -> tuple[int, list[CloseRecord]]: ...


class Ends(Protocol):
    """Where close records come from; see mooring.worker.ends."""

    def keeps(self, listener: int | None) -> bool: ...
    def open_tail(self, wants: Callable[[CloseRecord], bool]) -> Any: ...
    async def heard(self) -> None: ...
    def close_tail(self, tail: Any) -> None: ...
    def end_tails(self) -> None: ...


class Tally(Protocol):
    """Where refusals are counted and logged, and whose close records can be looked at; see mooring.worker.Worker."""

    counters: dict[str, int]
    control_refused_reasons: dict[str, int]
    refusals: RefusalLog

    @property
    def ends(self) -> Ends: ...


class _Listing(NamedTuple):
    """Connections that were found, a page at a time."""

    total: int
    pages: Iterator[list[FoundConnection]]


class Desk:
    """Serves one control socket, from `open()` to `close()`."""

    def __init__(
        self,
        listener: socket.socket,
        server: Controlled,
        finder: Finder,
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
        self._finder = finder
        self._can_reload = can_reload
        self._clients: set[asyncio.Task[None]] = set()
        self._talks: set[socket.socket] = set()
        self._tailing = 0  # who look at close records
        self._asking = 0  # those of them that have no answer yet
        self._listening = False
        self._closed = False

    def open(self) -> None:
        """Begins to answer; the loop of the handlers must run."""
        if not self._closed:
            self._listener.setblocking(False)
            self._listener.listen(CLIENTS)
            self._listen()

    def _listen(self) -> None:
        if not self._closed:
            asyncio.get_running_loop().add_reader(self._listener.fileno(), self._accept)
            self._listening = True

    def _deafen(self) -> None:
        if self._listening:
            asyncio.get_running_loop().remove_reader(self._listener.fileno())
            self._listening = False

    def close(self) -> None:
        """Takes no more requests; those that have come are answered."""
        self._deafen()
        self._closed = True
        self._listener.close()
        self._tally.ends.end_tails()

    def abandon(self) -> None:
        """In a forked child: gives the sockets back, and those who ask see the parent's end of them."""
        self._listener.close()
        for talk in self._talks:
            talk.close()

    async def finish(self) -> None:
        """The same, and waits until they are answered, for FINISH seconds."""
        self.close()
        if self._clients:
            await asyncio.wait(self._clients, timeout=FINISH)

    def _accept(self) -> None:
        for _ in range(CLIENTS):
            try:
                talk, _ = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as problem:  # no descriptor is left: they wait in the kernel's queue
                log.warning("the control socket takes nobody for %g s: %s", ACCEPT_AGAIN, problem)
                self._deafen()
                asyncio.get_running_loop().call_later(ACCEPT_AGAIN, self._listen)
                return
            talk.setblocking(False)
            self._talks.add(talk)
            task = asyncio.get_running_loop().create_task(self._client(talk))
            self._clients.add(task)
            task.add_done_callback(self._clients.discard)
            task.add_done_callback(partial(self._forget, talk))

    def _forget(self, talk: socket.socket, _task: object) -> None:
        self._talks.discard(talk)

    async def _client(self, talk: socket.socket) -> None:
        reader, writer = await asyncio.open_unix_connection(sock=talk, limit=LINE_LIMIT)
        ended = False
        try:
            asked = await self._answer(reader, writer, peer_uid(talk))
            if isinstance(asked, requests.Tail):
                await self._tail(asked, reader, writer)
            if asked:
                async with asyncio.timeout(TIME_LIMIT):
                    writer.close()
                    await writer.wait_closed()
                    ended = True
        except TimeoutError:
            self._count("late", f"it did not come, or its answer was not taken, within {TIME_LIMIT:g} s")
        except OSError:
            pass  # it has left
        except MooringError as problem:  # in the middle of a long answer, which ends there
            self._count("failed", str(problem))
        finally:
            if not ended:  # asyncio fails to abort what has ended behind a buffer
                writer.transport.abort()

    async def _tail(self, asked: requests.Tail, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Close records, until the client leaves or takes none for TAIL_LIMIT. Nobody waits for it: what it does not
        take in time is only counted."""
        tail: Tail = self._tally.ends.open_tail(asked.fits)
        gone = asyncio.get_running_loop().create_task(_end_of(reader))
        gone.add_done_callback(lambda _: tail.end())
        self._tailing += 1
        try:
            await self._tally.ends.heard()
            writer.write(requests.encode(Answer(ok=True)))
            while True:
                missed, records = await tail.take(TAIL_BATCH, TIME_LIMIT)
                if missed or records:
                    writer.write(requests.encode(Answer(ok=True, result={"missed": missed, "records": records})))
                elif tail.over:  # it has left, or this process does
                    break
                async with asyncio.timeout(TAIL_LIMIT):
                    await writer.drain()
        finally:
            gone.cancel()
            self._tailing -= 1
            self._tally.ends.close_tail(tail)

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, uid: int
    ) -> bool | requests.Tail:
        """Whether something was asked, or what is answered with more than one answer. Who sees the answer has given its
        place back."""
        self._asking += 1
        try:
            async with asyncio.timeout(TIME_LIMIT):
                answer = await self._converse(reader, uid)
            if answer is not None and isinstance(answer.result, requests.Tail):
                return answer.result
            for part in () if answer is None else self._parts(answer):
                writer.write(part)
                async with asyncio.timeout(TIME_LIMIT):
                    await writer.drain()
                await asyncio.sleep(0)  # handlers have their turn
            return answer is not None
        finally:
            self._asking -= 1

    async def _converse(self, reader: asyncio.StreamReader, uid: int) -> Answer | None:
        """None: nothing was asked."""
        if uid not in (0, os.geteuid()):  # whatever permissions the socket was given, or whoever inherited it
            allowed = f"only uid {os.geteuid()}, the server's, and root may ask"
            return self._refused("wrong_user", f"{allowed}; this is uid {uid}")
        if self._asking > CLIENTS:
            return self._refused("too_many", f"{CLIENTS} others are asking at this moment; try again")
        try:
            line = await reader.readuntil(b"\n")
        except asyncio.LimitOverrunError:
            return self._refused("too_long", f"the request is too long: at most {LINE_LIMIT} bytes in one line")
        except asyncio.IncompleteReadError as cut:
            return self._refused("bad_request", "the request ended without a newline") if cut.partial else None
        try:
            request = requests.decode_request(line)
        except AdminError as problem:
            return self._refused("bad_request", str(problem))
        try:
            if isinstance(request, requests.Processes):
                return Answer(ok=True, result=await self._processes())
            return Answer(ok=True, result=self._carry_out(request))
        except (MooringError, TypeError, ValueError) as problem:
            return self._refused("declined", str(problem))
        except Exception:
            log.exception("a request on the control socket failed")
            return self._refused("failed", "it failed; the server's log says more")

    def _refused(self, kind: str, why: str) -> Answer:
        self._count(kind, why)
        return Answer(ok=False, error=why)

    def _count(self, kind: str, why: str) -> None:
        self._tally.counters["control_refused"] += 1
        reasons = self._tally.control_refused_reasons
        reasons[kind] = reasons.get(kind, 0) + 1
        self._tally.refusals.say(logging.INFO, "request on the control socket refused: %s", why[:300])

    def _carry_out(self, request: Request) -> Any:
        server = self._server
        match request:
            case requests.Stats():
                return server.stats()
            case requests.ListConnections():
                return _Listing(*self._finder.listing(request))
            case requests.Inspect():
                found = self._finder.search(Search(limit=1), request.fd) if 0 < request.fd < 1 << 63 else Found(0, [])
                return next(self._known(found.first), None)
            case requests.Push():
                return self._push(request)
            case requests.Kick():
                return self._kick(request)
            case requests.Tail():
                request.check()
                if self._tailing >= TAILS:
                    raise ValueError(f"{TAILS} others look at close records already")
                if not self._tally.ends.keeps(request.listener):
                    where = "" if request.listener is None else f" of listener {request.listener}"
                    raise ValueError(f"no close records are kept{where}: set close_records to 'on' or 'log'")
                return request
            case requests.Reload():
                if not self._can_reload:
                    raise AdminError(
                        "a single process cannot replace itself without closing its connections; "
                        "use mode='process', or more than one worker"
                    )
                return server.reload()
            case requests.Stop():
                return server.shutdown()

    def _parts(self, answer: Answer) -> Iterator[bytes]:
        """A long list is made and sent a page at a time: what one costs is what others wait."""
        if not isinstance(answer.result, _Listing):
            yield requests.encode(answer)
            return
        yield b'{"ok":true,"result":{"total":%d,"connections":[' % answer.result.total
        comma = b""
        for page in answer.result.pages:
            rows = requests.encode_rows(list(self._known(page)))
            yield comma + rows if rows else b""
            comma = b"," if rows else comma
        yield b"]}}\n"

    def _known(self, rows: Iterable[FoundConnection]) -> Iterator[dict[str, Any]]:
        for row in rows:
            info = self._server.get_client_info(row.fd)
            if info is not None:  # else it has left since
                yield _shown(info, row)

    def _push(self, request: requests.Push) -> bool | None:
        _one_of(fd=request.fd, user=request.user, topic=request.topic)
        data = request.data
        if request.fd is not None:
            return self._server.push(request.fd, data)
        if request.user is not None:
            self._server.push_user(request.user, data)
        elif request.topic is not None:
            self._server.publish(request.topic, data)
        return None

    def _kick(self, request: requests.Kick) -> bool | int:
        """Whether it was there; of a user how many connections."""
        _one_of(fd=request.fd, user=request.user)
        if request.user is not None:
            count = len(self._server.connections_of(request.user))
            self._server.disconnect_user(request.user, request.code, request.reason)
            if count:
                log.info("disconnecting %d connection%s of the user %.300r", count, "s"[: count > 1], request.user)
            return count
        fd = request.fd or 0
        there = self._server.disconnect(fd, request.code, request.reason) or self._server.close(fd)
        if there:
            log.info("disconnecting connection %d", fd)
        return there


async def _end_of(reader: asyncio.StreamReader) -> None:
    """Until the other end says no more."""
    with contextlib.suppress(OSError):
        while await reader.read(4096):
            pass


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
