"""The HTTP codec against two others, h11 and llhttp, on thousands of generated and mutated byte streams.

The rule: we may be stricter, never laxer. Each request that our codec reads must be read by h11, and by
llhttp over the whole stream, at the same place with the same method, target, fields and body. Then nobody
who reads like one of them sees a request where we see none, or the other way round.

A second rule: how the network cuts a stream must not change what is read.
"""

import itertools
import random
import re
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mooring._core.http import HttpCodec
from mooring._core.http_request import HttpError, ParsedRequest
from support.http_oracle import assert_not_laxer, by_h11, by_llhttp, ours, reading, up_to_close

VECTORS = Path(__file__).parent.parent / "vectors" / "http"
CASES = 20_000


# Streams. A stream is a list of requests, each a list of lines and a body, so that a mutation can
# act on the structure before the bytes are joined, and on the bytes after.

METHODS = [b"GET", b"POST", b"HEAD", b"PUT", b"OPTIONS", b"DELETE"]
TARGETS = [b"/", b"/a?b=c", b"//x/../y", b"/%00%0d%0a", b"http://a/x", b"http://a", b"*", b"/a|b^c"]
FIELDS = [
    b"X: y",
    b"X-Long: %b" % (b"z" * 300),
    b"Empty:",
    b"Cookie: a=b; c=d",
    b"Tabs:\ta\tb\t",
    b"Obs: \xe9\xff",
]
FIELDS += [b"Connection: keep-alive", b"Connection: close", b"Connection: Upgrade", b"Upgrade: websocket"]
FIELDS += [b"Expect: 100-continue", b"Upgrade: h2c", b"Content-Length: 0"]
CHUNKS = [
    b"3\r\nabc\r\n",
    b"1;x=y\r\na\r\n",
    b"0A\r\n0123456789\r\n",
    b"0001\r\nb\r\n",
    b"5\r\n0\r\n\r\n\r\n",
]
ENDINGS = [b"0\r\n\r\n", b"0\r\nX: y\r\n\r\n", b"000\r\n\r\n", b"0;x\r\n\r\n"]
MATERIAL = {
    kind: [piece.encode("latin-1") for piece in pieces]
    for kind, pieces in tomllib.loads((VECTORS / "smuggling.toml").read_text()).items()
}
BYTES = b"\r\n\t \0\x0b\x0c\x7f\x80\xa0\xff:;,#*+-_0159axXA/."


def make_request(chance: random.Random) -> bytes:
    method = chance.choice(METHODS)
    lines = [b"%b %b HTTP/1.%d" % (method, chance.choice(TARGETS[:3] * 4 + TARGETS), chance.random() < 0.9)]
    lines.append(b"Host: a")
    lines += chance.sample(FIELDS, chance.choice([0, 0, 1, 2, 4]))
    framing = chance.random()
    body = b""
    if framing < 0.25:
        body = chance.randbytes(chance.choice([0, 1, 5, 40]))
        lines.append(b"Content-Length: %d" % len(body))
    elif framing < 0.6:
        lines.append(chance.choice([b"Transfer-Encoding: chunked", b"transfer-encoding:CHUNKED"]))
        body = b"".join(chance.choices(CHUNKS, k=chance.randrange(4))) + chance.choice(ENDINGS)
    for _ in range(chance.choice([0, 0, 0, 0, 0, 1, 1, 2])):
        what = chance.randrange(7)
        if what <= 1:
            lines.insert(chance.randint(1, len(lines)), chance.choice(MATERIAL["fields"]))
        elif what == 2:
            lines[0] = chance.choice(MATERIAL["lines"])
        elif what == 3:
            body = chance.choice(MATERIAL["chunks"]) + body
        elif what == 4:
            body = body.removesuffix(b"0\r\n\r\n") + chance.choice(MATERIAL["endings"])
        elif what == 5:
            lines.append(chance.choice(lines[1:]))
        else:
            del lines[chance.randrange(1, len(lines))]
            lines.append(b"X: y")
    ending = b"\r\n" if chance.random() < 0.97 else chance.choice([b"\n", b"\r", b"\r\r\n", b"\n\r"])
    return ending.join(lines) + ending + ending + body


