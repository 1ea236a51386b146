"""Request bodies that are handed over as they come: to handlers that read slowly, partly or not at all."""

import contextlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contract.clients import Raw, get
from support.serving import Serving, eventually

APP = """
import asyncio
import hashlib
from pathlib import Path

from mooring import ClientGone

open_before = [None]

@server.on("message")
def message(server, frame): ...

@server.on("request")
async def page(request, response):
    name = request.query.get("name", "?")
    try:
        if request.path == "/digest":
            digest, size, most = hashlib.sha256(), 0, 0
            async for part in request.stream():
                digest.update(part)
                size += len(part)
                most = max(most, len(part))
            response.json([size, digest.hexdigest(), most])
        elif request.path == "/held":
            parts = request.stream()
            first = await anext(parts)
            report(name, "has the first")
            while not Path(request.query["until"]).exists():
                await asyncio.sleep(0.01)
            size = len(first)
            async for part in parts:
                size += len(part)
            response.json(size)
        elif request.path == "/read":
            response.json(len(await request.read(200_000)))
        elif request.path == "/form":
            await request.read_form()
            file = request.files["f"]
            on_disk = not hasattr(file.file, "getbuffer")
            response.json([request.form, file.filename, file.size, hashlib.sha256(file.read()).hexdigest(), on_disk])
            open_before[0] = file.file
        elif request.path == "/closed":
            response.json(open_before[0].closed)
        elif request.path == "/body":
            response.json(len(request.body))
        elif request.path == "/first":
            async for part in request.stream():
                break
            response.end("enough")
        elif request.path == "/answered":
            await response.write("begun")
            async for part in request.stream():
                pass
        elif request.path == "/again":
            body = None
            while body is None:
                try:
                    body = await asyncio.wait_for(request.read(), 0.05)
                except TimeoutError:
                    report(name, "again")
                    await asyncio.sleep(0.05)
            response.json([len(body), hashlib.sha256(body).hexdigest()])
        elif request.path == "/rest":
            async for part in request.stream():
                break
            await request.read()
        elif request.path == "/twice":
            async for part in request.stream():
                pass
            await request.read()
        elif request.path in ("/writes-on", "/reads-on", "/reads-behind-the-end"):
            try:
                if request.path == "/reads-behind-the-end":
                    response.end("enough")
                async for part in request.stream():
                    report(name, "reads")
            except ClientGone:
                report(name, "heard of it")
            if request.path == "/writes-on":
                while True:
                    await response.write(bytes(100_000))
            async for part in request.stream():
                pass
        else:
            response.end("hello")
    except BaseException as error:
        report(name, type(error).__name__)
        raise
    finally:
        report(name, "left")
"""

ABOVE = 10_000
LIMIT = 40 << 20


@pytest.fixture(scope="session")
def uploads(mode: dict[str, Any]) -> Iterator[Serving]:
    settings = {"stream_request_body": True, "stream_body_above": ABOVE, "body_limit": LIMIT, "body_grace": 0.5}
    with Serving(APP, **mode, **settings) as running:
        yield running
        assert running.stop() == 0
        assert "(adds up)" in running.lines[-2], "\n".join(running.lines[-10:])


def post(path: str, size: int, *fields: str) -> bytes:
    return get(path, f"Content-Length: {size}", *fields, method="POST")


def chunked(body: bytes, size: int) -> bytes:
    pieces = (body[at : at + size] for at in range(0, len(body), size))
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def digest(body: bytes) -> list[Any]:
    import hashlib

    return [len(body), hashlib.sha256(body).hexdigest()]


BODY = bytes(range(251)) * 20_000  # 5 MB


