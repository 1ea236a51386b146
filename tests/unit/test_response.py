"""Responses: what reaches the wire, as h11 reads it, and what a handler is told at once."""

import email.utils
import time
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import h11
import pytest

from mooring.app.request import Request
from mooring.app.request_record import RequestRecord
from mooring.app.response import Response
from mooring.errors import StateError

BAD_TEXT = ["a\rb", "a\nb", "a\r\nX: y", "a\0b", "a\x0bb", "a\x1bb", "a\x7fb", "a\u0100b", "a😀b", "\udcff"]


class Client:
    """One request and the response to it; h11 reads what was sent, as a client would."""

    def __init__(
        self,
        method: str = "GET",
        headers: list[tuple[str, str]] | None = None,
        *,
        minor: int = 1,
        number: int = 1,
        gone: bool = False,
        **options: Any,
    ) -> None:
        self.method = method
        self.minor = minor
        self.calls: list[tuple[bytes, bool, bool]] = []
        record = RequestRecord(method, "/", minor, headers or [], "::1", 1, 2, "http", 0.0, number)
        self.gone = gone
        self.response = Response(Request(1, record), self.send, **options)

    def send(self, data: bytes, last: bool, close: bool) -> bool:
        assert isinstance(data, bytes)
        assert not self.last, "something was sent behind the end of the answer"
        self.calls.append((data, last, close))
        return not self.gone

    @property
    def last(self) -> bool:
        return any(last for _, last, _ in self.calls)

    @property
    def closed(self) -> bool:
        return any(close for _, _, close in self.calls)

    @property
    def raw(self) -> bytes:
        return b"".join(data for data, _, _ in self.calls)

    def read(self) -> tuple[int, dict[str, str], bytes]:
        """(status, fields, body) of the whole answer."""
        connection = h11.Connection(h11.CLIENT)
        connection.send(h11.Request(method=self.method, target="/", headers=[("Host", "a")]))
        connection.send(h11.EndOfMessage())
        connection.receive_data(self.raw)
        head = connection.next_event()
        assert isinstance(head, h11.Response), head
        body = b""
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Data):
                body += bytes(event.data)
            elif event is h11.NEED_DATA:
                assert self.closed, "the answer has no end, and the connection is not closed"
                connection.receive_data(b"")
            else:
                break
        assert isinstance(event, h11.EndOfMessage), event
        assert connection.trailing_data[0] == b""
        names = [name.decode() for name, _ in head.headers]
        assert not {name for name in names if names.count(name) > 1} - {"set-cookie", "x"}
        return head.status_code, {n.decode(): v.decode("latin-1") for n, v in head.headers}, body

    @property
    def status(self) -> int:
        return self.read()[0]

    @property
    def fields(self) -> dict[str, str]:
        return self.read()[1]

    @property
    def body(self) -> bytes:
        return self.read()[2]

    def values(self, name: str) -> list[str]:
        """Every value of a field, in order."""
        head = self.raw.split(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]
        pairs = [line.split(": ", 1) for line in head]
        return [value for key, value in pairs if key.lower() == name.lower()]


def answer(act: Callable[[Response], Any], *args: Any, **options: Any) -> Client:
    client = Client(*args, **options)
    act(client.response)
    return client


# ------------------------------------------------------------------ the plain answer


def test_end() -> None:
    client = Client()
    assert not client.response.started
    assert client.response.end("hé") is True
    assert (client.response.started, client.response.ended) == (True, True)
    (call,) = client.calls
    assert call[1:] == (True, False)
    status, fields, body = client.read()
    assert (status, body) == (200, "hé".encode())
    assert fields["content-length"] == "3"
    assert fields["content-type"] == "text/plain; charset=utf-8"
    assert fields["server"] == "mooring"
    assert abs(email.utils.parsedate_to_datetime(fields["date"]).timestamp() - time.time()) < 5
    assert "connection" not in fields
    assert "transfer-encoding" not in fields


def test_end_of_bytes() -> None:
    fields = answer(lambda r: r.end(b"\xff\x00")).fields
    assert fields["content-type"] == "application/octet-stream"
    assert answer(lambda r: r.end(b"\xff\x00")).body == b"\xff\x00"
    for data in (bytearray(b"ab"), memoryview(b"ab"), memoryview(b"a.b.")[::2]):
        assert answer(lambda r, data=data: r.end(data)).body == b"ab"
        assert answer(lambda r, data=data: (r.write(data), r.end(data))).body == b"abab"


