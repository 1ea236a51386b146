"""Large files, which the gateway sends by itself: what arrives, what is counted, and what happens in the middle."""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from contract.clients import Raw, get, head, take, unread
from contract.modes import only
from support.serving import Serving, eventually

SIZE = 24 << 20  # more than the kernel keeps for the two ends of a connection

APP = """
import asyncio

@server.on("message")
def message(server, frame): ...

@server.on("request")
async def page(request, response):
    path = request.query.get("path")
    if request.path == "/stats":
        response.json(server.stats())
    elif request.path == "/pid":
        response.end(str(os.getpid()))
    elif path is None:
        response.end("hello")
    else:
        response.send_file(path)
        if request.path == "/unlinked":
            os.unlink(path)
        elif request.path == "/replaced":
            os.rename(path + ".other", path)
        elif request.path == "/linked":
            os.unlink(path)
            os.symlink("secret", path)
        elif request.path == "/changed":
            os.utime(path, (1, 1))
        elif request.path == "/busy":
            report("sent by", os.getpid())
            await asyncio.sleep(3600)
"""


@pytest.fixture(scope="session")
def serving(mode: dict[str, Any]) -> Iterator[Serving]:
    with Serving(APP, **mode, write_timeout=3, max_connections_per_address=0, access_log=True) as running:
        yield running
        assert running.stop() == 0
        assert "(adds up)" in running.lines[-2], "\n".join(running.lines[-10:])


def fill(path: Path, size: int = SIZE) -> Path:
    """A file in which no block is like another."""
    with path.open("wb") as file:
        for at in range(0, size, 4096):
            file.write(at.to_bytes(8, "big") * 512)
    return path


@pytest.fixture
def large(tmp_path: Path) -> Path:
    return fill(tmp_path / "large.bin")


def stats(server: Serving) -> dict[str, int]:
    with Raw(server, get("/stats")) as raw:
        found: dict[str, int] = raw.answer().json()
        return {name: found[name] for name in ("files_open", "files_sent", "files_refused", "files_broken")}


def change(server: Serving, before: dict[str, int], **expected: int) -> None:
    """Waits until the counts have changed by that much, and no other has."""
    wanted = {**before, **{name: before[name] + more for name, more in expected.items()}}
    eventually(lambda: stats(server) == wanted, what=f"{stats(server)} becomes {wanted}")


def holders(server: Serving, path: Path) -> list[str]:
    """The descriptors that the server's processes have of a file."""
    return [
        f"{fd}"
        for pid in [server.pid, *server.pids()]
        for fd in Path(f"/proc/{pid}/fd").iterdir()
        if fd.is_symlink() and os.readlink(fd).startswith(str(path.resolve()))
    ]


def test_requests_behind_a_file_wait_for_it(serving: Serving, large: Path) -> None:
    before = stats(serving)
    asked = [get(f"/?path={large}"), get("/"), get(f"/?path={large}", "Range: bytes=5000000-"), get("/")]
    with Raw(serving, b"".join(asked), receive_buffer=65536) as raw:
        fields = head(raw)
        assert fields.startswith(b"http/1.1 200 ")
        assert f"\r\ncontent-length: {SIZE}\r\n".encode() in fields
        assert take(raw, SIZE) == large.read_bytes()
        assert raw.answer().body == b"hello"
        assert head(raw).startswith(b"http/1.1 206 ")
        assert take(raw, SIZE - 5_000_000) == large.read_bytes()[5_000_000:]
        assert raw.answer().body == b"hello"
        raw.send(get(f"/?path={large}", method="HEAD"))
        assert raw.answer("HEAD").headers["content-length"] == str(SIZE)
    change(serving, before, files_sent=2)
    assert not holders(serving, large)


def test_many_at_once(serving: Serving, large: Path) -> None:
    """Each gets its own, and others are served between the slices."""
    before = stats(serving)
    with ExitStack() as stack:
        raws = [stack.enter_context(Raw(serving, get(f"/?path={large}"), receive_buffer=65536)) for _ in range(10)]
        for raw in raws:
            head(raw)
        assert stats(serving)["files_open"] == before["files_open"] + 10
        eventually(lambda: len(holders(serving, large)) == 10, what="the workers have closed it, the gateways have it")
        content = large.read_bytes()
        for at in range(0, SIZE, 1 << 20):
            for raw in raws:
                assert take(raw, 1 << 20) == content[at : at + (1 << 20)]
    change(serving, before, files_sent=10)


