"""HTTP/1.1: what a `request` handler is given, what a client gets back, and who gets nothing but a refusal."""

import http.client
import json
import select
import threading
import time
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

from contract.clients import Answer, Asker, Raw, get
from contract.modes import only
from support.serving import Serving

VECTORS = Path(__file__).parents[1] / "vectors" / "http"


def ask(server: Serving, request: bytes, method: str = "GET") -> Answer:
    with Raw(server, request) as raw:
        return raw.answer(method)


def respond(code: str, **options: Any) -> bytes:
    """A request whose handler evaluates that, with `request` and `response` at hand."""
    return get(f"/eval?code={quote(code)}", **options)


# ---------------------------------------------------------------------------------------------- what a handler is given


def test_the_request(server: Serving):
    target = "/echo?a=1&b=x%20y&a=2&empty=&%C3%BC=%C3%B6"
    fields = ["X-One: 1", "x-one: 2", "Cookie: sid=abc; theme=dark", 'Cookie: quoted="q v"', "X-Latin: \xe9"]
    with Raw(server, get(target, *fields, "Content-Length: 5", method="PUT", body=b"a\0\xffbc")) as raw:
        ip, port = raw.socket.getsockname()
        began = time.time()
        seen = raw.answer("PUT").json()
    assert seen["method"] == "PUT"
    assert seen["target"] == target
    assert seen["path"] == "/echo"
    assert seen["query_string"] == target.partition("?")[2]
    assert seen["query"] == {"a": "2", "b": "x y", "empty": "", "ü": "ö"}
    assert seen["query_list"] == {"a": ["1", "2"], "b": ["x y"], "empty": [""], "ü": ["ö"]}
    assert seen["cookies"] == {"sid": "abc", "theme": "dark", "quoted": "q v"}
    assert seen["body"] == "a\0\xffbc"
    assert (seen["remote_ip"], seen["remote_port"], seen["server_port"]) == (ip, port, server.port)
    assert (seen["scheme"], seen["http_version"], seen["number"]) == ("http", "1.1", 1)
    assert abs(seen["received"] - began) < 10
    assert seen["fd"] > 0
    assert [tuple(pair) for pair in seen["headers"]] == [
        ("host", "x"),
        ("x-one", "1"),
        ("x-one", "2"),
        ("cookie", "sid=abc; theme=dark"),
        ("cookie", 'quoted="q v"'),
        ("x-latin", "é"),
        ("content-length", "5"),
    ]


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/%65cho", "/echo"),
        ("/echo/%2e%2E/a%2Fb", "/echo/../a/b"),
        ("/echo/%FF", "/echo/\ufffd"),
        ("/echo//%C3%A9", "/echo//é"),
    ],
)
def test_the_path_is_decoded_and_not_normalised(server: Serving, target: str, path: str):
    seen = ask(server, get(target)).json()
    assert (seen["target"], seen["path"]) == (target, path)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_methods(server: Serving, method: str):
    answer = ask(server, get("/echo", method=method), method)
    assert answer.status == 200
    assert answer.json()["method"] == method


def test_numbers_of_requests(server: Serving):
    with Raw(server) as raw:
        for number in range(1, 4):
            raw.send(get("/echo"))
            assert raw.answer().json()["number"] == number