@pytest.mark.parametrize("size", [0, 1, ABOVE, ABOVE + 1, 300_000, len(BODY)])
@pytest.mark.parametrize("coding", ["length", "chunks of 7000", "one chunk"])
def test_a_body_in_parts(uploads: Serving, size: int, coding: str) -> None:
    body = BODY[:size]
    with Raw(uploads) as raw:
        for _ in range(2):
            if coding == "length":
                raw.send(post("/digest", size) + body)
            else:
                raw.send(get("/digest", "Transfer-Encoding: chunked", method="POST"))
                raw.send(chunked(body, 7000 if coding == "chunks of 7000" else max(size, 1)))
            answer = raw.answer("POST")
            *found, most = answer.json()
            assert found == digest(body)
            assert most <= 600_000, "more than a receive buffer or two was kept"
            assert not answer.closes
            raw.send(get("/"))
            assert raw.answer().body == b"hello"


def test_requests_sent_ahead(uploads: Serving) -> None:
    with Raw(uploads, (post("/digest", 50_000) + BODY[:50_000]) * 5 + get("/")) as raw:
        for _ in range(5):
            assert raw.answer("POST").json()[:2] == digest(BODY[:50_000])
        assert raw.answer().body == b"hello"


def test_the_client_waits_for_the_handler(uploads: Serving, tmp_path: Any) -> None:
    since = uploads.mark()
    total = LIMIT
    go_on = tmp_path / "go-on"
    with Raw(uploads) as raw:
        raw.send(post(f"/held?name=held&until={go_on}", total))
        raw.send(BODY[:20_000])
        uploads.wait_log("report held has the first", since=since)
        sent = 20_000
        raw.socket.setblocking(False)
        piece = bytes(1 << 16)

        def full() -> bool:
            nonlocal sent
            try:
                sent += raw.socket.send(piece)
            except BlockingIOError:
                return True
            return False

        eventually(full, what="the client can send no more")
        assert sent < total // 2, "nobody takes it"
        raw.socket.settimeout(20)
        go_on.touch()
        while sent < total:
            sent += raw.socket.send(piece[: total - sent])
        assert raw.answer("POST").json() == total


def test_a_small_body_is_there_at_once(uploads: Serving) -> None:
    with Raw(uploads, post("/body", 5) + b"12345") as raw:
        assert raw.answer("POST").json() == 5
        raw.send(post("/body?name=early", ABOVE + 1) + bytes(ABOVE + 1))
        assert raw.answer("POST").status == 500
        uploads.wait_log("report early StateError")


def test_the_whole_body(uploads: Serving) -> None:
    with Raw(uploads, post("/read", 200_000) + bytes(200_000)) as raw:
        assert raw.answer("POST").json() == 200_000
    with Raw(uploads, post("/read", 200_001) + bytes(200_001)) as raw:
        assert raw.answer("POST").status == 413
    with Raw(uploads, post("/twice?name=twice", 200_000) + bytes(200_000)) as raw:
        assert raw.answer("POST").status == 500
        uploads.wait_log("report twice StateError")


def test_a_reader_that_is_cancelled_reads_on_where_it_was(uploads: Serving) -> None:
    body = BODY[:90_000]
    since = uploads.mark()
    with Raw(uploads, post("/again?name=again", len(body)) + body[:30_000]) as raw:
        for at in (30_000, 60_000):
            uploads.wait_log("report again again", since=since)
            raw.send(body[at : at + 30_000])
            since = uploads.mark()
        assert raw.answer("POST").json() == digest(body)
    with Raw(uploads, post("/rest?name=rest", 200_000) + bytes(200_000)) as raw:
        assert raw.answer("POST").status == 500
        uploads.wait_log("report rest StateError")


def test_behind_a_body_that_was_not_read_the_connection_is_closed(uploads: Serving) -> None:
    for path in ("/first", "/"):
        with Raw(uploads, post(path, 1_000_000) + bytes(500_000) + get("/") * 10) as raw:
            answer = raw.answer("POST")
            assert (answer.status, answer.closes) == (200, True)
            assert raw.rest() == b""


def test_too_long(uploads: Serving) -> None:
    with Raw(uploads, post("/digest", LIMIT + 1)) as raw:
        assert raw.answer("POST").status == 413
    since = uploads.mark()
    with Raw(uploads, get("/digest?name=long", "Transfer-Encoding: chunked", method="POST")) as raw:
        raw.send(b"%x\r\n" % (1 << 20) + bytes(1 << 20) + b"\r\n" + b"%x\r\n" % LIMIT)
        assert raw.answer("POST").status == 413
    uploads.wait_log("report long ClientGone", since=since)


