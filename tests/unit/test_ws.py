"""The frame codec: vectors fed in every way the network can cut them, its limits, and what `pack` refuses."""

import codecs
import gc
import itertools
import random
import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from frames import cut, frame, header, masked, octets, single, vectors
from mooring._core.buffer import live_buffers
from mooring._core.ws import CloseFrame, Decoder, Frame, check_close, close_payload, pack, unpack
from mooring.types import CloseCode, Opcode

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
SMUGGLED = frame(TEXT, b"smuggled")

VALID = [pytest.param(vector, id=name) for name, vector in vectors("valid")]
INVALID = [pytest.param(vector, id=name) for name, vector in vectors("invalid")]


def decoder(vector: dict[str, Any]) -> Decoder:
    limits = {key: vector[key] for key in ("max_message", "max_fragments") if key in vector}
    return Decoder(**limits)


def read(codec: Decoder, pieces: Iterable[bytes]) -> list[tuple[int, bytes]]:
    return [event for piece in pieces for event in codec.feed(piece)]


def cuts(data: bytes) -> list[list[bytes]]:
    """Whole; byte by byte, unless that is too long; in two; and in random pieces, always the same."""
    chance = random.Random(len(data))
    ways = [[data]]
    if len(data) < 10_000:
        ways.append(single(data))
    if len(data) < 300:
        ways += [[data[:i], data[i:]] for i in range(1, len(data))]
    ways += [cut(data, chance, pieces) for pieces in (2, 3, 5, 10, 30, 100) for _ in range(3)]
    return ways


# ------------------------------------------------------------------ vectors


@pytest.mark.parametrize("vector", VALID)
def test_valid(vector: dict[str, Any]) -> None:
    expected = [(event["opcode"], event["data"]) for event in vector["expect"]]
    for pieces in cuts(vector["frames"]):
        codec = decoder(vector)
        assert read(codec, pieces) == expected
        assert codec.error is None
    for event in vector["expect"]:
        if event["opcode"] == CLOSE:
            assert check_close(event["data"]) == (0, event["code"])


@pytest.mark.parametrize("vector", INVALID)
def test_invalid(vector: dict[str, Any]) -> None:
    """Refused at the last byte of the vector, no sooner and no later, however it comes; and nothing behind it
    is ever taken for a frame."""
    data: bytes = vector["frames"]
    expected = [(event["opcode"], event["data"]) for event in vector["expect"]]
    if expected and expected[-1][0] == CLOSE:
        # The frame is good. What it carries is not.
        codec = decoder(vector)
        assert codec.feed(data) == expected
        assert codec.error is None
        assert check_close(expected[-1][1])[0] == vector["code"]
        return
    for pieces in cuts(data):
        codec = decoder(vector)
        pieces[-1] += SMUGGLED
        assert read(codec, pieces) == expected
        assert codec.error is not None
        assert codec.error[0] == vector["code"]
        assert vector["reason"] in codec.error[1]
        assert codec.feed(SMUGGLED) == []
    codec = decoder(vector)
    codec.feed(data[:-1])
    assert codec.error is None
    codec.feed(data[-1:])
    assert codec.error is not None


@pytest.mark.parametrize("tolerant", [False, True])
def test_every_first_two_bytes(tolerant: bool) -> None:
    """All 65,536 of them, as a first frame: the verdict that section 5.2 gives, counted out."""
    for first in range(256):
        fin, rsv, opcode = first >> 7, first >> 4 & 7, first & 15
        for second in range(256):
            is_masked, length = second >> 7, second & 127
            codec = Decoder(unmasked=tolerant)
            codec.feed(bytes([first, second]))
            is_masked = is_masked or (tolerant and opcode in (8, 10))
            bad = rsv or opcode not in (0, 1, 2, 8, 9, 10) or not is_masked
            bad = bad or opcode == 0 or (opcode >= 8 and (not fin or length > 125))
            assert (codec.error is not None) == bool(bad), (first, second)


def test_reasons_fit_into_a_close_frame() -> None:
    """What `error` says is sent to the peer: it must be what a close frame may hold."""
    for _, vector in vectors("invalid"):
        codec = decoder(vector)
        codec.feed(vector["frames"])
        if codec.error is not None:
            close_payload(*codec.error)


