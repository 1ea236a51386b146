"""What waits for a place at a worker: bounded, dropped when its client leaves, and answered in the end."""

import contextlib
import fcntl
import os
import re
import select
import signal
import socket
import struct
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from websockets.sync.client import connect

import mooring
from e2e.peers import BOTH_MODES, HELD_BACK, adds_up, drained, memory
from support.serving import LIMIT, Serving, eventually

MIB = 1 << 20
MODES = pytest.mark.parametrize("mode", BOTH_MODES, ids=lambda settings: settings["mode"])
BODY = bytes(MIB)

# "/wait N" is answered when there is a file of that name; "/stand" blocks the worker until there is a file "go".
APP = """
import asyncio

@server.on("request")
async def asked(request, response):
    report("begun", request.path)
    if request.path == "/stand":
        while not os.path.exists("go"):
            time.sleep(0.01)
    elif request.path.startswith("/wait"):
        while not os.path.exists(request.path[1:]) and not os.path.exists("go"):
            await asyncio.sleep(0.01)
    elif request.path == "/upload":
        async for part in request.stream():
            pass
    report("ended", request.path)
    response.end("done " + request.path)

@server.on("open")
def opened(server, request):
    pass

@server.on("close")
def left(server, fd, code, reason):
    pass

@server.on("message")
def said(server, frame):
    server.push(frame.fd, frame.data)
"""


