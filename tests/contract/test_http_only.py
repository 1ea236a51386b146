"""A server without a handler for messages speaks HTTP only, and says so to who asks for a WebSocket."""

import asyncio
import re
from pathlib import Path
from typing import Any

from contract.clients import TEXT, Raw, get, handshake
from contract.modes import only
from frames import frame
from support.serving import Serving

PAGES = """
@server.on("request")
def page(request, response):
    if request.path == "/reload":
        server.reload()
    response.end(f"the page {request.path}, {server.stats()['handshakes_refused']} refused")
"""


def page(server: Serving, path: str) -> tuple[int, bytes]:
    with Raw(server, get(path)) as raw:
        answer = raw.answer()
        return answer.status, answer.body


def refused(server: Serving) -> None:
    with Raw(server, handshake()) as raw:
        answer = raw.answer()
        assert answer.status == 404
        assert b"this server speaks HTTP only, and no WebSocket" in answer.body
        assert raw.rest() == b""


def test_requests_alone_are_enough(mode: dict[str, Any]):
    with Serving(PAGES, **mode) as server:
        assert page(server, "/a") == (200, b"the page /a, 0 refused")
        mark = server.mark()
        refused(server)
        server.wait_refusal(r"handshake on connection \d+ refused with 404", since=mark)
        assert page(server, "/a") == (200, b"the page /a, 1 refused")
        assert server.stop() == 0


def test_so_is_a_folder(mode: dict[str, Any], tmp_path: Path):
    (tmp_path / "a.txt").write_text("a file")
    with Serving("", document_root=str(tmp_path), **mode) as server:
        assert page(server, "/a.txt") == (200, b"a file")
        assert page(server, "/b.txt")[0] == 404
        refused(server)
        assert server.stop() == 0


LISTENERS = (
    PAGES
    + """
talks = server.listen("127.0.0.1", 0)

@talks.on("message")
def said(server, frame):
    server.push(frame.fd, frame.data)
"""
)


def test_a_listener_that_speaks_beside_one_that_does_not(mode: dict[str, Any]):
    with Serving(LISTENERS, **mode) as server:
        port = re.findall(r"127\.0\.0\.1:(\d+)", server.wait_log("listening on .*").group())[1]
        refused(server)
        with Raw(server, handshake(), port=int(port)) as raw:
            assert b"101 Switching" in raw.until(b"\r\n\r\n")
            raw.send(frame(TEXT, b"hello"))
            assert raw.text() == "hello"
        assert server.stop() == 0


CHANGING = PAGES + 'exec(open("handlers").read())\n'
SAYING = """
@server.on("message")
def said(server, frame):
    server.push(frame.fd, frame.data)
"""


@only("process", "process-2")
async def test_a_reload_brings_messages_and_takes_them_away(mode: dict[str, Any], tmp_path: Path):
    handlers = tmp_path / "handlers"
    handlers.write_text("")

    async def reload(text: str) -> None:
        handlers.write_text(text)
        mark = server.mark()
        page(server, "/reload")
        await asyncio.to_thread(server.wait_log, "reload: done", since=mark)

    with Serving(CHANGING, cwd=tmp_path, **mode) as server:
        refused(server)
        await reload(SAYING)
        with Raw(server, handshake()) as raw:
            assert b"101 Switching" in raw.until(b"\r\n\r\n")
            raw.send(frame(TEXT, b"hello"))
            assert raw.text() == "hello"
            await reload("")
            refused(server)
            raw.send(frame(TEXT, b"nobody hears that"))
            assert raw.close_frame()[0] == 1011
            server.wait_log("StateError: there is no 'message' handler any more")
        assert server.stop() == 0
