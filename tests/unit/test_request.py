"""Requests: the way from gateway to worker and back, and what a handler reads of one."""

import struct
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mooring.app.request import QUERY_FIELD_LIMIT, Request, decode_request
from mooring.app.request_record import RequestRecord, encode_request
from mooring.errors import BadRequest


def record(target: str = "/", headers: list[tuple[str, str]] | None = None, **changes: Any) -> RequestRecord:
    fields: dict[str, Any] = {
        "method": "GET",
        "target": target,
        "minor": 1,
        "headers": headers or [],
        "remote_ip": "192.0.2.7",
        "remote_port": 50123,
        "server_port": 9501,
        "scheme": "http",
        "received": 1234.5,
        "number": 1,
    }
    return RequestRecord(**{**fields, **changes})


def request(target: str = "/", headers: list[tuple[str, str]] | None = None, body: bytes = b"") -> Request:
    return Request(7, record(target, headers), body)


# ------------------------------------------------------------------ between the processes


def test_round_trip() -> None:
    sent = record("/a?b=c", [("host", "a"), ("x", "é"), ("x", "")], method="POST", minor=0, number=3)
    got = decode_request(99, encode_request(sent, b"\x00body\xff"))
    assert (got.fd, got.body) == (99, b"\x00body\xff")
    assert got._record == sent
    assert (got.method, got.target, got.http_version, got.number) == ("POST", "/a?b=c", "1.0", 3)
    assert (got.remote_ip, got.remote_port, got.server_port) == ("192.0.2.7", 50123, 9501)
    assert (got.scheme, got.received) == ("http", 1234.5)
    assert got.headers.raw == [("host", "a"), ("x", "é"), ("x", "")]


@settings(max_examples=100)
@given(
    headers=st.lists(st.tuples(st.text(max_size=5), st.text(max_size=20)), max_size=5),
    target=st.text(max_size=30),
    body=st.binary(max_size=100),
)
def test_round_trip_of_anything(headers: list[tuple[str, str]], target: str, body: bytes) -> None:
    sent = record(target, headers)
    got = decode_request(1, encode_request(sent, body))
    assert (got._record, got.body) == (sent, body)


def test_every_cut_payload_is_refused() -> None:
    whole = encode_request(record("/path", [("host", "a")]), b"")
    for end in range(len(whole)):
        with pytest.raises(ValueError):
            decode_request(1, whole[:end])


def test_a_head_that_is_shorter_than_announced_is_refused() -> None:
    head = encode_request(record(), b"")[4:]
    with pytest.raises(ValueError, match="ends at byte"):
        decode_request(1, struct.pack("<I", len(head) + 1) + head)


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xff\xff\xff\xff", id="a length of 4 GiB"),
        pytest.param(struct.pack("<I", 3) + b"\xc1\xc1\xc1", id="no msgpack"),
        pytest.param(struct.pack("<I", 1) + b"\xc0", id="nil"),
        pytest.param(struct.pack("<I", 1) + b"\x90", id="no fields"),
        pytest.param(struct.pack("<I", 2) + b"\x80\x00", id="a map"),
    ],
)
def test_garbage_is_refused(payload: bytes) -> None:
    with pytest.raises(ValueError):
        decode_request(1, payload)


def test_fields_of_the_wrong_type_are_refused() -> None:
    values = list(msgspec.structs.astuple(record()))
    for index in range(len(values)):
        head = msgspec.msgpack.encode([*values[:index], {"wrong": 1}, *values[index + 1 :]])
        with pytest.raises(ValueError, match="decoded"):
            decode_request(1, struct.pack("<I", len(head)) + head)


def test_fields_that_a_newer_gateway_appends_are_skipped() -> None:
    head = msgspec.msgpack.encode([*msgspec.structs.astuple(record("/new")), "later"])
    assert decode_request(1, struct.pack("<I", len(head)) + head + b"body").target == "/new"


# ------------------------------------------------------------------ path and query


@pytest.mark.parametrize(
    ("target", "path", "query_string"),
    [
        ("/", "/", ""),
        ("/a/b?c=d", "/a/b", "c=d"),
        ("/a?", "/a", ""),
        ("/a?b?c", "/a", "b?c"),
        ("/%C3%A9%20x", "/é x", ""),
        ("/%ff", "/\ufffd", ""),
        ("/a%3Fb?c", "/a?b", "c"),
        ("/a%2Fb", "/a/b", ""),
        ("/%2e%2e//x/../y", "/..//x/../y", ""),
        ("/%zz%", "/%zz%", ""),
        ("/+", "/+", ""),
        ("*", "*", ""),
    ],
)
def test_path(target: str, path: str, query_string: str) -> None:
    got = request(target)
    assert (got.path, got.query_string, got.target) == (path, query_string, target)
    assert got.path is got.path  # decoded once


