"""The frame codec against two others, wsproto and websockets, on generated and mutated streams of frames.

The rule: the same messages and control frames, in the same order, and the same verdict: which close code the
stream deserves, if any. Each oracle is read up to the first close frame, behind which nothing counts.

Where the oracles differ from RFC 6455 or from us is told in support/ws_oracle.py.
"""

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from websockets.exceptions import ProtocolError
from websockets.frames import Close, Frame
from websockets.protocol import Protocol, Side
from wsproto.frame_protocol import FrameProtocol

from frames import cut, frame, header, single, vectors
from mooring._core.ws import check_close, close_payload, pack, unpack
from support.ws_oracle import Reading, assert_as_websockets, assert_as_wsproto, ours

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
NO_LIMIT = (1 << 64) - 1
SMALL = 300
PROFILE = settings(max_examples=200)
CASES = 8000


# ------------------------------------------------------------------ streams

CHARACTERS = ["a", "é", "€", "😀", "\0", "\x7f", "\x80", "\u07ff", "\u0800", "\ud7ff", "\ue000", "\uffff"]
CHARACTERS += ["\U00010000", "\U0010ffff"]
NOT_UTF8 = [b"\x80", b"\xc0\x80", b"\xc1", b"\xe0\x9f", b"\xed\xa0\x80", b"\xf0\x8f", b"\xf4\x90", b"\xff"]
NOT_UTF8 += [b"\xc3", b"\xe2\x82", b"\xf0\x9f\x98", b"\xc3(", b"\xe2(\xa1", b"\xe2\x82(", b"\xf0\x9f\x98("]
SIZES = [0, 1, 2, 5, 7, 8, 9, 16, 31, 124, 125, 126, 127, 128, 299, 300, 301]
LENGTHS = [0, 1, 125, 126, 127, 299, 300, 301, 65535, 65536]
LENGTHS += [1 << 31, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]
CLOSE_CODES = [0, 999, 1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007, 1008, 1009, 1010, 1011, 1012, 1013]
CLOSE_CODES += [1015, 1016, 1100, 2999, 3000, 3999, 4000, 4999, 5000, 65535]


def make_text(chance: random.Random, size: int) -> bytes:
    return "".join(chance.choices(CHARACTERS, k=size)).encode()


def make_payload(chance: random.Random, text: bool) -> bytes:
    if not text:
        return chance.randbytes(chance.choice(SIZES))
    payload = make_text(chance, chance.choice([0, 1, 2, 3, 10, 40]))
    if chance.random() < 0.05:
        at = chance.randint(0, len(payload))
        payload = payload[:at] + chance.choice(NOT_UTF8) + payload[at:]
    return payload


def make_control(chance: random.Random) -> bytes:
    opcode = chance.choice([PING] * 4 + [PONG] * 4 + [CLOSE])
    payload = chance.randbytes(chance.choice([0, 1, 4, 124, 125]))
    if opcode == CLOSE and chance.random() < 0.9:
        reason = make_text(chance, chance.randrange(5))
        if chance.random() < 0.1:
            reason += chance.choice(NOT_UTF8)
        payload = chance.choice(CLOSE_CODES).to_bytes(2, "big") + reason
    return frame(opcode, payload, key=chance.randbytes(4))


def make_message(chance: random.Random) -> list[bytes]:
    """The frames of one message, with control frames between them."""
    opcode = chance.choice([TEXT, BINARY])
    parts = cut(make_payload(chance, opcode == TEXT), chance, chance.choice([1, 1, 2, 3, 6]))
    frames = []
    for number, part in enumerate(parts):
        final = number == len(parts) - 1
        frames.append(frame(0 if number else opcode, part, fin=final, key=chance.randbytes(4)))
        if not final and chance.random() < 0.2:
            frames.append(make_control(chance))
    return frames


def mutate(chance: random.Random, frames: list[bytes]) -> None:
    """One thing that is wrong, or might be, in one of the frames."""
    at = chance.randrange(len(frames))
    data = bytearray(frames[at])
    what = chance.randrange(8)
    if what == 0:
        data[0] ^= 1 << chance.randrange(8)
    elif what == 1:
        data[1] ^= 1 << chance.randrange(8)
    elif what == 2:
        length = chance.choice(LENGTHS)
        form = 64 if length > 65535 else chance.choice([16, 64])
        data = bytearray(header(chance.choice([0, 1, 2, 9]), length, form=form))
    elif what == 3:
        del frames[at]
        return
    elif what == 4:
        data = data + data
    elif what == 5:
        data[chance.randrange(len(data))] = chance.randrange(256)
    elif what == 6:
        data = data[: chance.randint(2, len(data))]
    else:
        frames.insert(chance.randint(0, len(frames)), bytes(data))
        return
    frames[at] = bytes(data)


