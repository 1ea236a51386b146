"""Answers in parts, for clients that read slowly, or leave: written ones, files, server-sent events."""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from contract.clients import Raw, get, head, take, unread
from support.serving import Serving, eventually

PART = 50_000
PARTS = 200  # 10 MB: more than the kernel keeps for the two ends of a connection
FILE = 12 << 20

APP = """
import asyncio

PART, PARTS = 50_000, 200
streams = {}

@server.on("message")
def message(server, frame): ...

@server.on("request")
async def page(request, response):
    name = request.query.get("name", "?")
    try:
        if request.path == "/parts":
            for number in range(int(request.query.get("parts", PARTS))):
                await response.write(bytes([number % 251]) * PART)
                if number == 0:
                    report(name, "began")
            report(name, "wrote")
            response.end(b"end")
        elif request.path == "/file":
            response.send_file(request.query["path"])
            report(name, "sent", response.ended)
        elif request.path == "/file-and-failure":
            response.send_file(request.query["path"])
            raise RuntimeError("on purpose")
        elif request.path == "/held":
            report(name, "began")
            while await response.write(b"x" * PART) is None:
                await asyncio.sleep(0)
        elif request.path == "/unawaited":
            number = 0  # a handler that does not let go of the loop must hear it, too
            while number < 2000 and response.write(b"x" * PART):
                number += 1
            report(name, "stopped", number)
        elif request.path == "/events":
            alive = float(request.query.get("keep_alive", 15))
            stream = response.event_stream(keep_alive=alive, keep_alive_event=request.query.get("alive"))
            streams[name] = stream
            await stream.send(f"hello {stream.last_event_id!r}", event="hello", id="1")
            report(name, "streams")
            await asyncio.Event().wait()
        elif request.path == "/send":
            to = streams[request.query["to"]]
            await to.send("two\\r\\nlines\\nand \\r", id="7é", retry=1500)
            await to.send("")
            await to.comment("c")
            response.end("sent")
        elif request.path == "/short":
            stream = response.event_stream()
            await stream.send("only one")
        else:
            response.end("hello")
    except BaseException as error:
        report(name, type(error).__name__)
        raise
    finally:
        report(name, "left")
"""


@pytest.fixture(scope="session")
def streaming(mode: dict[str, Any]) -> Iterator[Serving]:
    with Serving(APP, **mode, write_timeout=3, max_connections_per_address=0) as running:
        yield running
        assert running.stop() == 0
        assert "(adds up)" in running.lines[-2], "\n".join(running.lines[-10:])


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "large.bin"
    path.touch()
    os.truncate(path, FILE)
    with path.open("r+b") as file:
        for at in range(0, FILE, 1 << 20):
            file.seek(at)
            file.write(at.to_bytes(8, "big"))
    return path


def chunks(parts: int = PARTS) -> bytes:
    """The body of /parts as it is sent."""
    sizes = b"%x\r\n" % PART
    return b"".join(sizes + bytes([n % 251]) * PART + b"\r\n" for n in range(parts)) + b"3\r\nend\r\n0\r\n\r\n"


def test_a_write_waits_for_the_client(streaming: Serving) -> None:
    since = streaming.mark()
    with Raw(streaming, get("/parts?name=slow"), receive_buffer=65536) as raw:
        streaming.wait_log("report slow began", since=since)
        unread(raw)
        for _ in range(20):  # others are served meanwhile
            with Raw(streaming, get("/")) as other:
                assert other.answer().body == b"hello"
        assert streaming.reports("slow", since) == ["began"], "everything was written, and nobody has read it"
        assert b"\r\ntransfer-encoding: chunked\r\n" in head(raw)
        assert take(raw, len(chunks())) == chunks()
        streaming.wait_log("report slow left", since=since)
        raw.send(get("/"))
        assert raw.answer().body == b"hello"


def test_in_http_1_0_the_end_of_the_connection_ends_it(streaming: Serving) -> None:
    with Raw(streaming, get("/parts?parts=100", version="1.0")) as raw:
        assert b"\r\ntransfer-encoding: " not in head(raw)
        assert take(raw, 100 * PART + 3)[-4:] == b"\x63end"
        assert raw.rest() == b""


def test_a_handler_is_told_that_its_client_left(streaming: Serving) -> None:
    since = streaming.mark()
    with Raw(streaming, get("/parts?name=leaver"), receive_buffer=65536) as raw:
        streaming.wait_log("report leaver began", since=since)
        unread(raw)
        raw.reset()
    streaming.wait_log("report leaver ClientGone", since=since)
    streaming.wait_log("report leaver left", since=since)
    assert not [line for line in streaming.lines[since:] if "Traceback" in line or "failed" in line]