@pytest.mark.parametrize("data", [5, None, {"a": 1}, ["a"]])
def test_an_answer_is_made_of_text_or_bytes(data: Any) -> None:
    """Bytes of the number 5 would be five zeros."""
    with pytest.raises(TypeError, match=rf"str or bytes, not of {type(data).__name__}; json\(\) takes others"):
        answer(lambda r: r.end(data))
    with pytest.raises(TypeError, match="str or bytes"):
        answer(lambda r: r.write(data))


def test_texts_may_be_more_than_a_str() -> None:
    """A StrEnum, markup that is safe: what counts is its text."""

    class Text(str):
        __slots__ = ()
        __str__ = encode = None  # type: ignore[assignment]

    def act(r: Response) -> None:
        r.status(200, Text("Fine"))
        r.header(Text("X-One"), Text("1"))
        r.add_header(StrEnum("Name", [("TWO", "X-Two")]).TWO, Text("2"))
        r.end("")

    client = answer(act)
    assert (client.fields["x-one"], client.fields["x-two"]) == ("1", "2")
    with pytest.raises(TypeError, match="a pair of str, int is none"):
        answer(lambda r: (r.header("X", 5), r.end("")))


def test_end_of_nothing() -> None:
    client = answer(lambda r: r.end())
    assert client.fields["content-length"] == "0"
    assert "content-type" not in client.fields
    assert client.body == b""


def test_date_and_server_may_be_given() -> None:
    client = answer(lambda r: (r.header("date", "never"), r.header("SERVER", "mine"), r.end()))
    assert client.values("date") == ["never"]
    assert client.values("server") == ["mine"]
    assert answer(lambda r: r.end(), server_header=False).values("server") == []


@pytest.mark.parametrize("status", [200, 201, 206, 299, 301, 400, 404, 418, 426, 500, 503, 599])
def test_status(status: int) -> None:
    client = answer(lambda r: (r.status(status), r.end("x")))
    assert (client.status, client.body) == (status, b"x")


def test_reason() -> None:
    assert answer(lambda r: (r.status(404, "Gone fishing"), r.end())).raw.startswith(b"HTTP/1.1 404 Gone fishing\r\n")
    assert answer(lambda r: (r.status(404, "x"), r.status(200), r.end())).raw.startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("status", [-1, 0, 99, 100, 101, 199, 600, 1000])
def test_status_out_of_range(status: int) -> None:
    client = Client()
    with pytest.raises(ValueError, match="status"):
        client.response.status(status)
    client.response.end()
    assert client.status == 200


# ------------------------------------------------------------------ header fields


def test_header_replaces_and_add_header_adds() -> None:
    def act(r: Response) -> None:
        r.header("X", "1")
        r.add_header("x", "2")
        r.add_header("Y", "1")
        r.header("y", "2")
        r.header("Content-Type", "text/html")
        r.end("<p>")

    client = answer(act)
    assert client.values("x") == ["1", "2"]
    assert client.values("y") == ["2"]
    assert client.values("content-type") == ["text/html"]


@pytest.mark.parametrize("bad", BAD_TEXT)
def test_nothing_can_split_an_answer(bad: str) -> None:
    """Status reason, names, values, cookies and URLs: refused where they are given, and nothing is on the wire."""
    client = Client()
    r = client.response
    for call in (
        lambda: r.status(200, bad),
        lambda: r.header("X", bad),
        lambda: r.header(bad, "x"),
        lambda: r.add_header("X", bad),
        lambda: r.add_header(bad, "x"),
        lambda: r.header("Connection", bad),
        lambda: r.cookie("c", bad),
        lambda: r.cookie(bad, "c"),
        lambda: r.cookie("c", "v", path="/" + bad),
        lambda: r.cookie("c", "v", domain=bad),
        lambda: r.cookie("c", "v", same_site=bad),  # type: ignore[arg-type]
        lambda: r.redirect("/" + bad),
    ):
        with pytest.raises(ValueError):
            call()
    assert client.calls == []
    r.end("ok")
    assert set(client.fields) == {"content-type", "content-length", "date", "server"}


