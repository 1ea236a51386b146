"""Clients that read slowly, but do. What they take is progress and a sign of life: no time limit ends them, whatever of
ours stands between them and what they are waited for. Those that take nothing are ended as ever."""

import select
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from contract.clients import BINARY, CLOSE, PING, PONG, TEXT, Raw, close_frame, get, handshake
from contract.modes import only
from frames import frame
from support.serving import LIMIT, Serving, eventually

PART = 50_000
PARTS = 120  # 6 MB: more than the kernel keeps for the two ends of a connection, of which one reads little
RATE = 150_000  # bytes a second, and at once:
STEP = 6000
SECONDS = 5.0  # of reading so; two and a half times each limit
LIMITS = {
    "write_limit": 16 << 20,
    "write_timeout": 2,
    "close_timeout": 2,
    "ping_interval": 0.3,
    "pong_timeout": 2,
    "heartbeat_idle_time": 12,  # well behind the pong: they must not be mistaken for one another
    "keepalive_timeout": 2,
    "body_grace": 0.5,
}

APP = """
import asyncio

PART, PARTS = 50_000, 120
with open("large", "wb") as file:
    file.write(bytes(PART * PARTS))
secure = server.listen("127.0.0.1", 0, ssl_cert_file=os.environ["CERTIFICATE"])
local = server.listen(unix_socket=os.path.abspath("x.sock"))

@server.on("message")
async def said(server, frame):
    fd = frame.fd
    if frame.data == "drain":
        for _ in range(PARTS):
            if not server.push(fd, bytes(PART), Opcode.BINARY) or not await server.drain(fd):
                return
        server.push(fd, "all of it")
    elif frame.data == "crumbs":
        for number in range(50_000):
            server.push(fd, b"0123456789", Opcode.BINARY)
    elif frame.data in ("burst", "flood", "close"):
        for _ in range(PARTS // 4 if frame.data == "burst" else PARTS):
            server.push(fd, bytes(PART), Opcode.BINARY)
        server.push(fd, "all of it")
        if frame.data == "close":
            server.disconnect(fd, 4001, "bye")
        if frame.data == "flood":
            while (info := server.get_client_info(fd)) and info.messages_sent <= PARTS:
                await asyncio.sleep(0.01)  # the gateway may be behind
            report("flooded", fd)
    else:
        server.push(fd, frame)

@server.on("close")
def left(server, fd, code, reason):
    report("close", code, reason)

@server.on("request")
async def asked(request, response):
    if request.path == "/stats":
        return response.json(server.stats())
    if "close" in request.query:
        response.header("Connection", "close")
    if request.path == "/file":
        return response.send_file(os.path.abspath("large"))
    if request.path == "/whole":
        return response.end(bytes(PART * PARTS // 4))
    if request.path == "/put":
        return response.end(request.body)
    if request.path == "/events":
        stream = response.event_stream()
        for number in range(PARTS):
            await stream.send("x" * PART)
        return
    # so much that the kernel takes no more, and the end of the answer has to wait
    await response.write(bytes(1_500_000))
    for number in range(200):
        await response.write(bytes(30_000))
        for _ in range(20):  # the gateway may be behind
            await asyncio.sleep(0.03)
            if server.get_client_info(request.fd).bytes_sent >= 1_500_000 + 30_000 * (number + 1):
                break
        else:
            break
    response.end(b"end of it")
"""


class Slow:
    """A client that reads little at a time, and then the rest at once."""

    def __init__(self, place: "Place", way: str, request: bytes = b"") -> None:
        """A WebSocket, or one that has sent this request."""
        self.socket = place.connect(way)
        self.got = bytearray()
        self.at = 0
        self.closing = False
        self.socket.sendall(request or handshake())
        if not request:
            assert b" 101 " in self.head()

    def more(self, size: int = 1 << 18) -> None:
        part = self.socket.recv(size)
        if not part:
            raise EOFError(f"the end after {len(self.got)} bytes")
        self.got += part

    def hurry(self) -> None:
        """Enough of reading slowly."""
        if self.socket.family == socket.AF_INET:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP, 65535)

    def head(self) -> bytes:
        while (found := self.got.find(b"\r\n\r\n", self.at, self.at + 10_000)) < 0:
            self.more()
        start, self.at = self.at, found + 4
        return bytes(self.got[start : self.at]).lower()

    def length(self) -> int:
        """What the head of an answer says of its body."""
        return int(self.head().partition(b"content-length: ")[2].partition(b"\r")[0])

    def to_end(self, mark: bytes) -> bytes:
        """All up to the end of an answer, which looks like this."""
        while not self.got.endswith(mark):
            self.more()
        start, self.at = self.at, len(self.got)
        return bytes(self.got[start:])

    def exactly(self, size: int) -> bytes:
        while len(self.got) < self.at + size:
            self.more()
        self.at += size
        return bytes(self.got[self.at - size : self.at])

    def frame(self) -> tuple[int, bytes]:
        first, size = self.exactly(2)
        if size == 126:
            size = int.from_bytes(self.exactly(2), "big")
        return first & 15, self.exactly(size)

    def message(self) -> tuple[int, bytes]:
        """The next frame that is no ping; pings are answered, but not behind a close frame (RFC 6455 section 5.5.1)."""
        while True:
            opcode, payload = self.frame()
            if opcode != PING:
                return opcode, payload
            if not self.closing:
                self.socket.sendall(frame(PONG, payload))

    def parts(self, count: int) -> None:
        for _ in range(count):
            assert self.message() == (BINARY, bytes(PART))
        assert self.message() == (TEXT, b"all of it")

    def says(self, text: bytes) -> None:
        self.socket.sendall(frame(TEXT, text))