def test_close_codes() -> None:
    """Section 7.4, with the codes registered since: 1012, 1013 and 1014."""
    good = {1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)}
    for code in range(1 << 16):
        assert check_close(code.to_bytes(2, "big")) == (0 if code in good else 1002, code)
    for code in range(5100):
        if code in good:
            assert close_payload(code, "") == code.to_bytes(2, "big")
        else:
            with pytest.raises(ValueError, match=f"close code {code}:"):
                close_payload(code, "")


# ------------------------------------------------------------------ UTF-8

# An octet of each side of every border that RFC 3629 draws.
BORDERS = bytes.fromhex("00 7f 80 8f 90 9f a0 bf c0 c1 c2 df e0 e1 ec ed ee ef f0 f1 f3 f4 f5 ff")


ENDINGS = [bytes(tail) for size in (1, 2, 3) for tail in itertools.product(b"\x80\x8f\x90\x9f\xa0\xbf", repeat=size)]


def is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def begins_text(data: bytes) -> bool:
    """Python's incremental decoder alone will not do: it takes the first two octets of a surrogate."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data)
    except UnicodeDecodeError:
        return False
    return is_text(data) or any(is_text(data + ending) for ending in ENDINGS)


def test_utf8_against_python() -> None:
    """Every sequence of up to three border octets, and of four from F0 on. A final frame is refused exactly
    when it is no text, one that is not final when no continuation can make it text (section 8.1)."""
    sequences = [octets for size in range(1, 4) for octets in itertools.product(BORDERS, repeat=size)]
    sequences += itertools.product(BORDERS[BORDERS.index(0xF0) :], BORDERS, BORDERS, BORDERS)
    for sequence in map(bytes, sequences):
        whole, begun = Decoder(), Decoder()
        good = is_text(sequence)
        assert whole.feed(header(TEXT, len(sequence)) + sequence) == ([(TEXT, sequence)] if good else [])
        assert (whole.error is None) == good, sequence
        begun.feed(header(TEXT, len(sequence), fin=False) + sequence)
        assert (begun.error is None) == begins_text(sequence), sequence


@pytest.mark.parametrize("place", range(25))
def test_utf8_at_every_place_of_a_word(place: int) -> None:
    """ASCII is skipped eight octets at a time: one that is none is seen wherever it stands."""
    for character in ("é", "€", "😀"):
        text = ("a" * place + character + "a" * (24 - place)).encode()
        assert Decoder().feed(header(TEXT, len(text)) + text) == [(TEXT, text)]
    for octet in b"\x80\xbf\xc3\xff":
        codec = Decoder()
        data = b"a" * place + bytes([octet]) + b"a" * (24 - place)
        assert codec.feed(header(TEXT, len(data)) + data) == []
        assert codec.error is not None
        assert codec.error[0] == 1007


# ------------------------------------------------------------------ masks


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 6, 20, 125])
def test_a_pong_or_a_close_frame_without_a_mask(size: int) -> None:
    """Read like any other where that is asked for, at every cut, between the fragments of a message and behind frames
    that are masked."""
    payload = bytes(range(size))
    bare = header(PONG, size, key=None) + payload
    data = frame(TEXT, b"Hel", fin=False) + bare + frame(0, b"lo") + bare + frame(PING, b"?") + bare
    expected = [(PONG, payload), (TEXT, b"Hello"), (PONG, payload), (PING, b"?"), (PONG, payload)]
    for at in range(len(data) + 1):
        codec = Decoder(unmasked=True)
        assert codec.feed(data[:at]) + codec.feed(data[at:]) == expected
        assert codec.error is None
        assert codec.rest == 0
    codec = Decoder(unmasked=True)
    assert [event for octet in data for event in codec.feed(bytes([octet]))] == expected
    closing = header(CLOSE, size, key=None) + payload
    assert Decoder(unmasked=True).feed(closing) == [(CLOSE, payload)]
    for other in (bare, closing):
        codec = Decoder()
        assert codec.feed(other) == []
        assert codec.error is not None
        assert codec.error[0] == 1002
        assert "unmasked_control_frames" in codec.error[1]
    for opcode in (0, TEXT, BINARY, PING):
        codec = Decoder(unmasked=True)
        codec.feed(header(opcode, size, key=None) + payload)
        assert codec.error is not None
        assert codec.error[0] == 1002


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 63, 64, 65, 1000])
def test_unmasking_at_every_cut(size: int) -> None:
    """Eight bytes at a time or one, at any offset of the key and of the buffer: the same."""
    chance = random.Random(size)
    payload, key = chance.randbytes(size), chance.randbytes(4)
    data = header(BINARY, size, key=key) + masked(payload, key)
    for first in range(min(len(data), 40)):
        for second in range(first, min(len(data), first + 12)):
            codec = Decoder()
            assert read(codec, [data[:first], data[first:second], data[second:]]) == [(BINARY, payload)]


# ------------------------------------------------------------------ what is between two feeds


def test_rest() -> None:
    """Not 0 in the middle of a frame or message, 0 between two."""
    data = frame(TEXT, b"ab", fin=False) + frame(0, b"cd")
    codec = Decoder()
    assert codec.rest == 0
    for octet in single(data)[:-1]:
        codec.feed(octet)
        assert codec.rest
    codec.feed(data[-1:])
    assert codec.rest == 0


def test_feed_leaves_the_input_as_it_was() -> None:
    """Payloads are unmasked where they stand, but not in an object of the caller's."""
    data = frame(TEXT, b"Hello")
    assert Decoder().feed(data) == [(TEXT, b"Hello")]
    assert data == frame(TEXT, b"Hello")