@pytest.mark.parametrize("name", ["Content-Length", "content-length", "Transfer-Encoding", "TRANSFER-ENCODING"])
def test_fields_that_delimit_are_the_servers(name: str) -> None:
    client = Client()
    for call in (client.response.header, client.response.add_header):
        with pytest.raises(ValueError, match="the server sets it"):
            call(name, "5")
    client.response.end("abc")
    assert client.values("content-length") == ["3"]


def test_connection_field() -> None:
    client = Client()
    for value in ("keep-alive", "Upgrade", "close, x"):
        with pytest.raises(ValueError, match="Connection"):
            client.response.header("connection", value)
    client.response.header("connection", "Close")
    client.response.end()
    assert client.values("connection") == ["close"]
    assert client.closed


def test_upgrade_is_listed_in_connection() -> None:
    client = answer(lambda r: (r.status(426), r.header("Upgrade", "websocket"), r.end()))
    assert client.values("connection") == ["Upgrade"]
    assert not client.closed


# ------------------------------------------------------------------ cookies


def cookie(*args: Any, **options: Any) -> str:
    (value,) = answer(lambda r: (r.cookie(*args, **options), r.end())).values("set-cookie")
    return value


def test_cookie_defaults_are_the_safe_ones() -> None:
    assert cookie("a", "b") == "a=b; Path=/; SameSite=Lax; HttpOnly"


def test_cookie_attributes() -> None:
    assert (
        cookie("a", "", max_age=60, path="/x", domain="example.org", secure=True, http_only=False, same_site="Strict")
        == "a=; Max-Age=60; Path=/x; Domain=example.org; SameSite=Strict; Secure"
    )
    assert cookie("a", "b", path=None, same_site=None, http_only=False) == "a=b"
    when = datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC)
    for expires in (when, when.timestamp()):
        assert "Expires=Sun, 06 Nov 1994 08:49:37 GMT" in cookie("a", "b", expires=expires)
    assert cookie("a", "b", same_site="None", secure=True) == "a=b; Path=/; SameSite=None; Secure; HttpOnly"
    every = "".join(chr(c) for c in range(0x21, 0x7F) if chr(c) not in '",;\\')
    assert cookie("a", every).startswith(f"a={every};")


def test_two_cookies() -> None:
    client = answer(lambda r: (r.cookie("a", "1"), r.cookie("b", "2"), r.end()))
    assert [value[:3] for value in client.values("set-cookie")] == ["a=1", "b=2"]


@pytest.mark.parametrize("value", [" ", "a b", '"', ",", ";", "\\", "é", "a;Path=/x", "\t"])
def test_cookie_value_refused(value: str) -> None:
    with pytest.raises(ValueError, match="percent-encode"):
        Client().response.cookie("a", value)


@pytest.mark.parametrize("name", ["", "a b", "a=b", "a;b", "é", '"a"', "a,b"])
def test_cookie_name_refused(name: str) -> None:
    with pytest.raises(ValueError, match="token"):
        Client().response.cookie(name, "x")


@pytest.mark.parametrize(
    "options",
    [
        {"path": "/;Domain=x"},
        {"domain": "a;Secure"},
        {"domain": "é.org"},
        {"same_site": "lax"},
        {"same_site": "None"},  # without secure
        {"expires": datetime(2030, 1, 1)},  # without a time zone
    ],
)
def test_cookie_attribute_refused(options: Any) -> None:
    client = Client()
    with pytest.raises(ValueError, match="cookie a"):
        client.response.cookie("a", "b", **options)
    client.response.end()
    assert client.values("set-cookie") == []


# ------------------------------------------------------------------ bodies in parts


def test_chunks() -> None:
    client = Client()
    r = client.response
    assert r.write("hé")
    assert (r.started, r.ended, client.last) == (True, False, False)
    assert client.raw.endswith(b"\r\n\r\n3\r\nh\xc3\xa9\r\n")
    r.write(b"")
    r.write(b"x" * 20)
    r.end("!")
    status, fields, body = client.read()
    assert (status, body) == (200, "hé".encode() + b"x" * 20 + b"!")
    assert fields["transfer-encoding"] == "chunked"
    assert "content-length" not in fields
    assert fields["content-type"] == "text/plain; charset=utf-8"
    assert [last for _, last, _ in client.calls] == [False, False, False, True]
    assert not client.closed


