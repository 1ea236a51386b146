"""What a head says. Heads that are refused: tests/vectors/http/invalid, see test_http.py."""

import pytest

from mooring._core.http import HttpCodec
from mooring._core.http_request import HttpError, ParsedRequest

START = b"GET / HTTP/1.1\r\nHost: a\r\n"


def asked(head: bytes) -> ParsedRequest:
    codec = HttpCodec()
    codec.receive(head)
    request = codec.next_event()
    assert isinstance(request, ParsedRequest)
    return request


def refused(head: bytes) -> HttpError:
    with pytest.raises(HttpError) as caught:
        asked(head)
    return caught.value


@pytest.mark.parametrize(
    ("version", "field", "stays"),
    [
        ("1.1", "", True),
        ("1.1", "Connection: close\r\n", False),
        ("1.1", "Connection: keep-alive\r\nConnection: Close\r\n", False),
        ("1.1", "Connection: upgrade\r\n", True),
        ("1.0", "", False),
        ("1.0", "Connection: x, Keep-Alive\r\n", True),
        ("1.0", "Connection: close, keep-alive\r\n", False),
    ],
)
def test_whether_the_connection_stays(version: str, field: str, stays: bool) -> None:
    assert asked(f"GET / HTTP/{version}\r\nHost: a\r\n{field}\r\n".encode()).keep_alive == stays


@pytest.mark.parametrize(
    ("line", "target"),
    [
        (b"GET /a?b HTTP/1.1", "/a?b"),
        (b"OPTIONS * HTTP/1.1", "*"),
        (b"GET HTTP://A/b?c HTTP/1.1", "/b?c"),
        (b"GET http://a HTTP/1.1", "/"),
        (b"GET http://a?b HTTP/1.1", "/?b"),
        (b"OPTIONS http://a HTTP/1.1", "*"),
    ],
)
def test_the_target_is_a_path(line: bytes, target: str) -> None:
    assert asked(line + b"\r\nHost: a\r\n\r\n").target == target


@pytest.mark.parametrize("name", ["Host", "Content-Length", "Transfer-Encoding"])
def test_a_field_that_may_be_there_once(name: str) -> None:
    field = f"{name}: {'chunked' if name[0] == 'T' else 1}\r\n".encode()
    assert refused(b"POST / HTTP/1.1\r\n" + 2 * field + b"\r\n").status == 400


@pytest.mark.parametrize(
    ("fields", "upgrade"),
    [
        (b"", False),
        (b"Upgrade: h2c\r\n", False),
        (b"Upgrade: h2c, WebSocket\r\n", True),
        (b"Upgrade: websocket\r\nUpgrade: h2c\r\n", True),
    ],
)
def test_whether_it_asks_for_a_websocket(fields: bytes, upgrade: bool) -> None:
    assert asked(START + fields + b"\r\n").upgrade == upgrade


@pytest.mark.parametrize("framing", [b"Content-Length: 1", b"Transfer-Encoding: chunked"])
def test_an_upgrade_has_no_body(framing: bytes) -> None:
    assert refused(START + b"Upgrade: websocket\r\n" + framing + b"\r\n\r\n").reason == "an upgrade request with a body"
    assert asked(START + b"Upgrade: websocket\r\nContent-Length: 0\r\n\r\n").upgrade


@pytest.mark.parametrize("length", ["9" * 19, "1" + "0" * 18, str(1 << 63)])
def test_a_length_beyond_all_limits(length: str) -> None:
    """19 digits, which are no signed number of 64 bits, are compared as they are."""
    assert refused(START + f"Content-Length: {length}\r\n\r\n".encode()).status == 413
    assert refused(START + f"Content-Length: 0{length}\r\n\r\n".encode()).status == 400


@pytest.mark.parametrize(("expect", "status"), [("100-continue", 0), (", 100-Continue", 0), ("100-continue, x", 417)])
def test_what_the_client_expects(expect: str, status: int) -> None:
    fields = f"Expect: {expect}\r\nContent-Length: 0\r\n\r\n".encode()
    if status:
        assert refused(START + fields).status == status
    else:
        asked(START + fields)
    asked(START.replace(b"1.1", b"1.0") + fields)  # which knows no Expect (RFC 9110 section 10.1.1)


def test_name_limit() -> None:
    asked(START + b"x" * 256 + b": y\r\n\r\n")
    assert refused(START + b"x" * 257 + b": y\r\n\r\n").status == 431


def test_error_text_names_the_status() -> None:
    assert str(refused(b"GET / HTTP/1.1\r\n\r\n")) == "400 no Host field"


def test_attributes_are_read_only() -> None:
    request = asked(START + b"\r\n")
    with pytest.raises(AttributeError):
        request.method = "POST"  # type: ignore[misc]
