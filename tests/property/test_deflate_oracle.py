"""permessage-deflate against the one of `websockets`, over thousands of generated and mutated messages.

The rules: what either side compresses, the other inflates to the same bytes, whatever the windows and the context
takeover; and of payloads that are damaged we may take fewer, never others: a message that we hand out is the one
that they hand out.

Where the oracle differs from RFC 7692 or from us:

* It cannot compress with a window of 8 bits. A message of at most 256 bytes needs none, so what it compressed with 9
  bits stands in for that.
* It stops at a final block and drops what is behind; section 7.2.3.5 allows several such blocks in one message. Where
  there is one, damaged messages are not compared.
* It does not notice when a message ends inside of a block; we refuse that. (We may be stricter.)
"""

import itertools
import random
import zlib
from collections import Counter
from collections.abc import Iterator

import pytest
from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode

from mooring._core.deflate import Broken, Deflate, TooLong, compress, inflate

MIB = 1 << 20
LIMIT = 17 * MIB
RATIO = 1100.0  # more than deflate can do: here, nothing is a bomb
WORDS = b'the quick {"brown": "fox", "jumps": [0, 1, 23], "over": null} lazy dog \xc3\xa4\xe2\x82\xac'.split()
SETTINGS = [(bits, keeps) for bits in range(8, 16) for keeps in (False, True) if not (bits == 8 and keeps)]
MESSAGES = 150  # for each setting and direction
DAMAGED = 6000


