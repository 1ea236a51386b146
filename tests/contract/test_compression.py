"""permessage-deflate on a running server: every agreement carries every message whole, and nothing costs too much."""

import random
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory as Offer
from websockets.sync.client import connect

from contract.clients import BINARY, TEXT, Raw
from frames import frame
from support.serving import Serving

APP = """
@server.on("open")
def opened(server, request):
    server.subscribe(request.fd, "all")

@server.on("message")
def said(server, frame):
    if frame.data == "publish":
        server.publish("all", "z" * 5000)
    else:
        server.push(frame.fd, frame)

@server.on("close")
def left(server, fd, code, reason):
    report("close", code, reason)
"""
MIB = 1 << 20
RANDOM = random.Random(7692)
MESSAGES: list[str | bytes] = [
    "",
    "a",
    "x" * 100,
    "hello " * 10_000,
    b"",
    b"\0",
    RANDOM.randbytes(70_000),
    RANDOM.randbytes(2000) * 40,
    "é" * 3000,
    "x" * 100,
    bytes(65_536),
    RANDOM.randbytes(MIB + 1),
]
OFFERS: list[dict[str, Any]] = [
    {},
    {"server_max_window_bits": 8},
    {"server_max_window_bits": 9},
    {"client_max_window_bits": True},
    {"client_max_window_bits": 9},
    {"server_no_context_takeover": True, "client_no_context_takeover": True},
    {"server_max_window_bits": 12, "client_max_window_bits": 10},
]
DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate"


@pytest.fixture(scope="module", params=[False, True], ids=["no takeover", "takeover"])
def compressing(mode: dict[str, Any], request: pytest.FixtureRequest) -> Iterator[Serving]:
    keeps = {"server_context_takeover": request.param, "client_context_takeover": request.param}
    limits = {"max_message_size": 16 * MIB, "write_limit": 64 * MIB}
    with Serving(APP, websocket_compression=True, **keeps, **limits, **mode) as server:
        yield server


@pytest.mark.parametrize("offer", OFFERS, ids=str)
def test_every_message_comes_back_as_it_was(compressing: Serving, offer: dict[str, Any]):
    with connect(compressing.url, extensions=[Offer(**offer)], compression=None, max_size=None) as ws:
        assert [extension.name for extension in ws.protocol.extensions] == ["permessage-deflate"]
        for message in MESSAGES:
            ws.send(message)
            assert ws.recv(20) == message


def test_a_message_of_16_mib(compressing: Serving):
    """The largest that this server takes."""
    message = RANDOM.randbytes(16 * MIB)
    with connect(compressing.url, extensions=[Offer()], compression=None, max_size=None) as ws:
        ws.send(message)
        assert ws.recv(20) == message


def test_a_published_message_reaches_those_who_compress_and_those_who_do_not(compressing: Serving):
    with (
        connect(compressing.url, extensions=[Offer()], compression=None) as one,
        connect(compressing.url, extensions=[Offer(server_max_window_bits=9)], compression=None) as other,
        connect(compressing.url, compression=None) as plain,
    ):
        for client in (one, other, plain):  # its `open`, which subscribes it, comes before its first message
            client.send("here")
            assert client.recv(20) == "here"
        one.send("publish")
        assert one.recv(5) == other.recv(5) == plain.recv(5) == "z" * 5000


def test_who_offers_nothing_is_sent_nothing_compressed(compressing: Serving):
    with Raw(compressing) as raw:
        assert b"extensions" not in str(raw.upgrade("/").headers).lower().encode()
        raw.send(frame(TEXT, b"x" * 1000))
        assert raw.frame() == (TEXT, b"x" * 1000)


def compressed(data: bytes) -> bytes:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


@pytest.mark.parametrize(
    ("payload", "code", "reason"),
    [
        (compressed(bytes(17 * MIB)), 1009, "inflates to more than"),
        (compressed(b"hello there")[:-3], 1007, "broken compression"),
        (b"\xff" * 20, 1007, "broken compression"),
        (compressed(b"\xff\xfe"), 1007, "UTF-8"),
    ],
    ids=["bomb", "cut", "garbage", "no text"],
)
def test_what_is_no_message_closes(compressing: Serving, payload: bytes, code: int, reason: str):
    with Raw(compressing) as raw:
        assert raw.upgrade("/", DEFLATE).status == 101
        raw.send(frame(TEXT, payload, rsv=4))
        closed = raw.close_frame()
        assert closed[0] == code
        assert reason in closed[1]


@pytest.mark.parametrize("size", [100_000, MIB])
def test_a_blank_picture_is_a_message_like_any(mode: dict[str, Any], size: int):
    """With the default limits, as long as it is within max_message_size."""
    with Serving(APP, websocket_compression=True, **mode) as server, Raw(server) as raw:
        raw.upgrade("/", DEFLATE)
        for blank in (bytes(size), b"y" * size):
            raw.send(frame(BINARY, compressed(blank), rsv=4))
            first, length = raw.exactly(2)
            assert first == 0xC2, raw.rest()
            length = int.from_bytes(raw.exactly(2), "big") if length == 126 else length
            assert zlib.decompressobj(-15).decompress(raw.exactly(length) + bytes([0, 0, 255, 255])) == blank
        raw.send(frame(BINARY, compressed(bytes(MIB + 1)), rsv=4))
        assert raw.close_frame() == (1009, f"message too big: it inflates to more than {MIB} bytes")


def test_a_ratio_can_be_asked_for(mode: dict[str, Any]):
    with Serving(APP, websocket_compression=True, inflate_ratio=100, **mode) as server, Raw(server) as raw:
        raw.upgrade("/", DEFLATE)
        raw.send(frame(BINARY, compressed(bytes(100_000)), rsv=4))
        assert raw.close_frame()[0] == 1009


@pytest.mark.parametrize("opcode", [0, 8, 9, 10])
def test_the_bit_belongs_to_the_first_frame_of_a_message(compressing: Serving, opcode: int):
    with Raw(compressing) as raw:
        raw.upgrade("/", DEFLATE)
        raw.send(frame(TEXT, b"a", fin=False) + frame(opcode, b"", rsv=4))
        assert raw.close_frame()[0] == 1002


def test_offers_that_break_the_grammar_are_refused(compressing: Serving):
    with Raw(compressing) as raw:
        assert raw.upgrade("/", "Sec-WebSocket-Extensions: permessage-deflate; =").status == 400


def test_it_is_off_unless_asked_for(mode: dict[str, Any]):
    with Serving(APP, **mode) as server, connect(server.url, extensions=[Offer()], compression=None) as ws:
        assert ws.protocol.extensions == []
        ws.send("x" * 1000)
        assert ws.recv(5) == "x" * 1000
