"""What HTTP applications need, on real servers in both modes: forms, refusals."""

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from support.serving import LIMIT, Serving

APP = """
@server.on("message")
def message(server, frame): ...

@server.on("request")
async def page(request, response):
    if request.path == "/form":
        files = [[f.name, f.filename, f.content_type, len(f.read())] for fs in request.file_list.values() for f in fs]
        response.json({"form": request.form_list, "files": files})
    elif request.path == "/caught":
        try:
            request.form
        except ValueError as error:
            response.end(f"caught {error.status}")
    elif request.path == "/raise":
        response.header("X-Of-The-Other-Answer", "1")
        raise HttpError(int(request.query["status"]), request.query["reason"], [("Allow", "GET")])
    elif request.path == "/late":
        response.write("part")
        raise HttpError(404, "too late")
    elif request.path == "/bad-headers":
        raise HttpError(404, "x", [("a b", "c")])
"""


@pytest.fixture(scope="module", params=["base", "process"])
def server(request: pytest.FixtureRequest) -> Iterator[Serving]:
    with Serving(APP, mode=request.param, worker_num=1, body_limit=1 << 20) as running:
        yield running
        assert running.stop() == 0
        assert "(adds up)" in running.lines[-2], "\n".join(running.lines[-10:])


def ask(
    server: Serving, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=LIMIT)) as client:
        client.request(method, path, body, headers or {})
        answer = client.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()


def raw(server: Serving, data: bytes) -> bytes:
    """Everything that comes until the server closes."""
    with socket.create_connection(("127.0.0.1", server.port), LIMIT) as client:
        client.sendall(data)
        received = bytearray()
        while got := client.recv(65536):
            received += got
        return bytes(received)


# ------------------------------------------------------------------ forms


def form(parts: list[tuple[str, bytes]]) -> tuple[bytes, dict[str, str]]:
    body = b"".join(
        b"--x\r\nContent-Disposition: form-data; %b\r\n\r\n%b\r\n" % (head.encode(), data) for head, data in parts
    )
    return body + b"--x--\r\n", {"Content-Type": "multipart/form-data; boundary=x"}


def test_forms(server: Serving) -> None:
    urlencoded = {"Content-Type": "application/x-www-form-urlencoded"}
    status, _, body = ask(server, "POST", "/form", b"a=1&a=%C3%A9", urlencoded)
    assert (status, json.loads(body)) == (200, {"form": {"a": ["1", "é"]}, "files": []})
    status, _, body = ask(
        server, "POST", "/form", *form([('name="a"', b"1"), ('name="f"; filename="x"', b"\r\n-" * 300_000)])
    )
    assert status == 200
    assert json.loads(body) == {"form": {"a": ["1"]}, "files": [["f", "x", "application/octet-stream", 900_000]]}


@pytest.mark.parametrize(
    ("what", "status", "reason"),
    [
        (form([('name="a"', b"x")] * 101), 413, "more than 100 parts"),
        (form([('name="a"', b"x")] * 15_000), 413, "more than 100 parts"),
        ((b"--x\r\n" + b"h" * 1_000_000, form([])[1]), 413, "header line"),
        ((form([('name="a"', b"x")])[0][:-5], form([])[1]), 400, "malformed"),
        ((b"\r" + b"x" * 1_000_000, form([])[1]), 400, "malformed"),
        ((b"a=%ff", {"Content-Type": "application/x-www-form-urlencoded"}), 400, "UTF-8"),
    ],
)
def test_what_is_no_form_is_answered(
    server: Serving, what: tuple[bytes, dict[str, str]], status: int, reason: str
) -> None:
    since = server.mark()
    got, headers, text = ask(server, "POST", "/form", *what)
    assert got == status
    assert text.startswith(f"{status} ".encode())
    assert reason.encode() in text
    assert headers["content-type"] == "text/plain; charset=utf-8"
    server.wait_log(f"refused with {status}", since=since)
    assert not any("Traceback" in line for line in server.lines[since:])
    assert ask(server, "POST", "/caught", *what)[::2] == (200, b"caught %d" % status)


# ------------------------------------------------------------------ errors that are answers


def test_a_handler_may_raise_the_answer(server: Serving) -> None:
    since = server.mark()
    status, headers, text = ask(server, "GET", "/raise?status=405&reason=not%0d%0athis%1b")
    assert (status, text) == (405, b"405 Method Not Allowed: not\r\nthis\x1b\n")
    assert headers["allow"] == "GET"
    assert "x-of-the-other-answer" not in headers
    server.wait_log(r"refused with 405: 'not\\r\\nthis\\x1b'", since=since)
    assert ask(server, "GET", "/raise?status=503&reason=x")[0] == 503
    assert ask(server, "HEAD", "/raise?status=404&reason=x")[::2] == (404, b"")


def test_an_error_that_is_no_answer_is_a_fault(server: Serving) -> None:
    """A status that is none, headers that can't be sent, an answer that has begun already."""
    for path in ("/raise?status=200&reason=x", "/bad-headers"):
        since = server.mark()
        assert ask(server, "GET", path)[0] == 500
        server.wait_log("'request' handler failed", since=since)
    since = server.mark()
    answer = raw(server, b"GET /late HTTP/1.1\r\nHost: a\r\n\r\n")
    assert answer.endswith(b"\r\n\r\n4\r\npart\r\n"), "it must be seen to be cut"
    server.wait_log("'request' handler failed", since=since)