def test_a_broken_body(uploads: Serving) -> None:
    since = uploads.mark()
    with Raw(uploads, get("/digest?name=broken", "Transfer-Encoding: chunked", method="POST")) as raw:
        raw.send(b"%x\r\n" % 20_000 + bytes(20_000) + b"\r\nno chunk\r\n")
        assert raw.answer("POST").status == 400
    with Raw(uploads, get("/answered?name=begun", "Transfer-Encoding: chunked", method="POST")) as raw:
        raw.send(b"%x\r\n" % 20_000 + bytes(20_000) + b"\r\n")
        raw.until(b"begun\r\n")
        raw.send(b"no chunk\r\n")
        assert raw.rest() == b"", "no second answer behind the one that has begun"
    uploads.wait_log("report begun ClientGone", since=since)


@pytest.mark.parametrize("path", ["writes-on", "reads-on"])
def test_a_handler_that_goes_on_with_a_request_that_is_over_hears_of_it_again(uploads: Serving, path: str) -> None:
    since = uploads.mark()
    with Raw(uploads, get(f"/{path}?name={path}", "Transfer-Encoding: chunked", method="POST")) as raw:
        raw.send(b"%x\r\n" % 20_000 + bytes(20_000) + b"\r\n")
        uploads.wait_log(f"report {path} reads", since=since)
        raw.send(b"no chunk\r\n")
        uploads.wait_log(f"report {path} heard of it", since=since)
        uploads.wait_log(f"report {path} ClientGone", since=since)
        assert raw.answer("POST").status == 400


def test_who_reads_on_behind_the_answer_does_not_wait_for_what_no_client_sends(uploads: Serving) -> None:
    since = uploads.mark()
    with Raw(uploads, get("/reads-behind-the-end?name=on", "Transfer-Encoding: chunked", method="POST")) as raw:
        raw.send(b"%x\r\n" % 20_000 + bytes(20_000) + b"\r\n")
        assert raw.answer("POST").body == b"enough"
        uploads.wait_log("report on heard of it", since=since)
        uploads.wait_log("report on ClientGone", since=since)


def test_a_client_that_leaves_in_the_middle(uploads: Serving) -> None:
    for name, leave in (("resets", Raw.reset), ("closes", lambda raw: raw.socket.close())):
        since = uploads.mark()
        raw = Raw(uploads, post(f"/digest?name={name}", 1_000_000) + bytes(100_000))
        leave(raw)
        uploads.wait_log(f"report {name} ClientGone", since=since)
        assert not [line for line in uploads.lines[since:] if "Traceback" in line]


def test_a_body_that_comes_too_slowly(uploads: Serving) -> None:
    """Streamed or collected; the time in which the handler did not take it does not count."""
    for size in (1_000_000, 100):
        with Raw(uploads, post("/digest?name=slow", size) + b"x" * 20) as raw:
            answer = raw.answer("POST")
            assert (answer.status, answer.closes) == (408, True)
            assert b"bytes per second" in answer.body


def test_expect(uploads: Serving) -> None:
    with Raw(uploads, post("/digest", 100_000, "Expect: 100-continue")) as raw:
        assert raw.until(b"\r\n\r\n").startswith(b"HTTP/1.1 100 ")
        raw.send(BODY[:100_000])
        assert raw.answer("POST").json()[:2] == digest(BODY[:100_000])
    with Raw(uploads, post("/", 100_000, "Expect: 100-continue")) as raw:
        answer = raw.answer("POST")
        assert (answer.informational, answer.status, answer.closes) == ([], 200, True), "nobody wants the body"


def multipart(content: bytes) -> bytes:
    head = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--b\r\n'
    return head + b'Content-Disposition: form-data; name="f"; filename="x"\r\n\r\n' + content + b"\r\n--b--\r\n"


