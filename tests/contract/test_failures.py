"""What a handler raises ends that handler, and at most its connection: never the worker, never silently."""

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.sync.client import connect

from contract.clients import TEXT, Asker, Raw, close_frame, dial, get, websocket
from contract.modes import only
from frames import frame
from support.serving import Serving

ERROR_ID = re.compile(r"error ([0-9a-f]{8})$")


def logged(server: Serving, error_id: str, since: int, raised: str) -> None:
    """The id that the client was told leads to one line in the log, with the traceback behind it."""
    line = server.wait_log(rf"error {error_id}: the '\w+' handler failed on connection \d+", since=since).string
    server.wait_log(re.escape(raised), since=since)
    at = server.lines.index(line)
    assert " ERROR " in line
    assert server.lines[at + 1] == "Traceback (most recent call last):"
    assert any("application.py" in text for text in server.lines[at + 1 : at + 12])
    assert len([text for text in server.lines if f"error {error_id}" in text]) == 1


@pytest.mark.parametrize(
    ("path", "raised"),
    [
        ("/fails-in-open", "Boom: in open"),
        ("/fails-in-message", "Boom: in message"),
        ("/fails-later", "Boom: in message, later"),
        ("/exits", "SystemExit: 3"),
        ("/exits-later", "SystemExit: 3"),
        ("/cancels", "the handler was cancelled"),
    ],
)
def test_a_websocket_whose_handler_raises(server: Serving, workers: list[Asker], path: str, raised: str):
    """1011 with the id of the error, a `close` event, and everybody else goes on."""
    mark = server.mark()
    with websocket(server) as (other, _), Raw(server) as raw:
        assert raw.upgrade(f"{path}?name=failing").status == 101
        if path != "/fails-in-open":
            raw.text()
            raw.send(frame(TEXT, b"go"))
        code, reason = raw.close_frame()
        assert code == 1011
        error_id = ERROR_ID.match(reason)
        assert error_id, reason
        logged(server, error_id[1], mark, raised)
        raw.send(close_frame(1011))
        assert raw.rest() == b""
        server.wait_log(f"^report failing close 1011 {reason}", since=mark)
        assert len([line for line in server.reports("failing", mark) if line.startswith("close")]) == 1
        other.send(frame(TEXT, b"still here"))
        assert other.text() == "still here"
    assert [asker("os.getpid()") for asker in workers] == [asker.pid for asker in workers]


@pytest.mark.parametrize("path", ["/fails-in-message", "/fails-later", "/fails-in-open"])
def test_messages_behind_what_has_failed_are_not_handled(server: Serving, path: str):
    """Not even those that had been handed over: what a client sends behind a message may rely on it."""
    mark = server.mark()
    with Raw(server) as raw:
        assert raw.upgrade(f"{path}?name=row", behind=frame(TEXT, b"1") + frame(TEXT, b"2") * 8).status == 101
        if path != "/fails-in-open":
            raw.text()
        assert raw.close_frame()[0] == 1011
        raw.send(close_frame(1011))
        assert raw.rest() == b""
    server.wait_log("^report row close 1011", since=mark)
    said = server.reports("row", mark)
    assert said[0] == f"open {path}"
    assert said[1:-1] == ([] if path == "/fails-in-open" else ["message 1"])


@pytest.mark.parametrize(
    ("path", "raised"),
    [
        ("/fails", "Boom: in request"),
        ("/fails-later", "Boom: in request, later"),
        ("/exits", "SystemExit: 3"),
        ("/cancels", "CancelledError"),
    ],
)
def test_a_request_whose_handler_raises(server: Serving, workers: list[Asker], path: str, raised: str):
    """500 with the id of the error and nothing else of it; the connection goes on."""
    mark = server.mark()
    with Raw(server, get(path)) as raw:
        answer = raw.answer()
        assert answer.status == 500
        error_id = re.search(r"error ([0-9a-f]{8})\b", answer.body.decode())
        assert error_id, answer.body
        assert b"Boom" not in answer.body
        assert b"Traceback" not in answer.body
        logged(server, error_id[1], mark, raised)
        assert not answer.closes
        raw.send(get("/"))
        assert raw.answer().body == b"hello"
    assert [asker("os.getpid()") for asker in workers] == [asker.pid for asker in workers]


def test_a_request_whose_handler_raises_in_the_middle(server: Serving):
    """The client can tell that the answer is not whole: no last chunk, and the end of the connection."""
    mark = server.mark()
    with Raw(server, get("/fails-halfway") + get("/")) as raw:
        data = raw.rest()
    assert data.endswith(b"half of it\r\n")
    server.wait_log("Boom: in request, halfway", since=mark)


def test_headers_of_a_failed_answer_are_forgotten(server: Serving):
    code = "[response.status(201),response.header('X-A','1'),response.cookie('a','b'),sys.exit()]"
    with Raw(server, get(f"/eval?code={code}")) as raw:
        answer = raw.answer()
    assert answer.status == 500
    assert {"x-a", "set-cookie"}.isdisjoint({name.lower() for name in answer.headers})


