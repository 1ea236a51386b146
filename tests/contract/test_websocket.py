"""Frames over a real connection: messages, control frames, limits, faults, and both closing handshakes (RFC 6455)."""

import contextlib
import json
import time
from typing import Any

import pytest
from websockets.sync.client import connect

from contract.clients import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    Asker,
    Raw,
    close_frame,
    dial,
    websocket,
)
from contract.modes import only
from frames import frame, header, vectors
from support.serving import LIMIT, Serving

LIMIT_OF_MESSAGE = 10_000  # see conftest.py
LIMIT_OF_FRAGMENTS = 8


# ---------------------------------------------------------------------------------------------- messages


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 4096, LIMIT_OF_MESSAGE])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_messages_of_any_size(server: Serving, opcode: int, size: int):
    with websocket(server) as (raw, _):
        payload = b"x" * size if opcode == TEXT else bytes(n % 256 for n in range(size))
        raw.send(frame(opcode, payload))
        assert raw.frame() == (opcode, payload)


@pytest.mark.parametrize("size", [125, 1016])
def test_a_message_at_the_default_limit_in_small_fragments(impatient: Serving, size: int):
    """As clients with small buffers send it."""
    whole = bytes(range(256)) * 4096
    with websocket(impatient, "/") as (raw, _):
        for at in range(0, len(whole), size):
            part = whole[at : at + size]
            raw.send(frame(0 if at else BINARY, part, fin=at + size >= len(whole)))
        assert raw.frame() == (BINARY, whole)


