"""The opening handshake (RFC 6455 section 4.2): who becomes a WebSocket, and what the others are told."""

import json
from typing import Any

import aiohttp
import pytest
from websockets.sync.client import connect

from contract.clients import ACCEPT, KEY, TEXT, Asker, Raw, dial, get, handshake, websocket
from frames import frame
from support.serving import Serving

UPGRADE = ["Connection: Upgrade", "Upgrade: websocket"]
VERSION, WITH_KEY = "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {KEY}"


def test_the_answer(server: Serving):
    """The example of RFC 6455 section 1.3, and nothing that was not asked for."""
    with Raw(server, handshake("/echo")) as raw:
        head = raw.until(b"\r\n\r\n").decode()
    lines = head.rstrip().split("\r\n")
    assert lines[0] == "HTTP/1.1 101 Switching Protocols"
    assert sorted(line.lower() for line in lines[1:]) == sorted(
        ["upgrade: websocket", "connection: upgrade", f"sec-websocket-accept: {ACCEPT}".lower()]
    )
    assert f"Sec-WebSocket-Accept: {ACCEPT}" in lines


@pytest.mark.parametrize(
    "fields",
    [
        ["connection: keep-alive, UPGRADE", "upgrade: WebSocket", VERSION, WITH_KEY],
        ["Connection: keep-alive", "Connection: Upgrade", "Upgrade: h2c, websocket", VERSION, WITH_KEY],
        [*UPGRADE, VERSION, WITH_KEY, "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"],
        [*UPGRADE, VERSION, f"Sec-WebSocket-Key:   {KEY}  ", "Cookie: a=b", "X-Anything: at all"],
        [*UPGRADE, VERSION, WITH_KEY, "Sec-WebSocket-Extensions: ,x-y, ,", "Sec-WebSocket-Protocol: ,z, "],
        [*UPGRADE, VERSION, WITH_KEY, "Sec-WebSocket-Extensions:", "Sec-WebSocket-Protocol:"],
        ["Connection: ,", "Connection: ,Upgrade,", "Upgrade: ", "Upgrade: ,websocket,", VERSION, WITH_KEY],
    ],
    ids=["case", "lists", "extension", "space", "empty elements", "empty lists", "empty options"],
)
def test_handshakes_that_are_right(server: Serving, fields: list[str]):
    with Raw(server, get("/echo", *fields)) as raw:
        head = raw.until(b"\r\n\r\n").decode().lower()
        assert head.startswith("http/1.1 101 ")
        assert "sec-websocket-extensions" not in head
        raw.text()
        raw.send(frame(TEXT, b"hello"))
        assert raw.text() == "hello"