def test_a_client_that_never_reads_is_cut(streaming: Serving) -> None:
    since = streaming.mark()
    with Raw(streaming, get("/parts?name=stuck"), receive_buffer=65536):
        streaming.wait_log("report stuck ClientGone", since=since)


def test_a_large_file(streaming: Serving, large: Path) -> None:
    since = streaming.mark()
    with Raw(streaming, get(f"/file?name=file&path={large}"), receive_buffer=65536) as raw:
        streaming.wait_log("report file left", since=since)
        assert streaming.reports("file", since) == ["sent False", "left"]
        assert f"content-length: {FILE}\r\n".encode() in head(raw)
        assert take(raw, FILE) == large.read_bytes()
        raw.send(get(f"/file?path={large}", f"Range: bytes=1048576-{FILE - 2}"))
        assert f"content-range: bytes 1048576-{FILE - 2}/{FILE}\r\n".encode() in head(raw)
        assert take(raw, FILE - 1 - (1 << 20)) == large.read_bytes()[1 << 20 : -1]
        raw.send(get(f"/file?path={large}", method="HEAD"))
        assert raw.answer("HEAD").headers["content-length"] == str(FILE)


def test_a_large_file_of_a_handler_that_fails_behind_it(streaming: Serving, large: Path) -> None:
    with Raw(streaming, get(f"/file-and-failure?path={large}")) as raw:
        head(raw)
        assert len(take(raw, FILE)) == FILE
        raw.send(get("/"))
        assert raw.answer().body == b"hello"


def test_nobody_keeps_a_file_whose_client_left(streaming: Serving, large: Path) -> None:
    def holders() -> list[str]:
        return [
            f"{fd}"
            for pid in [streaming.pid, *streaming.pids()]
            for fd in Path(f"/proc/{pid}/fd").iterdir()
            if fd.is_symlink() and os.path.realpath(fd) == str(large.resolve())
        ]

    with Raw(streaming, get(f"/file?path={large}"), receive_buffer=65536) as raw:
        unread(raw)
        assert eventually(holders)
        raw.reset()
    eventually(lambda: not holders(), what="the file is closed")


def test_answers_do_not_pile_up(streaming: Serving) -> None:
    """A client that asks for much at once and reads slowly gets it all."""
    ask = get("/parts?parts=20")
    with Raw(streaming, ask * 20, receive_buffer=65536) as raw:
        for _ in range(20):
            head(raw)
            assert take(raw, len(chunks(20))) == chunks(20)


# ---------------------------------------------------------------------------------------------- server-sent events


def test_events(streaming: Serving) -> None:
    since = streaming.mark()
    with Raw(streaming, get("/events?name=reader&keep_alive=60", "Last-Event-ID: 6\xc3\xa9")) as raw:
        fields = head(raw)
        assert b"content-type: text/event-stream\r\n" in fields
        assert b"cache-control: no-store\r\n" in fields
        raw.until(b"event: hello\nid: 1\ndata: hello '6\xc3\xa9'\n\n\r\n")
        streaming.wait_log("report reader streams", since=since)
        with ExitStack() as others:
            for _ in range(20):  # all open, until the worker that has the stream gets one
                other = others.enter_context(Raw(streaming, get("/send?to=reader")))
                if other.answer().status == 200:
                    break
        seen = raw.until(b": c\n\n\r\n")
        two = b"id: 7\xc3\xa9\nretry: 1500\ndata: two\ndata: lines\ndata: and \ndata: \n\n"
        assert b"\r\n".join([b"3d", two, b"8", b"data: \n\n", b"5", b": c\n\n", b""]) in seen
    streaming.wait_log("report reader left", since=since)


def test_a_stream_ends_with_its_handler(streaming: Serving) -> None:
    with Raw(streaming, get("/short")) as raw:
        assert raw.answer().body == b"data: only one\n\n"
        raw.send(get("/"))
        assert raw.answer().body == b"hello"


def test_a_stream_ends_when_the_client_leaves(streaming: Serving) -> None:
    """Also one that leaves without a word: what it is sent to keep it alive comes back."""
    for name, query, leave in (
        ("resets", "", Raw.reset),
        ("closes", "&keep_alive=0.05", lambda raw: raw.socket.close()),
    ):
        since = streaming.mark()
        raw = Raw(streaming, get(f"/events?name={name}{query}"))
        streaming.wait_log(f"report {name} streams", since=since)
        leave(raw)
        streaming.wait_log(f"report {name} CancelledError", since=since)
        assert not [line for line in streaming.lines[since:] if "Traceback" in line or "failed" in line]


