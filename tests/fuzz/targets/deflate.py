"""permessage-deflate: messages of hostile bytes, in a row on one agreement, against plain zlib."""

import zlib
from collections.abc import Iterator

from fuzz.harness import outcome
from mooring._core.deflate import FASTEST, Broken, Deflate, TooLong, compress, inflate

LIMIT = 20_000
RATIO = 50.0
TAIL = b"\0\0\xff\xff"
WORDS = [b"", b"a", b"hello hello hello", bytes(3000), bytes(range(256)) * 3]


def seeds() -> Iterator[bytes]:
    for settings in (b"\x00", b"\x07", b"\x18", b"\x5f"):
        for word in WORDS:
            yield settings + compress(Deflate(limit=1 << 20), word)
        yield settings + word + b"\n\xff\n" + word
    yield b"\x00" + zlib.compress(bytes(100_000))[2:]  # a final block, and a bomb
    yield b"\x00\x01\x05\x00\xfa\xffhello\x00\x00\x00\xff\xff"


def agreement(settings: int, engine: object = FASTEST) -> Deflate:
    bits = 8 + (settings & 7)
    keeps = bool(settings & 16) and bits > 8
    return Deflate(bits, bits, keeps, bool(settings & 8), limit=LIMIT, ratio=RATIO, level=1, memory=1, engine=engine)


def by_zlib(inflater: object, payload: bytes) -> bytes | None:
    """None: an error, or something that zlib alone can't judge."""
    try:
        message = inflater.decompress(payload + TAIL, 10 * LIMIT)
    except zlib.error:
        return None
    return None if inflater.eof or inflater.unconsumed_tail else message


def one(data: bytes) -> None:
    if not data:
        return
    settings, payloads = data[0], data[1:].split(b"\n\xff\n")
    ours, others = agreement(settings), agreement(settings, zlib)
    bits = 8 + (settings & 7)
    reference = zlib.decompressobj(-bits)
    for payload in payloads:
        message = outcome(lambda payload=payload: inflate(ours, payload), TooLong, Broken)
        other = outcome(lambda payload=payload: inflate(others, payload), TooLong, Broken)
        if isinstance(message, tuple):
            assert isinstance(other, tuple), "zlib alone takes it"
            assert other[0] == message[0]
            break  # as the connection would
        assert other == message
        assert len(message) <= max(LIMIT, 65536)
        if not settings & 8:
            reference = zlib.decompressobj(-bits)
        if reference is not None:
            expected = by_zlib(reference, payload) if payload else b""
            if expected is None:
                reference = None  # a final block: another window from here on
            else:
                assert message == expected
    sender = agreement(settings)
    receiver = Deflate(bits, bits, False, sender.keeps, limit=LIMIT, ratio=1100.0)
    for payload in payloads:
        if len(payload) <= (sender.longest or LIMIT):
            assert inflate(receiver, compress(sender, payload)) == payload
