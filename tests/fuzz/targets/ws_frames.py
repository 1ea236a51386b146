"""Frames of a client: read the same however they are cut, and as wsproto and websockets read them."""

from collections.abc import Iterator

from frames import vectors
from fuzz.harness import pieces
from mooring._core.ws import Decoder
from support.ws_oracle import CLOSE, assert_as_websockets, assert_as_wsproto, ours

SMALL = 300


def seeds() -> Iterator[bytes]:
    for kind in ("valid", "invalid"):
        for _, vector in vectors(kind):
            if len(vector["frames"]) < 2000:
                yield vector["frames"]


def with_limits(parts: list[bytes], unmasked: bool = False) -> object:
    decoder = Decoder(SMALL, 4, unmasked)
    events = [event for part in parts for event in decoder.feed(part)]
    return events, decoder.error or decoder.rest


def one(data: bytes) -> None:
    cut = pieces(data)
    assert with_limits([data]) == with_limits(cut)
    assert with_limits([data], True) == with_limits(cut, True)
    reading = ours(cut, SMALL)
    assert reading == ours([data], SMALL)
    if (CLOSE, b"\x03\xf6") not in [(opcode, payload[:2]) for opcode, payload in reading.events]:
        # wsproto does not know 1014, which is newer than it
        assert_as_wsproto(data, lambda data: ours([data]))
    assert_as_websockets(data, SMALL, lambda data: ours([data], SMALL))