@pytest.mark.parametrize(
    ("query_string", "fields"),
    [
        ("", {}),
        ("a=1", {"a": ["1"]}),
        ("a=1&b=2&a=3", {"a": ["1", "3"], "b": ["2"]}),
        ("a=&b", {"a": [""], "b": [""]}),
        ("a=b=c", {"a": ["b=c"]}),
        ("%C3%A9=%20+x", {"é": ["  x"]}),
        ("a=%ff", {"a": ["\ufffd"]}),
        ("a;b=1", {"a;b": ["1"]}),  # a semicolon separates nothing (web cache poisoning, CVE-2021-23336)
        ("&&", {}),
    ],
)
def test_query(query_string: str, fields: dict[str, list[str]]) -> None:
    got = request("/?" + query_string)
    assert got.query_list == fields
    assert got.query == {name: values[-1] for name, values in fields.items()}


def test_query_field_limit() -> None:
    assert len(request("/?" + "&".join(f"f{i}" for i in range(QUERY_FIELD_LIMIT))).query) == QUERY_FIELD_LIMIT
    many = request("/?" + "&".join(f"f{i}" for i in range(QUERY_FIELD_LIMIT + 1)))
    for _ in range(2):
        with pytest.raises(ValueError, match=str(QUERY_FIELD_LIMIT)):
            _ = many.query
        with pytest.raises(ValueError, match=str(QUERY_FIELD_LIMIT)):
            _ = many.query_list
    assert many.query_string.count("&") == QUERY_FIELD_LIMIT


# ------------------------------------------------------------------ header fields


def test_headers() -> None:
    got = request(headers=[("host", "a"), ("accept", "x"), ("accept", "y")])
    assert got.headers["Host"] == "a"
    assert got.headers["ACCEPT"] == "x, y"
    assert got.headers.get("missing") is None
    assert got.headers is got.headers


@pytest.mark.parametrize(
    ("fields", "cookies"),
    [
        ([], {}),
        (["a=1"], {"a": "1"}),
        (["a=1; b=2"], {"a": "1", "b": "2"}),
        (["a=1", "b=2"], {"a": "1", "b": "2"}),
        (["a=1;b=2;;"], {"a": "1", "b": "2"}),
        (["a=first; a=second"], {"a": "first"}),
        (['a="quoted"'], {"a": "quoted"}),
        (['a="'], {"a": '"'}),
        (['a=""'], {"a": ""}),
        (["a=b=c"], {"a": "b=c"}),
        (["a= 1 "], {"a": "1"}),
        (["a=%20"], {"a": "%20"}),
        ([r'a="\073"'], {"a": r"\073"}),  # as they came: no octal escapes
        (["no value; =no name; ok=1"], {"ok": "1"}),
    ],
)
def test_cookies(fields: list[str], cookies: dict[str, str]) -> None:
    assert request(headers=[("cookie", field) for field in fields]).cookies == cookies


@pytest.mark.parametrize(
    ("fields", "names"),
    [([], []), (["a"], ["a"]), (["a, b,c"], ["a", "b", "c"]), (["b", "a"], ["b", "a"]), ([" , ,a,"], ["a"])],
)
def test_subprotocols(fields: list[str], names: list[str]) -> None:
    assert request(headers=[("sec-websocket-protocol", field) for field in fields]).subprotocols == names


# ------------------------------------------------------------------ body


@pytest.mark.parametrize(
    ("content_type", "body", "text"),
    [
        (None, "é".encode(), "é"),
        ("text/plain", "é".encode(), "é"),
        ("text/plain; charset=utf-8", "é".encode(), "é"),
        ("text/plain; charset=UTF8", "é".encode(), "é"),
        ('text/plain;charset="iso-8859-1"', b"\xe9", "é"),
        ("text/plain; x=y; Charset = latin-1", b"\xe9", "é"),
        ("text/plain; charset=windows-1252", b"\x80", "€"),
        ("text/plain; charset=us-ascii", b"e", "e"),
        ("text/plain; xcharset=latin-1", "é".encode(), "é"),
    ],
)
def test_text(content_type: str | None, body: bytes, text: str) -> None:
    headers = [("content-type", content_type)] if content_type else []
    assert request(headers=headers, body=body).text() == text