@pytest.mark.parametrize("size", [10, 60_000, 70_000, len(BODY)])
def test_a_file_of_a_form(uploads: Serving, size: int) -> None:
    body = multipart(BODY[:size])
    with Raw(uploads) as raw:
        raw.send(post("/form", len(body), "Content-Type: multipart/form-data; boundary=b") + body)
        large = size > 65536
        assert raw.answer("POST").json() == [{"a": "1"}, "x", *digest(BODY[:size]), large]
        raw.send(get("/closed"))
        assert raw.answer().json() == large


def test_a_form_that_is_none(uploads: Serving) -> None:
    field = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n' + bytes(2 << 20) + b"\r\n--b--\r\n"
    for body, status in ((multipart(BODY)[:-8], 400), (field, 413)):
        with Raw(uploads, post("/form", len(body), "Content-Type: multipart/form-data; boundary=b") + body) as raw:
            assert raw.answer("POST").status == status


FILES = """
@server.on("message")
def message(server, frame): ...

@server.on("request")
async def page(request, response):
    if request.path == "/stats":
        return response.json(server.stats()["uploads_refused"])
    await request.read_form()
    response.json({name: len(files) for name, files in request.file_list.items()})
"""
FILE = b'--X\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\n' + bytes(5000) + b"\r\n"
MULTIPART = "Content-Type: multipart/form-data; boundary=X"


def test_files_of_others_take_nobody_his_place(mode: dict[str, Any]) -> None:
    """Forms have a number of temporary files together; who needs one more is told, and whoever has them goes on."""
    settings = {
        "stream_request_body": True,
        "stream_body_above": 1000,
        "upload_spool_size": 1000,
        "upload_file_limit": 3,
        "body_min_rate": 0,
    }
    with Serving(FILES, **{**mode, "worker_num": 1}, **settings) as server:
        whole = FILE * 3 + b"--X--\r\n"
        with Raw(server) as slow, Raw(server) as other:
            slow.send(post("/", len(whole), MULTIPART, "Expect: 100-continue"))
            assert slow.until(b"\r\n\r\n").startswith(b"HTTP/1.1 100 ")
            slow.send(whole[:-100])
            pid = server.pid if mode["mode"] == "base" else server.pid_of("worker 0")
            eventually(lambda: temporary_files(pid) == 3, what="the slow one has them all")
            assert ask(server, FILE + b"--X--\r\n") == 503
            other.send(post("/", 7, MULTIPART) + b"--X--\r\n")
            assert other.answer("POST").json() == {}, "a form without large files needs none"
            slow.send(whole[-100:])
            assert slow.answer("POST").json() == {"f": 3}
        assert ask(server, whole) == 200
        assert ask(server, FILE + whole) == 503
        assert ask(server, whole) == 200
        server.wait_log("a form was refused with 503, the 1. one: 3 files of forms are open already")
        with Raw(server, get("/stats")) as raw:
            assert raw.answer().json() >= 2


def temporary_files(pid: int) -> int:
    """How many a process has open: whoever asked with a form of its own could take the last one away."""
    links = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # it was closed meanwhile
            links.append(os.readlink(descriptor))
    return sum(link.endswith(" (deleted)") and not link.startswith("/memfd:") for link in links)


def ask(server: Serving, body: bytes) -> int:
    with Raw(server, post("/", len(body), MULTIPART, "Connection: close") + body) as raw:
        answer = raw.answer("POST")
        if answer.status == 503:
            assert answer.headers["retry-after"] == "5"
        return answer.status


LIMITS = """
import resource, subprocess
resource.setrlimit(resource.RLIMIT_NOFILE, (300, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))

@server.on("message")
def message(server, frame): ...

@server.on("task")
def work(server, task):
    return list(resource.getrlimit(resource.RLIMIT_NOFILE))
server.start()
"""


def test_every_process_may_have_as_many_descriptors_as_it_may(mode: dict[str, Any]) -> None:
    with Serving(LIMITS, start=False, task_worker_num=1, **mode) as server:
        for title, pid in {title: pid for pid, title in server.titles().items()}.items():
            soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            assert soft == min(hard, 1 << 20) or hard == resource.RLIM_INFINITY, title