def make_stream(seed: int) -> bytes:
    chance = random.Random(seed)
    data = bytearray(b"".join(make_request(chance) for _ in range(chance.choice([1, 2, 3, 4]))))
    for _ in range(chance.choice([0, 0, 0, 1, 2])):
        at = chance.randrange(len(data))
        what = chance.randrange(3)
        if what == 0:
            data[at] = chance.choice(BYTES)
        elif what == 1:
            data.insert(at, chance.choice(BYTES))
        else:
            del data[at]
    return bytes(data)


def cut(data: bytes, chance: random.Random) -> list[bytes]:
    places = sorted(chance.choices(range(len(data) + 1), k=chance.choice([1, 2, 5, 30])))
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


def examine(seed: int, count: Counter[str]) -> None:
    data = make_stream(seed)
    whole = ours([data])
    pieces = ours(cut(data, random.Random(seed)))
    assert (list(map(reading, whole[0])), *whole[1:]) == (list(map(reading, pieces[0])), *pieces[1:]), data
    requests = up_to_close(whole[0])
    h11s = list(by_h11(data))
    assert_not_laxer(requests, h11s, data)
    llhttps, comparable_count = by_llhttp(data, len(requests))
    assert_not_laxer(requests[:comparable_count], llhttps, data)
    count["read by both"] += len(requests)
    count["with a body"] += sum(bool(request.body) for request in requests)
    count["read behind another"] += max(0, len(requests) - 1)
    count["judged by llhttp"] += comparable_count
    count["refused by us"] += whole[1] is not None
    count["refused by us alone"] += len(requests) < len(h11s)


def test_never_laxer_than_h11_and_llhttp() -> None:
    count: Counter[str] = Counter()
    for seed in range(CASES):
        examine(seed, count)
    # The generator makes what is to be judged, on both sides of the line.
    assert count["read by both"] > CASES / 2, count
    assert count["judged by llhttp"] > CASES / 2, count
    assert count["with a body"] > CASES / 10, count
    assert count["read behind another"] > CASES / 6, count
    assert count["refused by us"] > CASES / 4, count
    assert count["refused by us alone"] > CASES / 50, count


def test_plain_requests_are_read_as_h11_reads_them() -> None:
    """Strict, but not so strict that ordinary requests are refused."""
    chance = random.Random(11)
    for _ in range(3000):
        body = chance.randbytes(chance.choice([0, 1, 5, 300]))
        lines = [b"%b %b HTTP/1.1" % (chance.choice(METHODS), chance.choice(TARGETS[:3])), b"Host: a"]
        lines += chance.sample(FIELDS[:6], chance.randrange(6))
        if chance.random() < 0.5:
            lines.append(b"Content-Length: %d" % len(body))
        else:
            at = chance.randint(0, len(body))
            lines.append(b"Transfer-Encoding: chunked")
            body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:at], body[at:]) if part)
            body += chance.choice(ENDINGS)
        data = b"\r\n".join(lines) + b"\r\n\r\n" + body
        requests, error, rest = ours([data])
        assert (error, rest) == (None, b""), data
        assert_not_laxer(requests, list(by_h11(data)), data)
        assert len(requests) == 1, data


# Cuts, chosen by Hypothesis, which finds the smallest stream and the fewest cuts that differ.


@settings(max_examples=400)
@given(seed=st.integers(0, 1 << 32), places=st.lists(st.integers(0, 2000), max_size=12))
@example(seed=1, places=list(range(1, 2000)))
def test_cuts_do_not_matter(seed: int, places: list[int]) -> None:
    data = make_stream(seed)
    whole = ours([data])
    edges = sorted({min(place, len(data)) for place in places} | {0, len(data)})
    pieces = ours(data[a:b] for a, b in itertools.pairwise(edges))
    assert (list(map(reading, whole[0])), *whole[1:]) == (list(map(reading, pieces[0])), *pieces[1:])