def test_a_handler_that_gives_no_answer(server: Serving):
    """500, and a line in the log; a part that was written is completed."""
    mark = server.mark()
    with Raw(server, get("/silent?x=1")) as raw:
        answer = raw.answer()
        assert answer.status == 500
        assert b"no answer" in answer.body
        server.wait_log(r"gave no answer to GET /silent\?x=1", since=mark)
        raw.send(get("/half"))
        answer = raw.answer()
        assert (answer.status, answer.body) == (200, b"not ended by the handler")
        raw.send(get("/"))
        assert raw.answer().body == b"hello"


async def test_a_close_handler_that_raises(server: Serving, workers: list[Asker]):
    """A line in the log, and the connection is forgotten like any other."""
    mark = server.mark()
    async with dial(server, "/fails-in-close", name="ending") as peer:
        pass
    found = server.wait_log(r"error ([0-9a-f]{8}): the 'close' handler failed", since=mark)
    logged(server, found[1], mark, "Boom: in close")
    assert server.reports("ending", mark) == ["open /fails-in-close", "close 1000"]
    for asker in workers:
        assert asker(f"[server.exists({peer.fd}), dict(server.session({peer.fd}))]") == [False, {}]


PLAIN = """
import asyncio

def act(how):
    if how == "fail":
        raise RuntimeError("on purpose")
    if how == "exit":
        sys.exit(3)
    if how == "cancel":
        raise asyncio.CancelledError
    if how == "interrupt":
        raise KeyboardInterrupt

@server.on("open")
def opened(server, request):
    server.session(request.fd)["close"] = request.query.get("close", "")
    act(request.query.get("open"))

@server.on("message")
def said(server, frame):
    act(frame.data)
    server.push(frame.fd, f"{frame.data} {os.getpid()}")

@server.on("close")
def left(server, fd, code, reason):
    report("close", code)
    act(server.session(fd)["close"])

@server.on("request")
def asked(request, response):
    act(request.query["how"])
    response.end("well")
"""


@pytest.fixture(scope="module")
def plain(mode: dict[str, Any]) -> Iterator[Serving]:
    """A server whose handlers are all `def`, and raise what they are told to."""
    with Serving(PLAIN, **mode) as running:
        yield running
        assert running.stop() == 0
        assert "(adds up)" in running.lines[-2], "\n".join(running.lines[-10:])


HOW = pytest.mark.parametrize("how", ["fail", "exit"])


@contextlib.contextmanager
def nobody_else_notices(plain: Serving) -> Iterator[None]:
    """A WebSocket per worker lives through it, served by the same process."""
    with contextlib.ExitStack() as stack:
        others = [stack.enter_context(connect(plain.url, proxy=None)) for _ in range(4)]

        def answers() -> list[str | bytes]:
            for other in others:
                other.send("hello")
            return [other.recv(10) for other in others]

        before = answers()
        yield
        assert answers() == before


@HOW
def test_plain_functions_that_raise_in_open(plain: Serving, how: str):
    mark = plain.mark()
    with nobody_else_notices(plain), Raw(plain) as raw:
        assert raw.upgrade(f"/?open={how}").status == 101
        assert raw.close_frame()[0] == 1011
        raw.send(close_frame(1011))
        assert raw.rest() == b""
        plain.wait_log("^report close 1011", since=mark)
        plain.wait_log("the 'open' handler failed", since=mark)


@HOW
def test_plain_functions_that_raise_in_message(plain: Serving, how: str):
    mark = plain.mark()
    with nobody_else_notices(plain), Raw(plain) as raw:
        assert raw.upgrade("/").status == 101
        raw.send(frame(TEXT, how.encode()))
        assert raw.close_frame()[0] == 1011
        raw.send(close_frame(1011))
        assert raw.rest() == b""
        plain.wait_log("^report close 1011", since=mark)
        plain.wait_log("the 'message' handler failed", since=mark)


@HOW
def test_plain_functions_that_raise_in_close(plain: Serving, how: str):
    mark = plain.mark()
    with nobody_else_notices(plain), Raw(plain) as raw:
        assert raw.upgrade(f"/?close={how}").status == 101
        raw.send(close_frame(1000))
        assert raw.close_frame()[0] == 1000
        assert raw.rest() == b""
        plain.wait_log("the 'close' handler failed", since=mark)


@HOW
def test_plain_functions_that_raise_in_request(plain: Serving, how: str):
    mark = plain.mark()
    with nobody_else_notices(plain), Raw(plain, get(f"/?how={how}") + get("/?how=well")) as raw:
        assert raw.answer().status == 500
        assert raw.answer().body == b"well"
        plain.wait_log("the 'request' handler failed", since=mark)


@only("base", "process")
@pytest.mark.parametrize("how", ["cancel", "interrupt"])
def test_plain_functions_that_raise_what_is_no_exception(mode: dict[str, Any], how: str):
    """CancelledError, KeyboardInterrupt: raised by what a handler calls, they are its failure like any other."""
    with Serving(PLAIN, **mode) as server, nobody_else_notices(server), Raw(server) as raw:
        raw.socket.settimeout(2)
        assert raw.upgrade("/").status == 101
        raw.send(frame(TEXT, how.encode()))
        assert raw.close_frame()[0] == 1011
        server.wait_log("the 'message' handler failed")


def test_errors_that_are_caught_are_no_failures(server: Serving):
    mark = server.mark()
    with websocket(server, "/eval") as (raw, _):
        raw.send(frame(TEXT, b"1 / 0"))
        assert "ZeroDivisionError" in raw.text()
    assert not [line for line in server.lines[mark:] if " ERROR " in line]