def make_stream(seed: int) -> bytes:
    chance = random.Random(seed)
    frames: list[bytes] = []
    for _ in range(chance.choice([1, 2, 4])):
        frames += make_message(chance)
        if chance.random() < 0.3:
            frames.append(make_control(chance))
    for _ in range(chance.choice([0, 1, 1, 2])):
        if frames:
            mutate(chance, frames)
    return b"".join(frames)


def examine(data: bytes, pieces: list[bytes]) -> tuple[Reading, list[str]]:
    """Compares us with both, and whole with cut. Gives the reading within limits, and the differences."""
    reading = ours([data], SMALL)
    assert ours(pieces, SMALL) == reading, data
    assert ours(pieces) == ours([data]), data
    differences = [
        assert_as_wsproto(data, lambda data: ours([data])),
        assert_as_websockets(data, SMALL, lambda data: ours([data], SMALL)),
    ]
    return reading, [difference for difference in differences if difference]


def test_many_streams() -> None:
    count: Counter[str] = Counter()
    for seed in range(CASES):
        data = make_stream(seed)
        reading, differences = examine(data, cut(data, random.Random(seed), 1 + seed % 9))
        count[f"fault {reading.fault}"] += 1
        count["messages"] += sum(opcode < 8 for opcode, _ in reading.events)
        count["controls"] += sum(opcode >= 8 for opcode, _ in reading.events)
        count["same verdict"] += not differences
        count.update(differences)
    # The generator makes what is to be judged, on both sides of the line, and little of it is left out.
    assert count["same verdict"] > CASES * 0.75, count
    assert count["messages"] > CASES, count
    assert count["controls"] > CASES / 2, count
    for fault, share in ((0, 3), (1002, 10), (1007, 20), (1009, 30)):
        assert count[f"fault {fault}"] > CASES / share, count


# ------------------------------------------------------------------ chosen by Hypothesis

keys = st.binary(min_size=4, max_size=4)
controls = st.tuples(st.sampled_from([PING, PONG]), st.binary(max_size=125))
contents = st.one_of(
    st.tuples(st.just(TEXT), st.text(max_size=60).map(str.encode)),
    st.tuples(st.just(BINARY), st.binary(max_size=150)),
)


@st.composite
def conversations(draw: st.DrawFn) -> tuple[bytes, list[tuple[int, bytes]]]:
    """A stream of good frames, and what is to be read from it."""
    data = b""
    events = []
    for _ in range(draw(st.integers(1, 4))):
        opcode, payload = draw(contents)
        places = sorted(draw(st.lists(st.integers(0, len(payload)), max_size=4)))
        parts = [payload[a:b] for a, b in zip([0, *places], [*places, len(payload)], strict=True)]
        for number, part in enumerate(parts):
            final = number == len(parts) - 1
            data += frame(0 if number else opcode, part, fin=final, key=draw(keys))
            if not final and draw(st.booleans()):
                kind, content = draw(controls)
                data += frame(kind, content, key=draw(keys))
                events.append((kind, content))
        events.append((opcode, payload))
    if draw(st.booleans()):
        content = draw(st.sampled_from([b"", b"\x03\xe8", b"\x0f\xa0bye"]))
        data += frame(CLOSE, content, key=draw(keys))
        events.append((CLOSE, content))
    return data, events


def pieces_of(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({min(place, len(data)) for place in places})
    return [data[a:b] for a, b in zip([0, *edges], [*edges, len(data)], strict=True)]


cut_places = st.lists(st.integers(0, 800), max_size=12)


@PROFILE
@given(conversation=conversations(), places=cut_places)
def test_good_streams(conversation: tuple[bytes, list[tuple[int, bytes]]], places: list[int]) -> None:
    data, events = conversation
    reading, _ = examine(data, pieces_of(data, places))
    assert ours(single(data), SMALL) == reading
    assert ours([data]) == Reading(events)


@PROFILE
@given(
    conversation=conversations(),
    edits=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=3),
    places=cut_places,
)
def test_edited_streams(
    conversation: tuple[bytes, list[tuple[int, bytes]]], edits: list[tuple[int, int]], places: list[int]
) -> None:
    data = bytearray(conversation[0])
    for place, octet in edits:
        data[place % len(data)] = octet
    examine(bytes(data), pieces_of(bytes(data), places))


