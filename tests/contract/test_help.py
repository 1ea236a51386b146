"""What a newcomer does wrong in a handler is told in the log, in one line, with what to do."""

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import pytest

from contract.clients import Raw, dial, get
from support.serving import Serving

APP = """
RETURNED = {"dict": {"a": 1}, "list": [1], "str": "hello", "bytes": b"x", "tuple": ("x", 404), "true": True}

@server.on("open")
def opened(server, request):
    server.push(request.fd, json.dumps({"fd": request.fd, "worker": 0, "pid": 0}))
    result = RETURNED.get(request.query.get("what"))
    return later(result) if "later" in request.query else result

async def later(result):
    await asyncio.sleep(0)
    return result

@server.on("message")
def said(server, frame):
    if frame.data == "await":
        return awaits(frame.fd)
    how, _, what = frame.data.rpartition(" ")
    if how:
        return returns(frame.fd, how, what)
    if frame.data == "text":
        frame.text
    if frame.data == "frame.send":
        frame.send("x")
    if frame.data == "unawaited":
        unawaited = later("x")
        try:
            server.push(frame.fd, unawaited)
        finally:
            unawaited.close()
    if frame.data == "raised":
        raise mooring.Reject(404)
    if frame.data == "frame.session":
        frame.session["name"]
    if frame.data == "session.name":
        server.session(frame.fd).name = "ada"
    server.push(frame.fd, "handled")
    return RETURNED.get(frame.data)

async def returns(fd, how, what):
    if how == "later":
        await asyncio.sleep(0)
    server.push(fd, "handled")
    return RETURNED.get(what)

async def awaits(fd):
    await server.push(fd, "handled")

@server.on("request")
async def page(request, response):
    if request.path == "/later":
        await asyncio.sleep(0)
    if request.path == "/status":
        response.status_code = 404
    if request.path == "/status-set":
        response.status = 404
    if request.path == "/json":
        request.json["a"]
    if request.path == "/cookie":
        response.set_cookie("a", "b")
    if request.path == "/query":
        request.query_params["a"]
    return RETURNED.get(request.query["what"])
"""


@pytest.fixture(scope="module")
def running(mode: dict[str, Any]) -> Iterator[Serving]:
    with Serving("import asyncio\nimport mooring\n" + APP, **mode) as server:
        yield server
        assert server.stop() == 0


@pytest.mark.parametrize(
    ("what", "words"),  # fewer than the log takes of a kind in one second
    [
        ("dict", "it returned a dict, and what a handler returns is sent to nobody: call response.json() with it"),
        ("list", "it returned a list, and what a handler returns is sent to nobody: call response.json() with it"),
        ("str", "it returned a str, and what a handler returns is sent to nobody: call response.end() with it"),
        ("bytes", "it returned a bytes, and what a handler returns is sent to nobody: call response.end() with it"),
        ("none", "call response.end() or response.json()"),
        ("true", "call response.end() or response.json()"),
    ],
)
def test_a_request_handler_that_returns_its_answer(running: Serving, what: str, words: str):
    mark, path = running.mark(), "/later" if what in ("list", "none") else "/at-once"
    with Raw(running, get(f"{path}?what={what}")) as raw:
        assert raw.answer().status == 500
    running.wait_log(re.escape(f"the 'request' handler gave no answer to GET {path}?what={what}: {words}"), since=mark)


@pytest.mark.parametrize(
    ("how", "what"),  # fewer than the log takes of a kind in one second, as above
    [("", "dict"), ("", "bytes"), ("", "tuple"), ("at-once ", "str"), ("at-once ", "dict"), ("later ", "list")],
)
async def test_a_message_handler_that_returns_its_answer(running: Serving, what: str, how: str):
    """`how`: a plain function, or a coroutine that is suspended or not."""
    mark = running.mark()
    async with dial(running) as peer:
        await peer.send(how + what)
        assert await peer.recv() == "handled"
        words = f"the 'message' handler returned a {what}, and what a handler returns is sent to nobody: "
        await asyncio.to_thread(running.wait_log, re.escape(words), since=mark)
        for silent in ("none", "true"):
            mark = running.mark()
            await peer.send(how + silent)
            assert await peer.recv() == "handled"
            await peer.send("other")
            assert await peer.recv() == "handled"
            assert not any("returned a" in line for line in running.lines[mark:])


@pytest.mark.parametrize("how", [{}, {"later": "1"}], ids=["plain", "coroutine"])
async def test_an_open_handler_that_returns_its_answer(running: Serving, how: dict[str, str]):
    mark = running.mark()
    async with dial(running, what="str", **how):
        await asyncio.to_thread(running.wait_log, "the 'open' handler returned a str, .* push it", since=mark)


async def test_await_before_a_method_that_needs_none(running: Serving):
    mark = running.mark()
    async with dial(running) as peer:
        await peer.send("await")
        assert await peer.recv() == "handled"
        words = "return a plain value: call them without `await`"
        await asyncio.to_thread(running.wait_log, words, since=mark)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("text", "(did you mean frame.data?)"),
        ("frame.send", "(did you mean server.push(frame.fd, data)?)"),
        ("unawaited", "not coroutine; what a coroutine gives is there when it was awaited: `await` it"),
        ("raised", "(if that is a Reject: return it"),
        ("frame.session", "(did you mean server.session(frame.fd)?)"),
        ("session.name", "(if that is server.session(fd): it is a mapping, write session['name']"),
    ],
)
async def test_attributes_of_other_servers(running: Serving, what: str, words: str):
    mark = running.mark()
    async with dial(running) as peer:
        await peer.send(what)
        assert (await peer.ended())[0] == 1011
        await asyncio.to_thread(running.wait_log, re.escape(words), since=mark)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/status", "AttributeError: call response.status(404)"),
        ("/status-set", "(it is a method: call it, as in response.status(...))"),
        ("/json", "(a method is called first, as in request.json()['name'])"),
        ("/cookie", "(did you mean cookie(name, value)?)"),
        ("/query", "(did you mean request.query?)"),
    ],
)
def test_methods_of_other_servers(running: Serving, path: str, words: str):
    mark = running.mark()
    with Raw(running, get(f"{path}?what=none")) as raw:
        assert raw.answer().status == 500
    running.wait_log(re.escape(words), since=mark)