@pytest.mark.parametrize("size", [0, 1, 100, 10_000])
@pytest.mark.parametrize("chunked", [False, True])
def test_bodies(server: Serving, chunked: bool, size: int):
    """Up to the limit, whole or in chunks, in one segment or in several."""
    body = bytes(n % 251 for n in range(size))
    if chunked:
        pieces = [body[at : at + 999] for at in range(0, size, 999)]
        data = b"".join(b"%x;ext=1\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\nX-Trailer: x\r\n\r\n"
        head = get("/echo", "Transfer-Encoding: chunked", method="POST")
    else:
        data = body
        head = get("/echo", f"Content-Length: {size}", method="POST")
    with Raw(server, head + data) as raw:
        assert raw.answer("POST").json()["body"].encode("latin-1") == body
        raw.send(head)
        for start in range(0, len(data), 1500):
            raw.send(data[start : start + 1500])
        assert raw.answer("POST").json()["body"].encode("latin-1") == body


@pytest.mark.parametrize("fields", [["Content-Length: 4"], ["Transfer-Encoding: chunked"]])
def test_expect_100_continue(server: Serving, fields: list[str]):
    """The client waits for the word before it sends the body (RFC 9110 section 10.1.1)."""
    with Raw(server, get("/echo", "Expect: 100-continue", *fields, method="POST")) as raw:
        assert raw.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        raw.send(b"body" if "Length" in fields[0] else b"4\r\nbody\r\n0\r\n\r\n")
        answer = raw.answer("POST")
        assert answer.json()["body"] == "body"
        assert answer.informational == []


def test_no_100_continue_for_a_body_that_is_there(server: Serving):
    with Raw(server, get("/echo", "Expect: 100-continue", "Content-Length: 4", method="POST", body=b"body")) as raw:
        answer = raw.answer("POST")
        assert (answer.status, answer.informational) == (200, [])


def test_no_100_continue_for_a_body_that_is_too_large(server: Serving):
    with Raw(server, get("/echo", "Expect: 100-continue", "Content-Length: 10001", method="POST")) as raw:
        answer = raw.answer("POST")
        assert (answer.status, answer.informational) == (413, [])
        assert raw.rest() == b""


async def test_with_aiohttp(server: Serving):
    """A client that others wrote: kept alive, chunked upload, JSON, cookies."""
    async with aiohttp.ClientSession() as session:

        async def pieces():
            for piece in (b"one ", b"two ", b"three"):
                yield piece

        async with session.post(server.http + "/echo", data=pieces()) as answer:
            assert (await answer.json(content_type=None))["body"] == "one two three"
        async with session.post(server.http + "/eval", json={"code": "response.cookie('sid', 'abc')"}) as answer:
            assert answer.cookies["sid"].value == "abc"
        async with session.get(server.http + "/echo", params={"q": "a b&c"}) as answer:
            assert (await answer.json(content_type=None))["query"] == {"q": "a b&c"}


# ---------------------------------------------------------------------------------------------- what a client gets


def test_an_answer(server: Serving):
    answer = ask(server, respond("response.end('grüße')"))
    assert answer.status == 200
    assert answer.body == "grüße".encode()
    assert not answer.closes
    names = {name.lower(): value for name, value in answer.headers.items()}
    assert names["content-type"] == "text/plain; charset=utf-8"
    assert names["content-length"] == "7"
    assert names["server"] == "mooring"
    assert names["date"].endswith(" GMT")
    assert "connection" not in names
    assert "transfer-encoding" not in names


@pytest.mark.parametrize(
    ("code", "status", "headers", "body"),
    [
        ("response.end()", 200, {"content-length": "0"}, b""),
        (r"response.end(b'\xff')", 200, {"content-type": "application/octet-stream"}, b"\xff"),
        ("[response.status(404), response.end('no')]", 404, {}, b"no"),
        ("[response.status(299, 'Quite Fine'), response.end('x')]", 299, {}, b"x"),
        ("[response.status(204), response.end()]", 204, {}, b""),
        ("[response.status(204), response.end('left out')]", 204, {}, b""),
        ("[response.status(304), response.end('left out')]", 304, {}, b""),
        ("[response.header('X-A', '1'), response.header('x-a', '2'), response.end()]", 200, {"x-a": "2"}, b""),
        (
            "[response.header('Content-Type', 'text/html'), response.end('<p>')]",
            200,
            {"content-type": "text/html"},
            b"<p>",
        ),
        (
            "response.json({'a': [1, None, 'ü']})",
            200,
            {"content-type": "application/json"},
            '{"a":[1,null,"ü"]}'.encode(),
        ),
        ("response.json('x', 201)", 201, {"content-type": "application/json"}, b'"x"'),
        ("response.redirect('/elsewhere?x=1')", 302, {"location": "/elsewhere?x=1", "content-length": "0"}, b""),
        ("response.redirect('https://example.org/', 308)", 308, {"location": "https://example.org/"}, b""),
        ("[response.write('a'), response.end('b')]", 200, {"transfer-encoding": "chunked"}, b"ab"),
        ("[response.write(''), response.write(b'x'), response.end()]", 200, {"transfer-encoding": "chunked"}, b"x"),
        ("[response.status(203), response.write('a'), response.end()]", 203, {"transfer-encoding": "chunked"}, b"a"),
        ("[response.status(204), response.write('left out'), response.end()]", 204, {}, b""),
        ("[response.header('Server', 'other'), response.end()]", 200, {"server": "other"}, b""),
    ],
)
def test_answers(server: Serving, code: str, status: int, headers: dict[str, str], body: bytes):
    """Each is complete and well-formed: the next request on the connection is answered."""
    with Raw(server, respond(code)) as raw:
        answer = raw.answer()
        assert (answer.status, answer.body) == (status, body)
        assert {name.lower(): value for name, value in answer.headers.items()}.items() >= headers.items()
        assert not answer.closes
        raw.send(get("/"))
        assert raw.answer().body == b"hello"


def test_exact_bytes_of_chunks(server: Serving):
    """RFC 9112 section 7.1; an empty write must not end the body."""
    with Raw(
        server, respond("[response.write('ab'), response.write(''), response.write('c' * 17), response.end()]")
    ) as raw:
        raw.until(b"\r\n\r\n")
        assert raw.until(b"0\r\n\r\n") == b"2\r\nab\r\n11\r\n" + b"c" * 17 + b"\r\n0\r\n\r\n"


def test_parts_arrive_when_they_are_written(server: Serving, folder: Path):
    go_on = folder / "parts arrive"
    code = f"[response.write('first'), await seen({go_on.name!r}), response.end('second')]"
    with Raw(server, respond(code)) as raw:
        assert raw.until(b"first\r\n").endswith(b"\r\n\r\n5\r\nfirst\r\n")
        go_on.touch()
        assert raw.until(b"0\r\n\r\n") == b"6\r\nsecond\r\n0\r\n\r\n"


def test_cookies(server: Serving):
    code = (
        "[response.cookie('a', '1'), response.cookie('b', '2', max_age=60, path='/x', secure=True, same_site='None'),"
        " response.add_header('X-Many', '1'), response.add_header('X-Many', '2'), response.end()]"
    )
    answer = ask(server, respond(code))
    assert [value for name, value in answer.all_headers if name.lower() == "set-cookie"] == [
        "a=1; Path=/; SameSite=Lax; HttpOnly",
        "b=2; Max-Age=60; Path=/x; SameSite=None; Secure; HttpOnly",
    ]
    assert [value for name, value in answer.all_headers if name.lower() == "x-many"] == ["1", "2"]


@pytest.mark.parametrize(
    "code",
    [
        r"response.header('X-A', 'a\r\nX-B: b')",
        r"response.header('X-A\r\nX-B', 'b')",
        r"response.header('X A', 'b')",
        r"response.add_header('X-A', 'a\nb')",
        r"response.header('X-A', 'a\0b')",
        r"response.cookie('a', 'b; Domain=evil')",
        r"response.cookie('a', 'b\r\n')",
        r"response.redirect('/a\r\nX-B: b')",
        r"response.redirect('/a b')",
        r"response.status(200, 'OK\r\nX-B: b')",
        "response.status(99)",
        "response.status(101)",
        "response.status(600)",
        "response.header('Content-Length', '5')",
        "response.header('Transfer-Encoding', 'chunked')",
        "response.header('Connection', 'keep-alive')",
    ],
)
def test_what_would_split_an_answer_is_a_value_error(server: Serving, code: str):
    """Raised where it was written; and what is sent then has no trace of it."""
    with Raw(server, respond(code)) as raw:
        answer = raw.answer()
        assert "ValueError" in answer.json()["error"][0]
        assert "x-b" not in {name.lower() for name in answer.headers}
        raw.send(get("/"))
        assert raw.answer().body == b"hello"


@pytest.mark.parametrize(
    "code",
    [
        "[response.end('x'), response.end('y')]",
        "[response.end('x'), response.write('y')]",
        "[response.end('x'), response.header('X-A', 'b')]",
        "[response.write('x'), response.status(404)]",
        "[response.write('x'), response.json({})]",
        "[response.write('x'), response.redirect('/')]",
    ],
)
def test_an_answer_is_given_once(server: Serving, code: str):
    """A call after its time is a StateError, and the client gets the one answer whole."""
    mark = server.mark()
    with Raw(server, respond(code)) as raw:
        answer = raw.answer()
        assert (answer.status, answer.body) == (200, b"x")
        server.wait_log("^report an expression failed: .*'StateError'", since=mark)
        raw.send(get("/"))
        assert raw.answer().body == b"hello"


@pytest.mark.parametrize(
    "path", ["/", "/echo", "/eval?code=[response.write('a'),response.end('b')]", "/fails", "/silent"]
)
def test_head_has_no_body(server: Serving, path: str):
    """The same head as to GET, and the next answer right behind it."""
    with Raw(server, get(path, method="HEAD") + get("/")) as raw:
        head = raw.answer("HEAD")
        assert head.body == b""
        assert raw.answer().body == b"hello"
        raw.send(get(path))
        same = raw.answer()
        assert head.status == same.status
        if path == "/":
            assert head.headers == same.headers


def test_http_1_0(server: Serving):
    """Closed behind the answer, unless the client asks to keep it; no chunks."""
    with Raw(server, get("/", version="1.0")) as raw:
        answer = raw.answer()
        assert (answer.status, answer.body) == (200, b"hello")
        assert raw.rest() == b""
    with Raw(server, b"GET / HTTP/1.0\r\n\r\n") as raw:
        assert raw.rest().endswith(b"\r\n\r\nhello")
    with Raw(server, get("/", "Connection: keep-alive", version="1.0")) as raw:
        answer = raw.answer()
        assert {name.lower(): value for name, value in answer.headers.items()}["connection"] == "keep-alive"
        raw.send(get("/", version="1.0"))
        assert raw.answer().body == b"hello"
        assert raw.rest() == b""
    with Raw(server, respond("[response.write('a'), response.end('b')]", version="1.0")) as raw:
        data = raw.rest()
        assert b"chunked" not in data
        assert data.endswith(b"\r\n\r\nab")


def test_connection_close(server: Serving):
    """Asked for by the client, or by the handler."""
    with Raw(server, get("/", "Connection: close") + get("/smuggled")) as raw:
        answer = raw.answer()
        assert answer.closes
        assert {name.lower(): value for name, value in answer.headers.items()}["connection"] == "close"
        assert raw.rest() == b""
    with Raw(server, respond("[response.header('Connection', 'close'), response.end('x')]")) as raw:
        assert raw.answer().closes
        assert raw.rest() == b""


def test_keep_alive(server: Serving):
    client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    client.connect()
    port = client.sock.getsockname()[1]
    for n in range(50):
        client.request("POST", "/echo", body=b"x" * n)
        assert json.loads(client.getresponse().read())["remote_port"] == port
    client.close()


# ---------------------------------------------------------------------------------------------- pipelines


def test_pipelined_requests_are_answered_in_order(server: Serving):
    with Raw(server, b"".join(get(f"/echo?n={n}") for n in range(50))) as raw:
        assert [raw.answer().json()["query"]["n"] for _ in range(50)] == [str(n) for n in range(50)]


def test_a_slow_first_answer_holds_back_the_second(server: Serving, folder: Path):
    """However quick the others would be; meanwhile other connections are served."""
    go_on = folder / "the first is slow"
    body = get("/echo", "Content-Length: 4", method="POST", body=b"body")
    with Raw(server, get(f"/slow?until={quote(go_on.name)}") + body + get("/", method="HEAD") + get("/")) as raw:
        assert ask(server, get("/")).body == b"hello"
        threading.Timer(0.1, go_on.touch).start()
        assert raw.answer().body == b"slow"
        assert raw.answer("POST").json()["body"] == "body"
        assert raw.answer("HEAD").body == b""
        assert raw.answer().body == b"hello"


def test_half_closed_clients_get_their_answers(server: Serving):
    """`printf ... | nc`: all requests, then the end of input."""
    with Raw(server, get("/echo?n=1") + get("/echo?n=2", "Connection: close")) as raw:
        raw.socket.shutdown(1)
        assert [raw.answer().json()["query"]["n"] for _ in range(2)] == ["1", "2"]
        assert raw.rest() == b""


def test_a_client_that_leaves_before_its_answer(server: Serving, folder: Path, workers: list[Asker]):
    """The handler runs to its end, and is told that nobody is there."""
    go_on, mark = folder / "the client left", server.mark()
    code = f"[await seen({go_on.name!r}), report('told', response.end('x'), server.exists(request.fd))]"
    with Raw(server, respond("request.fd")) as raw:
        fd = raw.answer().json()["value"]
        raw.send(respond(code))
        raw.reset()
    for asker in workers:
        asker(f"await until(lambda: not server.exists({fd}))")
    go_on.touch()
    server.wait_log("^report told False False$", since=mark)


# ---------------------------------------------------------------------------------------------- refusals


def long_line(size: int) -> bytes:
    """A request line of that many bytes."""
    return get("/" + "x" * (size - len("GET / HTTP/1.1")))


REFUSED = {
    "long line": (long_line(1025), 414),
    "endless line": (b"GET /" + b"x" * 5000, 414),
    "long field": (get("/", "X: " + "y" * 1022), 431),
    "endless field": (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 5000, 431),
    "long head": (get("/", *[f"X-{n}: {'y' * 900}" for n in range(5)]), 431),
    "many fields": (get("/", *[f"X-{n}: y" for n in range(32)]), 431),
    "large body": (get("/", "Content-Length: 10001", method="POST"), 413),
    "large chunk": (get("/", "Transfer-Encoding: chunked", method="POST", body=b"2711\r\n"), 413),
    "large sum of chunks": (
        get("/", "Transfer-Encoding: chunked", method="POST", body=b"2710\r\n" + b"x" * 10_000 + b"\r\n1\r\n"),
        413,
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_limits(server: Serving, name: str):
    request, status = REFUSED[name]
    mark = server.mark()
    with Raw(server, request) as raw:
        answer = raw.answer()
        assert answer.status == status
        assert answer.body.startswith(b"%d " % status)
        assert answer.closes
        assert raw.rest() == b""
    server.wait_refusal(rf"request refused with {status}: ", since=mark)


def test_limits_exactly_met(server: Serving):
    fields = [f"X-{n}: y" for n in range(31)]
    for request in (
        long_line(1024),
        get("/", "X: " + "y" * 1021),
        get("/", *fields),
        get("/", "Content-Length: 10000", method="POST", body=b"x" * 10_000),
    ):
        assert ask(server, request).status == 200


INVALID = {file.stem: tomllib.loads(file.read_text()) for file in sorted((VECTORS / "invalid").glob("*.toml"))}


@only("base", "process-2")
@pytest.mark.parametrize("name", INVALID)
def test_what_could_be_read_in_two_ways_is_refused(impatient: Serving, name: str):
    """Smuggling vectors: one answer, the end of the connection, and nothing behind it is looked at."""
    vector = INVALID[name]
    with Raw(impatient, vector["request"].encode("latin-1") + get("/smuggled")) as raw:
        answer = raw.answer()
        assert answer.status == vector["status"]
        assert answer.closes
        assert raw.rest() == b""


def test_a_refusal_behind_a_good_request(server: Serving):
    """The good one is answered first."""
    bad = get("/", "Content-Length: 3", "Transfer-Encoding: chunked", method="POST", body=b"0\r\n\r\n")
    with Raw(server, get("/") + bad + get("/smuggled")) as raw:
        assert raw.answer().body == b"hello"
        assert raw.answer().status == 400
        assert raw.rest() == b""


def test_no_request_handler(impatient: Serving):
    """426: only WebSockets here; and the connection may go on to become one."""
    with Raw(impatient, get("/")) as raw:
        answer = raw.answer()
        assert answer.status == 426
        headers = {name.lower(): value for name, value in answer.headers.items()}
        assert headers["upgrade"] == "websocket"
        assert headers["connection"].lower() == "upgrade"
        assert not answer.closes
        assert raw.upgrade("/").status == 101


# ---------------------------------------------------------------------------------------------- time


@pytest.mark.parametrize(
    "part", [b"G", b"GET / HTTP/1.1\r\nHost: x\r\n", get("/", "Content-Length: 5", method="POST") + b"abc"]
)
def test_a_request_that_does_not_end(impatient: Serving, part: bytes):
    """408 after header_timeout, here 0.25 s."""
    began = time.monotonic()
    with Raw(impatient, part) as raw:
        answer = raw.answer()
        assert answer.status == 408
        assert raw.rest() == b""
        assert 0.2 < time.monotonic() - began < 10, "as long as by default"


def test_a_request_that_trickles(impatient: Serving):
    """Each byte in time is not enough: the whole must be there."""
    began = time.monotonic()
    with Raw(impatient) as raw:
        while not select.select([raw.socket], [], [], 0.02)[0]:
            assert time.monotonic() - began < 10, "as long as by default"
            raw.send(b"G")
        assert raw.answer().status == 408


def test_a_client_that_says_nothing(impatient: Serving):
    began = time.monotonic()
    with Raw(impatient) as raw:
        assert raw.rest() == b""
    assert 0.2 < time.monotonic() - began < 10, "as long as by default"


def test_an_idle_connection_is_kept_for_a_while(impatient: Serving):
    """keepalive_timeout, here 2 s, and not header_timeout is for the time between two requests."""
    with Raw(impatient, get("/")) as raw:
        assert raw.answer().status == 426
        time.sleep(0.4)
        raw.send(get("/"))
        assert raw.answer().status == 426
        began = time.monotonic()
        assert raw.rest() == b""
        assert time.monotonic() - began > 1.9


def test_keepalive_requests(impatient: Serving):
    """The third answer is the last on its connection, and says so."""
    with Raw(impatient, get("/") * 4) as raw:
        assert [raw.answer().closes for _ in range(3)] == [False, False, True]
        assert raw.rest() == b""
