"""How connections end, who ended them and why: `close` for those that were WebSockets, `disconnect` for the others."""

import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from contract.clients import BINARY, TEXT, Raw, close_frame, get, handshake, only_gateway, websocket
from contract.modes import only
from frames import frame
from support.serving import LIMIT, Serving, eventually

APP = """
import asyncio

async def seen(path):
    while not os.path.exists(path):
        await asyncio.sleep(0.002)

requests = []  # that this worker has had

def block():
    report("blocked")
    while not os.path.exists("go"):
        time.sleep(0.01)

@server.on("open")
def opened(server, request):
    server.session(request.fd)["who"] = "ws"
    server.push(request.fd, json.dumps({"fd": request.fd}))

@server.on("message")
def said(server, frame):
    eval(frame.data)

@server.on("close")
def left(server, fd, code, reason):
    status = [] if reason.status is None else [reason.status]
    report("close", fd, code, reason.by.name, dict(server.session(fd)), *status, "|", reason)

@server.on("request")
async def asked(request, response):
    report("request", request.fd)
    requests.append(request)
    result = eval(request.query.get("do", "None"))
    if asyncio.iscoroutine(result):
        result = await result
    response.json([request.fd, result])
    report("answered", request.fd)

DISCONNECT = '''
@server.on("disconnect")
def gone(server, fd, reason):
    status = [] if reason.status is None else [reason.status]
    report("disconnect", fd, reason.by.name, dict(server.session(fd)), *status, "|", reason)
    if "kill" in server.session(fd):
        os.kill(os.getpid(), 9)
'''
if not os.environ.get("ONLY_CLOSE"):
    exec(DISCONNECT)
"""
QUICK = {"header_timeout": 0.8, "keepalive_timeout": 1.0, "close_timeout": 0.4, "max_message_size": 1000}


@pytest.fixture(scope="module")
def ending(mode: dict[str, Any]) -> Iterator[Serving]:
    with Serving(APP, **QUICK, **mode) as running:
        yield running
        assert running.stop() == 0
        assert "(adds up)" in running.lines[-2], "\n".join(running.lines[-10:])
        # Each connection has ended once, whatever ended it.
        ended = [line.split()[1] for line in running.reports() if line.startswith(("close", "disconnect"))]
        assert len(ended) == len(set(ended))


def told(server: Serving, event: str, mark: int) -> list[str]:
    """[code,] who, session | reason of the one connection that has ended since."""
    server.wait_log(f"^report {event} ", since=mark)
    lines = [line for line in server.reports("", mark) if line.startswith(("close", "disconnect"))]
    assert len(lines) == 1, lines
    return lines[0].split(" ", 2)[2]


# ---------------------------------------------------------------------------------------------- WebSockets


def leaves(raw: Raw, data: bytes, code: int) -> None:
    """It does what it may not, and goes when it is told so: until then the server reads on for a while."""
    raw.send(data)
    assert raw.close_frame()[0] == code
    raw.socket.close()


