"""C6: what inflates to more than it should, and offers that are not to be understood."""

import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from contract.clients import BINARY, TEXT, Raw, close_frame
from frames import frame, header, masked
from security.conftest import APP, MODES
from security.watch import MIB, becomes_idle, gateway_of, watched
from support.serving import Serving

KEY = b"\x01\x02\x03\x04"
OFFER = "Sec-WebSocket-Extensions: permessage-deflate"
EMPTY_BLOCK = b"\x00\x00\x00\xff\xff"


def bomb(size: int) -> bytes:
    """`size` zeros, compressed about a thousandfold."""
    step = 16 * MIB
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    part = compressor.compress(bytes(step)) + compressor.flush(zlib.Z_FULL_FLUSH)
    assert size % step == 0
    return (part * (size // step))[:-4]


def cut_inside_of_a_block() -> bytes:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (compressor.compress(b"many different letters " * 9) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-8]


GIB_BOMB = bomb(1024 * MIB)
SMALL_BOMB = bomb(16 * MIB)
assert len(GIB_BOMB) < MIB  # as it comes, it is not too large


@pytest.fixture(scope="module", params=[("process", False), ("process", True), ("base", False)], ids=str)
def compressing(request: pytest.FixtureRequest) -> Iterator[Serving]:
    mode, takeover = request.param
    settings: dict[str, Any] = {"client_context_takeover": takeover, "server_context_takeover": takeover}
    with Serving(APP, websocket_compression=True, **settings, **MODES[mode]) as running:
        yield running
        assert running.stop() == 0


def opened(server: Serving) -> Raw:
    raw = Raw(server)
    answer = raw.upgrade("/attack", OFFER)
    assert answer.status == 101
    assert answer.headers["sec-websocket-extensions"].startswith("permessage-deflate")
    return raw


@pytest.mark.parametrize("payload", [GIB_BOMB, SMALL_BOMB], ids=["a GiB", "16 MiB"])
@pytest.mark.parametrize("frames", [1, 500])
def test_c06_a_bomb_is_refused_before_it_is_inflated(compressing: Serving, payload: bytes, frames: int):
    mark = compressing.mark()
    step = len(payload) // frames + 1
    with watched(compressing, 8 * MIB) as canary, opened(compressing) as raw:
        for at in range(0, len(payload), step):
            part = payload[at : at + step]
            head = header(0 if at else TEXT, len(part), fin=at + step >= len(payload), rsv=0 if at else 4, key=bytes(4))
            raw.send(head + part)
        code, reason = raw.close_frame()
        assert code == 1009, reason
        assert "inflates to more than" in reason
        raw.send(close_frame(code))
        canary.beat()
    becomes_idle(gateway_of(compressing))
    assert compressing.reports("message", mark) == []


def test_c06_many_bombs_at_once(compressing: Serving):
    with watched(compressing, 24 * MIB):
        crowd = [opened(compressing) for _ in range(30)]
        for raw in crowd:
            raw.send(header(TEXT, len(SMALL_BOMB), rsv=4, key=bytes(4)) + SMALL_BOMB)
        for raw in crowd:
            assert raw.close_frame()[0] == 1009
            raw.socket.close()


def test_c06_many_messages_that_are_as_dense_as_bombs(compressing: Serving):
    """Each is as large as a message may be, from a KiB: taken, but not all at once, and others are served meanwhile."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    blank = (compressor.compress(bytes(MIB)) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
    assert len(blank) < 1100
    with watched(compressing, 64 * MIB) as canary:
        crowd = [opened(compressing) for _ in range(10)]
        for raw in crowd:
            raw.send((header(BINARY, len(blank), rsv=4, key=bytes(4)) + blank) * 4)
        canary.beat()
        for raw in crowd:
            for _ in range(4):
                assert raw.exactly(1) == b"\xc2"
                [size] = raw.exactly(1)
                raw.exactly(int.from_bytes(raw.exactly(2), "big") if size == 126 else size)
            raw.socket.close()
    becomes_idle(gateway_of(compressing))


def test_c06_empty_blocks(compressing: Serving):
    """10,000 blocks of nothing are a message of no bytes."""
    with watched(compressing), opened(compressing) as raw:
        raw.send(frame(TEXT, EMPTY_BLOCK * 9_999 + EMPTY_BLOCK[:1], rsv=4, key=KEY))
        assert raw.frame() == (TEXT, b"")


@pytest.mark.parametrize(
    "payload",
    [
        b"\xff",
        b"garbage garbage",
        zlib.compress(b"with a header of zlib"),
        b"",
        EMPTY_BLOCK[:3],
        b"\x07\x00",
        cut_inside_of_a_block(),
    ],
)
def test_c06_what_is_no_deflate_stream(compressing: Serving, payload: bytes):
    """1007; but a stream of nothing is an empty message."""
    mark = compressing.mark()
    with watched(compressing), opened(compressing) as raw:
        raw.send(frame(TEXT, payload, rsv=4, key=KEY))
        if payload in (b"", EMPTY_BLOCK[:3]):
            opcode, answer = raw.frame()
            assert (opcode == TEXT and answer == b"") or answer[:2] == (1007).to_bytes(2, "big")
        else:
            assert raw.close_frame()[0] == 1007
            assert compressing.reports("message", mark) == []


def test_c06_a_stream_that_ends_inside_of_a_block(compressing: Serving):
    """Ten octets are announced and three come; the four of RFC 7692 section 7.2.2 are none of them."""
    mark = compressing.mark()
    with watched(compressing), opened(compressing) as raw:
        raw.send(frame(BINARY, b"\x00\x0a\x00\xf5\xffabc", rsv=4, key=KEY))
        assert raw.close_frame()[0] == 1007
    assert compressing.reports("message", mark) == []


def test_c06_compressed_without_being_agreed(compressing: Serving):
    with watched(compressing), Raw(compressing) as raw:
        assert "sec-websocket-extensions" not in raw.upgrade("/attack").headers
        raw.send(frame(TEXT, b"x", rsv=4))
        assert raw.close_frame()[0] == 1002


@pytest.mark.parametrize("name", ["server_max_window_bits", "client_max_window_bits"])
@pytest.mark.parametrize("value", ["=0", "=7", "=16", "=99", '=""', "=08", "=-8", "=8.0", '="9" 9', "=" + "9" * 5000])
def test_c06_windows_that_are_none(compressing: Serving, name: str, value: str):
    """The handshake is refused, or nothing is agreed on."""
    with watched(compressing), Raw(compressing) as raw:
        answer = raw.upgrade("/attack", f"{OFFER}; {name}{value}")
        assert answer.status == 400 or "sec-websocket-extensions" not in answer.headers


@pytest.mark.parametrize(
    "offer",
    [
        "permessage-deflate; server_max_window_bits=10; server_max_window_bits=10",
        "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
        "permessage-deflate; server_no_context_takeover=1",
        "permessage-deflate; server_max_window_bits",
        "permessage-deflate; nobody_knows_this",
    ],
)
def test_c06_parameters_that_are_wrong(compressing: Serving, offer: str):
    """An offer that is not to be understood is declined (RFC 7692 section 7.1)."""
    with watched(compressing), Raw(compressing) as raw:
        answer = raw.upgrade("/attack", f"Sec-WebSocket-Extensions: {offer}")
        assert answer.status == 400 or "sec-websocket-extensions" not in answer.headers


def test_c06_ten_thousand_messages_of_nothing(compressing: Serving):
    """Each is a whole message, so each is answered, and none is kept."""
    with watched(compressing, 24 * MIB), opened(compressing) as raw:
        one = header(TEXT, 1, rsv=4, key=KEY) + masked(b"\x00", KEY)
        for _ in range(10):
            raw.send(one * 1000)
            for _ in range(1000):
                assert raw.frame() == (TEXT, b"")