@settings(max_examples=400)
@given(data=st.binary(max_size=300), places=st.lists(st.integers(0, 300), max_size=5))
def test_any_bytes(data: bytes, places: list[int]) -> None:
    """No input does anything but give requests or raise HttpError."""
    edges = sorted({min(place, len(data)) for place in places} | {0, len(data)})
    requests, _, _ = ours(data[a:b] for a, b in itertools.pairwise(edges))
    assert_not_laxer(up_to_close(requests), list(by_h11(data)), data)


SMALL = {"line_limit": 30, "field_limit": 20, "head_limit": 60, "field_count_limit": 3, "body_limit": 12}


@pytest.mark.parametrize("seed", range(0, 3000, 100))
def test_cuts_do_not_matter_at_limits(seed: int) -> None:
    """The same limit is named whatever comes first, and however it comes."""
    for offset in range(100):
        data = make_stream(seed + offset)
        results = []
        for pieces in ([data], [data[i : i + 1] for i in range(len(data))]):
            codec = HttpCodec(**SMALL)
            result: list[Any] = []
            try:
                for piece in pieces:
                    codec.receive(piece)
                    while (event := codec.next_event()) is not None:
                        if isinstance(event, ParsedRequest):
                            result.append(reading(event))
            except HttpError as error:
                result.append((error.status, error.reason))
            results.append(result)
        assert results[0] == results[1], data


# RFC 9112 section 7.1 as it is read here: no white space, no backslashes, extensions of at most 257 bytes.
CHUNK_LINE = re.compile(
    rb"([0-9A-Fa-f]{1,16})(?=[^\r]{0,257}\r)"
    rb"(?:;[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:=(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+|\"[\t\x20!\x23-\x5b\x5d-\x7e\x80-\xff]*\"))?)*\r\n"
)
PIECES = [
    b"0",
    b"9",
    b"a",
    b"F",
    b"g",
    b"G",
    b"/",
    b":",
    b"@",
    b"`",
    b";",
    b"=",
    b'"',
    b"\\",
    b" ",
    b"\t",
    b"\r",
    b"\x00",
    b"\x7f",
    b"\x80",
    b"\xff",
    b",",
    b";a",
    b";a=b",
    b';a="b c"',
    b"0000000",
    b"x" * 127,
    b";" + b"y" * 120,
    b"~",
    b"\x1f",
]


@settings(max_examples=2000)
@given(
    st.lists(st.sampled_from(PIECES), max_size=8).map(b"".join), st.sampled_from([b"\r\n", b"\n", b"\r\r\n", b"x\r\n"])
)
@example(b"ffffffffffffffff", b"\r\n")
@example(b"0" * 15 + b"1", b"\r\n")
@example(b"0" * 16 + b"1", b"\r\n")
@example(b"1;" + b"a" * 256, b"\r\n")
@example(b"1;" + b"a" * 257, b"\r\n")
@example(b"0" * 15 + b"1;" + b"a" * 256, b"\r\n")
@example(b"", b"\r\n")
@example(b'1;a="', b"\r\n")
@example(b'1;a=""', b"\r\n")
def test_lines_before_chunks(line: bytes, end: bytes) -> None:
    codec = HttpCodec(body_limit=1 << 40)
    codec.receive(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + line + end)
    match = CHUNK_LINE.fullmatch(line + end)
    if match is None or int(match[1], 16) > 1 << 40:
        with pytest.raises(HttpError) as refused:
            codec.next_event()
        assert refused.value.status == (400 if match is None else 413)
        return
    assert codec.next_event() is None
    size = int(match[1], 16)
    codec.receive(b"\r\n" if size == 0 else b"x" * min(size, 100) + (b"\r\n0\r\n\r\n" if size <= 100 else b""))
    request = codec.next_event()
    if size <= 100:
        assert isinstance(request, ParsedRequest)
        assert request.body == b"x" * size
    else:
        assert request is None