def test_no_memory_is_kept_between_messages() -> None:
    gc.collect()
    before = live_buffers()
    decoders = [Decoder() for _ in range(10)]
    data = frame(TEXT, b"a" * 700, fin=False) + frame(PING, b"b" * 100) + frame(0, b"c" * 700)
    for codec in decoders:
        assert len(read(codec, single(data))) == 2
        codec.feed(b"")  # the memory of a message goes when the next one is asked for
    assert live_buffers() == before
    for codec in decoders:
        codec.feed(data[:-1])
    assert live_buffers() > before
    del codec
    decoders.clear()
    assert live_buffers() == before


def virtual_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * 4096


def test_nothing_is_allocated_for_a_promise() -> None:
    """Headers that promise 1 GiB each, and a few bytes of it: not even address space is taken."""
    decoders = [Decoder(max_message=1 << 30) for _ in range(64)]
    before = virtual_bytes()
    for codec in decoders:
        codec.feed(header(BINARY, 1 << 30))
        codec.feed(b"x" * 100)
        assert codec.error is None
    assert virtual_bytes() - before < 64 << 20


def test_empty_fragments_take_no_memory() -> None:
    gc.collect()
    before = live_buffers()
    codec = Decoder(max_fragments=100_000)
    codec.feed(frame(BINARY, fin=False) + frame(0, fin=False) * 90_000)
    assert codec.error is None
    assert live_buffers() == before


# Work must be linear in the bytes. Quadratic work would grow 16-fold here, linear work 4-fold.


def seconds(pieces: list[bytes]) -> float:
    best = float("inf")
    for _ in range(3):
        codec = Decoder(max_message=1 << 30, max_fragments=1 << 30)
        start = time.process_time()
        for piece in pieces:
            codec.feed(piece)
        best = min(best, time.process_time() - start)
        assert codec.error is None
    return best


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda n: single(header(BINARY, n) + bytes(n)), id="one frame, byte by byte"),
        pytest.param(lambda n: single(header(TEXT, n) + b"a" * n), id="one text, byte by byte"),
        pytest.param(lambda n: [frame(BINARY, fin=False)] + [frame(0, b"x", fin=False)] * n, id="tiny fragments"),
        pytest.param(lambda n: [frame(BINARY, fin=False) + frame(0, b"x", fin=False) * n], id="tiny fragments at once"),
        pytest.param(lambda n: [frame(TEXT, fin=False) + frame(0, fin=False) * n], id="empty fragments"),
        pytest.param(lambda n: [frame(PING, b"x") * n], id="pings"),
        pytest.param(lambda n: [frame(TEXT, b"x", fin=False)] + [frame(PING, b"x")] * n, id="pings in a message"),
    ],
)
def test_linear_time(make: Callable[[int], list[bytes]]) -> None:
    n = 50_000
    assert seconds(make(4 * n)) < 9 * seconds(make(n)) + 0.05


# ------------------------------------------------------------------ Frame and CloseFrame


def test_frame() -> None:
    text = Frame("hi")
    assert (text.fd, text.data, text.finish, text.flags, text.attempt) == (0, "hi", True, 0, 1)
    assert text.opcode is Opcode.TEXT
    binary = Frame(b"hi", fd=7, attempt=3)
    assert (binary.opcode, binary.fd, binary.attempt) == (Opcode.BINARY, 7, 3)
    assert Frame().opcode is Opcode.BINARY
    assert Frame("", Opcode.PING).opcode is Opcode.PING
    assert Frame(fd=(1 << 63) - 1).fd == (1 << 63) - 1