class Asking:
    """A client that sends one request, as far as it is read."""

    all: ClassVar[list["Asking"]] = []

    def __init__(self, server: Serving, path: str, body: bytes | None = None, *, extra: str = "") -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port), LIMIT)
        Asking.all.append(self)
        self.socket.setblocking(False)
        length = "" if body is None else f"Content-Length: {len(body)}\r\n"
        head = f"{'GET' if body is None else 'POST'} {path} HTTP/1.1\r\nHost: x\r\n{length}{extra}\r\n"
        self._rest = memoryview(head.encode() + (body or b""))
        self.go_on()

    def go_on(self, more: bytes = b"") -> bool:
        """Sends what can be sent. Whether all of it has been read, or is in a buffer of the kernel."""
        if more:
            self._rest = memoryview(bytes(self._rest) + more)
        with contextlib.suppress(BlockingIOError):
            while self._rest:
                self._rest = self._rest[self.socket.send(self._rest) :]
        return not self._rest

    def unread(self) -> int:
        """Bytes that are not even in the other side's kernel."""
        self.go_on()
        return len(self._rest) + int.from_bytes(fcntl.ioctl(self.socket, termios.TIOCOUTQ, bytes(4)), sys.byteorder)

    def received(self) -> bool:
        """Whether the other side's kernel has all of it."""
        return self.unread() == 0

    def answer(self, limit: float = LIMIT) -> bytes:
        """Head and body of the response."""
        data, end = b"", time.monotonic() + limit
        while True:
            head, _, body = data.partition(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: (\d+)", head)
            if _ and len(body) >= int(length[1] if length else 0):
                return data
            writable = [self.socket] if self._rest else []
            ready = select.select([self.socket], writable, [], max(0.0, end - time.monotonic()))
            if ready[1]:
                self.go_on()
            if ready[0]:
                part = self.socket.recv(65536)
                assert part, f"ended behind {data!r}"
                data += part
            assert time.monotonic() < end, f"no answer within {limit} s"

    def leave(self) -> None:
        """At once, with a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def read_as_far_as_it_is(clients: list[Asking]) -> None:
    """Waits until the server reads nothing of theirs any more, or has everything; nobody tells of that."""
    still, before = 0, [-1]
    end = time.monotonic() + LIMIT
    while still < 5 and any(before):
        now = [one.unread() for one in clients]
        still = still + 1 if now == before else 0
        before = now
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def closes() -> Iterator[None]:
    yield
    while Asking.all:
        Asking.all.pop().socket.close()


def asks(server: Serving, path: str, body: bytes | None = None, **options: str) -> Asking:
    """A client whose request has begun to be handled."""
    mark = server.mark()
    one = Asking(server, path, body, **options)
    server.wait_log(f"report begun {path}$", since=mark)
    return one


def touch(server: Serving, name: str) -> None:
    server.script.with_name(name).touch()


def serving(settings: dict, **more: object) -> Serving:
    return Serving(APP, control_socket="control", worker_hang_timeout=0, **{**settings, "worker_num": 1}, **more)


def counts(server: Serving) -> dict:
    return mooring.connect(server.script.with_name("control")).stats()


def keeper(server: Serving) -> int:
    """The process that keeps the connections."""
    found = [pid for pid, title in server.titles().items() if title == "mooring: gateway 0"]
    return found[0] if found else server.pid


@MODES
def test_bodies_that_wait_for_their_worker_are_left_in_the_socket(mode):
    """However many clients send one and leave: what a worker may have at one time is all that is taken."""
    with serving(mode, worker_bytes=2 * MIB) as server:
        before = memory(keeper(server))
        first = [asks(server, "/wait", BODY) for _ in range(2)]
        for _ in range(60):
            one = Asking(server, "/upload", BODY)
            eventually(lambda: counts(server)["connections"] == len(first) + 1)
            one.leave()
        eventually(lambda: counts(server)["connections"] == len(first))
        now = counts(server)
        assert memory(keeper(server)) - before < 16 * MIB
        assert (now["in_flight"], now["events_waiting"], now["requests_held"]) == (2, 0, 60)
        assert 2 * MIB <= now["bytes_waiting"] < 3 * MIB
        held = Asking(server, "/last", BODY)
        touch(server, "go")
        assert all(one.answer().endswith(b"done /wait") for one in first)
        assert held.answer().endswith(b"done /last")
        eventually(lambda: counts(server)["bytes_waiting"] == 0)
        assert adds_up(counts(server))


@MODES
def test_a_request_that_becomes_whole_when_there_is_no_place_is_kept_and_counted(mode):
    """Its body had begun to come while there was one."""
    with serving(mode, worker_messages=1) as server:
        half = Asking(server, "/half", None, extra="Content-Length: 1000\r\n")
        half.go_on(b"x" * 500)
        eventually(lambda: counts(server)["bytes_gathered"] == 500)
        busy = asks(server, "/wait")
        half.go_on(b"x" * 500)
        eventually(lambda: counts(server)["requests_held"] == 1)
        assert counts(server)["bytes_gathered"] == 1000
        touch(server, "wait")
        assert busy.answer().endswith(b"done /wait")
        assert half.answer().endswith(b"done /half")
        eventually(lambda: counts(server)["bytes_gathered"] == 0)


@MODES
def test_requests_that_wait_are_answered_in_the_order_in_which_they_came(mode):
    with serving(mode, worker_messages=2) as server:
        busy = [asks(server, "/wait") for _ in range(2)]
        held = []
        for number in range(40):
            held.append(Asking(server, f"/held{number}"))
            eventually(lambda: counts(server)["requests_held"] == len(held))
        touch(server, "go")
        for one in busy:
            assert one.answer().endswith(b"done /wait")
        for number, one in enumerate(held):
            assert one.answer().endswith(f"done /held{number}".encode())
        server.wait_log("report ended /held", count=40)
        begun = [line for line in server.reports("begun") if line.startswith("/held")]
        assert begun == [f"/held{number}" for number in range(40)]


@MODES
def test_a_few_handlers_that_last_do_not_keep_others_waiting(mode):
    """One place of eight is all that ever gets free."""
    with serving(mode, worker_messages=8) as server:
        lasting = [asks(server, "/wait-long") for _ in range(7)]
        short = asks(server, "/wait-short")
        held = [Asking(server, f"/held{number}") for number in range(5)]
        eventually(lambda: counts(server)["requests_held"] == 5)
        touch(server, "wait-short")
        assert short.answer().endswith(b"done /wait-short")
        for number, one in enumerate(held):
            assert one.answer().endswith(f"done /held{number}".encode())
        touch(server, "go")
        assert all(one.answer().endswith(b"done /wait-long") for one in lasting)


@MODES
def test_a_stop_tells_those_whose_request_waits(mode):
    with serving(mode, worker_messages=1, graceful_timeout=5) as server:
        busy = asks(server, "/wait")
        held = [Asking(server, "/held") for _ in range(3)]
        eventually(lambda: counts(server)["requests_held"] == 3)
        server.signal(signal.SIGTERM)
        for one in held:
            answer = one.answer()
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"Retry-After: 1\r\n" in answer
        touch(server, "go")
        assert busy.answer().endswith(b"done /wait")
        assert server.ended() == 0
        assert adds_up(drained(server))


def test_websockets_that_come_and_go_while_the_worker_stands():
    """Their opens and closes have to be told, so nobody is let in beyond what waits."""
    handshake = (
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" + "".join(f"X-{n}: {'y' * 7000}\r\n" for n in range(2))
    )
    with serving({"mode": "process"}, worker_bytes=MIB) as server:
        before = memory(keeper(server))
        standing = asks(server, "/stand")
        let_in = 0
        while True:
            one = Asking(server, "/", extra=handshake)
            if not select.select([one.socket], [], [], 1.0)[0]:
                break
            assert one.answer().startswith(b"HTTP/1.1 101 ")
            let_in += 1
            one.leave()
        assert 60 <= let_in <= 80  # of 14 kB each
        sockets = Path(f"/proc/{keeper(server)}/fd")
        those_of_others = len(list(sockets.iterdir()))
        crowd = [Asking(server, "/", extra=handshake) for _ in range(100)]
        eventually(lambda: len(list(sockets.iterdir())) == those_of_others + len(crowd))
        for other in crowd:
            other.leave()
        eventually(lambda: len(list(sockets.iterdir())) == those_of_others)  # else some are let in, and leave then
        assert memory(keeper(server)) - before < 16 * MIB
        touch(server, "go")
        assert standing.answer().endswith(b"done /stand")
        assert one.answer().startswith(b"HTTP/1.1 101 ")
        eventually(lambda: counts(server)["in_flight"] == 0)
        assert counts(server)["websockets_opened"] == let_in + 1


def test_what_no_worker_had_begun_is_dropped_when_its_client_has_left():
    """Taken back from a worker that ended, or waiting for one from the beginning."""
    with serving({"mode": "process"}) as server:
        script = server.script
        script.write_text(script.read_text().replace("import asyncio", HELD_BACK + "\nimport asyncio", 1))
        touch(server, "held back")
        standing = asks(server, "/stand")
        leaving = [Asking(server, "/leaves", BODY) for _ in range(2)]
        staying = Asking(server, "/stays", BODY)
        for one in (*leaving, staying):
            eventually(one.received)
        mark = server.mark()
        os.kill(server.pid_of("worker 0"), signal.SIGKILL)
        server.wait_log("is gone: .* 3 events go to another worker, 1 are uncertain", since=mark)
        gone = Asking(server, "/leaves", BODY)
        eventually(gone.received)
        for one in (*leaving, gone):
            one.leave()
        script.with_name("held back").unlink()
        assert b" 502 " in standing.answer()
        assert staying.answer().endswith(b"done /stays")
        eventually(lambda: counts(server)["gateways"][0]["dropped_reasons"] == {"client left": 3})
        now = counts(server)
        assert adds_up(now)
        assert (now["finished"], now["uncertain"], now["in_flight"], now["bytes_waiting"]) == (1, 1, 0, 0)
        assert server.reports("begun") == ["/stand", "/stays"]


def test_without_a_worker_as_much_waits_as_one_would_be_given():
    with serving({"mode": "process"}, worker_bytes=2 * MIB) as server:
        script = server.script
        script.write_text(script.read_text().replace("import asyncio", HELD_BACK + "\nimport asyncio", 1))
        touch(server, "held back")
        before = memory(keeper(server))
        mark = server.mark()
        os.kill(server.pid_of("worker 0"), signal.SIGKILL)
        server.wait_log("is gone", since=mark)
        waiting = [Asking(server, f"/wait{number}", BODY) for number in range(30)]
        for one in waiting[10:]:
            one.leave()
        more = [Asking(server, "/more", BODY) for _ in range(30)]
        read_as_far_as_it_is(more)
        assert memory(keeper(server)) - before < 32 * MIB
        for one in more:
            one.leave()
        touch(server, "go")
        script.with_name("held back").unlink()
        for number, one in enumerate(waiting[:10]):
            assert one.answer().endswith(f"done /wait{number}".encode())
        eventually(lambda: counts(server)["in_flight"] == 0)
        assert adds_up(counts(server))


def test_parts_of_bodies_for_a_worker_that_stands_are_left_in_the_socket():
    """All of its handlers have asked for the next part before it stood still."""
    with serving({"mode": "process"}, worker_bytes=MIB, stream_request_body=True, stream_body_above=0) as server:
        uploads = [Asking(server, "/upload", extra="Content-Length: 1048576\r\n") for _ in range(200)]
        server.wait_log("report begun /upload", count=200)
        asks(server, "/wait-none-of-them")
        eventually(lambda: counts(server)["in_flight"] == 201)
        before = memory(keeper(server))
        asks(server, "/stand")
        for one in uploads:
            one.go_on(BODY)
        for _ in range(20):
            # what the gateway answers itself, in its turn
            assert Asking(server, "no-path").answer().startswith(b"HTTP/1.1 400 ")
            for one in uploads:
                one.go_on()
        assert memory(keeper(server)) - before < 8 * MIB
        touch(server, "go")
        for one in uploads:
            assert one.answer().endswith(b"done /upload")


def test_workers_that_end_again_and_again_do_not_fill_the_gateway():
    """What one had goes to the other one, on top of what that has, and its successor would take as much again."""
    settings = {"worker_num": 2, "worker_bytes": MIB, "restart_free": 100, "degraded_after": 100}
    settings["control_frame_limit"] = 1000
    with (
        Serving(APP, worker_hang_timeout=0, **settings) as server,
        connect(server.url, compression=None, proxy=None, ping_interval=None) as probe,
    ):
        before = memory(keeper(server))
        mark = server.mark()
        for number in range(12):
            for _ in range(6):
                Asking(server, "/stand", BODY[: MIB // 4])
            for _ in range(10):
                for one in Asking.all:
                    one.go_on()
                assert probe.ping().wait(LIMIT)  # which the gateway answers itself, in its turn
            os.kill(server.pid_of(f"worker {number % 2}"), signal.SIGKILL)
            server.wait_log(r"worker \d .* serves in place", since=mark, count=number + 1)
        assert memory(keeper(server)) - before < 18 * MIB
