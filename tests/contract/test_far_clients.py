"""Clients of far ecosystems, byte for byte as they behave where they differ from others. docs/clients.md lists them."""

import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from contract.clients import ACCEPT, BINARY, CLOSE, PING, PONG, TEXT, Raw, close_frame, get
from contract.modes import only
from frames import frame
from support.serving import LIMIT, Serving

APP = """
@server.on("open")
def opened(server, request):
    report("open", request.path)

@server.on("message")
def said(server, frame):
    if frame.data == "ping me":
        server.ping(frame.fd, b"are you there?")
    else:
        server.push(frame.fd, frame)

@server.on("close")
def left(server, fd, code, reason):
    report("close", code, reason)

@server.on("request")
def page(request, response):
    response.json(server.stats())
"""
SETTINGS = {
    "unmasked_control_frames": True,
    "websocket_compression": True,
    "client_context_takeover": True,
    "allowed_origins": ["http://", "file://"],
    "subprotocols": ["mqtt"],
}


@pytest.fixture(scope="module")
def tolerant(mode: dict[str, Any]) -> Iterator[Serving]:
    with Serving(APP, **mode, **SETTINGS) as running:
        yield running
        assert running.stop() == 0
        assert "(adds up)" in running.lines[-2], "\n".join(running.lines[-10:])


def counted(server: Serving) -> int:
    with Raw(server, get("/")) as raw:
        return raw.answer().json()["unmasked_control_frames"]


def test_paho_mqtt_answers_pings_without_a_mask(tolerant: Serving):
    """So does its answer to a close frame. Each is counted."""
    before, mark = counted(tolerant), tolerant.mark()
    with Raw(tolerant) as raw:
        assert raw.upgrade("/", "Sec-WebSocket-Protocol: mqtt").headers["sec-websocket-protocol"] == "mqtt"
        for number in range(3):
            raw.send(frame(TEXT, b"ping me"))
            opcode, payload = raw.frame()
            assert opcode == PING
            raw.send(frame(PONG, payload, key=None))
            raw.send(frame(BINARY, b"still here %d" % number))
            assert raw.frame() == (BINARY, b"still here %d" % number)
        raw.send(frame(CLOSE, b"\x03\xe8", key=None))
        assert raw.close_frame() == (1000, "")
        assert raw.rest() == b""
    tolerant.wait_log("^report close 1000", since=mark)
    assert counted(tolerant) == before + 4


@pytest.mark.parametrize("opcode", [TEXT, BINARY, PING, 0])
def test_only_pongs_and_close_frames_may_come_without_a_mask(tolerant: Serving, opcode: int):
    mark = tolerant.mark()
    with Raw(tolerant) as raw:
        raw.upgrade("/")
        if opcode == 0:
            raw.send(frame(TEXT, b"begun", fin=False))
        raw.send(frame(opcode, b"x", key=None))
        code, reason = raw.close_frame()
        assert (code, "must be masked" in reason) == (1002, True)
    tolerant.wait_log("^report close 1002", since=mark)


def test_without_the_setting_it_is_1002_and_the_log_names_the_setting(server: Serving):
    mark = server.mark()
    with Raw(server) as raw:
        raw.upgrade("/echo")
        raw.text()
        raw.send(frame(PONG, b"", key=None))
        assert raw.close_frame()[0] == 1002
    server.wait_refusal("closed with 1002: .*; see unmasked_control_frames", since=mark)


@only("base", "process")
def test_one_listener_may_take_them_and_another_one_not(mode: dict[str, Any]):
    app = APP + 'other = server.listen("127.0.0.1", 0, unmasked_control_frames=False)\n'
    with Serving(app, **mode, **SETTINGS) as running:
        port = int(running.wait_log(r"listening on \S+, \S+:(\d+)")[1])
        for where, code in ((running.port, 1000), (port, 1002)):
            with Raw(running, port=where) as raw:
                raw.upgrade("/")
                raw.send(frame(CLOSE, b"\x03\xe8", key=None))
                assert raw.close_frame()[0] == code


def test_tcllib_offers_an_empty_list_of_sub_protocols(tolerant: Serving):
    for fields in (["Sec-WebSocket-Protocol:"], ["Sec-WebSocket-Protocol: ", "Sec-WebSocket-Extensions: "]):
        with Raw(tolerant) as raw:
            answer = raw.upgrade("/", *fields)
            assert (answer.status, answer.headers.keys() & {"sec-websocket-protocol"}) == (101, set())
            raw.send(frame(TEXT, b"hello"))
            assert raw.text() == "hello"


