"""The HTTP codec: vectors, limits, and independence of how the bytes are cut."""

import time
import tomllib
from pathlib import Path
from typing import Any

import pytest

from mooring._core.http import CONTINUE, HttpCodec
from mooring._core.http_request import HttpError, ParsedRequest
from mooring._core.http_response import LAST_CHUNK, chunk
from support.http_oracle import read

VECTORS = Path(__file__).parent.parent / "vectors" / "http"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"


def vectors(kind: str) -> list[Any]:
    files = sorted((VECTORS / kind).glob("*.toml"))
    assert files
    return [pytest.param(tomllib.loads(file.read_text()), id=file.stem) for file in files]


def plain(result: tuple[list[Any], HttpError | None, bytes]) -> Any:
    events, error, rest = result
    return [as_tuple(event) for event in events], error and (error.status, error.reason), rest


def as_tuple(request: ParsedRequest) -> tuple[Any, ...]:
    return (
        request.method,
        request.target,
        request.minor,
        request.headers,
        request.body,
        request.keep_alive,
        request.upgrade,
    )


def one(data: bytes, **limits: int) -> ParsedRequest:
    events, error, rest = read([data], HttpCodec(**limits))
    assert error is None, error
    assert len(events) == 1
    assert not rest
    request = events[0]
    assert isinstance(request, ParsedRequest)
    return request


def refusal(data: bytes, **limits: int) -> HttpError:
    """The error, which must be the same however the bytes are cut."""
    events, error, _ = read([data], HttpCodec(**limits))
    assert error is not None, events
    cut = read((data[i : i + 1] for i in range(len(data))), HttpCodec(**limits))
    assert plain(cut) == plain((events, error, b""))
    return error


def assert_cuts_do_not_matter(data: bytes) -> None:
    whole = plain(read([data]))
    assert plain(read(data[i : i + 1] for i in range(len(data)))) == whole
    for i in range(1, len(data)):
        assert plain(read([data[:i], data[i:]])) == whole, i


# Vectors.


@pytest.mark.parametrize("vector", vectors("valid"))
def test_valid(vector: dict[str, Any]) -> None:
    data = vector["request"].encode("latin-1")
    events, error, rest = read([data])
    assert error is None
    assert len(events) == len(vector["expect"])
    for event, expected in zip(events, vector["expect"], strict=True):
        for name, value in expected.items():
            if name == "headers":
                value = [tuple(pair) for pair in value]
            elif name == "body":
                value = value.encode("latin-1")
            assert getattr(event, name) == value, name
    assert rest == vector.get("rest", "").encode("latin-1")
    assert_cuts_do_not_matter(data)


@pytest.mark.parametrize("vector", vectors("invalid"))
def test_invalid(vector: dict[str, Any]) -> None:
    """Refused; and what stands behind it is never taken for a request, now or later."""
    data = vector["request"].encode("latin-1") + SMUGGLED
    codec = HttpCodec()
    events, error, _ = read([data], codec)
    assert events == []
    assert error is not None
    assert error.status == vector["status"]
    assert vector["reason"] in error.reason
    codec.receive(SMUGGLED)
    with pytest.raises(HttpError) as again:
        codec.next_event()
    assert (again.value.status, again.value.reason) == (error.status, error.reason)
    assert codec.buffered() == 0
    assert not codec.is_idle()
    assert_cuts_do_not_matter(data)


def test_an_invalid_second_request_leaves_the_first() -> None:
    data = b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\n\r\n"
    events, error, _ = read([data])
    assert [event.target for event in events] == ["/1"]
    assert error is not None
    assert error.reason == "no Host field"


# Limits: the limit passes, one more byte does not, and the refusal does not wait for the rest.

START = b"GET / HTTP/1.1\r\nHost: a\r\n"


@pytest.mark.parametrize("limit", [20, 8192])
def test_request_line_limit(limit: int) -> None:
    line = b"GET /%b HTTP/1.1" % (b"x" * (limit - 14))
    assert len(line) == limit
    assert len(one(line + b"\r\nHost: a\r\n\r\n", line_limit=limit).target) == limit - 13
    error = refusal(b"x" + line + b"\r\nHost: a\r\n\r\n", line_limit=limit)
    assert error.status == 414
    assert str(limit) in error.reason
    assert refusal(b"G" * (limit + 1), line_limit=limit).status == 414


@pytest.mark.parametrize("limit", [20, 8192])
def test_field_limit(limit: int) -> None:
    field = b"X: %b" % (b"x" * (limit - 3))
    one(START + field + b"\r\n\r\n", field_limit=limit)
    assert refusal(START + field + b"x\r\n\r\n", field_limit=limit).status == 431
    assert refusal(START + field + b"x", field_limit=limit).status == 431  # before its end is there


