"""Parts of a server, put together in one process for a target, and what must hold of them."""

import asyncio
import atexit
import gc
import os
import socket
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any

import msgspec

import mooring
from mooring._core.buffer import live_buffers
from mooring._core.page import PAGE_BYTES
from mooring._core.reactor import Reactor
from mooring._core.table import Table
from mooring.gateway.gateway import Gateway
from mooring.link.channel import open_worker_end
from mooring.net.loop import new_event_loop

NO_TICKET = 0xFFFFFFFF
COLLECT = 25  # inputs between two looks whether anything is left over
LISTENER = socket.socket(socket.AF_UNIX)
LISTENER.bind("")  # a name of no file, that the kernel chooses
LISTENER.setblocking(False)
LISTENER.listen(64)
atexit.register(LISTENER.close)

_count = 0
_looks: deque[tuple[int, int]] = deque(maxlen=5)


def records(data: bytes, fds: Sequence[int]) -> bytes:
    """A stream of records. Of bytes that begin with 0 what follows, as it is. Else each has a shorter head, in which
    what is mostly nonsense is rare: kind, opcode, 2 bytes for `arg`, then a byte for each of ticket, extra, fd and
    size."""
    if data[:1] == b"\0":
        return data[1:]
    stream, at = b"", 1
    while at + 8 <= len(data):
        kind, opcode, low, high, ticket, extra, fd, size = data[at : at + 8]
        payload = data[at + 8 : at + 8 + size]
        at += 8 + size
        stream += b"".join(
            (
                len(payload).to_bytes(4, "little"),
                bytes([kind, opcode, low, high]),
                (NO_TICKET if ticket == 255 else ticket).to_bytes(4, "little"),
                (NO_TICKET if extra == 255 else extra << 14 if extra > 250 else extra).to_bytes(4, "little"),
                (fds[fd] if fd < len(fds) else fd).to_bytes(8, "little"),
                payload,
            )
        )
    return stream


def short(kind: int, opcode: int = 0, arg: int = 0, payload: bytes = b"", **more: int) -> bytes:
    """One record in the notation of `records`."""
    ticket, extra, fd = more.get("ticket", 0), more.get("extra", 0), more.get("fd", 0)
    return bytes([kind, opcode, arg & 255, arg >> 8, ticket, extra, fd, len(payload)]) + payload


def page() -> int:
    file = os.memfd_create("page")
    os.ftruncate(file, PAGE_BYTES)
    return file


def is_about_bytes(problem: BaseException) -> bool:
    """Whether an exception says that a record makes no sense, and not that the code does not."""
    return isinstance(problem, ValueError | RecursionError | msgspec.MsgspecError)


def nothing_is_left() -> None:
    """Now and then: memory that buffers hold, and open descriptors, do not become more each time."""
    global _count
    _count += 1
    if _count == 1:
        gc.freeze()  # what is there by now is not looked at again
    if _count % COLLECT == 0:
        gc.collect()
        _looks.append((live_buffers(), len(os.listdir("/proc/self/fd"))))
        for what, seen in zip(("buffers with memory", "open descriptors"), zip(*_looks, strict=True), strict=True):
            more = all(one < other for one, other in pairwise(seen))
            assert not more or len(seen) < 5, f"ever more {what}: {seen}"


class Loop:
    """The reactor and event loop of one input; errors that nobody handled are raised at its end."""

    def __init__(self) -> None:
        self.reactor = Reactor()
        self.errors: list[BaseException] = []
        self.reactor.on_error = lambda _doing, error: self.errors.append(error)
        self.loop = new_event_loop(self.reactor)
        self.loop.set_exception_handler(lambda _loop, context: self.errors.append(context.get("exception")))

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    def turn(self, times: int = 4) -> None:
        for _ in range(times):
            self.reactor.poll(0.0)
            self.reactor.flush()

    def close(self) -> None:
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self.run(asyncio.wait(tasks))
        self.loop.close()
        for error in self.errors:
            raise error