def test_a_message_at_the_default_limit(impatient: Serving):
    """1 MiB, in one frame and in many."""
    payload = "€uro" * (1 << 18)
    payload = payload[: (1 << 20) // 6 * 4]
    payload += "x" * ((1 << 20) - len(payload.encode()))
    with connect(impatient.url, proxy=None, max_size=None, compression=None) as ws:
        assert "fd" in json.loads(ws.recv(10))
        ws.send(payload)
        assert ws.recv(10) == payload
        ws.send([payload[at : at + 2000] for at in range(0, len(payload), 2000)])
        assert ws.recv(10) == payload
        ws.send(payload + "x")
        with contextlib.suppress(Exception):
            ws.recv(10)
        assert ws.close_code == 1009


def test_many_messages_in_one_segment(server: Serving):
    with websocket(server) as (raw, _):
        raw.send(b"".join(frame(TEXT, b"%d" % n) for n in range(200)))
        assert [raw.text() for _ in range(200)] == [str(n) for n in range(200)]


def test_a_frame_byte_by_byte(server: Serving):
    with websocket(server) as (raw, _):
        for octet in frame(TEXT, "grüße €".encode()) + frame(BINARY, b"\0" * 130):
            raw.send(bytes([octet]))
        assert raw.text() == "grüße €"
        assert raw.frame() == (BINARY, b"\0" * 130)


def test_fragments_become_one_message(server: Serving):
    """Also empty ones, and cut inside a character."""
    data = "a€b".encode()
    with websocket(server) as (raw, _):
        raw.send(frame(TEXT, data[:2], fin=False) + frame(0, b"", fin=False) + frame(0, data[2:3], fin=False))
        raw.send(frame(0, data[3:]))
        assert raw.text() == "a€b"
        raw.send(frame(BINARY, b"", fin=False) + frame(0, b""))
        assert raw.frame() == (BINARY, b"")


@pytest.mark.parametrize("payload", [b"", b"ping", b"\0\xff" * 62, b"x" * 125])
def test_a_ping_is_answered_with_its_payload(server: Serving, payload: bytes):
    with websocket(server) as (raw, _):
        raw.send(frame(PING, payload))
        assert raw.frame() == (PONG, payload)


def test_control_frames_between_fragments(server: Serving):
    """Ping, pong; answered before the message is complete, which they do not disturb."""
    with websocket(server) as (raw, _):
        raw.send(frame(TEXT, b"one ", fin=False) + frame(PING, b"1"))
        assert raw.frame() == (PONG, b"1")
        raw.send(frame(0, b"two ", fin=False) + frame(PONG, b"nobody asked") + frame(PING, b"2") + frame(0, b"three"))
        assert raw.frame() == (PONG, b"2")
        assert raw.text() == "one two three"


def test_a_pong_nobody_asked_for_is_ignored(server: Serving):
    with websocket(server) as (raw, _):
        raw.send(frame(PONG, b"x") + frame(PONG) + frame(TEXT, b"well"))
        assert raw.text() == "well"


def test_pings_are_answered_while_a_handler_waits(server: Serving, folder):
    go_on = folder / "pings are answered"
    with websocket(server, "/eval") as (raw, _):
        raw.send(frame(TEXT, f"await seen({go_on.name!r})".encode()))
        for n in range(3):
            raw.send(frame(PING, b"%d" % n))
            assert raw.frame() == (PONG, b"%d" % n)
        go_on.touch()
        assert json.loads(raw.text())["value"] is None


@pytest.mark.parametrize("where", ["own", "other"])
def test_pongs_to_our_pings_are_no_messages(server: Serving, workers: list[Asker], where: str):
    mark = server.mark()
    with websocket(server, name="ponged") as (raw, fd):
        workers[0 if where == "own" else -1](f"server.push({fd}, 'are you there', Opcode.PING)")
        assert raw.frame() == (PING, b"are you there")
        raw.send(frame(PONG, b"are you there") + close_frame())
        assert raw.close_frame() == (1000, "")
    server.wait_log("^report ponged close", since=mark)
    assert server.reports("ponged", mark) == ["open /echo", "close 1000"]


# ---------------------------------------------------------------------------------------------- faults


def code_of_close(raw: Raw) -> tuple[int, str]:
    """The close frame, behind what was answered before; then the connection ends, and nothing else is sent."""
    while True:
        opcode, payload = raw.frame()
        if opcode == CLOSE:
            assert raw.rest() == b""
            return int.from_bytes(payload[:2], "big"), payload[2:].decode()


INVALID = {
    name: vector for name, vector in vectors("invalid") if not {"max_message", "max_fragments"} & set(vector)
}  # those that need no limits of their own


@only("base", "process-2")
@pytest.mark.parametrize("name", INVALID)
def test_every_fault_fails_the_connection(impatient: Serving, name: str):
    """The code that RFC 6455 asks for and the reason in words, told to both sides, and then the end."""
    vector = INVALID[name]
    mark = impatient.mark()
    with Raw(impatient) as raw:
        assert raw.upgrade("/").status == 101
        fd = json.loads(raw.text())["fd"]
        with contextlib.suppress(ConnectionError):  # it may have seen enough before the last byte
            raw.send(vector["frames"])
        code, reason = code_of_close(raw)
    assert code == vector["code"]
    assert reason
    impatient.wait_log(rf"^report close {fd} {code} .", since=mark)


FAULTS = {
    "unmasked": (frame(TEXT, b"x", key=None), 1002),
    "RSV": (frame(TEXT, b"x", rsv=4), 1002),
    "opcode": (frame(3, b"x"), 1002),
    "fragmented control": (frame(PING, b"x", fin=False), 1002),
    "not UTF-8": (frame(TEXT, b"\xff"), 1007),
    "not UTF-8, later": (frame(TEXT, b"x", fin=False) + frame(0, b"\xc3\x28", fin=False), 1007),
    "close code": (close_frame(1005), 1002),
    "close reason": (close_frame(1000, b"\xff"), 1007),
    "too big": (header(BINARY, LIMIT_OF_MESSAGE + 1), 1009),
    "too big in sum": (frame(BINARY, b"x" * LIMIT_OF_MESSAGE, fin=False) + header(0, 1), 1009),
    "too many fragments": (frame(TEXT, b"", fin=False) + frame(0, b"", fin=False) * LIMIT_OF_FRAGMENTS, 1009),
}


@pytest.mark.parametrize("name", FAULTS)
def test_nothing_behind_a_fault_is_handled(server: Serving, name: str):
    data, code = FAULTS[name]
    mark = server.mark()
    with websocket(server, name="failed") as (raw, _):
        with contextlib.suppress(ConnectionError):
            raw.send(frame(TEXT, b"before") + data + frame(TEXT, b"behind"))
        assert code_of_close(raw)[0] == code
    server.wait_log(rf"^report failed close {code} ", since=mark)
    said = server.reports("failed", mark)
    assert said[:3] == ["open /echo", "message before", "handled before"]
    assert len(said) == 4


def test_limits_exactly_met(server: Serving):
    with websocket(server) as (raw, _):
        raw.send(frame(BINARY, b"x" * LIMIT_OF_MESSAGE))
        assert raw.frame() == (BINARY, b"x" * LIMIT_OF_MESSAGE)
        half = frame(0, b"y" * (LIMIT_OF_MESSAGE // 2))
        raw.send(frame(BINARY, b"x" * (LIMIT_OF_MESSAGE // 2), fin=False) + frame(PING, b"p" * 125) + half)
        assert raw.frame() == (PONG, b"p" * 125)
        assert raw.frame() == (BINARY, b"x" * (LIMIT_OF_MESSAGE // 2) + b"y" * (LIMIT_OF_MESSAGE // 2))
        raw.send(frame(TEXT, b"0", fin=False) + frame(0, b"1", fin=False) * (LIMIT_OF_FRAGMENTS - 2) + frame(0, b"2"))
        assert raw.text() == "0" + "1" * (LIMIT_OF_FRAGMENTS - 2) + "2"


def test_too_big_is_refused_from_its_header(server: Serving):
    """Not one byte of it has to be sent, let alone kept."""
    with websocket(server) as (raw, _):
        raw.send(header(BINARY, 1 << 40))
        assert code_of_close(raw)[0] == 1009


# ---------------------------------------------------------------------------------------------- closing


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 4999])
def test_a_close_frame_is_answered_with_its_code(server: Serving, code: int):
    with websocket(server) as (raw, _):
        raw.send(close_frame(code, b"why not"))
        assert raw.close_frame()[0] == code
        assert raw.rest() == b""


def test_a_close_frame_without_code_is_answered_likewise(server: Serving):
    with websocket(server) as (raw, _):
        raw.send(close_frame(None))
        assert raw.frame() == (CLOSE, b"")
        assert raw.rest() == b""


def test_a_close_frame_is_answered_while_a_handler_waits(server: Serving, folder):
    """At once by the gateway; `close` is told when the handler is done."""
    mark = server.mark()
    go_on = folder / "closed while a handler waits"
    with websocket(server, "/eval", name="waiting") as (raw, _):
        raw.send(frame(TEXT, f"await seen({go_on.name!r})".encode()) + close_frame(4000))
        assert raw.close_frame() == (4000, "")
        assert raw.rest() == b""
    assert not [line for line in server.reports("waiting", mark) if line.startswith("close")]
    go_on.touch()
    server.wait_log("^report waiting close 4000", since=mark)
    assert [line.split()[0] for line in server.reports("waiting", mark)] == ["open", "message", "handled", "close"]


def test_a_client_that_does_not_answer_a_close_frame(impatient: Serving):
    """The connection ends after close_timeout, here 0.3 s, and `close` tells the code that was sent."""
    mark = impatient.mark()
    with Raw(impatient) as raw:
        assert raw.upgrade("/").status == 101
        fd = json.loads(raw.text())["fd"]
        began = time.monotonic()
        raw.send(frame(TEXT, b"leave"))
        assert raw.close_frame() == (4000, "you asked for it")
        assert raw.rest() == b""
        assert time.monotonic() - began > 0.25
        impatient.wait_log(f"^report close {fd} 4000 you asked for it", since=mark)


def test_a_client_that_goes_on_talking_instead(impatient: Serving):
    """Frames that are not its close frame do not put the end off."""
    with Raw(impatient) as raw:
        assert raw.upgrade("/").status == 101
        raw.text()
        raw.send(frame(TEXT, b"leave"))
        assert raw.close_frame()[0] == 4000
        began = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - began < LIMIT:
                raw.send(frame(TEXT, b"blah") + frame(PING))
                time.sleep(0.02)
        assert time.monotonic() - began < LIMIT, "it would never have ended"


def test_both_close_at_once(server: Serving, workers: list[Asker]):
    """The peer's frame is on its way already when ours is sent: one frame each, and the end."""
    with websocket(server, name="both") as (raw, fd):
        mark = server.mark()
        workers[0](f"server.disconnect({fd}, 4001)")
        raw.send(close_frame(4002))
        assert raw.close_frame()[0] in (4001, 4002)
        assert raw.rest() == b""
        server.wait_log("^report both close (4001|4002)", since=mark)


async def test_the_client_sees_a_clean_close(server: Serving):
    """With a library's own judgement: codes of both sides, no error."""
    async with dial(server, "/eval") as peer:
        await peer.send("server.disconnect(fd, 4000, 'bye')")
        await peer.ws.wait_closed()
        protocol: Any = peer.ws.protocol
        assert (protocol.close_rcvd.code, protocol.close_rcvd.reason) == (4000, "bye")
        assert protocol.close_sent.code == 4000
        assert protocol.close_rcvd_then_sent is True
    async with dial(server) as peer:
        await peer.ws.close(4001, "me first")
        protocol = peer.ws.protocol
        assert protocol.close_rcvd.code == protocol.close_sent.code == 4001
        assert protocol.close_rcvd_then_sent is False
