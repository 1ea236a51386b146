"""Behind a proxy that speaks the PROXY protocol: who the client is, and what happens to those who do not say."""

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contract.clients import Answer, Raw, get, handshake
from contract.modes import only
from frames import frame
from mooring.net.refusals import LINES
from support.serving import LIMIT, Serving, eventually

APP = """
server.listen("127.0.0.1", 0, proxy_protocol="off")

@server.on("request")
def page(request, response):
    info = server.get_client_info(request.fd)
    known = [request.remote_ip, request.remote_port, info.remote_ip, info.remote_port]
    response.end(json.dumps(server.stats() if request.path == "/stats" else known))

@server.on("message")
def said(server, frame):
    info = server.get_client_info(frame.fd)
    server.push(frame.fd, json.dumps([frame.data, info.remote_ip, info.remote_port]))
"""
SETTINGS = {"proxy_protocol": "any", "proxy_protocol_from": ["127.0.0.1"], "trusted_proxies": ["10.0.0.0/8"]}
V2 = b"\r\n\r\n\0\r\nQUIT\n"
FOUR = V2 + b"\x21\x11\0\x0c" + bytes([192, 0, 2, 7]) + bytes([198, 51, 100, 1]) + b"\x12\x34\x01\xbb"
SIX = V2 + b"\x21\x21\0\x24" + b"\x20\x01\x0d\xb8" + b"\0" * 11 + b"\7" + b"\0" * 16 + b"\x12\x34\x01\xbb"
LOCAL = V2 + b"\x20\0\0\0"
TEXT = 1


def v1(address: str, port: int = 4660) -> bytes:
    return f"PROXY TCP4 {address} 198.51.100.1 {port} 443\r\n".encode()


@pytest.fixture(scope="module")
def proxied(mode: dict[str, Any]) -> Iterator[Serving]:
    with Serving(APP, proxy_protocol_timeout=60, **SETTINGS, **mode) as running:
        yield running
        assert running.stop() == 0


def known(server: Serving, header: bytes, *fields: str) -> Any:
    with Raw(server, header + get("/", *fields)) as raw:
        return json.loads(raw.answer().body)


def refused_so_far(server: Serving) -> int:
    """From the other listener, on which nobody must say anything."""
    port = int(server.wait_log(r"listening on \S+, 127\.0\.0\.1:(\d+)")[1])
    with Raw(server, get("/stats"), port=port) as raw:
        count: int = json.loads(raw.answer().body)["proxy_headers_refused"]
        return count


@pytest.mark.parametrize(
    ("header", "address"),
    [(v1("192.0.2.7"), "192.0.2.7"), (FOUR, "192.0.2.7"), (SIX, "2001:db8::7")],
    ids=["v1", "v2", "v2 six"],
)
def test_the_client_is_the_one_that_the_proxy_tells(proxied: Serving, header: bytes, address: str):
    assert known(proxied, header) == [address, 4660] * 2
    with Raw(proxied) as raw:
        for n in range(len(header)):  # byte by byte
            raw.send(header[n : n + 1])
        raw.send(get())
        assert json.loads(raw.answer().body) == [address, 4660] * 2


def test_a_websocket_in_one_piece(proxied: Serving):
    """Header, handshake and the first message in one packet."""
    with Raw(proxied, FOUR + handshake("/") + frame(TEXT, b"hello")) as raw:
        assert raw.until(b"\r\n\r\n").startswith(b"HTTP/1.1 101")
        assert json.loads(raw.text()) == ["hello", "192.0.2.7", 4660]
        raw.send(frame(TEXT, b"again"))
        assert json.loads(raw.text()) == ["again", "192.0.2.7", 4660]


@pytest.mark.parametrize("header", [LOCAL, b"PROXY UNKNOWN\r\n"], ids=["v2", "v1"])
def test_a_connection_of_the_proxy_itself(proxied: Serving, header: bytes):
    with Raw(proxied, header + get()) as raw:
        assert json.loads(raw.answer().body) == ["127.0.0.1", raw.socket.getsockname()[1]] * 2


def test_forwarded_for_is_believed_of_whom_the_header_names(proxied: Serving):
    """The header names the next hop; whether that is a proxy to be believed, trusted_proxies says."""
    field = "X-Forwarded-For: 203.0.113.9"
    assert known(proxied, v1("192.0.2.7"), field)[0] == "192.0.2.7"
    assert known(proxied, v1("10.1.2.3"), field) == ["203.0.113.9", 0, "10.1.2.3", 4660]
    assert known(proxied, LOCAL, field)[0] == "127.0.0.1"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (get(), "no PROXY header"),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 4660\r\n" + get(), "a malformed header of version 1"),
        (FOUR[:12] + b"\x31" + FOUR[13:] + get(), "version and command 0x31"),
        (b"PROXY TCP4 " + b"1" * 200, "does not end within 107 bytes"),
    ],
    ids=["none", "v1", "v2", "long"],
)
def test_without_a_proper_header_nothing_is_read(proxied: Serving, data: bytes, why: str):
    before = refused_so_far(proxied)
    with Raw(proxied, data) as raw:
        with contextlib.suppress(ConnectionResetError):  # it had sent more than was read
            assert raw.socket.recv(1) == b""
    eventually(lambda: refused_so_far(proxied) > before)