class Place:
    """A server with a plain, a TLS and a Unix listener."""

    def __init__(self, server: Serving, folder: Path) -> None:
        self.server = server
        self.made: list[socket.socket] = []
        line = server.wait_log("listening on .*").group()
        self.ports = [int(word.rpartition(":")[2].rstrip(",")) for word in line.split() if word[:4] == "127."]
        self.path = str(folder / "x.sock")
        self.context = ssl.create_default_context()
        self.context.check_hostname = False
        self.context.verify_mode = ssl.CERT_NONE

    def connect(self, way: str) -> socket.socket:
        made = socket.socket(socket.AF_UNIX if way == "unix" else socket.AF_INET)
        self.made.append(made)
        made.settimeout(LIMIT)
        if way == "unix":
            made.connect(self.path)
            return made
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        made.connect(("127.0.0.1", self.ports[way == "tls"]))
        if way == "tls":
            made = self.context.wrap_socket(made)
            self.made.append(made)
        return made

    def stats(self) -> dict[str, Any]:
        with Raw(self.server, get("/stats")) as raw:
            return raw.answer().json()


@pytest.fixture
def place(mode: dict[str, Any], tmp_path: Path) -> Iterator[Place]:
    pem = tmp_path / "server.pem"
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(pem)
    with Serving(APP, cwd=tmp_path, env={"CERTIFICATE": str(pem)}, **LIMITS, **mode) as server:
        place = Place(server, tmp_path)
        yield place
        for made in place.made:
            made.close()
        if server.process.poll() is None:
            assert server.stop() == 0
        assert "(adds up)" in server.lines[-2], "\n".join(server.lines[-10:])


# ---------------------------------------------------------------------------------------------- what a client does

Client = Iterator[Slow]
"""What it does up to the time in which it reads slowly, and what it must see afterwards."""


def drains(place: Place, way: str) -> Client:
    """The queue is above high water, and for seconds the kernel takes nothing of it."""
    slow = Slow(place, way)
    slow.says(b"drain")
    yield slow
    slow.parts(PARTS)
    slow.says(b"and then")
    assert slow.message() == (TEXT, b"and then")


