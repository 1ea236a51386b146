"""Compressed answers: which, in which coding, and what the client is told about it."""

import itertools
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import pytest

from mooring.app.compress import LARGEST, Coding, Compressor, choose, codings, is_text
from mooring.app.request import Request
from mooring.app.request_record import RequestRecord
from mooring.app.response import Response

GZIP, BR, ZSTD = (Coding(name, lambda data: zlib.compress(data, 1, wbits=31)) for name in ("gzip", "br", "zstd"))
TEXT = "compressible " * 1000


class Answer:
    """What a handler's response sends, taken apart; `text` is the body, decompressed."""

    def __init__(self, act: Any, accepted: str | None = "gzip", method: str = "GET", least: int = 1000) -> None:
        headers = [("accept-encoding", accepted)] if accepted is not None else []
        record = RequestRecord(method, "/", 1, headers, "::1", 1, 2, "http", 0.0, 1)
        self.raw = b""
        response = Response(Request(1, record), self.send, compressor=Compressor(least, [GZIP]))
        act(response)
        head, _, self.body = self.raw.partition(b"\r\n\r\n")
        self.lines = head.decode().split("\r\n")
        self.status = int(self.lines[0].split()[1])
        self.fields = {name.lower(): value for name, value in (line.split(": ", 1) for line in self.lines[1:])}

    def send(self, data: bytes, last: bool, close: bool) -> bool:
        self.raw += data
        return True

    @property
    def encoded(self) -> bool:
        """Whether it is compressed; checks that everything fits together."""
        if "transfer-encoding" not in self.fields and self.status == 200 and self.body:
            assert self.fields["content-length"] == str(len(self.body))
        return self.fields.get("content-encoding") == "gzip" and self.body[:2] == b"\x1f\x8b"


# ------------------------------------------------------------------ which coding