@pytest.mark.parametrize(("version", "field"), [("1.1", "Connection: close"), ("1.0", "X: y")])
def test_the_connection_ends_behind_the_file(serving: Serving, large: Path, version: str, field: str) -> None:
    with Raw(serving, get(f"/?path={large}", field, version=version)) as raw:
        assert b"\r\nconnection: close\r\n" in head(raw)
        assert take(raw, SIZE) == large.read_bytes()
        assert raw.rest() == b""


def test_a_client_that_has_shut_its_half(serving: Serving, large: Path) -> None:
    with Raw(serving, get(f"/?path={large}"), receive_buffer=65536) as raw:
        raw.socket.shutdown(socket.SHUT_WR)
        head(raw)
        assert take(raw, SIZE) == large.read_bytes()
        assert raw.rest() == b""


def test_the_access_log_tells_what_was_sent(serving: Serving, large: Path) -> None:
    since = serving.mark()
    with Raw(serving, get(f"/?path={large}")) as raw:
        head(raw)
        take(raw, SIZE)
        serving.wait_log(rf'path={large} HTTP/1.1" 200 {SIZE} \d\S* "-" "-"$', since=since)
    since = serving.mark()
    before = stats(serving)
    with Raw(serving, get(f"/?path={large}"), receive_buffer=65536) as raw:
        head(raw)
        take(raw, 1 << 20)
        raw.reset()
    line = serving.wait_log(rf'path={large} HTTP/1.1" 200 (\d+) \d\S* "-" "-" cut$', since=since)
    assert 1 << 20 <= int(line[1]) < SIZE
    change(serving, before)
    assert not holders(serving, large)


def test_a_client_that_reads_nothing_is_cut(serving: Serving, large: Path) -> None:
    since = serving.mark()
    with Raw(serving, get(f"/?path={large}"), receive_buffer=65536):
        serving.wait_log(rf'path={large} HTTP/1.1" 200 (\d+) \d\S* "-" "-" cut$', since=since)
        eventually(lambda: not holders(serving, large))


@only("base", "process")
def test_a_slow_client_is_not_cut(mode: dict[str, Any], large: Path) -> None:
    """The kernel says that there is room when a third of its buffer is free, which takes this client seconds."""
    with (
        Serving(APP, **mode, write_timeout=1) as server,
        Raw(server, get(f"/?path={large}"), receive_buffer=32768) as raw,
    ):
        head(raw)
        end, got = time.monotonic() + 4, b""
        while time.monotonic() < end:
            got += take(raw, 16384)
            time.sleep(0.1)
        assert got + take(raw, SIZE - len(got)) == large.read_bytes()


@only("base", "process")
def test_descriptors_are_for_clients_first(mode: dict[str, Any], large: Path) -> None:
    """Of 400 descriptors 320 are for clients and 64 for everything else: what is above 16 files, workers send."""
    shell = ("sh", "-c", f"ulimit -n 400 && exec {sys.executable} app.py")
    settings = {"max_connections": 320, "max_connections_per_address": 0, "write_timeout": 60}
    with Serving(APP, argv=shell, **mode, **settings) as server, ExitStack() as stack:
        raws = [stack.enter_context(Raw(server, get(f"/?path={large}"), receive_buffer=65536)) for _ in range(20)]
        for raw in raws:
            head(raw)
        assert stats(server) == {"files_open": 16, "files_sent": 0, "files_refused": 4, "files_broken": 0}
        for raw in raws:
            assert take(raw, SIZE) == large.read_bytes()
        change(server, dict.fromkeys(stats(server), 0), files_sent=16, files_refused=4)
        assert not holders(server, large)
        assert server.stop() == 0


def test_a_file_that_becomes_shorter(serving: Serving, large: Path) -> None:
    since, before = serving.mark(), stats(serving)
    with Raw(serving, get(f"/?path={large}"), receive_buffer=65536) as raw:
        head(raw)
        os.truncate(large, 1 << 20)
        got = raw.rest()
        assert 1 << 20 <= len(got) < SIZE
    serving.wait_log("was not sent to its end: it has become shorter", since=since)
    change(serving, before, files_broken=1)
    assert not holders(serving, large)


def test_a_file_that_is_gone_when_the_gateway_looks(serving: Serving, large: Path) -> None:
    """It is sent all the same: the worker has it open."""
    content = large.read_bytes()
    with Raw(serving, get(f"/unlinked?path={large}") + get("/")) as raw:
        head(raw)
        assert take(raw, SIZE) == content
        assert raw.answer().body == b"hello"
    assert not large.exists()
    eventually(lambda: not holders(serving, large))


def test_another_file_under_its_name(serving: Serving, large: Path) -> None:
    content = large.read_bytes()
    Path(f"{large}.other").write_bytes(b"x" * SIZE)
    with Raw(serving, get(f"/replaced?path={large}")) as raw:
        head(raw)
        assert take(raw, SIZE) == content
    eventually(lambda: not holders(serving, large))


