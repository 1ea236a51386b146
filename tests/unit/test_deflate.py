"""permessage-deflate, sans-IO: what is compressed comes back, what is broken or too long never does."""

import itertools
import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from zlib_ng import zlib_ng

from mooring._core.deflate import Broken, Deflate, TooLong, compress, inflate

LIMIT = 1 << 20
MESSAGES = [b"", b"a", b"x" * 100, b"hello " * 10_000, bytes(range(256)) * 30, random.Random(1).randbytes(70_000)]


@pytest.fixture(params=[zlib, zlib_ng], ids=["zlib", "zlib-ng"])
def engine(request):
    """Broken and endless streams are refused whoever inflates."""
    return request.param


def raw(data, *, bits=15, flush=zlib.Z_SYNC_FLUSH):
    """A message as another implementation would compress it."""
    compressor = zlib.compressobj(6, zlib.DEFLATED, -bits)
    return (compressor.compress(data) + compressor.flush(flush))[:-4]


@pytest.mark.parametrize("engines", [(zlib, zlib_ng), (zlib_ng, zlib)], ids=["zlib to zlib-ng", "zlib-ng to zlib"])
@pytest.mark.parametrize(("bits", "keeps"), [(8, False), *itertools.product(range(9, 16), [False, True])])
def test_what_is_compressed_comes_back(bits, keeps, engines):
    ours = Deflate(bits, 15, keeps, False, limit=LIMIT, engine=engines[0])
    theirs = Deflate(15, bits, False, keeps, limit=LIMIT, engine=engines[1])
    for message in MESSAGES * 2:
        if not ours.longest or len(message) <= ours.longest:
            assert inflate(theirs, compress(ours, message)) == message


def test_without_takeover_no_message_refers_to_another():
    deflate = Deflate(limit=LIMIT)
    secret = random.Random(2).randbytes(5000)
    first, second = compress(deflate, secret), compress(deflate, secret)
    assert len(first) > 5000
    assert first == second
    assert inflate(Deflate(limit=LIMIT), second) == secret


def test_with_takeover_it_does():
    deflate = Deflate(keeps=True, limit=LIMIT)
    secret = random.Random(2).randbytes(5000)
    assert len(compress(deflate, secret)) > 5000
    assert len(compress(deflate, secret)) < 200


@pytest.mark.parametrize("size", [LIMIT - 1, LIMIT])
def test_a_message_may_inflate_to_the_limit(size, engine):
    message = random.Random(3).randbytes(1000) * (size // 1000 + 1)
    assert inflate(Deflate(engine=engine, limit=LIMIT), raw(message[:size])) == message[:size]
    assert inflate(Deflate(engine=engine, limit=LIMIT), raw(bytes(size))) == bytes(size)  # however dense it is


def test_and_not_beyond(engine):
    with pytest.raises(TooLong, match=str(LIMIT)):
        inflate(Deflate(engine=engine, limit=LIMIT), raw(b"x" * (LIMIT + 1)))


def test_a_bomb_is_refused_by_its_ratio_where_one_is_set(engine):
    bomb = raw(b"\0" * 900_000)
    assert len(bomb) < 2000
    with pytest.raises(TooLong):
        inflate(Deflate(engine=engine, limit=LIMIT, ratio=100), bomb)
    assert inflate(Deflate(engine=engine, limit=LIMIT, ratio=100), raw(b"\0" * 65_536)) == b"\0" * 65_536


@pytest.mark.parametrize("peer_keeps", [False, True])
def test_a_stream_that_is_cut_is_broken(peer_keeps, engine):
    message = b"some words, and some words again, and more of them " * 20
    whole = raw(message)
    for end in range(1, len(whole)):
        with pytest.raises(Broken):
            inflate(Deflate(peer_keeps=peer_keeps, engine=engine, limit=LIMIT), whole[:end])


def test_a_reserved_block_type_is_broken(engine):
    with pytest.raises(Broken):
        inflate(Deflate(engine=engine, limit=LIMIT), b"\x07")


def test_final_blocks_are_taken_but_not_without_end(engine):
    # RFC 7692 section 7.2.3.5: a block with BFINAL set, and the byte that must follow it
    compressor = zlib.compressobj(6, zlib.DEFLATED, -15)
    final = compressor.compress(b"Hello") + compressor.flush(zlib.Z_FINISH) + b"\0"
    for peer_keeps in (False, True):
        deflate = Deflate(peer_keeps=peer_keeps, engine=engine, limit=LIMIT)
        assert inflate(deflate, final) == inflate(deflate, final) == b"Hello"
    with pytest.raises(Broken, match="final"):
        inflate(Deflate(engine=engine, limit=LIMIT), b"\x03\x00" * 100_000)
    # a sender that ends the stream with each 4 KiB: as many as its size explains, within the limit
    part = zlib.compressobj(6, zlib.DEFLATED, -15)
    part = part.compress(bytes(4096)) + part.flush(zlib.Z_FINISH)
    assert inflate(Deflate(engine=engine, limit=LIMIT), part * 256) == bytes(LIMIT)
    with pytest.raises(TooLong):
        inflate(Deflate(engine=engine, limit=LIMIT), part * 257)


def test_what_is_whole_is_taken_although_a_byte_is_due_behind_it(engine):
    """Nothing at all, and a final block that ends the message; also as the first message."""
    compressor = zlib.compressobj(6, zlib.DEFLATED, -15)
    final = compressor.compress(b"Hello") + compressor.flush(zlib.Z_FINISH)
    for peer_keeps in (False, True):
        deflate = Deflate(peer_keeps=peer_keeps, engine=engine, limit=LIMIT)
        for payload, message in (
            (final, b"Hello"),
            (b"", b""),
            (raw(b"x" * 100), b"x" * 100),
            (final, b"Hello"),
            (b"", b""),
        ):
            assert inflate(deflate, payload) == message
        with pytest.raises(Broken):
            inflate(Deflate(peer_keeps=peer_keeps, engine=engine, limit=LIMIT), final[:-1])
        with pytest.raises(Broken):
            inflate(Deflate(peer_keeps=peer_keeps, engine=engine, limit=LIMIT), final + b"\7")


def test_terms_that_cannot_be_kept_are_refused():
    for bits in (7, 16):
        with pytest.raises(ValueError, match="8 to 15"):
            Deflate(bits, limit=LIMIT)
    with pytest.raises(ValueError, match="takeover"):
        Deflate(8, keeps=True, limit=LIMIT)


@given(st.lists(st.binary(max_size=3000), max_size=5), st.booleans(), st.integers(9, 15))
def test_any_messages_in_any_terms(messages, keeps, bits):
    ours, theirs = Deflate(bits, 15, keeps, limit=LIMIT), Deflate(15, bits, False, keeps, limit=LIMIT)
    for message in messages:
        assert inflate(theirs, compress(ours, message)) == message


@given(st.binary(max_size=300))
def test_any_bytes_are_a_message_or_refused(data):
    try:
        message = inflate(Deflate(limit=LIMIT), data)
    except (Broken, TooLong):
        return
    oracle = zlib.decompressobj(-15)
    assert oracle.decompress(data + b"\x00\x00\xff\xff") == message[: len(message)] or oracle.eof