def test_an_empty_write_sends_the_head() -> None:
    client = Client()
    client.response.write("")
    assert client.raw.endswith(b"\r\n\r\n")
    client.response.end()
    assert client.body == b""


def test_http_1_0_gets_no_chunks() -> None:
    client = answer(lambda r: (r.write("a"), r.write("b"), r.end("c")), minor=0, headers=[("connection", "keep-alive")])
    assert client.values("transfer-encoding") == []
    assert client.values("connection") == ["close"]
    assert client.raw.endswith(b"\r\n\r\nabc")
    assert client.closed


@pytest.mark.parametrize("parts", [0, 1])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("minor", [0, 1])
@pytest.mark.parametrize("status", [200, 204, 205, 304, 404])
def test_bodies_that_must_not_be(status: int, minor: int, method: str, parts: int) -> None:
    """RFC 9110 sections 9.3.2, 15.3.5, 15.3.6, 15.4.5 and RFC 9112 section 6.3: left out without complaint."""
    client = Client(method, minor=minor, headers=[("connection", "keep-alive")])
    r = client.response
    r.status(status)
    for _ in range(parts):
        r.write("body")
    r.end("body")
    head, _, raw_body = client.raw.partition(b"\r\n\r\n")
    bodiless = method == "HEAD" or status in (204, 205, 304)
    assert (raw_body == b"") == bodiless
    assert client.status == status
    assert client.body == (b"" if bodiless else b"body" * (parts + 1))
    assert client.last
    fields = client.fields
    if status in (204, 304):
        assert not {"content-length", "transfer-encoding"} & set(fields)
    elif status == 205:
        assert fields["content-length"] == "0"
    elif parts == 0:
        assert fields["content-length"] == "4"  # to HEAD, too: what GET would get
    elif minor:
        assert fields["transfer-encoding"] == "chunked"
    assert head.count(b"HTTP/1.1") == 1
    # Only the end of the connection can end a body of unknown length for HTTP/1.0.
    assert client.closed == (minor == 0 and parts == 1 and not bodiless)


@pytest.mark.parametrize("data", [5, None, 1.5, ["a"], {"a": 1}, object(), "\udcff"])
@pytest.mark.parametrize("call", ["write", "end"])
def test_data_that_can_not_be_sent(call: str, data: Any) -> None:
    """Nothing is on the wire, and a 500 can still be given. (bytes(5) would be five zeros.)"""
    client = Client()
    with pytest.raises((TypeError, ValueError)):
        getattr(client.response, call)(data)
    assert client.calls == []
    assert not client.response.started
    client.response._fail("E1")
    assert client.status == 500


def test_data_that_can_not_be_sent_behind_a_part() -> None:
    client = Client()
    client.response.write("a")
    for call in (client.response.write, client.response.end):
        with pytest.raises(TypeError):
            call(5)  # type: ignore[arg-type]
    client.response.end("b")
    assert client.body == b"ab"


def test_a_connection_that_is_gone() -> None:
    client = Client(gone=True)
    assert not client.response.write("a")
    assert not client.response.write("b")
    assert client.response.end() is False
    assert Client(gone=True).response.end("a") is False


# ------------------------------------------------------------------ json and redirect


def test_json() -> None:
    client = answer(lambda r: r.json({"é": [1, None, 2.5]}))
    assert client.body == '{"é":[1,null,2.5]}'.encode()
    assert client.fields["content-type"] == "application/json"
    client = answer(lambda r: (r.header("content-type", "application/problem+json"), r.json([], 404)))
    assert (client.status, client.body, client.values("content-type")) == (404, b"[]", ["application/problem+json"])


def test_json_that_is_none() -> None:
    client = Client()
    with pytest.raises(TypeError):
        client.response.json({"a": object()})
    with pytest.raises(ValueError, match="status"):
        client.response.json({}, 99)
    assert client.calls == []
    client.response.end("still possible")
    assert client.fields["content-type"].startswith("text/plain")


def test_redirect() -> None:
    client = answer(lambda r: r.redirect("/a?b=%20#c"))
    assert (client.status, client.fields["location"], client.body) == (302, "/a?b=%20#c", b"")
    for status in (301, 302, 303, 307, 308):
        assert answer(lambda r, status=status: r.redirect("https://example.org/", status)).status == status