def test_head_limit() -> None:
    head = START + b"".join(b"X%d: %b\r\n" % (i, b"x" * 4000) for i in range(4))
    full = head + b"Y: %b\r\n" % (b"y" * (16384 - len(head) - 5))
    assert len(full) == 16384 + 0
    one(full + b"\r\n")
    longer = head + b"Y: %b\r\n" % (b"y" * (16384 - len(head) - 5 + 1))
    assert refusal(longer + b"\r\n").status == 431
    # It acts on the bytes that are there, without an end in sight.
    assert refusal(head + b"Y: " + b"y" * 1000).status == 431
    codec = HttpCodec()
    codec.receive(START + b"X: y\r\n" * 5000)
    with pytest.raises(HttpError):
        codec.next_event()


def test_head_limit_below_the_line_limit() -> None:
    assert refusal(b"GET /" + b"x" * 200 + b" HTTP/1.1\r\nHost: a\r\n\r\n", head_limit=100).status == 431


@pytest.mark.parametrize("limit", [5, 100])
def test_field_count_limit(limit: int) -> None:
    fields = b"".join(b"X%d: y\r\n" % i for i in range(limit - 1))
    assert len(one(START + fields + b"\r\n", field_count_limit=limit).headers) == limit
    error = refusal(START + fields + b"Y: z\r\n\r\n", field_count_limit=limit)
    assert (error.status, str(limit) in error.reason) == (431, True)


@pytest.mark.parametrize("limit", [0, 10, 1 << 20])
def test_body_limit(limit: int) -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
    assert len(one(head % limit + b"x" * limit, body_limit=limit).body) == limit
    codec = HttpCodec(body_limit=limit)
    codec.receive(head % (limit + 1))  # refused for its announcement, without a byte of it
    with pytest.raises(HttpError) as error:
        codec.next_event()
    assert error.value.status == 413


