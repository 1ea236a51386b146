"""Requests: read the same however they are cut, and never where h11 or llhttp read something else."""

import tomllib
from collections.abc import Iterator

from fuzz.harness import HERE, pieces
from mooring._core.http import CONTINUE, HttpCodec
from mooring._core.http_request import HttpError
from support.http_oracle import assert_not_laxer, by_h11, by_llhttp, ours, reading, up_to_close

VECTORS = HERE.parent / "vectors" / "http"
SMALL = {"line_limit": 30, "field_limit": 20, "head_limit": 60, "field_count_limit": 3, "body_limit": 12}


def seeds() -> Iterator[bytes]:
    for file in sorted(VECTORS.glob("*valid/*.toml")):
        data = tomllib.loads(file.read_text())["request"].encode("latin-1")
        if len(data) < 2000:
            yield data


def at_limits(parts: list[bytes]) -> object:
    codec = HttpCodec(**SMALL)
    seen = []
    try:
        for part in parts:
            codec.receive(part)
            while (event := codec.next_event()) is not None:
                if event != CONTINUE:  # depends on timing, rightly
                    seen.append(reading(event))
    except HttpError as error:
        return seen, error.status, error.reason
    return seen, codec.gathered()


def one(data: bytes) -> None:
    whole, cut = ours([data]), ours(pieces(data))
    assert (list(map(reading, whole[0])), *whole[1:]) == (list(map(reading, cut[0])), *cut[1:])
    assert at_limits([data]) == at_limits(pieces(data))
    requests = up_to_close(whole[0])
    if requests:
        assert_not_laxer(requests, list(by_h11(data)), data)
        theirs, comparable = by_llhttp(data, len(requests))
        assert_not_laxer(requests[:comparable], theirs, data)