@pytest.mark.parametrize("url", ["", " ", "/a b", "/é", "/\t", "/\r\nX: y"])
def test_redirect_refuses_urls(url: str) -> None:
    client = Client()
    with pytest.raises(ValueError, match="redirect"):
        client.response.redirect(url)
    assert client.calls == []


@pytest.mark.parametrize("status", [200, 300, 304, 305, 400])
def test_redirect_refuses_status(status: int) -> None:
    with pytest.raises(ValueError, match="redirect"):
        Client().response.redirect("/", status)


# ------------------------------------------------------------------ order of calls


def test_calls_after_the_head() -> None:
    client = Client()
    r = client.response
    r.write("a")
    for call in (
        lambda: r.status(200),
        lambda: r.header("X", "y"),
        lambda: r.add_header("X", "y"),
        lambda: r.cookie("a", "b"),
        lambda: r.json({}),
        lambda: r.redirect("/"),
    ):
        with pytest.raises(StateError):
            call()
    r.end("b")
    assert client.body == b"ab"


def test_calls_after_the_end() -> None:
    client = Client()
    r = client.response
    r.end("a")
    for call in (lambda: r.write("b"), lambda: r.end("b"), lambda: r.status(200), lambda: r.json({})):
        with pytest.raises(StateError):
            call()
    assert len(client.calls) == 1


# ------------------------------------------------------------------ persistence


@pytest.mark.parametrize(
    ("minor", "connection", "keeps", "said"),
    [
        (1, None, True, []),
        (1, "keep-alive", True, []),
        (1, "close", False, ["close"]),
        (1, "Close, TE", False, ["close"]),
        (1, "keep-alive, close", False, ["close"]),
        (1, "closed", True, []),
        (0, None, False, ["close"]),
        (0, "keep-alive", True, ["keep-alive"]),
        (0, "Keep-Alive", True, ["keep-alive"]),
        (0, "keep-alive, close", False, ["close"]),
        (0, "x", False, ["close"]),
    ],
)
def test_keep_alive(minor: int, connection: str | None, keeps: bool, said: list[str]) -> None:
    """RFC 9112 section 9.3."""
    headers = [("connection", connection)] if connection is not None else []
    client = answer(lambda r: r.end("x"), headers=headers, minor=minor)
    assert client.values("connection") == said
    assert client.closed != keeps


def test_keepalive_requests() -> None:
    for number, keeps in ((1, True), (2, True), (3, False), (4, False)):
        client = answer(lambda r: r.end(), number=number, keepalive_requests=3)
        assert client.closed != keeps, number
        assert client.values("connection") == ([] if keeps else ["close"])


# ------------------------------------------------------------------ what the worker does at the end


def test_a_handler_that_gave_no_answer() -> None:
    client = Client()
    client.response.status(201)
    client.response.header("X", "y")
    assert client.response._finish_unanswered() is True
    status, fields, body = client.read()
    assert status == 500
    assert "x" not in fields
    assert b"no answer" in body
    assert not client.closed


def test_a_handler_that_left_its_answer_open() -> None:
    client = answer(lambda r: r.write("a"))
    assert client.response._finish_unanswered() is False
    assert client.body == b"a"
    assert client.response._finish_unanswered() is False
    assert answer(lambda r: r.end("x")).response._finish_unanswered() is False


def test_a_handler_that_failed() -> None:
    client = Client()
    client.response.cookie("secret", "x")
    client.response._fail("E42")
    status, fields, body = client.read()
    assert (status, b"E42" in body) == (500, True)
    assert "set-cookie" not in fields
    client.response._fail("E43")
    assert len(client.calls) == 1


def test_a_handler_that_failed_in_the_middle() -> None:
    """The client can tell that the body is cut: no final chunk, and the connection is closed."""
    client = answer(lambda r: r.write("half"))
    client.response._fail("E42")
    assert client.calls[-1] == (b"", True, True)
    assert client.raw.endswith(b"4\r\nhalf\r\n")
    assert client.response.ended
    with pytest.raises(h11.RemoteProtocolError):
        client.read()


def test_a_handler_that_failed_after_its_answer() -> None:
    client = answer(lambda r: r.end("x"))
    client.response._fail("E42")
    assert client.body == b"x"