REFUSED: dict[str, tuple[bytes, int, dict[str, str]]] = {
    "POST": (get("/", *UPGRADE, VERSION, WITH_KEY, method="POST"), 405, {"allow": "GET"}),
    "HEAD": (get("/", *UPGRADE, VERSION, WITH_KEY, method="HEAD"), 405, {"allow": "GET"}),
    "HTTP/1.0": (get("/", *UPGRADE, VERSION, WITH_KEY, version="1.0"), 400, {}),
    "no Host": (handshake().replace(b"Host: x\r\n", b""), 400, {}),
    "two Hosts": (handshake("/", "Host: y"), 400, {}),
    "no Connection": (get("/", "Upgrade: websocket", VERSION, WITH_KEY), 400, {}),
    "Connection without Upgrade": (
        get("/", "Connection: keep-alive", "Upgrade: websocket", VERSION, WITH_KEY),
        400,
        {},
    ),
    "no version": (get("/", *UPGRADE, WITH_KEY), 400, {}),
    "two versions": (get("/", *UPGRADE, VERSION, "Sec-WebSocket-Version: 8", WITH_KEY), 400, {}),
    "version 8": (
        get("/", *UPGRADE, "Sec-WebSocket-Version: 8", WITH_KEY),
        426,
        {"sec-websocket-version": "13", "upgrade": "websocket"},
    ),
    "version x": (get("/", *UPGRADE, "Sec-WebSocket-Version: x", WITH_KEY), 426, {"sec-websocket-version": "13"}),
    "no key": (get("/", *UPGRADE, VERSION), 400, {}),
    "empty key": (get("/", *UPGRADE, VERSION, "Sec-WebSocket-Key:"), 400, {}),
    "short key": (get("/", *UPGRADE, VERSION, "Sec-WebSocket-Key: c2hvcnQ="), 400, {}),
    "long key": (get("/", *UPGRADE, VERSION, f"Sec-WebSocket-Key: AAAA{KEY}"), 400, {}),
    "not base64": (get("/", *UPGRADE, VERSION, "Sec-WebSocket-Key: !GhlIHNhbXBsZSBub25jZQ=="), 400, {}),
    "two keys": (get("/", *UPGRADE, VERSION, WITH_KEY, WITH_KEY), 400, {}),
    "body": (handshake("/", "Content-Length: 3") + b"abc", 400, {}),
    "chunked body": (handshake("/", "Transfer-Encoding: chunked") + b"0\r\n\r\n", 400, {}),
    "bad sub-protocol": (handshake("/", "Sec-WebSocket-Protocol: chat.v1, a b"), 400, {}),
    "sub-protocol twice": (handshake("/", "Sec-WebSocket-Protocol: chat.v1, chat.v1"), 400, {}),
    "other origin": (handshake("/", "Origin: https://elsewhere.example"), 403, {}),
    "no real origin": (handshake("/", "Origin: null"), 403, {}),
    "two origins": (handshake("/", "Origin: https://app.example.org", "Origin: https://app.example.org"), 403, {}),
    "origin of another port": (handshake("/", "Origin: https://app.example.org:444"), 403, {}),
    "origin of another scheme": (handshake("/", "Origin: http://app.example.org"), 403, {}),
    "origin that begins right": (handshake("/", "Origin: https://app.example.org.evil.example"), 403, {}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(server: Serving, name: str):
    """A status, the reason in words, and the end of the connection, whatever comes behind the request."""
    request, status, headers = REFUSED[name]
    mark = server.mark()
    with Raw(server, request + get("/smuggled")) as raw:
        answer = raw.answer("HEAD" if name == "HEAD" else "GET")
        assert answer.status == status
        assert {key.lower(): value for key, value in answer.headers.items()}.items() >= headers.items()
        assert answer.closes
        if name != "HEAD":
            assert answer.body.startswith(b"%d " % status)
            assert len(answer.body) > 20
        assert raw.rest() == b""
    server.wait_refusal(rf"refused with {status}: ", since=mark)


def test_refusals_are_counted(server: Serving, workers: list[Asker]):
    before = workers[0]("server.stats()['handshakes_refused']")
    with Raw(server, handshake("/", "Origin: null")) as raw:
        assert raw.answer().status == 403
    assert workers[-1]("server.stats()['handshakes_refused']") == before + 1


@pytest.mark.parametrize(
    "origin",
    [
        "https://app.example.org",
        "HTTPS://APP.example.org",
        "wss://app.example.org",
        "http://localhost:3000",
        "file://",
        "capacitor://localhost",
    ],
)
def test_origins_that_are_allowed(server: Serving, origin: str):
    with Raw(server) as raw:
        assert raw.upgrade("/echo", f"Origin: {origin}").status == 101


def test_ones_own_origin_is_allowed(server: Serving):
    """A page of this server, as a browser sends it: Host with the port."""
    own = f"127.0.0.1:{server.port}"
    request = handshake("/echo", f"Origin: http://{own}").replace(b"Host: x", f"Host: {own}".encode())
    with Raw(server, request) as raw:
        assert raw.until(b"\r\n").startswith(b"HTTP/1.1 101 ")
    with Raw(server, request.replace(b"Origin: http:", b"Origin: ws:")) as raw:  # what is no page says the URL itself
        assert raw.until(b"\r\n").startswith(b"HTTP/1.1 101 ")
    for other in (b"http://127.0.0.1:1", b"ws://127.0.0.1:1", f"wss://{own}".encode()):
        mark = server.mark()
        with Raw(server, request.replace(f"http://{own}".encode(), other)) as raw:
            assert raw.answer().status == 403
        server.wait_refusal(rf"refused with 403: .*Origin '{other.decode()}', and ours is http://{own}; ", since=mark)


def test_other_upgrades_are_plain_requests(server: Serving):
    """RFC 9110 section 7.8: an Upgrade that is not known is ignored."""
    with Raw(
        server, get("/", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
    ) as raw:
        answer = raw.answer()
        assert (answer.status, answer.body) == (200, b"hello")


def test_an_upgrade_behind_requests(server: Serving):
    """On a kept-alive connection, pipelined behind a request."""
    with Raw(server, get("/one") + handshake("/echo") + frame(TEXT, b"first")) as raw:
        assert raw.answer().body == b"hello"
        assert raw.until(b"\r\n\r\n").startswith(b"HTTP/1.1 101 ")
        assert "fd" in json.loads(raw.text())
        assert raw.text() == "first"


def test_frames_in_the_segment_of_the_handshake(server: Serving):
    """A client may not wait for the 101. Nothing is lost, nothing is late."""
    frames = (
        frame(TEXT, b"one") + frame(TEXT, b"tw", fin=False) + frame(9, b"ping") + frame(0, b"o") + frame(2, b"\0three")
    )
    with Raw(server) as raw:
        assert raw.upgrade("/echo", behind=frames).status == 101
        got = [raw.frame() for _ in range(5)]
        # the ping is answered by the gateway: that may overtake what handlers of earlier events send
        assert (10, b"ping") in got
        told, *echoes = [payload for opcode, payload in got if opcode != 10]
        assert "fd" in json.loads(told)
        assert echoes == [b"one", b"two", b"\0three"]


@pytest.mark.parametrize("size", [1, 7, 150, 10_000])
def test_a_handshake_in_pieces(server: Serving, size: int):
    data = handshake("/echo") + frame(TEXT, b"x" * 2000)
    with Raw(server) as raw:
        for start in range(0, len(data), size):
            raw.send(data[start : start + size])
        assert raw.until(b"\r\n\r\n").startswith(b"HTTP/1.1 101 ")
        raw.text()
        assert raw.text() == "x" * 2000


# ---------------------------------------------------------------------------------------------- sub-protocols


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["chat.v1"], "chat.v1"),
        (["chat.v1, chat.v2"], "chat.v1"),  # the client's order is the order of preference (RFC 6455 section 4.1)
        (["chat.v2", "chat.v1"], "chat.v2"),
        (["unknown, chat.v1"], "chat.v1"),
        (["unknown"], None),
        (["CHAT.V1"], None),  # names are compared as they are
        ([], None),
    ],
)
def test_the_sub_protocol(server: Serving, offered: list[str], chosen: str | None):
    """One of both lists or none; the application sees what was offered."""
    path = "/echo?name=offered&open=request.subprotocols"
    mark = server.mark()
    with Raw(server) as raw:
        answer = raw.upgrade(path, *[f"Sec-WebSocket-Protocol: {value}" for value in offered])
        assert answer.status == 101
        assert answer.headers.get("sec-websocket-protocol") == chosen
        line = server.wait_log(r"^report offered opened (.*)", since=mark)[1]
        assert json.loads(line) == [name.strip() for value in offered for name in value.split(",")]