def test_libwebsockets_over_tls_and_arduino_say_a_scheme_alone(tolerant: Serving):
    for origin in ("http://", "file://"):
        with Raw(tolerant) as raw:
            assert raw.upgrade("/", f"Origin: {origin}").status == 101


def deflated(message: bytes, compressor: Any) -> bytes:
    return (compressor.compress(message) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate"


def inflated(raw: Raw) -> bytes:
    """The next message, which may be compressed, without a window that is kept."""
    first, size = raw.exactly(2)
    data = raw.exactly(size)
    return zlib.decompressobj(-15).decompress(data + b"\0\0\xff\xff") if first & 0x40 else data


def test_mojolicious_keeps_its_window_whatever_was_agreed(tolerant: Serving):
    """It overlooks client_no_context_takeover, so the server has to keep the window, too (client_context_takeover)."""
    with Raw(tolerant) as raw:
        assert "client_no_context_takeover" not in raw.upgrade("/", DEFLATE).headers["sec-websocket-extensions"]
        compressor = zlib.compressobj(wbits=-15)
        for _ in range(3):
            raw.send(frame(TEXT, deflated(b"the same words again and again", compressor), rsv=4))
            assert inflated(raw) == b"the same words again and again"


def test_lomond_makes_two_offers_and_beast_one_with_small_windows(tolerant: Serving):
    for offers in (
        f"{DEFLATE}; client_max_window_bits; server_max_window_bits=8, permessage-deflate",
        f"{DEFLATE}; server_max_window_bits=9; client_max_window_bits=9",
        f"{DEFLATE}; server_no_context_takeover; client_no_context_takeover",
    ):
        with Raw(tolerant) as raw:
            assert "permessage-deflate" in raw.upgrade("/", offers).headers["sec-websocket-extensions"]
            raw.send(frame(TEXT, deflated(b"hello", zlib.compressobj(wbits=-9)), rsv=4))
            assert inflated(raw) == b"hello"


@pytest.mark.parametrize("first", ["nothing", "a final block"])
def test_a_compressed_message_that_lacks_its_last_byte(tolerant: Serving, first: str):
    """Nothing at all, or a final block with nothing behind it, as the first message: both are whole."""
    payload, message = b"", b""
    if first == "a final block":
        message = b"hello " * 20
        compressor = zlib.compressobj(wbits=-15)
        payload = compressor.compress(message) + compressor.flush()
    with Raw(tolerant) as raw:
        raw.upgrade("/", DEFLATE)
        for opcode in (TEXT, BINARY):
            raw.send(frame(opcode, payload, rsv=4))
            assert inflated(raw) == message
        raw.send(frame(TEXT, payload[:-1] or b"\x02", rsv=4))  # cut, it is not
        assert raw.close_frame()[0] == 1007


def test_simple_websocket_sends_the_first_message_with_its_handshake(tolerant: Serving):
    """And so do others: what came behind the request is the first message."""
    with Raw(tolerant) as raw:
        assert raw.upgrade("/", behind=frame(TEXT, b"early")).headers["sec-websocket-accept"] == ACCEPT
        assert raw.text() == "early"


def test_any_event_websocket_closes_with_1005(tolerant: Serving):
    """A code that must not be sent (RFC 6455 section 7.4.1): the close is answered with 1002."""
    mark = tolerant.mark()
    with Raw(tolerant) as raw:
        raw.upgrade("/")
        raw.send(close_frame(1005))
        assert raw.close_frame()[0] == 1002
    tolerant.wait_log("^report close 1002", since=mark)


@only("base", "process")
def test_curl_cffi_answers_no_ping_while_it_waits(mode: dict[str, Any]):
    """A client that only listens, and answers nothing, stays where no pings are sent (test_heartbeat: else it goes)."""
    with Serving(APP, **mode, ping_interval=0, pong_timeout=0.1) as running, Raw(running) as raw:
        raw.upgrade("/")
        raw.socket.settimeout(0.6)
        with pytest.raises(TimeoutError):
            raw.frame()
        raw.socket.settimeout(LIMIT)
        raw.send(frame(TEXT, b"hello"))
        assert raw.text() == "hello"
