"""C1 to C5: frames that lie about their length, come in crumbs, or are none."""

import pytest

from contract.clients import BINARY, CLOSE, PING, TEXT, Raw, close_frame
from e2e.peers import memory
from frames import frame, header, masked
from security.watch import MIB, becomes_idle, cpu, gateway_of, watched
from support.serving import Serving

LIMIT = MIB  # max_message_size
KEY = b"\x01\x02\x03\x04"


def opened(server: Serving) -> Raw:
    raw = Raw(server)
    assert raw.upgrade("/attack").status == 101
    return raw


def ends_with(raw: Raw, *codes: int) -> None:
    """A close frame with such a code, and nothing behind it once the peer leaves, too."""
    code, reason = raw.close_frame()
    assert code in codes, (code, reason)
    assert reason
    raw.send(close_frame(code))
    assert raw.rest() == b""
    raw.socket.close()


@pytest.mark.parametrize("length", [1 << 63, (1 << 63) - 1, (1 << 64) - 1, 1 << 32, 1 << 31, LIMIT + 1])
@pytest.mark.parametrize("second", [False, True], ids=["first", "second fragment"])
def test_c01_lengths_that_are_too_large(server: Serving, length: int, second: bool):
    """Refused from the header alone. (A top bit is against RFC 6455 section 5.2.)"""
    mark = server.mark()
    with watched(server, 4 * MIB) as canary, opened(server) as raw:
        if second:
            raw.send(frame(BINARY, b"small", fin=False))
        raw.send(header(0 if second else BINARY, length, form=64, key=KEY))
        ends_with(raw, 1002 if length >> 63 else 1009)
        canary.beat()
    becomes_idle(gateway_of(server))
    assert server.reports("message", mark) == []


@pytest.mark.parametrize("wrap", [1 << 32, 1 << 63, 1 << 64])
def test_c02_lengths_that_wrap_around(server: Serving, wrap: int):
    """The sum with what came before is computed without overflow, and no byte of the payload is waited for."""
    with watched(server, 4 * MIB), opened(server) as raw:
        raw.send(frame(BINARY, b"x" * 1000, fin=False))
        length = (wrap - 999) & ((1 << 64) - 1)
        raw.send(header(0, length, form=64, key=KEY))
        ends_with(raw, 1002 if length >> 63 else 1009)


def test_c03_memory_grows_with_what_came_and_not_with_what_was_promised(server: Serving):
    """500 connections promise half a GiB and send bytes one by one. What is taken and not touched counts, too."""
    pid = gateway_of(server)
    taken = memory(pid, "VmData")
    crowd = [Raw(server) for _ in range(500)]
    try:
        with watched(server, 12 * MIB) as canary:
            for raw in crowd:
                assert raw.upgrade("/attack").status == 101
            for raw in crowd:
                raw.send(header(BINARY, LIMIT, key=KEY))
            for _ in range(3):
                for raw in crowd:
                    raw.send(b"x")
                canary.beat()
            assert memory(pid, "VmData") - taken < 64 * MIB
    finally:
        for raw in crowd:
            raw.socket.close()


@pytest.mark.parametrize("payload", [b"", b"x"], ids=["empty", "one byte"])
def test_c04_a_message_of_fragments_without_end(server: Serving, payload: bytes):
    mark = server.mark()
    with watched(server, 4 * MIB), opened(server) as raw:
        crumb = frame(0, payload, fin=False, key=KEY)
        raw.send(frame(TEXT, payload, fin=False, key=KEY) + crumb * (LIMIT // 64 - 1))  # so many are allowed
        raw.send(frame(PING, b"there"))
        assert raw.frame() == (10, b"there")
        raw.send(crumb * 1000)
        ends_with(raw, 1009)
    assert server.reports("message", mark) == []


def test_c04_a_frame_in_segments_of_one_byte_costs_time_in_proportion(server: Serving):
    pid = gateway_of(server)
    used = []
    with opened(server) as raw:
        for size in (8000, 16000):
            before = cpu(pid)
            raw.send(header(BINARY, size, key=KEY))
            for octet in masked(b"x" * size, KEY):
                raw.send(bytes([octet]))
            assert raw.frame() == (BINARY, b"x" * size)
            used.append(cpu(pid) - before)
    assert used[1] < 2.5 * used[0] + 0.1, used


WRONG = {
    **{f"rsv {bit}": (header(TEXT, 1, rsv=bit, key=KEY) + b"x", 1002) for bit in (1, 2, 4)},
    **{f"opcode {code}": (frame(code, b"x"), 1002) for code in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "fragmented ping": (frame(PING, b"", fin=False), 1002),
    "fragmented close": (frame(CLOSE, b"", fin=False), 1002),
    "ping of 126 bytes": (frame(PING, b"x" * 126), 1002),
    "unmasked": (frame(TEXT, b"x", key=None), 1002),
    "compressed ping": (frame(PING, b"", rsv=4), 1002),
    "continuation without a start": (frame(0, b"x"), 1002),
    "a new message inside of one": (frame(TEXT, b"x", fin=False) + frame(TEXT, b"x"), 1002),
    "length 5 in 16 bits": (header(TEXT, 5, form=16, key=KEY) + b"12345", 1002),
    "length 300 in 64 bits": (header(TEXT, 300, form=64, key=KEY) + b"x" * 300, 1002),
    "close with one byte": (frame(CLOSE, b"\x03"), 1002),
    **{
        f"close with {code}": (close_frame(code), 1002)
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535)
    },
    "close with a reason that is not UTF-8": (close_frame(1000, b"\xff"), 1007),
    "text with a surrogate": (frame(TEXT, b"\xed\xa0\x80"), 1007),
    "text that is too long a form": (frame(TEXT, b"\xc0\x80"), 1007),
    "text cut inside of a character": (frame(TEXT, b"\xe2\x82"), 1007),
    "text above U+10FFFF": (frame(TEXT, b"\xf4\x90\x80\x80"), 1007),
    "such text in two fragments": (frame(TEXT, b"\xed", fin=False) + frame(0, b"\xa0\x80"), 1007),
}


def test_c05_frames_that_are_none(server: Serving):
    """The code of RFC 6455, no handler is called, and what comes behind is not looked at."""
    mark = server.mark()
    with watched(server):
        for name, (octets, code) in WRONG.items():
            for pieces in (1, len(octets)):
                with opened(server) as raw:
                    for number in range(pieces):
                        raw.send(octets if pieces == 1 else octets[number : number + 1])
                    found, reason = raw.close_frame()
                    assert found == code, (name, found, reason)
                    raw.send(frame(TEXT, b"too late") * 3 + close_frame(code))
                    assert raw.rest() == b"", name
    assert server.reports("message", mark) == []


def test_c05_bytes_behind_a_close(server: Serving):
    mark = server.mark()
    with watched(server), opened(server) as raw:
        raw.send(close_frame(1000) + frame(TEXT, b"too late") * 100)
        assert raw.close_frame()[0] == 1000
        assert raw.rest() == b""
    assert server.reports("message", mark) == []


def test_control_frames_in_flood(server: Serving):
    """50 in 10 seconds are allowed: each makes the gateway write."""
    with watched(server, 4 * MIB), opened(server) as raw:
        raw.send(frame(PING, b"") * 51)
        for _ in range(50):
            assert raw.frame() == (10, b"")
        ends_with(raw, 1008)
