"""What a client got wrong is answered as its fault, 4xx or 1008, with one line in the log: no traceback, no id."""

from collections.abc import Iterator
from typing import Any

import pytest

from contract.clients import TEXT, Raw, close_frame, get
from frames import frame
from support.serving import Serving

APP = """
import asyncio

requests = {}

@server.on("open")
def opened(server, request):
    requests[request.fd] = request
    if request.path == "/opened":
        request.query

@server.on("message")
async def said(server, frame):
    await asyncio.sleep(0)
    requests[frame.fd].query

@server.on("handshake")
def judged(server, request):
    if request.path == "/judged":
        request.query

@server.on("request")
async def page(request, response):
    if request.path.startswith("/halfway"):
        response.write("half")
    if request.path == "/caught":
        try:
            request.json()
        except ValueError as error:
            response.end(type(error).__name__)
            return
    if "read" in request.path:
        await request.read_form()
    response.json(
        {"json": request.json, "text": request.text, "form": lambda: request.form, "query": lambda: request.query,
         "cookies": lambda: request.cookies, "path": lambda: request.path}[request.path.split("/")[-1]]()
    )
"""

MORE = "suppressed within a second: "  # so many lines of a kind are not written
MULTIPART = "multipart/form-data; boundary=X"
URLENCODED = "application/x-www-form-urlencoded"


@pytest.fixture(scope="module")
def strict(mode: dict[str, Any]) -> Iterator[Serving]:
    with Serving(APP, **mode, body_limit=1 << 20) as running:
        yield running
        assert running.stop() == 0
        assert "(adds up)" in running.lines[-2], "\n".join(running.lines[-10:])
        text = "\n".join(running.lines)
        assert "Traceback" not in text
        assert " ERROR " not in text


def post(path: str, kind: str, body: bytes) -> bytes:
    fields = [f"Content-Type: {kind}"] if kind else []
    return get(path, *fields, f"Content-Length: {len(body)}", method="POST", body=body)


@pytest.mark.parametrize(
    ("path", "kind", "body", "status"),
    [
        ("/json", "application/json", b"{", 400),
        ("/json", "application/json", b"", 400),
        ("/json", "", b"[" * 5000, 400),
        ("/json", "text/plain", b'{"a":' * 5000, 400),
        ("/json", "application/json", b'"\xff"', 400),
        ("/json", "application/json", b"9" * 5000, 400),
        ("/text", "text/plain", b"\xff", 400),
        ("/text", "", b"\xc3", 400),
        ("/text", "text/plain; charset=us-ascii", b"\x80", 400),
        ("/text", "text/plain; charset=gbk", b"x", 415),
        ("/text", "text/plain; charset=idna", b"x" * 5000, 415),
        ("/form", MULTIPART, b"--Y", 400),
        ("/form", MULTIPART, b"", 400),
        ("/form", "multipart/form-data", b"--X--", 400),
        ("/form", URLENCODED, b"a=%ff", 400),
        ("/form", URLENCODED, b"&" * 5000, 413),
        ("/read/form", MULTIPART, b"--Y", 400),
        ("/read/form", URLENCODED, b"a=\xff", 400),
        ("/query?" + "&" * 1000, "", b"", 400),
    ],
)
def test_requests(strict: Serving, path: str, kind: str, body: bytes, status: int):
    mark = strict.mark()
    with Raw(strict, post(path, kind, body)) as raw:
        answer = raw.answer("POST")
        assert answer.status == status
        assert answer.body.startswith(b"%d " % status)
        assert b"error " not in answer.body
        assert len(answer.body) < 500
        strict.wait_log(rf" INFO .*request on connection \d+ refused with {status}: |{MORE}", since=mark)
        raw.send(post("/caught", "", b"{"))  # the connection goes on, and who catches it decides
        assert raw.answer("POST").body == b"BadRequest"


@pytest.mark.parametrize("path", ["/query?a=%ff&%zz=%", "/%ff/%/%zz/path"])
def test_what_is_only_odd_is_given_as_it_is(strict: Serving, path: str):
    with Raw(strict, get(path)) as raw:
        assert raw.answer().status == 200


def test_cookies_that_are_none(strict: Serving):
    with Raw(strict, get("/cookies", 'Cookie: ;;=x;a;\xff=\xfe; ok=1; "="')) as raw:
        assert raw.answer().json()["ok"] == "1"


def test_behind_the_beginning_of_the_answer(strict: Serving):
    """The client can tell that the answer is not whole."""
    mark = strict.mark()
    with Raw(strict, post("/halfway/json", "", b"{")) as raw:
        assert raw.rest().endswith(b"4\r\nhalf\r\n")
    strict.wait_log(rf" INFO .*the answer on connection \d+ had begun when|{MORE}", since=mark)


def test_in_a_handshake(strict: Serving):
    mark = strict.mark()
    with Raw(strict) as raw:
        answer = raw.upgrade("/judged?" + "&" * 1000)
        assert answer.status == 400
    strict.wait_log(rf" INFO .*handshake on connection \d+ refused with 400|{MORE}", since=mark)


@pytest.mark.parametrize("path", ["/opened", "/said"])
def test_on_a_websocket(strict: Serving, path: str):
    """1008, with the reason."""
    mark = strict.mark()
    with Raw(strict) as raw:
        assert raw.upgrade(path + "?" + "&" * 1000).status == 101
        if path == "/said":
            raw.send(frame(TEXT, b"go"))
        assert raw.close_frame() == (1008, "the query has more than 1000 fields")
        raw.send(close_frame(1008))
        assert raw.rest() == b""
    strict.wait_log(
        rf" INFO .*connection \d+ closed with 1008, its '(open|message)' handler refuses|{MORE}", since=mark
    )