class Nobody:
    """Takes any call, for what a part asks of others that are not there."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_arguments, **_named: None


class Client:
    """A client of `LISTENER`."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(LISTENER.getsockname())
        self.socket.setblocking(False)
        self.received = b""

    def send(self, data: bytes) -> None:
        with suppress(OSError):
            self.socket.send(data)

    def receive(self) -> bytes:
        with suppress(OSError):
            while part := self.socket.recv(1 << 16):
                self.received += part
        return self.received

    def end(self) -> None:
        """Sends nothing more."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.socket.close()


class Front:
    """A gateway that serves `LISTENER`, without a worker yet."""

    def __init__(self, loop: Loop, settings: Any) -> None:
        self.loop = loop
        self.bad: list[str] = []
        self.broken: list[str] = []
        self._file = os.memfd_create("table")
        self.gateway = Gateway(
            loop.reactor,
            settings,
            number=1,
            table=Table(self._file, 16),
            first_serial=100,
            on_broken=lambda _worker_end, why: self.broken.append(why),
        )
        self.gateway._refusals = Nobody()
        self.gateway.on_bad_record = self._on_bad_record
        self.gateway.listen([LISTENER])

    def _on_bad_record(self, worker_end: object, problem: Exception) -> None:
        assert is_about_bytes(problem), repr(problem)
        self.bad.append(str(problem))

    def attach(self, worker: int) -> tuple[Any, socket.socket, socket.socket]:
        """The gateway's end of a link, the worker's end of its channel, and where answers come."""
        ours, channel = socket.socketpair()
        answers, reply = socket.socketpair()
        ours.setblocking(False)
        answers.setblocking(False)
        channel.setblocking(False)
        worker_end = open_worker_end(
            self.gateway.relay,
            self.loop.reactor,
            worker=worker,
            generation=1,
            serves=True,
            channel=channel.detach(),
            reply=reply.detach(),
            page=page(),
        )
        return worker_end, ours, answers

    def check(self) -> None:
        counts = self.gateway.counts()
        assert counts["accepted"] == counts["finished"] + counts["uncertain"] + counts["dropped"] + counts["in_flight"]

    def end(self, clients: Sequence[Client]) -> None:
        """All clients leave; then nothing of them is there."""
        for client in clients:
            client.close()
        self.loop.turn()
        gateway = self.gateway
        for fd in gateway.connections.table.connections():
            gateway.connections.cut(fd, b"the input is over", 0)
        self.loop.turn()
        for acceptor in gateway._acceptors:
            acceptor.stop()
        os.close(self._file)
        self.check()
        assert gateway.connections.count == 0
        assert gateway.connections.queued == 0
        assert gateway.connections.gathered == 0
        assert len(gateway.relay.hub) == 0


def new_server(**options: object) -> mooring.Server:
    """An application that does something with everything it gets, and raises nothing."""
    server = mooring.Server(**options)

    @server.on("open")
    def opened(server: mooring.Server, request: mooring.Request) -> None:
        server.subscribe(request.fd, "all")
        server.push(request.fd, request.path)

    @server.on("message")
    def said(server: mooring.Server, frame: mooring.Frame) -> None:
        server.push(frame.fd, frame.data)
        server.publish("all", frame.data)

    @server.on("close")
    def left(server: mooring.Server, fd: int, code: int, reason: str) -> None:
        assert isinstance(code, int)
        assert isinstance(reason, str)

    @server.on("disconnect")
    def gone(server: mooring.Server, fd: int, reason: str) -> None:
        assert isinstance(reason, str)

    @server.on("request")
    async def asked(request: mooring.Request, response: mooring.Response) -> None:
        body = await request.read()
        response.header("Date", "now")
        response.end(body or request.path)

    @server.on("uncertain")
    @server.on("quarantined")
    def lost(server: mooring.Server, frame: mooring.Frame, reason: str) -> None:
        assert isinstance(reason, str)

    return server