@pytest.mark.parametrize("charset", ["idna", "punycode", "rot13", "unicode_escape", "utf-7", "utf-16", "nope"])
def test_text_of_other_charsets(charset: str) -> None:
    """Python knows some that take quadratic time, or are no charsets at all."""
    with pytest.raises(BadRequest, match=charset) as raised:
        request(headers=[("content-type", f"text/plain; charset={charset}")], body=b"x").text()
    assert raised.value.status == 415


def test_the_name_of_a_charset_is_told_in_part() -> None:
    with pytest.raises(BadRequest) as raised:
        request(headers=[("content-type", "text/plain; charset=" + "x" * 8000)], body=b"x").text()
    assert len(str(raised.value)) < 200


def test_text_that_is_none() -> None:
    """It is the client's fault, and the error that says where still is one of Python's."""
    with pytest.raises(UnicodeDecodeError) as raised:
        request(body=b"ok\xff").text()
    error = raised.value
    assert isinstance(error, BadRequest)
    assert (error.status, error.start, error.object) == (400, 2, b"ok\xff")
    assert str(error) == f"400: {error.reason}" == "400: the body is not text in utf-8"
    with pytest.raises(UnicodeDecodeError):
        request(headers=[("content-type", "text/plain; charset=ascii")], body="é".encode()).text()


def test_json_of_a_type() -> None:
    assert request(body=b"[1, 2]").json(list[int]) == [1, 2]
    assert request(body=b'{"a": 1}').json(dict[str, float]) == {"a": 1.0}
    with pytest.raises(BadRequest, match=r"400: the body is not what it should be: Expected `int`.* at `\$\[1\]`"):
        request(body=b'[1, "2"]').json(list[int])
    with pytest.raises(BadRequest, match="400: the body is not JSON: "):
        request(body=b"[1, ").json(list[int])
    with pytest.raises(BadRequest, match=r"^400: the body is not JSON: invalid character \(byte 0\)$"):
        request(body=b"x").json()
    with pytest.raises(TypeError, match="not supported"):
        request(body=b"[1]").json(5)


def test_json() -> None:
    assert request(body=b'{"a": [1, 2.5, null, "\\u00e9"]}').json() == {"a": [1, 2.5, None, "é"]}


BAD_JSON = [
    b"",
    b"{",
    b"nope",
    b"{'a': 1}",
    b"\xff",
    b'"\xff"',
    b"[1,]",
    b"1 2",
    b"NaN",
    b"9" * 5000,
    b"1e999",
    b'"\\ud800"',
]


@pytest.mark.parametrize("body", [*BAD_JSON, b"[" * 2000, b'{"a":' * 2000, b"[" * 100_000, b'{"a":' * 100_000])
def test_json_that_is_none(body: bytes) -> None:
    """Nor does one that is nested deeply end the process."""
    with pytest.raises(ValueError, match="JSON") as raised:
        request(body=body).json()
    assert isinstance(raised.value, BadRequest)
    assert raised.value.status == 400


def test_repr_names_what_and_who() -> None:
    assert repr(request("/a?b=c")) == "<Request GET '/a?b=c' fd=7>"


# Work must be linear in the bytes. Quadratic work would grow 16-fold here, linear work 4-fold.


@pytest.mark.parametrize(
    "read",
    [
        pytest.param(lambda n: request("/" + "%41" * n).path, id="path"),
        pytest.param(lambda n: request("/?" + "a" * n + "%41" * n).query, id="one query field"),
        pytest.param(lambda n: request(headers=[("cookie", '"\\' * n)]).cookies, id="cookie of quotes"),
        pytest.param(lambda n: request(headers=[("cookie", 'a="' + "\\" * n + '"')]).cookies, id="backslashes"),
        pytest.param(lambda n: request(headers=[("cookie", ";" * n)]).cookies, id="semicolons"),
        pytest.param(lambda n: request(headers=[("cookie", "a=b; " * n)]).cookies, id="many cookies"),
        pytest.param(lambda n: request(headers=[("content-type", "; charset" * n)]).text(), id="charset"),
        pytest.param(lambda n: request(headers=[("content-type", ";" + " " * n)]).text(), id="spaces"),
        pytest.param(lambda n: request(headers=[("content-type", "; charset" + " " * n)]).text(), id="more spaces"),
        pytest.param(lambda n: request(headers=[("sec-websocket-protocol", "," * n)]).subprotocols, id="commas"),
    ],
)
def test_linear_time(read: Any) -> None:
    def seconds(n: int) -> float:
        best = float("inf")
        for _ in range(3):
            start = time.process_time()
            read(n)
            best = min(best, time.process_time() - start)
        return best

    assert seconds(40_000) < 9 * seconds(10_000) + 0.02
