"""The answer to HEAD is that to GET without its content: it never says what GET would not (RFC 9110 section 9.3.2)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contract.clients import Raw, get
from contract.modes import only
from support.serving import Serving

APP = """
import os

@server.on("message")
def said(server, frame): ...

TEXT = "some text " * 500

@server.on("request")
async def page(request, response):
    path, head = request.path, request.method == "HEAD"
    if path == "/text":
        response.end(TEXT)
    elif path == "/short":
        response.end("short")
    elif path == "/bytes":
        response.end(os.urandom(3000))
    elif path == "/empty":
        response.end()
    elif path == "/left-out":
        response.end("" if head else TEXT)
    elif path == "/json":
        response.json([TEXT])
    elif path == "/redirect":
        response.redirect("/short")
    elif path == "/parts":
        await response.write("one")
        response.end("two")
    elif path == "/no-parts":
        if not head:
            response.write("one")
        response.end()
    elif path == "/no-end":
        response.write("one")
    elif path == "/nothing":
        return
    elif path == "/raises":
        raise RuntimeError("on purpose")
    elif path == "/refuses":
        raise HttpError(403, "no", {"X-Why": "no"})
    elif path.startswith("/status/"):
        response.status(int(path[8:]))
        response.end("" if path.endswith("4") else "text")
    elif path == "/dies":
        os.kill(os.getpid(), 9)
    elif path == "/events":
        response.event_stream()
    elif path.startswith("/file/"):
        response.send_file(path[6:], root=".")
"""
PATHS = [
    "text", "short", "bytes", "empty", "left-out", "json", "redirect", "parts", "no-parts", "no-end", "nothing",
    "raises", "refuses", "status/201", "status/204", "status/205", "status/304", "status/404", "status/500", "events",
    "file/small.txt", "file/empty.txt", "file/large.txt", "file/large.bin", "file/none.txt", "file/../x",
]  # fmt: skip


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "compressed"])
def answering(
    mode: dict[str, Any], request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Serving]:
    folder: Path = tmp_path_factory.mktemp("files")
    for name, size in (("small.txt", 3000), ("empty.txt", 0), ("large.txt", 300_000), ("large.bin", 2_000_000)):
        (folder / name).write_bytes(b"0123456789" * (size // 10))
    app = "from mooring import HttpError\n" + APP
    with Serving(app, **mode, cwd=folder, compress=request.param, keepalive_requests=100_000) as running:
        yield running
        assert running.stop() == 0


def asked(server: Serving, method: str, path: str, version: str, *fields: str) -> tuple[str, dict[str, str], bytes]:
    """Status line, header fields and content."""
    with Raw(server, get(f"/{path}", *fields, "Connection: close", version=version, method=method)) as raw:
        head, _, content = raw.rest().partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    return status, {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}, content


@pytest.mark.parametrize("fields", [[], ["Accept-Encoding: gzip"], ["Range: bytes=0-9"], ['If-Match: "x"']])
@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_head_says_nothing_that_get_would_not(answering: Serving, fields: list[str], version: str):
    for path in PATHS:
        status, head, content = asked(answering, "HEAD", path, version, *fields)
        assert content == b"", path
        # Range means nothing in a HEAD (section 14.2)
        without = [field for field in fields if not field.startswith("Range")]
        same, got, _ = asked(answering, "GET", path, version, *without)
        assert status == same, path
        for name in head.keys() - {"date"}:
            assert head[name] == got.get(name), (path, name)
        if path in ("text", "short", "bytes", "json", "file/large.bin") and "content-encoding" not in got:
            assert "content-length" in head, path


@only("process")
def test_head_of_a_request_whose_worker_ends(answering: Serving):
    status, head, content = asked(answering, "HEAD", "dies", "1.1")
    assert status.split()[1] == "502"
    assert int(head["content-length"]) > 0
    assert content == b""