@only("base", "process")
@pytest.mark.parametrize("data", [b"", v1("192.0.2.7")[:-1], FOUR[:-1]], ids=["silent", "v1", "v2"])
def test_the_header_has_its_time(mode: dict[str, Any], data: bytes):
    with Serving(APP, proxy_protocol_timeout=0.3, **SETTINGS, **mode) as server:
        with Raw(server, data) as raw, contextlib.suppress(ConnectionResetError):
            assert raw.socket.recv(1) == b""
        server.wait_log("a connection of 127.0.0.1 was closed, PROXY protocol: no header came in time")
        assert refused_so_far(server) == 1
        assert server.stop() == 0


@only("base", "process")
def test_the_log_does_not_have_a_line_for_each(mode: dict[str, Any]):
    with Serving(APP, **SETTINGS, **mode) as server:
        before, began = refused_so_far(server), time.monotonic()
        for _ in range(20):
            with Raw(server, b"nonsense") as raw:
                with contextlib.suppress(ConnectionResetError):
                    assert raw.socket.recv(1) == b""
        assert refused_so_far(server) == before + 20
        server.wait_log("a connection of 127.0.0.1 was closed, PROXY protocol: no PROXY header")
        lines = sum("was closed, PROXY protocol" in line for line in server.lines)
        assert lines <= (LINES + 1) * (1 + int(time.monotonic() - began))
        assert server.stop() == 0


def test_only_the_proxy_may_connect(proxied: Serving):
    before = refused_so_far(proxied)
    with socket.socket() as stranger:
        stranger.settimeout(LIMIT)
        stranger.bind(("127.0.0.2", 0))
        stranger.connect(("127.0.0.1", proxied.port))
        with contextlib.suppress(ConnectionResetError):
            assert stranger.recv(1) == b"", "at once, and not only when the time is over"
    eventually(lambda: refused_so_far(proxied) > before)


@only("base", "process")
def test_the_limit_per_address_counts_clients_and_not_the_proxy(mode: dict[str, Any]):
    with Serving(APP, max_connections_per_address=2, **SETTINGS, **mode) as server:
        crowd = [Raw(server, v1("192.0.2.7") + get()) for _ in range(2)]
        try:
            assert [raw.answer().status for raw in crowd] == [200, 200]
            for other in (v1("192.0.2.8"), SIX):
                with Raw(server, other + get()) as raw:
                    assert raw.answer().status == 200
            with Raw(server, v1("192.0.2.7") + get()) as raw:
                answer = raw.answer()
                assert (answer.status, answer.headers["retry-after"]) == (429, "5")
                assert b"too many connections" in answer.body
            with Raw(server) as silent:  # one that has not said who it is belongs to nobody
                crowd.pop().__exit__()
                eventually(lambda: answered(server, v1("192.0.2.7")).status == 200, what="a place is free again")
                silent.send(v1("192.0.2.9") + get())
                assert silent.answer().status == 200
        finally:
            for raw in crowd:
                raw.__exit__()
        assert server.stop() == 0


def answered(server: Serving, header: bytes) -> Answer:
    with Raw(server, header + get("/", "Connection: close")) as raw:
        return raw.answer()


@only("base", "process")
def test_one_version_only(mode: dict[str, Any]):
    with Serving(APP, **{**SETTINGS, "proxy_protocol": "v2"}, **mode) as server:
        assert known(server, FOUR)[0] == "192.0.2.7"
        with Raw(server, v1("192.0.2.7")) as raw:
            assert raw.rest() == b""
        server.wait_log("a header of another version than v2")
        assert server.stop() == 0


@only("base", "process")
def test_through_a_unix_socket(mode: dict[str, Any], tmp_path: Path):
    """Who can open it is trusted when the settings say so: with the PROXY protocol, or with X-Forwarded-For."""
    path = str(tmp_path / "x.sock")
    more = f'server.listen(unix_socket={path + "2"!r}, trusted_proxies=["unix"], proxy_protocol="off")\n'
    settings = {"unix_socket": path, "proxy_protocol": "v1", "proxy_protocol_from": ["unix"]}
    with Serving(more + APP, **settings, **mode) as server:
        for name, header, expected in [
            (path, v1("192.0.2.7").decode(), ["192.0.2.7", 4660] * 2),
            (path + "2", "", ["203.0.113.9", 0, "", 0]),
        ]:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(LIMIT)
                client.connect(name)
                request = get("/", "X-Forwarded-For: 203.0.113.9", "Connection: close")
                client.sendall(header.encode() + request)
                assert json.loads(client.makefile("rb").read().partition(b"\r\n\r\n")[2]) == expected
        assert server.stop() == 0
    assert os.listdir(tmp_path) == []