def test_a_symbolic_link_under_its_name(serving: Serving, large: Path) -> None:
    content = large.read_bytes()
    (large.parent / "secret").write_bytes(b"x" * SIZE)
    with Raw(serving, get(f"/linked?path={large}")) as raw:
        head(raw)
        assert take(raw, SIZE) == content
    assert large.is_symlink()
    eventually(lambda: not holders(serving, large))


@only("process", "process-2")
def test_a_file_that_was_changed_before_it_was_sent(serving: Serving, large: Path) -> None:
    """The head would not be true. In base mode the gateway has taken it before the handler can change anything."""
    since, before = serving.mark(), stats(serving)
    with Raw(serving, get(f"/changed?path={large}") + get("/")) as raw:
        answer = raw.answer()
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert raw.answer().body == b"hello"
    serving.wait_log("is left to the worker: it is not the file any more", since=since)
    change(serving, before, files_refused=1)
    assert not holders(serving, large)


@only("process", "process-2")
def test_the_end_of_the_worker_does_not_end_a_download(mode: dict[str, Any], large: Path) -> None:
    """Whether its handler has ended or not."""
    with Serving(APP, **mode, restart_free=100) as server, ExitStack() as stack:
        raws = [
            stack.enter_context(Raw(server, get(f"{path}?path={large}") + get("/"), receive_buffer=65536))
            for path in ("/", "/", "/busy")
        ]
        for raw in raws:
            head(raw)
        server.wait_log("report sent by")
        for number in range(2):
            mark = server.mark()
            os.kill(server.pid_of(f"worker {number}"), signal.SIGKILL)
            server.wait_log("serves in place of the one that ended", since=mark)
        for raw in raws:
            assert take(raw, SIZE) == large.read_bytes()
            assert raw.answer().body == b"hello"
        assert not holders(server, large)
        assert server.stop() == 0
        assert "(adds up)" in server.lines[-2]


@only("process", "process-2")
def test_a_reload_does_not_wait_for_downloads(mode: dict[str, Any], large: Path) -> None:
    """The worker that leaves can't tell how many bytes there will be."""
    with (
        Serving(APP, **mode, access_log=True, graceful_timeout=60) as server,
        Raw(server, get(f"/?path={large}") + get("/"), receive_buffer=65536) as raw,
    ):
        head(raw)
        eventually(lambda: len(holders(server, large)) == 1)
        server.signal(signal.SIGHUP)
        server.wait_log(rf'path={large} HTTP/1.1" 200 - \d\S* "-" "-"$')
        server.wait_log("reload: done")
        assert take(raw, SIZE) == large.read_bytes()
        assert raw.answer().body == b"hello"
        assert server.stop() == 0
        assert "(adds up)" in server.lines[-2]


def test_a_stop_waits_for_downloads(mode: dict[str, Any], large: Path) -> None:
    with Serving(APP, **mode, graceful_timeout=60) as server:
        with Raw(server, get(f"/?path={large}"), receive_buffer=65536) as raw:
            head(raw)
            code: list[int] = []
            stopping = threading.Thread(target=lambda: code.append(server.stop()))
            stopping.start()
            eventually(lambda: not listens(server))
            assert take(raw, SIZE) == large.read_bytes()
            assert raw.rest() == b""
        stopping.join()
        assert code == [0]
        assert "(adds up)" in server.lines[-2]


def test_a_stop_waits_no_longer_than_it_may(mode: dict[str, Any], large: Path) -> None:
    with Serving(APP, **mode, graceful_timeout=3) as server:
        with Raw(server, get(f"/?path={large}"), receive_buffer=65536) as raw:
            unread(raw)
            assert server.stop() == 0
        assert "(adds up)" in server.lines[-2]


def listens(server: Serving) -> bool:
    try:
        socket.create_connection(("127.0.0.1", server.port), 5).close()
    except OSError:
        return False
    return True


def test_small_files_and_those_to_compress_are_read(mode: dict[str, Any], tmp_path: Path) -> None:
    small, text, data = (fill(tmp_path / name, size) for name, size in (("a", 65536), ("b.txt", 131072), ("c", 131072)))
    with Serving(APP, **mode, compress=True) as server:
        for path, count in ((small, 0), (text, 0), (data, 1)):
            with Raw(server, get(f"/?path={path}", "Accept-Encoding: gzip")) as raw:
                answer = raw.answer()
                assert answer.headers.get("content-encoding") == ("gzip" if path == text else None)
                assert answer.body == path.read_bytes() or path == text
            eventually(lambda count=count: stats(server)["files_sent"] == count)