WAYS: dict[str, tuple[Callable[[Raw], object], str]] = {
    "the peer's close frame": (lambda raw: raw.send(close_frame(4001, b"bye")), "4001 PEER {'who': 'ws'} | bye"),
    "without a code": (lambda raw: raw.send(close_frame(None)), "1005 PEER {'who': 'ws'} |"),
    "without a frame": (
        lambda raw: raw.socket.shutdown(socket.SHUT_WR),
        "1006 PEER {'who': 'ws'} | the peer ended the connection without a close frame",
    ),
    "a reset": (lambda raw: raw.reset(), "1006 PEER {'who': 'ws'} | the connection was reset"),
    "disconnect": (
        lambda raw: raw.send(frame(TEXT, b"server.disconnect(frame.fd, 4002, 'enough')")),
        "4002 APPLICATION {'who': 'ws'} | enough",
    ),
    "close": (lambda raw: raw.send(frame(TEXT, b"server.close(frame.fd)")), "1000 APPLICATION {'who': 'ws'} |"),
    "a handler that raises": (lambda raw: raw.send(frame(TEXT, b"1 / 0")), "1011 APPLICATION {'who': 'ws'} | error"),
    "a fault": (lambda raw: leaves(raw, b"\x81\x01x", 1002), "1002 SERVER {'who': 'ws'} |"),
    "a fault, and the client stays": (lambda raw: raw.send(b"\x81\x01x"), "1002 SERVER {'who': 'ws'} |"),
    "a limit": (lambda raw: leaves(raw, frame(BINARY, bytes(1001)), 1009), "1009 SERVER {'who': 'ws'} |"),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_websocket_ends(ending: Serving, way: str):
    act, expected = WAYS[way]
    mark = ending.mark()
    with websocket(ending, "/") as (raw, _):
        act(raw)
        found = told(ending, "close", mark)
        assert found.startswith(expected)


def test_whoever_comes_first_has_closed(ending: Serving):
    """The application closes; what the peer answers, or that it does not, changes nothing."""
    for answer in (close_frame(4444, b"mine"), b""):
        mark = ending.mark()
        with websocket(ending, "/") as (raw, _):
            raw.send(frame(TEXT, b"server.disconnect(frame.fd, 4002, 'enough')"))
            assert raw.close_frame() == (4002, "enough")
            raw.send(answer)
            assert raw.rest() == b""
        assert told(ending, "close", mark) == "4002 APPLICATION {'who': 'ws'} | enough"


# ---------------------------------------------------------------------------------------------- the others


def answered(raw: Raw, status: int = 200) -> None:
    assert raw.answer().status == status


def refused_by(raw: Raw, request: bytes, status: int) -> None:
    """The client ends its half as soon as it has seen that the other one is ended."""
    raw.send(request)
    answered(raw, status)
    assert raw.rest() == b""
    raw.socket.close()


HTTP: dict[str, tuple[Callable[[Raw], object], str]] = {
    "never a byte": (lambda raw: raw.socket.close(), "PEER {} | the peer ended the connection"),
    "half a request": (lambda raw: (raw.send(b"GET / HT"), raw.reset()), "PEER {} | the connection was reset"),
    "behind an answer": (
        lambda raw: (raw.send(get("/")), answered(raw), raw.socket.close()),
        "PEER {} | the peer ended the connection",
    ),
    "with a session": (
        lambda raw: (raw.send(get("/?do=server.session(request.fd).update(a=1)")), answered(raw), raw.reset()),
        "PEER {'a': 1} | the connection was reset",
    ),
    "the last answer": (
        lambda raw: refused_by(raw, get("/", "Connection: close"), 200),
        "SERVER {} | the answer was the last one",
    ),
    "a bad request": (lambda raw: refused_by(raw, b"GET / HTTP/1.1\r\n\r\n", 400), "SERVER {} 400 | 400: "),
    "a bad request, and the client stays": (
        lambda raw: (raw.send(b"GET / HTTP/1.1\r\n\r\n"), answered(raw, 400), raw.rest()),
        "SERVER {} 400 | 400: ",
    ),
    "a bad handshake": (lambda raw: refused_by(raw, handshake("/", "Origin: null"), 403), "SERVER {} 403 | 403: "),
    "no request": (lambda raw: raw.rest(), "SERVER {} | no request came in time"),
    "a slow request": (lambda raw: refused_by(raw, b"GET / HT", 408), "SERVER {} 408 | 408: "),
    "a large head": (lambda raw: refused_by(raw, get("/", "X: " + "x" * 100_000), 431), "SERVER {} 431 | 431: "),
    "a large body": (
        lambda raw: refused_by(raw, get("/", f"Content-Length: {1 << 40}", method="POST"), 413),
        "SERVER {} 413 | 413: ",
    ),
    "an error of a handler": (
        lambda raw: refused_by(raw, get("/?do=1/0", "Connection: close"), 500),
        "SERVER {} | the answer was the last one",
    ),
    "idle": (lambda raw: (raw.send(get("/")), answered(raw), raw.rest()), "SERVER {} | idle for too long"),
    "close": (
        lambda raw: (raw.send(get("/?do=server.close(request.fd)")), raw.rest()),
        "APPLICATION {} |",
    ),
}


@pytest.mark.parametrize("way", HTTP)
def test_an_http_connection_ends(ending: Serving, way: str):
    act, expected = HTTP[way]
    mark = ending.mark()
    with Raw(ending) as raw:
        act(raw)
        assert told(ending, "disconnect", mark).startswith(expected)


def test_disconnect_is_the_last_event(mode: dict[str, Any], tmp_path: Any):
    """It waits for a handler of its connection that is suspended."""
    with Serving(APP, cwd=tmp_path, **mode) as server:
        with Raw(server, get("/?do=seen('go')")) as raw:
            server.wait_log("^report request")
            raw.reset()
        with Raw(server, get("/")) as other:
            answered(other)
        server.wait_log("^report disconnect")
        (tmp_path / "go").touch()
        server.wait_log("^report disconnect", count=2)
        assert server.stop() == 0
        kinds = [line.split()[:2] for line in server.reports()]
        first = next(fd for kind, fd in kinds if kind == "request")
        assert [kind for kind, fd in kinds if fd == first] == ["request", "answered", "disconnect"]


def test_everybody_is_told_at_a_stop(mode: dict[str, Any]):
    with Serving(APP, close_timeout=0.4, **mode) as server:
        with websocket(server, "/"), Raw(server, get("/")) as raw, Raw(server):
            answered(raw)
            eventually(lambda: connections(server) == 4)
            server.signal(signal.SIGTERM)
            assert server.ended() == 0
        said = [line.split(" ", 2)[2] for line in server.reports() if line.startswith(("close", "disconnect"))]
        asked = [line for line in said if "PEER" in line]  # those of connections()
        assert sorted(set(said) - set(asked)) == [
            "1001 SERVER {'who': 'ws'} | the server is shutting down",
            "SERVER {} | the server is shutting down",
        ]
        assert len(said) - len(asked) == 3


def connections(server: Serving) -> int:
    with Raw(server, get(f"/?do={quote('len(server.connections)')}")) as raw:
        return raw.answer().json()[1]


def test_nothing_is_sent_to_a_worker_that_does_not_ask(mode: dict[str, Any]):
    """An event that no handler is there for would be a record up and one down for every HTTP connection."""
    with Serving(APP, env={"ONLY_CLOSE": "1"}, **{**mode, "worker_num": 1, "gateway_num": 1}) as server:
        with Raw(server) as asker:
            for _ in range(2):
                with Raw(server):
                    pass
                with Raw(server, get("/")) as raw:
                    answered(raw)
                eventually(lambda: connections(server) == 2)
                asker.send(get(f"/?do={quote('server._worker.inlet.handled - len(requests)')}"))
                assert asker.answer().json()[1] == 0
        assert server.stop() == 0


@only("process", "process-2")
def test_a_worker_that_ends_meanwhile(mode: dict[str, Any]):
    """One that had started is not told again, but reported."""
    with Serving(APP, **mode) as server:
        with Raw(server, get("/?do=server.session(request.fd).update(kill=1)")) as raw:
            answered(raw)
        server.wait_log("uncertain: disconnect of connection")
        assert server.stop() == 0
        assert len([line for line in server.reports("disconnect") if "kill" in line]) == 1


@only("process", "process-2")
def test_a_gateway_that_ends(mode: dict[str, Any], tmp_path: Any):
    """Its workers are told of each of its connections, once, behind what came before; those of others live on."""
    with Serving(APP, cwd=tmp_path, **mode) as server, contextlib.ExitStack() as stack:
        gone, kept, http = set(), set(), set()
        with only_gateway(server, mode, 0):
            for _ in range(4):  # of both workers
                raw, fd = stack.enter_context(websocket(server, "/"))
                gone.add(str(fd))
                raw.send(frame(TEXT, b"report('handled', frame.fd)"))
            busy = stack.enter_context(Raw(server, get("/?do=seen('go')")))
            quick = stack.enter_context(Raw(server, get("/")))
            http.add(str(quick.answer().json()[0]))
        server.wait_log("^report handled", count=4)
        server.wait_log("^report request", count=2)
        if mode["gateway_num"] > 1:
            with only_gateway(server, mode, 1):
                other, fd = stack.enter_context(websocket(server, "/"))
                kept.add(str(fd))
        mark = server.mark()
        os.kill(server.pid_of("gateway 0"), signal.SIGKILL)
        server.wait_log("^report close", since=mark, count=4)
        server.wait_log("^report disconnect", since=mark, count=1)
        (tmp_path / "go").touch()
        server.wait_log("^report disconnect", since=mark, count=2)
        assert busy.rest() == b""
        said = [line.split(" ", 2) for line in server.reports("", mark)]
        assert {fd for kind, fd, _ in [line for line in said if line[0] == "close"]} == gone
        assert {rest for kind, _, rest in [line for line in said if len(line) > 2] if kind == "close"} == {
            "1006 SERVER {'who': 'ws'} | gateway 0 has ended"
        }
        assert [line[0] for line in said if line[1] not in gone | http] == ["answered", "disconnect"]
        if kept:
            other.send(frame(TEXT, b"server.push(frame.fd, 'still here')"))
            assert other.text() == "still here"
            other.send(close_frame(1000))
            server.wait_log("^report close .* 1000 PEER")
        server.wait_log("gateway 0 .*serves|serves in place", since=mark)
        assert server.stop() == 0
        ended = [line.split()[1] for line in server.reports() if line.startswith(("close", "disconnect"))]
        assert len(ended) == len(set(ended))


# ---------------------------------------------------------------------------------------------- silence


def test_a_client_of_which_nothing_is_heard(mode: dict[str, Any]):
    """Not even a pong: it is closed, in order, although pings might take longer to find out."""
    with Serving(APP, heartbeat_idle_time=0.5, ping_interval=0.3, pong_timeout=30, **mode) as server:
        with websocket(server, "/") as (raw, _):
            assert closed_behind_pings(raw) == (1001, "nothing was heard for heartbeat_idle_time")
        assert told(server, "close", 0).startswith("1001 SERVER {'who': 'ws'} | nothing was heard")


def closed_behind_pings(raw: Raw) -> tuple[int, str]:
    """The close frame; ahead of it there is a ping, or more of them if the machine has other things to do."""
    opcode, payload = raw.frame()
    assert opcode == 9
    while opcode == 9:
        opcode, payload = raw.frame()
    assert opcode == 8
    return int.from_bytes(payload[:2], "big"), payload[2:].decode()


def test_a_silent_client_that_was_behind_when_it_was_asked(mode: dict[str, Any], tmp_path: Path):
    """What it had not taken by then, a moment later it had: it has no more time for an answer than others."""
    path = str(tmp_path / "x.sock")  # there what is not read is not taken
    app = APP + f"\nserver.listen(unix_socket={path!r})\n"
    limits = {"heartbeat_idle_time": 0.5, "ping_interval": 0.3, "pong_timeout": 60}
    with Serving(app, **limits, **mode) as server, Raw(server) as raw:
        raw.socket.close()
        raw.socket = socket.socket(socket.AF_UNIX)
        raw.socket.settimeout(LIMIT)
        raw.socket.connect(path)
        assert raw.upgrade("/").status == 101
        eventually(lambda: b"\x89\x08" in raw.socket.recv(4096, socket.MSG_PEEK))
        raw.text()
        assert closed_behind_pings(raw) == (1001, "nothing was heard for heartbeat_idle_time")


def test_without_pings_it_must_say_something_by_itself(mode: dict[str, Any]):
    with Serving(APP, heartbeat_idle_time=1.5, ping_interval=0, **mode) as server:
        with websocket(server, "/") as (raw, _), websocket(server, "/") as (pinging, fd):
            for _ in range(13):
                pinging.send(frame(9, b""))
                assert pinging.frame()[0] == 10
                pinging.socket.settimeout(0.15)
                with pytest.raises(TimeoutError):
                    pinging.frame()
                pinging.socket.settimeout(10)
            assert raw.close_frame()[0] == 1001
            pinging.send(close_frame(4000))
            assert pinging.close_frame()[0] == 4000
            server.wait_log(f"^report close {fd} 4000 PEER")
        assert server.stop() == 0


# ---------------------------------------------------------------------------------------------- a busy worker


@only("process", "process-2")
def test_the_gateway_serves_while_every_worker_is_busy(mode: dict[str, Any], tmp_path: Any):
    """Pings, the server's own pings and their round trip, closes, time limits: none of it needs a worker."""
    limits = {"ping_interval": 0.3, "pong_timeout": 2, "header_timeout": 0.5}  # all but one of its clients are in time
    mode = {**mode, "worker_num": 1, "gateway_num": 1}
    with Serving(APP, cwd=tmp_path, **limits, **mode) as server, websocket(server, "/") as (busy, _):
        others = [websocket(server, "/") for _ in range(3)]
        with others[0] as (raw, _), others[1] as (mute, _), others[2] as (shy, _):
            busy.send(frame(TEXT, b"block()"))
            server.wait_log("^report blocked")
            raw.send(frame(9, b"are you there?"))
            while (found := raw.frame()) != (10, b"are you there?"):
                assert found[0] == 9
            opcode, payload = raw.frame()
            assert opcode == 9  # the gateway's own
            raw.send(frame(10, payload))
            shy.send(close_frame(4003))
            while (found := shy.frame())[0] == 9:
                pass
            assert found == (8, (4003).to_bytes(2, "big"))
            assert shy.rest() == b""
            while mute.received or mute.socket.recv(1000):  # it answers no ping, and is cut
                mute.received = b""
            with Raw(server, b"GET / HT") as slow:
                assert slow.answer().status == 408
            (tmp_path / "go").touch()
            server.wait_log("^report close .* 4003 PEER")
            server.wait_log("^report close .* 1006 SERVER .* no answer to a ping")
        assert server.stop() == 0