@pytest.mark.parametrize("opcode", [-1, 3, 7, 11, 15, 16, 256])
def test_frame_refuses_opcodes(opcode: int) -> None:
    with pytest.raises(ValueError, match="opcode"):
        Frame("x", opcode)
    with pytest.raises(ValueError, match="opcode"):
        pack("x", opcode)


def test_repr() -> None:
    assert repr(Frame("hi", fd=5)) == "<Frame fd=5 opcode=TEXT data='hi'>"
    assert repr(CloseFrame(1001, "bye")) == r"<CloseFrame fd=0 opcode=CLOSE data=b'\x03\xe9bye'>"
    long = repr(Frame(b"\x00" * 1000))
    assert len(long) < 120
    assert long.endswith("...>")


def test_close_frame() -> None:
    closing = CloseFrame()
    assert (closing.code, closing.reason, closing.data, closing.fd) == (1000, "", b"\x03\xe8", 0)
    assert closing.opcode is Opcode.CLOSE
    assert (closing.finish, closing.flags, closing.attempt) == (True, 0, 1)
    assert isinstance(closing, Frame)
    closing = CloseFrame(CloseCode.GOING_AWAY, "à bientôt", fd=9)
    assert (closing.code, closing.reason, closing.fd) == (1001, "à bientôt", 9)
    assert closing.data == b"\x03\xe9" + "à bientôt".encode()
    with pytest.raises(AttributeError):
        closing.code = 1000  # type: ignore[misc]


def test_close_reason_limit() -> None:
    """123 bytes in UTF-8, not 123 characters."""
    assert len(CloseFrame(4000, "r" * 123).data) == 125
    assert len(CloseFrame(4000, "é" * 61).data) == 124
    for reason in ("r" * 124, "é" * 62, "€" * 42):
        with pytest.raises(ValueError, match="123"):
            CloseFrame(4000, reason)


@pytest.mark.parametrize("code", [-1, 0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 1 << 32, 1 << 70, -(1 << 70)])
def test_close_frame_refuses_codes(code: int) -> None:
    with pytest.raises(ValueError, match="close code"):
        CloseFrame(code)


@pytest.mark.parametrize("code", ["1000", b"\x03\xe8", None, [1000], True])
def test_close_frame_refuses_what_is_no_code(code: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        CloseFrame(code)


@pytest.mark.parametrize("reason", [b"bytes", 1, None])
def test_close_frame_refuses_what_is_no_text(reason: Any) -> None:
    with pytest.raises((TypeError, AttributeError)):
        CloseFrame(1000, reason)


def test_close_frame_refuses_lone_surrogates() -> None:
    with pytest.raises(ValueError, match="surrogates"):
        CloseFrame(1000, "\udcff")


def test_check_close_judges_the_code_first() -> None:
    assert check_close(b"") == (0, 1005)
    assert check_close(b"\x03") == (1002, 0)
    assert check_close(b"\x03\xed\xff")[0] == 1002
    assert check_close(b"\x03\xe8\xff") == (1007, 1000)
    assert check_close("\u0fa0".encode("utf-16-be") + "né".encode()) == (0, 4000)


# ------------------------------------------------------------------ pack and unpack


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 65537])
@pytest.mark.parametrize("make", [lambda size: "x" * size, lambda size: b"\xff" * size], ids=["text", "binary"])
def test_round_trip(size: int, make: Callable[[int], str | bytes]) -> None:
    data = make(size)
    packed = pack(data)
    opcode = TEXT if isinstance(data, str) else BINARY
    raw = data.encode() if isinstance(data, str) else data
    assert packed == frame(opcode, raw, key=None)
    for form in (packed, frame(opcode, raw)):
        back = unpack(form)
        assert (back.opcode, back.data, back.fd) == (opcode, data, 0)
        assert pack(back) == packed


def test_pack_takes_what_a_message_can_be() -> None:
    assert pack("é") == b"\x81\x02\xc3\xa9"
    for data in (b"hi", bytearray(b"hi"), memoryview(b"hi"), memoryview(b"h.i.")[::2]):
        assert pack(data) == b"\x82\x02hi"  # type: ignore[arg-type]
    assert pack("é".encode(), Opcode.TEXT) == b"\x81\x02\xc3\xa9"
    assert pack("é", Opcode.BINARY) == b"\x82\x02\xc3\xa9"
    assert pack("", Opcode.PING) == b"\x89\x00"
    assert pack(Frame("é")) == b"\x81\x02\xc3\xa9"
    assert pack(Frame("é"), Opcode.BINARY) == b"\x82\x02\xc3\xa9"
    assert pack(CloseFrame(4000, "bye")) == b"\x88\x05\x0f\xa0bye"
    assert pack(b"", Opcode.CLOSE) == b"\x88\x00"


