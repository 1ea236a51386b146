"""Bodies in chunks: the same as one value, in parts while they arrive, and as h11 and llhttp read them."""

import tomllib
from collections.abc import Iterator

from fuzz.harness import pieces
from fuzz.targets.http_head import VECTORS
from mooring._core.http import CONTINUE, HttpCodec
from mooring._core.http_request import HttpError
from support.http_oracle import assert_not_laxer, by_h11, by_llhttp, ours, reading, up_to_close

HEAD = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
LIMIT = 64


def seeds() -> Iterator[bytes]:
    for file in sorted(VECTORS.glob("*valid/*.toml")):
        head, _, body = tomllib.loads(file.read_text())["request"].encode("latin-1").partition(b"\r\n\r\n")
        if b"chunked" in head.lower() and 0 < len(body) < 2000:
            yield body


def whole(parts: list[bytes]) -> tuple[bytes | None, object]:
    """The body, or None; and why there is none."""
    codec = HttpCodec(body_limit=LIMIT)
    try:
        for part in parts:
            codec.receive(part)
            event = codec.next_event()
            if event is not None and event != CONTINUE:
                return event.body, None
            assert codec.gathered() <= LIMIT + 9000  # trailers and a chunk's line at most
    except HttpError as error:
        return None, (error.status, error.reason)
    return None, None


def streamed(parts: list[bytes]) -> tuple[bytes | None, object]:
    """The same, as a body that comes in parts."""
    codec = HttpCodec(body_limit=LIMIT, stream_above=0)
    body, begun = b"", False
    try:
        for part in parts:
            codec.receive(part)
            if not begun:
                event = codec.next_event()
                if event is None or event == CONTINUE:
                    continue
                begun = True
                if not event.streamed:
                    return event.body, None
            while (part := codec.next_part()) is not None:
                if part == b"":
                    return body, None
                assert isinstance(part, bytes)
                body += part
                assert len(body) <= LIMIT
    except HttpError as error:
        return None, (error.status, error.reason)
    return None, None


def one(data: bytes) -> None:
    data = HEAD + data
    cut = pieces(data)
    said = whole([data])
    assert said == whole(cut)
    assert said == streamed(cut)
    assert said == streamed([data])
    read, _, _ = ours([data])
    assert list(map(reading, read)) == list(map(reading, ours(cut)[0]))
    requests = up_to_close(read)
    if requests:
        assert_not_laxer(requests, list(by_h11(data)), data)
        theirs, comparable = by_llhttp(data, len(requests))
        assert_not_laxer(requests[:comparable], theirs, data)