def test_comments_keep_a_stream_alive(streaming: Serving) -> None:
    with Raw(streaming, get("/events?keep_alive=0.02")) as raw:
        for _ in range(3):
            raw.until(b": \n\n")


def test_a_client_that_ends_its_half_is_asked_by_a_comment(streaming: Serving) -> None:
    """Who closes sends a FIN and nothing else: the handler hears of it at once, without any keep-alive."""
    for name, query in (("fin", ""), ("called", "&alive=ping")):
        since = streaming.mark()
        raw = Raw(streaming, get(f"/events?name={name}&keep_alive=0{query}"))
        streaming.wait_log(f"report {name} streams", since=since)
        raw.until(b"data: hello ''\n\n\r\n")  # with something unread it would be a reset
        raw.socket.close()
        streaming.wait_log(f"report {name} CancelledError", since=since)
        streaming.wait_log(f"report {name} left", since=since)


def test_a_client_that_only_ends_its_half_keeps_its_stream(streaming: Serving) -> None:
    since = streaming.mark()
    with Raw(streaming, get("/events?name=half&keep_alive=0")) as raw:
        raw.until(b"data: hello ''\n\n\r\n")
        streaming.wait_log("report half streams", since=since)
        raw.socket.shutdown(socket.SHUT_WR)
        assert raw.until(b"\n\n\r\n") == b"4\r\n: \n\n\r\n"
        with ExitStack() as others:
            for _ in range(20):  # until the worker that has the stream gets one
                if others.enter_context(Raw(streaming, get("/send?to=half"))).answer().status == 200:
                    break
        raw.until(b": c\n\n")
        assert not streaming.reports("half left", since)
        raw.reset()
    streaming.wait_log("report half left", since=since)


def test_a_half_that_was_ended_before_the_stream_began(streaming: Serving) -> None:
    """As `nc -N` does: the request and the FIN come together."""
    since = streaming.mark()
    with Raw(streaming) as raw:
        raw.send(get("/events?name=early&keep_alive=0.05"))
        raw.socket.shutdown(socket.SHUT_WR)
        raw.until(b"data: hello ''\n\n")
        raw.until(b": \n\n")
        streaming.wait_log("report early streams", since=since)
    streaming.wait_log("report early left", since=since)  # nothing more tells that it leaves, but the next comment


def test_an_answer_in_parts_goes_on_for_who_has_ended_its_half(streaming: Serving) -> None:
    """Nothing can be sent to ask: it would be a part of the answer. So the next part does."""
    with Raw(streaming, get("/parts?name=parts&parts=30")) as raw:
        raw.socket.shutdown(socket.SHUT_WR)
        head(raw)
        assert take(raw, len(chunks(30))) == chunks(30)
        assert raw.rest() == b""


def test_an_event_keeps_a_stream_alive_if_it_has_a_name(streaming: Serving) -> None:
    with Raw(streaming, get("/events?keep_alive=0.02&alive=still%20here")) as raw:
        raw.until(b"data: hello ''\n\n\r\n")
        for _ in range(3):
            assert raw.until(b"\n\n\r\n") == b"1a\r\nevent: still here\ndata: \n\n\r\n"
    with Raw(streaming, get("/events?alive=a%0Ab")) as raw:
        assert raw.answer().status == 500


def test_a_head_of_a_stream(streaming: Serving) -> None:
    with Raw(streaming, get("/events", method="HEAD")) as raw:
        answer = raw.answer("HEAD")
        assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream")
        raw.send(get("/"))
        assert raw.answer().body == b"hello"


def test_a_write_that_is_not_awaited_is_false_once_the_client_was_cut(streaming: Serving):
    """Without a turn of the loop in between: the handler may be a plain function."""
    with Raw(streaming) as client:
        client.send(b"GET /unawaited?name=unawaited HTTP/1.1\r\nHost: x\r\n\r\n")
        stopped = streaming.wait_log(r"report unawaited stopped (\d+)")
    assert int(stopped[1]) < 2000


def test_a_client_behind_a_proxy_that_passes_half_a_connection_on(streaming: Serving) -> None:
    """The first comment only shows the proxy that nobody is there; the second one shows us."""
    since = streaming.mark()
    with Raw(streaming, get("/events?name=behind&keep_alive=0")) as raw:
        raw.until(b"data: hello ''\n\n\r\n")
        streaming.wait_log("report behind streams", since=since)
        raw.socket.shutdown(socket.SHUT_WR)
        raw.until(b"4\r\n: \n\n\r\n")
    streaming.wait_log("report behind CancelledError", since=since)
