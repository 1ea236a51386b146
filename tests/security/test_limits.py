"""Limits: each refuses what it should, with a status and a counter, and the log stays readable (C11)."""

import contextlib
import re
import resource
import socket
import time
from collections.abc import Iterator

import pytest

from contract.clients import TEXT, Raw, get, handshake
from frames import frame
from security.conftest import APP, MODES
from security.watch import becomes_idle, cpu, descriptors, gateway_of, watched
from support.serving import LIMIT, Serving, eventually

BOTH = pytest.mark.parametrize("mode", MODES)
EVERYWHERE = APP  # it listens on every address: those of this machine itself are not counted


def stats(server: Serving) -> dict[str, int]:
    with Raw(server, get("/stats")) as raw:
        return raw.answer().json()


def own_address() -> str:
    """An address of this machine that is not a loopback one. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("no network interface but the loopback one")
        return str(probe.getsockname()[0])


class Stranger(Raw):
    """A client that is not on this machine, as far as the server knows."""

    def __init__(self, server: Serving, data: bytes = b"") -> None:
        address = own_address()
        self.socket = socket.create_connection((address, server.port), LIMIT, source_address=(address, 0))
        self.received = b""
        if data:
            self.send(data)


@pytest.fixture(params=MODES)
def open_to_all(request: pytest.FixtureRequest) -> Iterator[Serving]:
    app = APP + '\nserver.set(host="0.0.0.0")\n'
    limits = {"max_unfinished_per_address": 4, "max_connections_per_address": 8}
    with Serving(app, **limits, **MODES[request.param]) as running:
        yield running
        assert running.stop() == 0


def test_connections_without_an_answered_request(open_to_all: Serving):
    """Four of an address; whoever has got an answer, or is a WebSocket, or is gone, is none of them any more."""
    with contextlib.ExitStack() as stack, watched(open_to_all):
        silent = [stack.enter_context(Stranger(open_to_all)) for _ in range(4)]
        eventually(lambda: stats(open_to_all)["connections"] >= 5)
        with Stranger(open_to_all) as fifth:
            answer = fifth.answer()
            assert (answer.status, answer.headers["retry-after"]) == (429, "5")
            assert answer.body == b"Too many unfinished requests from your address."
        silent[0].send(get("/"))
        assert silent[0].answer().status == 200
        silent[1].send(handshake("/attack"))
        assert silent[1].until(b"\r\n").split()[1] == b"101"
        silent[2].reset()
        eventually(lambda: stats(open_to_all)["connections"] <= 5)  # the canary, the one that asks, three
        for _ in range(3):
            served = stack.enter_context(Stranger(open_to_all, get("/")))
            assert served.answer().status == 200
    counts = stats(open_to_all)
    assert counts["connections_refused_unfinished"] == 1
    assert counts["connections_refused_by_address"] == 0
    open_to_all.wait_log("has as many connections without an answered request as one address may")


def test_f37_connections_of_one_address(open_to_all: Serving):
    with contextlib.ExitStack() as stack:
        for _ in range(8):
            assert stack.enter_context(Stranger(open_to_all, get("/"))).answer().status == 200
        with Stranger(open_to_all) as ninth:
            assert ninth.answer().status == 429
        assert stats(open_to_all)["connections_refused_by_address"] == 1


@BOTH
def test_messages_a_second(mode: str):
    """Five at once, then 50 a second: the rest is not lost, it is read later; pings are answered meanwhile."""
    limits = {"message_rate": 50, "message_burst": 5, "close_timeout": 0.3}
    with Serving(APP, **limits, **MODES[mode]) as server, Raw(server) as raw:
        assert raw.upgrade("/attack").status == 101
        start = time.monotonic()
        raw.send(b"".join(frame(TEXT, f"{n}".encode()) for n in range(30)))
        for n in range(5):
            assert raw.text() == f"{n}"
        for n in range(5, 30):
            assert raw.text() == f"{n}"
        assert time.monotonic() - start > 0.45  # 25 of them at 50 a second
        assert stats(server)["rate_pauses"] > 0
        becomes_idle(gateway_of(server))
        assert server.stop() == 0


@BOTH
def test_new_connections_a_second(mode: str):
    """Ten in one second; the eleventh waits for the next one, and is served."""
    with Serving(APP, max_connection_rate=10, **MODES[mode]) as server:
        start = time.monotonic()
        for _ in range(25):
            with Raw(server, get("/", "Connection: close")) as raw:
                assert raw.answer().status == 200
        assert time.monotonic() - start > 1.0
        assert server.stop() == 0


@BOTH
def test_f37_a_full_server(mode: str):
    """Above 80 % those that wait for a next request are ended for a new one; above 100 % it is 503."""
    with Serving(APP, max_connections=20, **MODES[mode]) as server, contextlib.ExitStack() as stack:
        idle = [stack.enter_context(Raw(server, get("/"))) for _ in range(16)]
        for raw in idle:
            assert raw.answer().status == 200
        more = []
        for _ in range(3):
            more.append(stack.enter_context(Raw(server)))
            assert more[-1].upgrade("/attack").status == 101
        counts = stats(server)
        assert counts["connections_evicted"] >= 1
        assert idle[0].rest() == b""  # the one that waited longest
        sockets = [stack.enter_context(Raw(server)) for _ in range(40)]  # none of them waits for a next request
        answers = 0
        for raw in sockets:
            raw.socket.settimeout(1)
            with contextlib.suppress(TimeoutError):
                answer = raw.answer()
                assert (answer.status, answer.headers["retry-after"]) == (503, "5")
                answers += 1
                if answers == 5:
                    break
        assert answers == 5
        server.wait_log("all 20 connections are taken: new clients get 503")
        for raw in more:
            raw.send(frame(TEXT, b"still here"))
            assert raw.text() == "still here"


@BOTH
def test_f32_without_descriptors(mode: str):
    """The listener is left alone, without spinning; who is there is served, and who waited is served later."""
    with Serving(APP, max_connections=4096, **MODES[mode]) as server, contextlib.ExitStack() as stack:
        pid = gateway_of(server)
        with Raw(server) as first:
            assert first.upgrade("/attack").status == 101
            room = descriptors(pid) + 20
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (room, room))
            crowd = [stack.enter_context(Raw(server)) for _ in range(200)]
            server.wait_log(r"cannot accept \(Too many open files\)")
            first.send(frame(TEXT, b"still here"))
            assert first.text() == "still here"
            start, used = time.monotonic(), cpu(pid)
            server.wait_log(r"cannot accept \(Too many open files\)", since=server.mark(), count=3)
            assert cpu(pid) - used < 0.1 * (time.monotonic() - start)
            for raw in crowd[:-1]:
                raw.reset()
            crowd[-1].send(get("/stats"))
            assert crowd[-1].answer().json()["accept_pauses"] > 0


@BOTH
def test_hosts(mode: str):
    with Serving(APP, allowed_hosts=["example.org", "*.example.net", "[::1]"], **MODES[mode]) as server:
        for host, status in {
            "example.org": 200,
            "EXAMPLE.org:9501": 200,
            "a.example.net": 200,
            "example.org.": 200,  # the dot that makes a name absolute
            "Example.org.:9501": 200,
            "a.example.net.": 200,
            "example.org..": 421,
            "example.net.": 421,
            ".": 421,
            "a.b.example.net:80": 200,
            "[::1]:9501": 200,
            "[::1]": 200,
            "example.net": 421,
            "xexample.net": 421,
            "example.org.evil": 421,
            "127.0.0.1": 421,
        }.items():
            for request in (get("/", "Connection: close"), handshake("/attack")):
                with Raw(server, request.replace(b"Host: x", f"Host: {host}".encode())) as raw:
                    found = int(raw.until(b"\r\n").split()[1])
                    assert found == status or (status == 200 and found == 101), (host, found)
        with Raw(server, b"GET / HTTP/1.0\r\n\r\n") as raw:
            assert raw.answer().status == 421
        server.wait_log("its Host is not in allowed_hosts")


def test_c11_the_log_stays_readable(server: Serving):
    """Thousands of refusals are at most ten lines of a kind in a second, and what strangers send is escaped."""
    mark = server.mark()

    def share_of_a_new_second() -> bool:
        with Raw(server, get("/", "X: \x1b")) as raw:
            raw.until(b"\r\n")
        return any("request refused with 400" in line for line in server.lines[mark:])

    eventually(share_of_a_new_second)  # what tests before this one have used up, and the count of that, is theirs
    mark = server.mark()
    with watched(server):
        start = time.monotonic()
        for n in range(1500):
            with Raw(server, get("/", f"X{n}: \x1b[31mred", "Content-Length: \x1b")) as raw:
                assert raw.answer().status == 400
        for name in ("User-Agent: \x9b31m\x85", "Referer: " + "\xff" * 4000):
            with Raw(server, get("/\x9b" + "a" * 3000, name)) as raw:
                raw.until(b"\r\n")
        # that second is over: the next kind begins with a share of its own
        server.wait_log("[0-9]+ more suppressed within a second: request refused", since=mark)
        for _ in range(500):
            with Raw(server) as raw:
                raw.upgrade("/attack")
                raw.send(frame(15, b"\x1b[31m"))
                assert raw.close_frame()[0] == 1002
        seconds = time.monotonic() - start
        server.wait_log("[0-9]+ more suppressed within a second: connection ... closed", since=mark)
    lines = server.lines[mark:]
    for kind in ("request refused with 400", "closed with 1002"):
        assert 1 <= sum(kind in line for line in lines) <= 10 * (seconds + 2)
    for line in lines:
        assert len(line) < 2000
        assert re.fullmatch(r"[\x20-\x7e]*", line), ascii(line)
    assert sum(int(found[1]) for line in lines if (found := re.search(r"\b(\d+) more suppressed", line))) > 500


@BOTH
def test_c11_what_handlers_refuse_is_logged_sparingly(mode: str):
    """Also in workers: how often a handler refuses is up to strangers, too."""
    app = APP + '\n@server.on("request")\ndef refuses(request, response):\n    raise HttpError(404, "no\\nsuch page")\n'
    app = app.replace('@server.on("request")\ndef asked', "def asked", 1)
    with Serving(app, **MODES[mode]) as server, Raw(server) as raw:
        mark = server.mark()
        start = time.monotonic()
        for _ in range(500):
            raw.send(get("/"))
            assert raw.answer().status == 404
        server.wait_log(r"\d+ more suppressed within a second: request on connection \.\.\. refused", since=mark)
        seconds = time.monotonic() - start + 1
        lines = [line for line in server.lines[mark:] if "refused with 404" in line]
        assert len(lines) <= 10 * seconds
        assert "no\\nsuch page" in lines[0]
        assert server.stop() == 0


@BOTH
def test_c11_names_that_clients_choose_are_escaped(mode: str):
    """A line of the log stays one line, and moves no cursor."""
    app = APP.replace('@server.on("message")\ndef said', "def unused") + (
        """
@server.on("message")
def said(server, frame):
    server.subscribe(frame.fd, frame.data)
    server.push(frame.fd, "done")
"""
    )
    with Serving(app, max_topics=1, close_timeout=0.3, **MODES[mode]) as server, Raw(server) as raw:
        assert raw.upgrade("/attack").status == 101
        for name in ("first", "second\n\x1b[31mERROR forged"):
            raw.send(frame(TEXT, name.encode()))
            assert raw.text() == "done"
        assert r" cannot join second\n\x1b[31mERROR forged: raise max_topics" in server.wait_log("cannot join").string
        assert server.stop() == 0