def test_the_sub_protocol_with_websockets(server: Serving):
    with connect(server.url + "/echo", subprotocols=["chat.v1", "chat.v2"], proxy=None) as ws:
        assert ws.subprotocol == "chat.v1"


# ---------------------------------------------------------------------------------------------- what `open` is given


async def test_the_request_in_open(server: Serving):
    """Path, query, headers, cookies, addresses of the handshake."""
    wanted = "[request.method, request.path, request.query['q'], request.headers['X-Token'], request.cookies['sid']]"
    options: dict[str, Any] = {"additional_headers": {"X-Token": "t0ken", "Cookie": "sid=abc; theme=dark"}}
    mark = server.mark()
    async with dial(server, "/a%20b/c", ws=options, name="given", open=wanted, q="ü&=") as peer:
        line = server.wait_log(r"^report given opened (.*)", since=mark)[1]
        assert json.loads(line) == ["GET", "/a b/c", "ü&=", "t0ken", "abc"]
        assert peer.fd > 0


def test_addresses_in_open(server: Serving):
    wanted = "[request.remote_ip, request.remote_port, request.server_port, request.scheme, request.number]"
    mark = server.mark()
    with websocket(server, name="where", open=wanted) as (raw, _):
        ip, port = raw.socket.getsockname()
        line = server.wait_log(r"^report where opened (.*)", since=mark)[1]
        assert json.loads(line) == [ip, port, server.port, "http", 1]


async def test_with_aiohttp(server: Serving):
    """Another client that others wrote."""
    async with aiohttp.ClientSession() as session:
        async with session.ws_connect(server.http + "/echo", protocols=["chat.v1"]) as ws:
            assert ws.protocol == "chat.v1"
            assert "fd" in await ws.receive_json()
            await ws.send_str("grüße")
            assert await ws.receive_str() == "grüße"
            await ws.send_bytes(b"\0\xff")
            assert await ws.receive_bytes() == b"\0\xff"
            assert await ws.close(code=4000, message=b"bye")
            assert ws.close_code == 4000
        async with session.get(server.http + "/") as answer:
            assert answer.status == 200
            assert await answer.text() == "hello"