@pytest.mark.parametrize(
    ("accepted", "name"),
    [
        ("gzip", "gzip"),
        ("GZIP", "gzip"),
        ("x-gzip", "gzip"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("br, gzip", "br"),
        ("br;q=0.5, gzip", "gzip"),
        ("br;q=0.5,gzip;Q=0.501", "gzip"),
        ("br ; q=1.000\t,\tgzip", "br"),
        ("*", "zstd"),
        ("*;q=0.1, gzip;q=0.2", "gzip"),
        ("zstd;q=0, *", "br"),
        ("gzip;q=0", None),
        ("gzip;q=0.000", None),
        ("*;q=0", None),
        ("", None),
        (",,", None),
        ("identity", None),
        ("identity, gzip;q=0.5", None),
        ("identity;q=0.5, gzip", "gzip"),
        ("identity;q=0", None),
        ("deflate, compress", None),
        ("gzip;q=2", None),
        ("gzip;q=-1", None),
        ("gzip;q=0.0001", None),
        ("gzip;q=nan", None),
        ("gzip;x=1", None),
        ("gzip br", None),
        ("gzip, gzip;q=0", "gzip"),
        ("a," * 40 + "gzip", None),
    ],
)
def test_choice(accepted: str, name: str | None) -> None:
    chosen = choose(accepted, [ZSTD, BR, GZIP])
    assert (chosen.name if chosen is not None else None) == name


@pytest.mark.parametrize(
    "accepted", ["gzip" + " " * 100_000 + "!", " " * 100_000, "gzip;" + " " * 100_000, ",;" * 50_000]
)
def test_choice_takes_linear_time(accepted: str) -> None:
    start = time.process_time()
    choose(accepted, [GZIP])
    assert time.process_time() - start < 0.1


def test_choice_among_none() -> None:
    assert choose("*", []) is None


def test_what_the_libraries_make() -> None:
    brotli = pytest.importorskip("brotli")
    zstd = pytest.importorskip("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
    made = {coding.name: coding.encode(TEXT.encode()) for coding in codings()}
    assert list(made) == ["zstd", "br", "gzip"]
    assert zstd.decompress(made["zstd"]) == brotli.decompress(made["br"]) == TEXT.encode()
    assert zlib.decompress(made["gzip"], wbits=31) == TEXT.encode()


def test_without_the_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr("mooring.app.compress.import_module", missing)
    assert [coding.name for coding in codings()] == ["gzip"]


# ------------------------------------------------------------------ which answers


def test_a_text_is_compressed() -> None:
    answer = Answer(lambda r: r.end(TEXT))
    assert answer.encoded
    assert zlib.decompress(answer.body, wbits=31) == TEXT.encode()
    assert answer.fields["vary"] == "Accept-Encoding"
    assert answer.fields["content-type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize("accepted", [None, "", "identity", "br", "gzip;q=0"])
def test_not_for_who_does_not_accept_it(accepted: str | None) -> None:
    answer = Answer(lambda r: r.end(TEXT), accepted)
    assert not answer.encoded
    assert (answer.body, answer.fields["vary"]) == (TEXT.encode(), "Accept-Encoding")


def test_json() -> None:
    assert Answer(lambda r: r.json([TEXT])).encoded


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("text/html", True),
        ("TEXT/HTML ; charset=x", True),
        ("image/svg+xml", True),
        ("application/problem+json", True),
        ("application/javascript", True),
        ("text/event-stream", False),
        ("image/png", False),
        ("application/octet-stream", False),
        ("application/gzip", False),
        ("", False),
        ("textual", False),
    ],
)
def test_types(kind: str, text: bool) -> None:
    assert is_text(kind) is text
    if kind:
        answer = Answer(lambda r: (r.header("content-type", kind), r.end(TEXT.encode())))
        assert answer.encoded is text
        assert ("vary" in answer.fields) is text


@pytest.mark.parametrize(("size", "done"), [(999, False), (1000, True), (LARGEST, True), (LARGEST + 1, False)])
def test_sizes(size: int, done: bool) -> None:
    answer = Answer(lambda r: r.end("a" * size))
    assert answer.encoded is done
    assert ("vary" in answer.fields) is done


def test_what_does_not_get_smaller_stays() -> None:
    answer = Answer(lambda r: r.end("a"), least=1)
    assert (answer.encoded, answer.body, answer.fields["vary"]) == (False, b"a", "Accept-Encoding")


@pytest.mark.parametrize(
    "act",
    [
        lambda r: r.header("Content-Encoding", "br"),
        lambda r: r.header("Cache-Control", "public, No-Transform"),
        lambda r: r.header("Content-Range", "bytes 0-1/2"),
        lambda r: r.cookie("session", "secret"),
        lambda r: r.status(206),
    ],
)
def test_answers_that_are_left_as_they_are(act: Any) -> None:
    answer = Answer(lambda r: (act(r), r.end(TEXT)))
    assert answer.body == TEXT.encode()
    assert "vary" not in answer.fields


def test_parts_are_left_as_they_are() -> None:
    answer = Answer(lambda r: (r.write(TEXT), r.end(TEXT)))
    assert "content-encoding" not in answer.fields
    assert TEXT.encode() in answer.body


@pytest.mark.parametrize("status", [204, 205, 304])
def test_answers_without_a_body(status: int) -> None:
    answer = Answer(lambda r: (r.status(status), r.end(TEXT)))
    assert answer.body == b""
    assert "content-encoding" not in answer.fields


def test_head_is_told_what_get_would_be() -> None:
    get, head = (Answer(lambda r: r.end(TEXT), method=method) for method in ("GET", "HEAD"))
    assert head.body == b""
    assert set(head.lines) - set(get.lines) <= {line for line in head.lines if line.startswith("Date")}


@pytest.mark.parametrize(
    ("set_before", "vary"),
    [("Cookie", ["Cookie", "Accept-Encoding"]), ("cookie, accept-encoding", ["cookie, accept-encoding"]), ("*", ["*"])],
)
def test_vary_is_kept(set_before: str, vary: list[str]) -> None:
    answer = Answer(lambda r: (r.header("Vary", set_before), r.end(TEXT)))
    assert [line.split(": ")[1] for line in answer.lines if line.startswith("Vary")] == vary


@pytest.mark.parametrize(("tag", "sent"), [('"x"', 'W/"x"'), ('W/"x"', 'W/"x"')])
def test_tags_become_weak(tag: str, sent: str) -> None:
    assert Answer(lambda r: (r.header("ETag", tag), r.end(TEXT))).fields["etag"] == sent
    assert Answer(lambda r: (r.header("ETag", tag), r.end(TEXT)), "br").fields["etag"] == tag


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text(TEXT)

    def act(r: Response) -> None:
        r.send_file(path)

    answer = Answer(act)
    assert answer.encoded
    assert answer.fields["etag"].startswith('W/"')
    head = Answer(act, method="HEAD")
    assert (head.fields["vary"], "content-length" in head.fields) == ("Accept-Encoding", False)
    path.rename(tmp_path / "a.png")
    path = tmp_path / "a.png"
    assert not Answer(act).encoded


def test_a_compressed_file_asked_for_again(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text(TEXT)
    tag = Answer(lambda r: r.send_file(path)).fields["etag"]
    for name, status in (("if-none-match", 304), ("if-match", 412)):
        record = RequestRecord("GET", "/", 1, [(name, tag), ("accept-encoding", "gzip")], "::1", 1, 2, "http", 0.0, 1)
        sent: list[bytes] = []

        def send(data: bytes, *_: bool, sent: list[bytes] = sent) -> bool:
            sent.append(data)
            return True

        Response(Request(1, record), send, compressor=Compressor(1, [GZIP])).send_file(path)
        assert sent[0].startswith(b"HTTP/1.1 %d " % status)
        assert (b"Vary: Accept-Encoding" in sent[0]) is (status == 304)


def test_a_range_of_a_file_is_not_compressed(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text(TEXT)
    headers = [("range", "bytes=0-4999"), ("accept-encoding", "gzip")]
    record = RequestRecord("GET", "/", 1, headers, "::1", 1, 2, "http", 0.0, 1)
    sent: list[bytes] = []
    response = Response(Request(1, record), lambda d, *_: sent.append(d) is None, compressor=Compressor(1, [GZIP]))
    response.send_file(path)
    assert sent[0].endswith(TEXT[:5000].encode())
    assert b"Content-Encoding" not in sent[0]


def test_errors_are_bodies_like_others() -> None:
    names = itertools.count()
    answer = Answer(lambda r: r._fail(f"{next(names)}" * 2000))
    assert (answer.status, answer.encoded) == (500, True)
