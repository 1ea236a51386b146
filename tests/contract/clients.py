"""Clients for the contract tests: WebSockets of the `websockets` package, HTTP of the standard library, raw bytes."""

import asyncio
import contextlib
import json
import os
import select
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import h11
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from frames import frame
from support.serving import LIMIT, Serving, eventually

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # the example of RFC 6455 section 1.3, with its answer
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


class Raised(Exception):
    """What an expression raised in the worker; `kinds` are the names of its class and that one's bases."""

    def __init__(self, kinds: list[str], message: str) -> None:
        super().__init__(f"{kinds[0]}: {message}")
        self.kinds = kinds
        self.message = message


def value_of(answer: dict[str, Any]) -> Any:
    if "error" in answer:
        raise Raised(*answer["error"])
    return answer["value"]


# ---------------------------------------------------------------------------------------------- WebSockets


class Peer:
    """An open WebSocket, with the id it has in the server."""

    def __init__(self, ws: ClientConnection, told: dict[str, int]) -> None:
        self.ws = ws
        self.fd = told["fd"]
        self.worker = told["worker"]
        self.pid = told["pid"]
        self.gateway = self.fd >> 57

    async def send(self, message: str | bytes) -> None:
        await self.ws.send(message)

    async def recv(self) -> str | bytes:
        return await self.ws.recv()

    async def take(self, count: int) -> list[str | bytes]:
        return [await self.ws.recv() for _ in range(count)]

    async def ask(self, code: str) -> Any:
        """The value of an expression in the handler of a message; the path must be /eval."""
        await self.ws.send(code)
        return value_of(json.loads(await self.ws.recv()))

    async def ended(self) -> tuple[int | None, str]:
        """Code and reason of the close frame that the server sent, once the connection has ended."""
        await self.ws.wait_closed()
        return self.ws.close_code, self.ws.close_reason or ""

    async def refused_to_go_on(self) -> tuple[int | None, str]:
        """The same for a connection on which nothing but the close frame may come."""
        with contextlib.suppress(ConnectionClosed):
            message = await self.ws.recv()
            raise AssertionError(f"{message!r} came, and no close frame")
        return await self.ended()


@contextlib.asynccontextmanager
async def dial(server: Serving, path: str = "/echo", /, *, ws: dict[str, Any] | None = None, **query: object):
    """A Peer; `query` as the application describes it, `ws` are options of the `websockets` client."""
    options = {"ping_interval": None, "compression": None, "proxy": None, "open_timeout": LIMIT, **(ws or {})}
    async with connect(f"{server.url}{path}?{urlencode(query)}", **options) as connection:
        yield Peer(connection, json.loads(await connection.recv()))


# ---------------------------------------------------------------------------------------------- raw bytes