def contents(chance: random.Random, size: int) -> bytes:
    """Incompressible, text, long runs, or all of them."""
    kind = chance.randrange(5)
    if kind == 0:
        return chance.randbytes(size)
    if kind == 1:
        return b" ".join(chance.choices(WORDS, k=size // 4 + 1))[:size]
    if kind == 2:
        return bytes([chance.randrange(256)]) * size
    if kind == 3:  # what is referred to lies as far back as a window goes, or a little farther
        part = chance.randbytes(chance.choice([250, 256, 512, 1 << 13, 1 << 15]) + chance.randint(-7, 7))
        return (part * (size // len(part) + 1))[:size]
    parts = b""
    while len(parts) < size:
        parts += contents(chance, chance.randint(1, size))
    return parts[:size]


def messages(chance: random.Random, count: int, longest: int) -> Iterator[bytes]:
    yield from (b"", b"\0", b"")
    for _ in range(count - 3):
        yield contents(chance, min(longest, int(2 ** chance.uniform(0, 16.2))))


def theirs(bits: int, peer_bits: int, keeps: bool, peer_keeps: bool) -> PerMessageDeflate:
    """The other end of Deflate(bits, peer_bits, keeps, peer_keeps)."""
    return PerMessageDeflate(not keeps, not peer_keeps, bits, max(peer_bits, 9))


def inflated(codec: PerMessageDeflate, payload: bytes, limit: int | None = None) -> bytes:
    return bytes(codec.decode(Frame(Opcode.BINARY, payload, True, True), max_size=limit).data)


def compressed(codec: PerMessageDeflate, message: bytes, cuts: list[int]) -> bytes:
    """The payload of a message that is sent as that many frames, put together."""
    ends = [*sorted(min(at, len(message)) for at in cuts), len(message)]
    payload, start = b"", 0
    for number, end in enumerate(ends):
        opcode = Opcode.CONT if number else Opcode.BINARY
        payload += codec.encode(Frame(opcode, message[start:end], number == len(ends) - 1)).data
        start = end
    return payload


@pytest.mark.parametrize(("bits", "keeps"), SETTINGS)
def test_they_inflate_what_we_compress(bits: int, keeps: bool) -> None:
    chance = random.Random(f"ours {bits} {keeps}")
    us = Deflate(bits, 15, keeps, False, limit=LIMIT, level=chance.randint(1, 9), memory=chance.randint(1, 9))
    them = theirs(bits, 15, keeps, False)
    sent = 0
    for message in messages(chance, MESSAGES, us.longest or LIMIT):
        assert inflated(them, compress(us, message)) == message
        sent += 1
    assert sent == MESSAGES


@pytest.mark.parametrize(("bits", "keeps"), SETTINGS)
def test_we_inflate_what_they_compress(bits: int, keeps: bool) -> None:
    chance = random.Random(f"theirs {bits} {keeps}")
    us = Deflate(15, bits, False, keeps, limit=LIMIT, ratio=RATIO)
    them = theirs(15, bits, False, keeps)
    sent = 0
    for message in messages(chance, MESSAGES, 256 if bits == 8 else LIMIT):
        cuts = [chance.randint(0, len(message)) for _ in range(chance.choice([0, 0, 0, 1, 5]))]
        assert inflate(us, compressed(them, message, cuts)) == message
        sent += 1
    assert sent == MESSAGES


@pytest.mark.parametrize(("bits", "keeps"), [(15, False), (15, True), (9, True)])
@pytest.mark.parametrize("kind", ["random", "text", "zeros"])
def test_messages_of_16_mib(kind: str, bits: int, keeps: bool) -> None:
    """Twice each, so that the second one meets what is kept of the first."""
    chance = random.Random(kind)
    size = 16 * MIB
    message = {
        "random": lambda: chance.randbytes(size),
        "text": lambda: (b" ".join(chance.choices(WORDS, k=50_000)) * (size // 100_000))[:size],
        "zeros": lambda: bytes(size),
    }[kind]()
    assert len(message) == size
    us = Deflate(bits, bits, keeps, keeps, limit=LIMIT, ratio=RATIO, level=1)
    them = theirs(bits, bits, keeps, keeps)
    for _ in range(2):
        assert inflated(them, compress(us, message)) == message
        assert inflate(us, compressed(them, message, [])) == message


def damaged(chance: random.Random, payload: bytes) -> bytes:
    """With bytes changed, taken out, put in or cut off at the end."""
    data = bytearray(payload)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(data) + 1)
        kind = chance.randrange(4)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del data[at : at + chance.randint(1, 4)]
        elif kind == 2:
            data[at:at] = chance.randbytes(chance.randint(1, 4))
        else:
            del data[at:]
    return bytes(data)


def has_final_block(payload: bytes) -> bool:
    inflater = zlib.decompressobj(-15)
    try:
        inflater.decompress(payload + b"\0\0\xff\xff")
    except zlib.error:
        return False
    return inflater.eof


def test_of_damaged_messages_we_never_take_others() -> None:
    verdicts: Counter[str] = Counter()
    for seed, limit in itertools.product(range(DAMAGED // 2), (300, 100_000)):
        chance = random.Random(seed)
        message = contents(chance, chance.randint(1, 2000))
        whole = compress(Deflate(limit=LIMIT, level=chance.randint(1, 9)), message)
        payload = damaged(chance, whole) if seed % 8 else whole
        try:
            ours: bytes | str = inflate(Deflate(limit=limit, ratio=RATIO), payload)
        except TooLong:
            ours = "too long"
        except Broken:
            ours = "broken"
        try:
            other: bytes | str = inflated(theirs(15, 15, False, False), payload, limit)
        except PayloadTooBig:
            other = "too long"
        except ProtocolError:
            other = "broken"
        if isinstance(ours, bytes):
            verdicts["taken"] += 1
            assert len(ours) <= limit
            assert ours == other or has_final_block(payload), f"seed {seed}: {ours!r} and {other!r}"
        else:
            verdicts[ours] += 1
            if payload == whole:
                assert ours == other == "too long", f"seed {seed}"
    # the generator shall reach everything
    assert verdicts["taken"] > DAMAGED // 20, verdicts
    assert verdicts["broken"] > DAMAGED // 20, verdicts
    assert verdicts["too long"] > DAMAGED // 20, verdicts