@pytest.mark.parametrize("limit", [10, 1 << 20])
def test_body_limit_of_chunks(limit: int) -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    half = chunk(b"x" * (limit // 2))
    assert len(one(head + half + half + LAST_CHUNK, body_limit=limit).body) == limit
    codec = HttpCodec(body_limit=limit)
    codec.receive(head + half + half + b"1\r\n")
    with pytest.raises(HttpError) as error:
        codec.next_event()
    assert error.value.status == 413


CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_chunk_extension_limit() -> None:
    line = b"2;" + b"e" * 256
    assert one(CHUNKED + line + b"\r\nhi\r\n0\r\n\r\n").body == b"hi"
    assert refusal(CHUNKED + line + b"e\r\nhi\r\n0\r\n\r\n").status == 400
    longest = b"0" * 15 + b"2;" + b"e" * 256
    assert one(CHUNKED + longest + b"\r\nhi\r\n0\r\n\r\n").body == b"hi"
    assert refusal(CHUNKED + b"2" * 275).status == 400  # without a line end


def test_trailer_limits() -> None:
    last = CHUNKED + b"0\r\n"
    block = b"X: %b\r\n" % (b"x" * 4000) + b"Y: %b\r\n" % (b"y" * 4000)
    full = block + b"Z: %b\r\n" % (b"z" * (8192 - len(block) - 5))
    one(last + full + b"\r\n")
    assert refusal(last + block + b"Z: " + b"z" * (8192 - len(block) - 2)).status == 431
    one(last + b"X: y\r\n" * 5 + b"\r\n", field_count_limit=5)
    assert refusal(last + b"X: y\r\n" * 6 + b"\r\n", field_count_limit=5).status == 431


# What is read when.


def test_one_request_ahead() -> None:
    codec = HttpCodec()
    request = b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n"
    codec.receive(request % 1 + request % 2)
    first = codec.next_event()
    assert isinstance(first, ParsedRequest)
    assert first.target == "/1"
    assert codec.buffered() == len(request % 2)
    assert not codec.is_idle()
    second = codec.next_event()
    assert isinstance(second, ParsedRequest)
    assert second.target == "/2"
    assert codec.is_idle()
    assert codec.next_event() is None


def test_idle() -> None:
    codec = HttpCodec()
    assert codec.is_idle()
    codec.receive(b"G")
    assert not codec.is_idle()
    codec.receive(b"ET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n")
    assert codec.next_event() is None
    assert codec.buffered() == 0
    assert not codec.is_idle()  # in the middle of a request, although nothing is buffered
    codec.receive(b"x")
    assert codec.next_event() is not None
    assert codec.is_idle()
    codec.receive(b"\r\n")  # the empty line some clients send behind a body is no request
    assert codec.next_event() is None
    assert codec.is_idle()


def test_take_rest_starts_afresh() -> None:
    codec = HttpCodec()
    codec.receive(b"GET / HT")
    assert codec.next_event() is None
    assert codec.take_rest() == b"GET / HT"
    assert codec.buffered() == 0
    assert codec.take_rest() == b""
    codec.receive(b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n")
    request = codec.next_event()
    assert isinstance(request, ParsedRequest)
    assert request.target == "/next"


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_receive_takes_any_bytes(kind: Any) -> None:
    codec = HttpCodec()
    data = bytearray(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    codec.receive(kind(data))
    data[:] = bytes(len(data))  # the receive buffer is used again
    assert codec.next_event() is not None


EXPECTING = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\n"


@pytest.mark.parametrize(
    ("framing", "body"),
    [(b"Content-Length: 2\r\n", b"hi"), (b"Transfer-Encoding: chunked\r\n", b"2\r\nhi\r\n0\r\n\r\n")],
)
def test_continue(framing: bytes, body: bytes) -> None:
    codec = HttpCodec()
    codec.receive(EXPECTING + framing + b"\r\n")
    assert codec.next_event() == CONTINUE == 100
    assert codec.next_event() is None  # once
    codec.receive(body)
    request = codec.next_event()
    assert isinstance(request, ParsedRequest)
    assert request.body == b"hi"
    # The next request is not expected to expect.
    codec.receive(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n")
    assert codec.next_event() is None


def test_no_continue_for_a_body_that_is_on_its_way() -> None:
    codec = HttpCodec()
    codec.receive(EXPECTING + b"Content-Length: 2\r\n\r\nh")
    assert codec.next_event() is None
    codec.receive(b"i")
    assert isinstance(codec.next_event(), ParsedRequest)


def test_no_continue_without_a_body() -> None:
    assert isinstance(one(EXPECTING + b"\r\n"), ParsedRequest)
    assert isinstance(one(EXPECTING + b"Content-Length: 0\r\n\r\n"), ParsedRequest)


def test_no_continue_for_a_body_that_is_refused() -> None:
    assert refusal(EXPECTING + b"Content-Length: 3\r\n\r\n", body_limit=2).status == 413


# Work must be linear in the bytes. Quadratic work would grow 16-fold here, linear work 4-fold.


def seconds(pieces: list[bytes], **limits: int) -> float:
    best = float("inf")
    for _ in range(3):
        codec = HttpCodec(**limits)
        start = time.process_time()
        for piece in pieces:
            codec.receive(piece)
            codec.next_event()
        best = min(best, time.process_time() - start)
    return best


def single(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda n: single(b"GET /" + b"x" * n), id="request line"),
        pytest.param(lambda n: single(b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * (n // 6)), id="many fields"),
        pytest.param(lambda n: single(CHUNKED + chunk(b"x") * (n // 6)), id="small chunks"),
        pytest.param(lambda n: [CHUNKED + chunk(b"x") * n], id="small chunks at once"),
        pytest.param(lambda n: single(CHUNKED + chunk(b"x" * n)), id="a chunk"),
        pytest.param(
            lambda n: single(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % n + b"x" * n),
            id="a body",
        ),
    ],
)
def test_linear_time(make: Any) -> None:
    limits = {
        "line_limit": 1 << 24,
        "field_limit": 1 << 24,
        "head_limit": 1 << 24,
        "field_count_limit": 1 << 24,
    }
    n = 60_000
    assert seconds(make(4 * n), **limits) < 9 * seconds(make(n), **limits) + 0.05


def test_small_chunks_cost_hardly_more_than_a_plain_body() -> None:
    """One read of a gateway may hold 43,000 of them; they took a hundred times as long."""
    body = b"x" * 43_000

    def seconds(fields: bytes, data: bytes) -> float:
        best = 1.0
        for _ in range(5):
            codec = HttpCodec()
            codec.receive(b"POST / HTTP/1.1\r\nHost: a\r\n%b\r\n\r\n" % fields)
            assert codec.next_event() is None
            began = time.process_time()
            codec.receive(data)
            request = codec.next_event()
            best = min(best, time.process_time() - began)
            assert isinstance(request, ParsedRequest)
            assert request.body == b"x" * (len(request.body))
        return best

    plain = seconds(b"Content-Length: 258000", body * 6)
    for chunk_of_one in (b"1\r\nx\r\n", b"1;a\r\nx\r\n", b'01;a=b;c="d"\r\nx\r\n'):
        chunked = seconds(b"Transfer-Encoding: chunked", chunk_of_one * 43_000 + LAST_CHUNK)
        assert chunked < 30 * plain + 0.001, (chunked, plain)