@st.composite
def any_frames(draw: st.DrawFn) -> bytes:
    """Frames whose every part is chosen by itself."""
    opcode = draw(st.sampled_from([0, 0, 1, 1, 2, 2, 8, 9, 10, 3, 15]))
    payload = draw(st.one_of(st.binary(max_size=130), st.text(max_size=10).map(str.encode)))
    form = draw(st.sampled_from([None, None, None, None, 16, 64]))
    rsv = draw(st.sampled_from([0, 0, 0, 0, 0, 0, 0, 1, 2, 4]))
    length = draw(st.one_of(st.just(len(payload)), st.just(len(payload)), st.integers(0, 400)))
    key = draw(st.one_of(st.just(bytes(4)), st.just(bytes(4)), st.just(bytes(4)), st.none()))
    return header(opcode, length, fin=draw(st.booleans()), rsv=rsv, key=key, form=form) + payload


@PROFILE
@given(frames=st.lists(any_frames(), max_size=5), places=cut_places)
def test_any_frames(frames: list[bytes], places: list[int]) -> None:
    data = b"".join(frames)
    examine(data, pieces_of(data, places))


@PROFILE
@given(data=st.binary(max_size=300), places=cut_places)
@example(data=b"", places=[])
def test_any_bytes(data: bytes, places: list[int]) -> None:
    """No input does anything but give events or a fault."""
    examine(data, pieces_of(data, places))


# ------------------------------------------------------------------ vectors, read by the oracles


def reading_of(vector: dict[str, Any]) -> Reading:
    events = [(event["opcode"], event["data"]) for event in vector["expect"]]
    return Reading(events, vector.get("code", 0), vector.get("reason", ""))


@pytest.mark.parametrize("kind", ["valid", "invalid"])
def test_vectors_are_right(kind: str) -> None:
    """What the vectors demand of us, the oracles do too. Our decoder has no part in it."""
    compared = 0
    for name, vector in vectors(kind):
        reading = reading_of(vector)
        if "too many fragments" in reading.reason:
            continue
        if reading.fault != 1009 and name != "close_1014":
            assert_as_wsproto(vector["frames"], lambda _, reading=reading: reading)
        limit = vector.get("max_message", 1 << 20)
        assert_as_websockets(vector["frames"], limit, lambda _, reading=reading: reading)
        compared += 1
    assert compared > 90


# ------------------------------------------------------------------ what we send


@PROFILE
@given(
    data=st.one_of(st.text(max_size=300), st.binary(max_size=300)),
    times=st.sampled_from([1, 1, 1, 200, 30_000]),
)
def test_pack_is_read_by_both(data: str | bytes, times: int) -> None:
    data = data[:10] * times if times > 1 else data
    packed = pack(data)
    client = Protocol(Side.CLIENT, max_size=None)
    client.receive_data(packed)
    (got,) = client.events_received()
    assert client.parser_exc is None
    assert isinstance(got, Frame)
    assert (got.fin, got.rsv1, got.rsv2, got.rsv3) == (True, False, False, False)
    assert (bytes(got.data).decode() if got.opcode == TEXT else got.data) == data

    other = FrameProtocol(client=True, extensions=[])
    other.receive_bytes(packed)
    (theirs,) = other.received_frames()
    assert (theirs.payload, theirs.message_finished) == (data, True)

    # and the other way round
    assert unpack(got.serialize(mask=True)).data == data
    assert pack(unpack(packed)) == packed
    assert FrameProtocol(client=False, extensions=[]).send_data(data) == packed


@PROFILE
@given(
    code=st.one_of(st.integers(0, 65535), st.sampled_from(CLOSE_CODES), st.integers(1000, 1016)),
    reason=st.one_of(st.text(max_size=40), st.text(max_size=130)),
)
def test_close_payload_is_judged_as_websockets_does(code: int, reason: str) -> None:
    try:
        expected = Close(code, reason).serialize()
    except (ProtocolError, UnicodeEncodeError):
        expected = b""
    if not expected or len(expected) > 125:
        with pytest.raises(ValueError):
            close_payload(code, reason)
        return
    payload = close_payload(code, reason)
    assert payload == expected
    assert check_close(payload) == (0, code)


@PROFILE
@given(payload=st.one_of(st.binary(max_size=125), st.builds(lambda a, b: a + b, st.just(b"\x03\xe8"), st.binary())))
def test_check_close_is_as_websockets_does(payload: bytes) -> None:
    """But for a payload that is wrong in two ways."""
    try:
        expected = (0, int(Close.parse(payload).code))
    except ProtocolError:
        assert check_close(payload)[0] == 1002
    except UnicodeDecodeError:
        fault, code = check_close(payload)
        with_code_only = check_close(payload[:2])[0]
        assert fault == (with_code_only or 1007), code
    else:
        assert check_close(payload) == expected