def is_pinged(place: Place, way: str) -> Client:
    """All is in the kernel, our pings behind it."""
    slow = Slow(place, way)
    slow.says(b"burst")
    yield slow
    slow.parts(PARTS // 4)
    slow.says(b"and then")
    assert slow.message() == (TEXT, b"and then")


def is_closed(place: Place, way: str) -> Client:
    """Our close frame stands behind all that was pushed."""
    slow = Slow(place, way)
    slow.says(b"close")
    yield slow
    slow.parts(PARTS)
    assert slow.message() == (CLOSE, (4001).to_bytes(2, "big") + b"bye")
    slow.socket.sendall(close_frame(4001))
    with pytest.raises(EOFError):
        slow.more()


def closes(place: Place, way: str) -> Client:
    """It has said that it wants to end, and our answer to that stands behind all that was pushed."""
    slow = Slow(place, way)
    mark = place.server.mark()
    slow.says(b"flood")
    place.server.wait_log("^report flooded", since=mark)
    slow.closing = True
    slow.socket.sendall(close_frame(4002))
    yield slow
    slow.parts(PARTS)
    assert slow.message() == (CLOSE, (4002).to_bytes(2, "big"))


def gets_a_file(place: Place, way: str) -> Client:
    slow = Slow(place, way, get("/file"))
    yield slow
    assert len(slow.exactly(slow.length())) == PART * PARTS


def gets_events(place: Place, way: str) -> Client:
    slow = Slow(place, way, get("/events"))
    yield slow
    assert slow.to_end(b"\r\n0\r\n\r\n").count(b"data: xxx") == PARTS


def is_answered(place: Place, way: str) -> Client:
    """The end of the answer waits in the queue while the connection is idle, or the handler's part is over."""
    slow = Slow(place, way, get("/end"))
    yield slow
    slow.to_end(b"end of it\r\n0\r\n\r\n")
    slow.socket.sendall(get("/put"))
    assert slow.length() == 0


def is_answered_last(place: Place, way: str) -> Client:
    slow = Slow(place, way, get("/end?close=1"))
    yield slow
    slow.to_end(b"end of it\r\n0\r\n\r\n")


def speaks_behind_the_last_answer(place: Place, way: str) -> Client:
    """If we had gone by then, a reset would take away what it has not read (RFC 9112 section 9.6)."""
    slow = Slow(place, way, get("/whole?close=1"))
    yield slow
    slow.socket.sendall(get("/"))
    assert len(slow.exactly(slow.length())) == PART * PARTS // 4


def waits_for_100(place: Place, way: str) -> Client:
    """Before it sends a body it wants to be told to, and that stands behind an answer that it reads."""
    head = get("/put", "Content-Length: 5", "Expect: 100-continue", method="POST")
    slow = Slow(place, way, get("/whole") + head)
    yield slow
    assert len(slow.exactly(slow.length())) == PART * PARTS // 4
    assert b" 100 " in slow.head()
    slow.socket.sendall(b"hello")
    assert slow.exactly(slow.length()) == b"hello"


def sip(clients: list[Slow]) -> None:
    """A little of what there is for each of them."""
    for slow in clients:
        if select.select([slow.socket], [], [], 0)[0]:
            slow.more(STEP)


def read_slowly(clients: list[Slow]) -> None:
    clock, start, steps = threading.Event(), time.monotonic(), 0
    while time.monotonic() - start < SECONDS:
        sip(clients)
        steps += 1
        clock.wait(start + steps * STEP / RATE - time.monotonic())
    for slow in clients:
        slow.hurry()


def at_once(place: Place, clients: list[tuple[Callable[[Place, str], Client], str]]) -> None:
    """All of them at the same time; what went wrong with each is shown."""
    running = {f"{client.__name__} {way}": client(place, way) for client, way in clients}
    started: list[Slow] = []
    for one in running.values():
        started.append(next(one))
        sip(started)
    read_slowly(started)
    wrong: dict[str, BaseException] = {}

    def run(name: str, client: Client) -> None:
        try:
            next(client, None)
        except BaseException as error:
            wrong[name] = error

    threads = [threading.Thread(target=run, args=one, daemon=True) for one in running.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong, place.server.lines
    assert not any(thread.is_alive() for thread in threads)


@only("process", "base-2")  # as many ways and modes as take turns in these tests; all of it is one gateway's
def test_who_reads_slowly_gets_everything(place: Place):
    clients = [(closes, "tcp")]
    clients += [(one, way) for one in (drains, is_pinged, is_closed, gets_a_file) for way in ("tcp", "tls", "unix")]
    clients += [(is_answered_last, way) for way in ("tcp", "tls")]
    plain = [gets_events, is_answered, speaks_behind_the_last_answer, waits_for_100]
    at_once(place, clients + [(one, "tcp") for one in plain])
    counts = place.stats()
    assert counts["slow_consumers"] == 0
    ends = [line for line in place.server.reports("close") if line[0] == "4"]  # the others answer no ping any more
    assert sorted(line.strip() for line in ends) == ["4001 bye"] * 3 + ["4002"]


@only("base", "process-2")
def test_who_reads_slowly_gets_everything_before_the_server_ends(place: Place):
    """Each is told 1001 behind what was pushed, and may read as slowly as ever, within graceful_timeout."""

    def is_told(place: Place, way: str) -> Client:
        slow = Slow(place, way)
        slow.says(b"flood")
        yield slow
        slow.parts(PARTS)
        assert slow.message() == (CLOSE, (1001).to_bytes(2, "big") + b"the server is shutting down")
        slow.socket.sendall(close_frame(1001))

    def stop() -> None:
        place.server.wait_log("^report flooded", count=2)
        place.server.signal(signal.SIGTERM)

    stopping = threading.Thread(target=stop)
    stopping.start()
    at_once(place, [(is_told, "tcp"), (is_told, "tls")])
    stopping.join()
    assert place.server.ended() == 0


# ---------------------------------------------------------------------------------------------- who takes nothing


@only("process-2", "base")
def test_who_takes_nothing_is_ended(place: Place):
    """By name, counted once, and in the time that is set: what lies in the kernel is no excuse."""
    said = {
        ("flood", "tcp"): "1008 slow consumer: it took less than 500 bytes per second",
        ("flood", "tls"): "1008 slow consumer: it took less than 500 bytes per second",
        ("flood", "unix"): "1008 slow consumer: it took less than 500 bytes per second",
        ("crumbs", "unix"): "1008 slow consumer: it took less than 500 bytes per second",
        ("burst", "tcp"): "1006 no answer to a ping",
        ("nothing", "tcp"): "1006 no answer to a ping",
        ("nothing", "unix"): "1006 no answer to a ping",
        ("close", "tcp"): "4001 bye",
    }
    clients = []
    for what, way in said:
        clients.append(Slow(place, way))
        clients[-1].says(what.encode())
    for path in ("/whole?close=1", "/events", "/file", "/end"):
        Slow(place, "tcp", get(path))
    eventually(lambda: len(place.server.reports("close")) == len(said), LIMIT)
    assert sorted(place.server.reports("close")) == sorted(said.values())
    counts = eventually(lambda: (found := place.stats())["connections"] == 1 and found)
    assert counts["slow_consumers"] == 4 + 3
    assert counts["timed_out"] == len(said) + 4