@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
def test_pack_refuses_long_control_frames(opcode: int) -> None:
    payload = b"\x03\xe8" + b"x" * 123
    assert pack(payload, opcode)[1] == 125
    with pytest.raises(ValueError, match="125"):
        pack(payload + b"x", opcode)


@pytest.mark.parametrize("data", [b"\xff", b"\xc3", b"\xed\xa0\x80", bytearray(b"a\x80"), memoryview(b"\xc0\x80")])
def test_pack_refuses_text_that_is_not_utf8(data: Any) -> None:
    with pytest.raises(ValueError, match="UTF-8"):
        pack(data, Opcode.TEXT)
    assert pack(data, Opcode.BINARY)[2:] == bytes(data)


def test_pack_refuses_lone_surrogates() -> None:
    with pytest.raises(ValueError, match="surrogates"):
        pack("\ud800")


@pytest.mark.parametrize("data", [b"\x03", b"\x03\xed", b"\x00\x00", b"\x03\xe8\xff", b"\xff\xff"])
def test_pack_refuses_a_close_that_may_not_be_sent(data: bytes) -> None:
    with pytest.raises(ValueError, match="close"):
        pack(data, Opcode.CLOSE)


@pytest.mark.parametrize("data", [5, 0, 1 << 40, None, 1.5, True, [1, 2], {1}, object()])
def test_only_text_and_bytes_are_data(data: Any) -> None:
    """bytes(5) would be five zeros: no number, list or object is ever taken for what to send."""
    for call in (
        lambda: pack(data),
        lambda: pack(data, Opcode.PING),
        lambda: pack(Frame(data)),
        lambda: unpack(data),
    ):
        with pytest.raises(TypeError):
            call()


def test_unpack_of_control_frames() -> None:
    assert unpack(frame(PING, b"hi")).opcode is Opcode.PING
    assert unpack(frame(PONG, b"\xff")).data == b"\xff"
    closing = unpack(frame(CLOSE, b"\x0f\xa0bye"))
    assert isinstance(closing, CloseFrame)
    assert (closing.code, closing.reason, closing.data) == (4000, "bye", b"\x0f\xa0bye")
    empty = unpack(frame(CLOSE))
    assert isinstance(empty, CloseFrame)
    assert (empty.code, empty.reason) == (1005, "")
    assert pack(empty) == b"\x88\x00"


@pytest.mark.parametrize("payload", [b"\x03", b"\x03\xed", b"\x03\xe8\xc3"])
def test_unpack_refuses_a_bad_close(payload: bytes) -> None:
    with pytest.raises(ValueError, match="close"):
        unpack(frame(CLOSE, payload))


@pytest.mark.parametrize("key", [None, b"abcd"], ids=["unmasked", "masked"])
@pytest.mark.parametrize("size", [0, 3, 126, 65536])
def test_unpack_wants_exactly_one_frame(size: int, key: bytes | None) -> None:
    whole = frame(BINARY, bytes(size), key=key)
    for end in {*range(min(len(whole), 20)), len(whole) - 1}:
        with pytest.raises(ValueError):
            unpack(whole[:end])
    for more in (b"\x00", b"\x82\x00", whole):
        with pytest.raises(ValueError):
            unpack(whole + more)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(frame(TEXT, b"a", fin=False), id="not final"),
        pytest.param(frame(0, b"a"), id="continuation"),
        pytest.param(frame(TEXT, b"\xff"), id="not UTF-8"),
        pytest.param(frame(TEXT, b"a", rsv=4, key=None), id="reserved bit"),
        pytest.param(frame(PING, bytes(126)), id="long ping"),
        pytest.param(frame(BINARY, b"a", form=16, key=None), id="length too wide"),
        pytest.param(octets("82 ff ff ff ff ff ff ff ff ff 00 00 00 00"), id="length 2^64-1"),
    ],
)
def test_unpack_refuses_what_the_decoder_refuses(data: bytes) -> None:
    with pytest.raises(ValueError):
        unpack(data)
