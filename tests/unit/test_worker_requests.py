"""How a worker answers a request: whatever its handler does, the client gets one answer, and nothing is left of it."""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from mooring import BadRequest, ClientGone, HttpError, Request, Response
from mooring._core.channel import BadRecord
from mooring._core.wire import Event, FileNote, Notice, Respond
from mooring.app.handlers import Handlers
from mooring.app.request_record import RequestRecord, encode_request
from mooring.app.spools import Spools
from mooring.app.static import PIECE
from mooring.config import Settings
from mooring.worker.requests import Requests
from mooring.worker.site import Site
from mooring.worker.streams import Streams

FD, NUMBER = 7, 3


class Outbox:
    """Keeps what is sent, and how; a client that has left takes nothing."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, bytes]] = []
        self.left = False

    def respond(self, fd: int, number: int, flags: int, data: bytes) -> bool:
        assert (fd, number) == (FD, NUMBER)
        self.sent.append((flags, data))
        return not self.left


class Bench:
    """Requests of one worker with an outbox that keeps what is sent, and what was said of them."""

    def __init__(self, handler: Callable[..., Any] | None = None, document_root: Path | str = "") -> None:
        handlers = Handlers()
        if handler is not None:
            handlers.register("request", handler)
        settings = Settings()
        http = dataclasses.replace(settings.http, document_root=str(document_root))
        self.site = Site(handlers, dataclasses.replace(settings, http=http), Spools(1))
        self.outbox, self.sessions, self.refusals = Outbox(), Mock(), Mock()
        self.failures: list[BaseException] = []
        self.streams = Streams(self.outbox)  # as much of one as is asked
        self.requests = Requests(self.outbox, self.streams, self.sessions, self.refusals, self.failed)

    def failed(self, site: Site, kind: Event, fd: int, error: BaseException) -> str:
        assert (site, kind, fd) == (self.site, Event.REQUEST, FD)
        self.failures.append(error)
        return "abc"

    def take(self, method: str = "GET", target: str = "/") -> Awaitable[Any] | None:
        record = RequestRecord(method, target, 1, [], "::1", 1, 2, "http", 0.0, NUMBER)
        return self.requests.answer(self.site, Notice(Event.REQUEST, FD, encode_request(record, b""), arg=NUMBER))

    def get(self, method: str = "GET", target: str = "/") -> bytes:
        """All that is sent for one request."""

        async def run() -> None:
            async with asyncio.timeout(10):
                running = self.take(method, target)
                if running is not None:
                    await running

        asyncio.run(run())
        return b"".join(data for _, data in self.outbox.sent)

    @property
    def flags(self) -> int:
        """Of the last piece of the answer; all others have none."""
        *others, last = [flags for flags, _ in self.outbox.sent]
        assert not any(others)
        return last

    @property
    def said(self) -> list[str]:
        return [call.args[1] % call.args[2:] for call in self.refusals.say.call_args_list]


def both(body: Callable[[Request, Response], Any]) -> list[Any]:
    """The same handler as a function and as a coroutine, which goes on in a later step."""

    async def later(request: Request, response: Response) -> Any:
        await asyncio.sleep(0)
        return body(request, response)

    return [pytest.param(body, id="def"), pytest.param(later, id="async")]


def raises(error: BaseException, begun: bool = False) -> Callable[[Request, Response], Any]:
    def handler(_request: Request, response: Response) -> None:
        if begun:
            response.write("begun")
        raise error

    return handler


@pytest.mark.parametrize("handler", both(lambda request, response: response.end(request.target) and None))
def test_the_handler_answers_and_what_was_kept_for_it_goes(handler: Any):
    bench = Bench(handler)
    answer = bench.get(target="/a")
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"\r\n\r\n/a")
    assert bench.flags == Respond.LAST
    bench.sessions.forget.assert_called_with(FD)
    assert not bench.failures
    assert not bench.said


def test_a_server_that_speaks_websocket_only():
    bench = Bench()
    answer = bench.get()
    assert answer.startswith(b"HTTP/1.1 426")
    assert b"\r\nUpgrade: websocket\r\n" in answer


@pytest.mark.parametrize("handler", both(lambda _request, _response: None))
def test_a_handler_that_gives_no_answer(handler: Any):
    bench = Bench(handler)
    assert bench.get().startswith(b"HTTP/1.1 500")
    (said,) = bench.said
    assert said == "the 'request' handler gave no answer to GET /: call response.end() or response.json()"


@pytest.mark.parametrize("handler", both(lambda _request, response: response.write("begun") and None))
def test_an_answer_that_was_left_open_is_completed(handler: Any):
    bench = Bench(handler)
    assert bench.get().endswith(b"5\r\nbegun\r\n0\r\n\r\n")
    assert bench.flags == Respond.LAST


@pytest.mark.parametrize("handler", both(raises(HttpError(409, "there is one", [("X-Which", "a")]))))
def test_an_http_error_is_the_answer_and_no_failure(handler: Any):
    bench = Bench(handler)
    answer = bench.get()
    assert answer.startswith(b"HTTP/1.1 409")
    assert b"\r\nX-Which: a\r\n" in answer
    assert bench.said == [f"request on connection {FD} refused with 409: 'there is one'"]
    assert not bench.failures


class Odd(HttpError):
    """Lacks what an HttpError has."""

    def __init__(self) -> None:
        pass


def test_one_that_can_not_be_sent_is_a_failure():
    bench = Bench(raises(Odd()))
    assert bench.get().startswith(b"HTTP/1.1 500")
    assert [type(error) for error in bench.failures] == [AttributeError]


def test_one_behind_the_head_is_a_failure():
    bench = Bench(raises(HttpError(409, "too late"), begun=True))
    assert bench.get().startswith(b"HTTP/1.1 200")
    assert bench.flags == Respond.LAST | Respond.CLOSE
    assert len(bench.failures) == 1


def test_a_bad_request_is_told_to_the_gateway_ahead_of_the_answer():
    """Which ends the connection, and counts it."""
    bench = Bench(raises(BadRequest(413, "too long")))
    assert bench.get().startswith(b"HTTP/1.1 413")
    assert bench.outbox.sent[0] == (Respond.REFUSES, b"")
    assert not bench.failures


@pytest.mark.parametrize("error", [BadRequest(413, "too long"), ClientGone("it has left")], ids=["refused", "gone"])
def test_what_the_client_did_behind_the_head_is_no_failure_and_cuts_the_answer(error: Exception):
    bench = Bench(raises(error, begun=True))
    assert not bench.get().endswith(b"0\r\n\r\n")
    assert bench.flags == Respond.LAST | Respond.CLOSE
    assert not bench.failures
    assert len(bench.said) == isinstance(error, BadRequest)


@pytest.mark.parametrize("handler", both(raises(SystemExit("no"))))
def test_whatever_else_it_raises_its_client_has_the_id(handler: Any):
    bench = Bench(handler)
    answer = bench.get()
    assert answer.startswith(b"HTTP/1.1 500")
    assert answer.endswith(b"\r\n\r\nthe handler failed, error abc\n")
    assert [type(error) for error in bench.failures] == [SystemExit]
    bench.sessions.forget.assert_called_with(FD)


def generated() -> Any:
    yield


@pytest.mark.parametrize("handler", both(lambda _request, response: (response.end("a"), generated())[1]))
def test_what_runs_nothing_can_not_be_meant(handler: Any):
    """Its client has its answer already."""
    bench = Bench(handler)
    assert bench.get().endswith(b"\r\n\r\na")
    (error,) = bench.failures
    assert str(error).startswith("the 'request' handler returned the generator ")


def test_what_no_gateway_can_have_told():
    bench = Bench(lambda _request, _response: None)
    with pytest.raises(BadRecord, match="too short"):
        bench.requests.answer(bench.site, Notice(Event.REQUEST, FD, b"\x01", arg=NUMBER))
    assert not bench.outbox.sent


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    (tmp_path / "a.txt").write_text("of the disk")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "index.html").write_text("of the folder")
    return tmp_path


@pytest.mark.parametrize(
    ("method", "target", "status", "end"),
    [
        ("GET", "/a.txt", b"200", b"of the disk"),
        ("HEAD", "/a.txt", b"200", b"\r\n\r\n"),
        ("GET", "/b.txt", b"404", b"there is no such file\n"),
        ("POST", "/a.txt", b"405", b"nothing else\n"),
        ("GET", "/folder", b"301", b""),
    ],
)
def test_documents_alone(documents: Path, method: str, target: str, status: bytes, end: bytes):
    bench = Bench(document_root=documents)
    answer = bench.get(method, target)
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert answer.endswith(end)
    assert not bench.failures


@pytest.mark.parametrize(("method", "target"), [("GET", "/b.txt"), ("POST", "/a.txt")])
def test_what_is_no_document_is_for_the_handler(documents: Path, method: str, target: str):
    bench = Bench(lambda _request, response: response.end("of the handler") and None, documents)
    assert bench.get(method, target).endswith(b"of the handler")
    assert not bench.failures


def test_why_a_request_was_refused_is_for_the_log(documents: Path):
    bench = Bench(lambda _request, response: response.send_file(documents / "c.txt") and None)
    answer = bench.get()
    assert answer.startswith(b"HTTP/1.1 404")
    assert b"c.txt" not in answer
    [said] = bench.said
    assert (
        f"'there is no such file' (FileNotFoundError: [Errno 2] No such file or directory: '{documents}/c.txt" in said
    )


@pytest.mark.parametrize("note", [FileNote.TAKEN, FileNote.LEFT, FileNote.LATE])
@pytest.mark.parametrize("with_handler", [True, False])
def test_a_large_file_is_left_to_the_gateway_and_else_sent_behind_the_handler(
    documents: Path, note: FileNote, with_handler: bool
):
    size = PIECE + 10  # two pieces, and no need to ask for room
    (documents / "large.bin").write_bytes(bytes(size))
    handler = lambda _request, response: response.send_file(documents / "large.bin") and None  # noqa: E731
    bench = Bench(handler) if with_handler else Bench(document_root=documents)

    def send_file(fd: int, number: int, _flags: int, _claim: bytes, _path: bytes, head: bytes) -> bool:
        assert head.startswith(b"HTTP/1.1 200")
        asyncio.get_running_loop().call_soon(bench.streams.on_file, fd, number, bytes([note]))
        return True

    bench.outbox.send_file = send_file
    answer = bench.get(target="/large.bin").partition(b"\r\n\r\n")[2]
    sent = {FileNote.TAKEN: 0, FileNote.LEFT: size, FileNote.LATE: 0}[note]
    assert len(answer) == sent
    assert not bench.failures
    assert not bench.said


def test_an_answer_that_waits_hears_that_its_client_has_left():
    """And its handler's failure is not one."""
    waiting = asyncio.Event()

    async def handler(_request: Request, response: Response) -> None:
        while True:
            waiting.set()
            await response.write(bytes(1 << 20))

    bench = Bench(handler)

    async def run() -> None:
        async with asyncio.timeout(10):
            running = bench.take()
            assert running is not None
            task = asyncio.ensure_future(running)
            await waiting.wait()
            await asyncio.sleep(0)
            bench.streams.on_gone(FD, NUMBER)
            await task

    asyncio.run(run())
    assert Respond.ASKS in [flags for flags, _ in bench.outbox.sent]
    assert bench.outbox.sent[-1] == (Respond.LAST | Respond.CLOSE, b"")
    assert not bench.failures


def test_a_body_in_parts_ends_with_its_request():
    """Who still reads it then, in a task of its own, hears that there is no more."""
    readers: list[asyncio.Task[bytes]] = []

    async def handler(request: Request, response: Response) -> None:
        readers.append(asyncio.ensure_future(request.read()))
        await asyncio.sleep(0)
        response.end("not of interest")

    bench = Bench(handler)
    bench.outbox.want = lambda _fd, _number: True  # and none comes
    record = RequestRecord("POST", "/", 1, [], "::1", 1, 2, "http", 0.0, NUMBER, streamed=True)

    async def run() -> None:
        async with asyncio.timeout(10):
            notice = Notice(Event.REQUEST, FD, encode_request(record, b""), arg=NUMBER)
            running = bench.requests.answer(bench.site, notice)
            assert running is not None
            await running
            with pytest.raises(ClientGone):
                await readers[0]

    asyncio.run(run())
    assert bench.flags == Respond.LAST | Respond.CLOSE