class Raw:
    """A TCP client; every wait has the limit of its socket."""

    def __init__(self, server: Serving, data: bytes = b"", *, receive_buffer: int = 0, port: int = 0) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(LIMIT)
        if receive_buffer:  # effective only before the connection is made
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.connect(("127.0.0.1", port or server.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = b""
        if data:
            self.send(data)

    def __enter__(self) -> "Raw":
        return self

    def __exit__(self, *failure: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def reset(self) -> None:
        """Ends the connection with RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()

    def _more(self) -> None:
        got = self.socket.recv(65536)
        if not got:
            raise EOFError(f"the connection ended behind {self.received!r}")
        self.received += got

    def exactly(self, size: int) -> bytes:
        while len(self.received) < size:
            self._more()
        found, self.received = self.received[:size], self.received[size:]
        return found

    def until(self, mark: bytes) -> bytes:
        while mark not in self.received:
            self._more()
        return self.exactly(self.received.index(mark) + len(mark))

    def rest(self) -> bytes:
        """Everything up to the end of the connection, which must come and must be no reset."""
        with contextlib.suppress(EOFError):
            while True:
                self._more()
        found, self.received = self.received, b""
        return found

    # -- HTTP

    def answer(self, method: str = "GET") -> "Answer":
        """The next response, read by a parser that is not ours."""
        parser = h11.Connection(h11.CLIENT)
        parser.send(h11.Request(method=method, target="/", headers=[("Host", "x")]))
        parser.send(h11.EndOfMessage())
        found = Answer()
        if self.received:  # h11 takes no bytes for the end of the connection
            parser.receive_data(self.received)
            self.received = b""
        while True:
            event = parser.next_event()
            if event is h11.NEED_DATA:
                parser.receive_data(self.socket.recv(65536))
            elif isinstance(event, h11.InformationalResponse):
                found.informational.append(event.status_code)
            elif isinstance(event, h11.Response):
                found.status = event.status_code
                found.headers = {name.decode(): value.decode() for name, value in event.headers}
                found.all_headers = [(name.decode(), value.decode()) for name, value in event.headers]
            elif isinstance(event, h11.Data):
                found.body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                break
            else:
                raise AssertionError(f"unexpected {event}")
        self.received = parser.trailing_data[0]
        found.closes = parser.their_state is not h11.DONE
        return found

    # -- WebSocket

    def upgrade(self, path: str = "/echo", *fields: str, behind: bytes = b"") -> "Answer":
        self.send(handshake(path, *fields) + behind)
        head = self.until(b"\r\n\r\n").decode()
        lines = head.split("\r\n")
        found = Answer()
        found.status = int(lines[0].split()[1])
        found.headers = {line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in lines[1:-2]}
        return found

    def frame(self) -> tuple[int, bytes]:
        """(opcode, payload) of the next frame, which must be final, unmasked and as short as it can be."""
        first, second = self.exactly(2)
        assert first & 0xF0 == 0x80, f"first byte {first:02x}"
        assert second < 128, "a server masks nothing"
        size = second
        if size == 126:
            size = int.from_bytes(self.exactly(2), "big")
            assert size > 125
        elif size == 127:
            size = int.from_bytes(self.exactly(8), "big")
            assert size > 65535
        return first & 15, self.exactly(size)

    def text(self) -> str:
        opcode, payload = self.frame()
        assert opcode == TEXT, (opcode, payload)
        return payload.decode()

    def close_frame(self) -> tuple[int, str]:
        opcode, payload = self.frame()
        assert opcode == CLOSE, (opcode, payload)
        return (int.from_bytes(payload[:2], "big"), payload[2:].decode()) if payload else (1005, "")


class Answer:
    """A response."""

    def __init__(self) -> None:
        self.informational: list[int] = []
        self.status = 0
        self.headers: dict[str, str] = {}
        self.all_headers: list[tuple[str, str]] = []
        self.body = b""
        self.closes = False

    def json(self) -> Any:
        return json.loads(self.body)


def get(path: str = "/", *fields: str, method: str = "GET", version: str = "1.1", body: bytes = b"") -> bytes:
    """A request with the given header lines."""
    lines = [f"{method} {path} HTTP/{version}", "Host: x", *fields]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


def handshake(path: str = "/echo", *fields: str) -> bytes:
    return get(
        path,
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {KEY}",
        *fields,
    )


def close_frame(code: int | None = 1000, reason: bytes = b"") -> bytes:
    return frame(CLOSE, b"" if code is None else code.to_bytes(2, "big") + reason)


@contextlib.contextmanager
def websocket(server: Serving, path: str = "/echo", /, **query: object) -> Iterator[tuple[Raw, int]]:
    """A raw client that has an open WebSocket; and its fd."""
    with Raw(server) as raw:
        assert raw.upgrade(f"{path}?{urlencode(query)}").status == 101
        yield raw, json.loads(raw.text())["fd"]


def take(raw: Raw, size: int) -> bytes:
    """`size` bytes behind the head of an answer that is large."""
    found = bytearray(raw.received)
    raw.received = b""
    while len(found) < size:
        got = raw.socket.recv(1 << 18)
        assert got, f"the connection ended after {len(found)} bytes"
        found += got
    raw.received = bytes(found[size:])
    return bytes(found[:size])


def head(raw: Raw) -> bytes:
    return raw.until(b"\r\n\r\n").lower()


def unread(raw: Raw) -> None:
    """Waits until the client has something to read, and reads nothing."""
    assert select.select([raw.socket], [], [], LIMIT)[0]


# ---------------------------------------------------------------------------------------------- one worker


class Asker:
    """A kept-alive HTTP connection, so always the same worker: evaluates expressions there."""

    def __init__(self, server: Serving) -> None:
        self.raw = Raw(server)
        told = self.tell("request.fd")
        self.fd: int = told["value"]
        self.worker: int = told["worker"]
        self.pid: int = told["pid"]
        self.gateway = self.fd >> 57

    def tell(self, code: str, **names: object) -> dict[str, Any]:
        body = json.dumps({"code": code, **names}).encode()
        self.raw.send(get("/eval", f"Content-Length: {len(body)}", method="POST", body=body))
        answer = self.raw.answer("POST")
        assert answer.status == 200, (answer.status, answer.body)
        return answer.json()

    def __call__(self, code: str, **names: object) -> Any:
        """The value of an expression; `in_thread` runs it in another thread of the worker."""
        return value_of(self.tell(code, **names))

    def close(self) -> None:
        self.raw.socket.close()


@contextlib.contextmanager
def halted(*pids: int) -> Iterator[None]:
    """These processes do nothing meanwhile (SIGSTOP)."""
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
            stat = Path(f"/proc/{pid}/stat")  # the state is the first word behind the name
            eventually(lambda stat=stat: stat.read_text().rpartition(")")[2].split()[0] == "T")
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def only_gateway(server: Serving, mode: dict[str, Any], number: int) -> Iterator[None]:
    """The others are halted, so that new clients are taken by this one."""
    role = "gateway" if mode["mode"] == "process" else "server"
    others = [server.pid_of(f"{role} {other}") for other in range(gateways_of(mode)) if other != number]
    with halted(*others):
        yield


def gateways_of(mode: dict[str, Any]) -> int:
    return mode["gateway_num"] if mode["mode"] == "process" else mode["worker_num"]


@contextlib.contextmanager
def all_askers(server: Serving, mode: dict[str, Any]) -> Iterator[list[Asker]]:
    """One Asker per worker, in the order of their numbers; through different gateways where there are more."""
    found: dict[int, Asker] = {}
    surplus = []
    try:
        for attempt in range(20):
            with only_gateway(server, mode, attempt % gateways_of(mode)):
                asker = Asker(server)
            if asker.worker in found:
                surplus.append(asker)  # stays until the end: the next goes to a worker with fewer
            found.setdefault(asker.worker, asker)
            if len(found) == mode["worker_num"]:
                break
        assert sorted(found) == list(range(mode["worker_num"]))
        for asker in surplus:
            asker.close()
        yield [found[number] for number in sorted(found)]
    finally:
        for asker in [*found.values(), *surplus]:
            asker.close()


async def next_millisecond() -> None:
    """Until the clock has gone on that tells gateways which of two connections is older."""
    now = time.monotonic_ns() // 1_000_000
    while time.monotonic_ns() // 1_000_000 == now:
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def crowd(
    server: Serving, mode: dict[str, Any], path: str = "/echo", /, **query: object
) -> AsyncIterator[list[Peer]]:
    """WebSockets of every gateway and every worker: one per pair, each younger than the one before."""
    async with contextlib.AsyncExitStack() as stack:
        peers: list[Peer] = []
        for number in range(gateways_of(mode)):
            for _ in range(mode["worker_num"] if mode["mode"] == "process" else 1):
                with only_gateway(server, mode, number):
                    peers.append(await stack.enter_async_context(dial(server, path, **query)))
                await next_millisecond()
        assert {peer.gateway for peer in peers} == set(range(gateways_of(mode)))
        assert {peer.worker for peer in peers} == set(range(mode["worker_num"]))
        yield peers
