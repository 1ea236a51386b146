"""Each call of a handler has a context (contextvars) of its own: what it sets is seen by what it calls and awaits, and
by nobody else. All begin with what `worker_start` has set."""

from collections.abc import Iterator
from typing import Any

import pytest

from contract.clients import TEXT, Raw, close_frame, get
from frames import frame
from support.serving import Serving

APP = """
import asyncio, contextvars, decimal
who = contextvars.ContextVar("who", default="nobody")
early = contextvars.ContextVar("early", default="nothing")
early.set("imported")

def seen(what, name):
    report(what, who.get(), early.get(), decimal.getcontext().prec)
    who.set(name)
    decimal.getcontext().prec = 7

@server.on("worker_start")
async def started(server, worker_id):
    await asyncio.sleep(0)
    who.set("started")

@server.on("start")
def ready(server):
    seen("start", "start")

@server.on("handshake")
def judged(server, request):
    seen("handshake", "judged")

@server.on("subprotocol")
async def chosen(server, request):
    report("subprotocol", who.get())
    return "chat"

@server.on("open")
KIND opened(server, request):
    seen("open", "opened")

@server.on("message")
KIND said(server, frame):
    seen("message", frame.data)
    if frame.data == "fails":
        raise ValueError
    if frame.data == "ticks":
        calls = []
        def tick():
            calls.append(who.get())
            who.set("ticked")
            if len(calls) == 3:
                server.clear_timer(number)
                report("ticks", *calls)
        number = server.tick(0.001, tick)
        async def after():
            await asyncio.sleep(0)
            report("after", who.get())
        server.after(0, after)
        who.set("later")
    AFTER
    server.push(frame.fd, who.get())

@server.on("error")
KIND failing(server, fd, failure):
    report("error", who.get())
    who.set("failing")

@server.on("close")
KIND left(server, fd, code, reason):
    seen("close", "left")

@server.on("request")
KIND asked(request, response):
    seen("request", "asked")
    if request.path == "/task":
        server.task_async("x")
        server.send_message("x", server.worker_id)
    response.end(who.get())

@server.on("task")
KIND task(server, task):
    seen("task", "worked")
    task.progress(1)
    return 1

@server.on("finish")
KIND finished(server, outcome):
    seen("finish", "finished")

@server.on("pipe_message")
KIND piped(server, src_worker_id, data):
    seen("pipe", "piped")
"""


@pytest.fixture(scope="module", params=["def", "async def"])
def app(request: pytest.FixtureRequest, mode: dict[str, Any]) -> Iterator[Serving]:
    code = APP.replace("KIND", request.param).replace(
        "AFTER", "" if request.param == "def" else "await asyncio.sleep(0)"
    )
    with Serving(code, task_worker_num=1, subprotocols=["chat"], **mode) as running:
        yield running
        assert running.stop() == 0


def test_what_a_handler_sets_is_its_own(app: Serving):
    app.wait_log("^report start started imported 28")
    mark = app.mark()
    for name in ("ann", "bob"):
        with Raw(app) as raw:
            raw.upgrade("/", "Sec-WebSocket-Protocol: chat")
            raw.send(frame(TEXT, name.encode()) + frame(TEXT, b"again"))
            assert [raw.text(), raw.text()] == [name, "again"]
            raw.send(close_frame())
            assert raw.close_frame()[0] == 1000
        app.wait_log("^report close", since=mark)
        assert app.reports(since=mark) == [
            "handshake started imported 28",
            "subprotocol judged",
            "open started imported 28",
            "message started imported 28",
            "message started imported 28",
            "close started imported 28",
        ]
        mark = app.mark()
    with Raw(app, get("/") + get("/")) as raw:
        assert [raw.answer().body, raw.answer().body] == [b"asked", b"asked"]
    app.wait_log("^report request", since=mark, count=2)
    assert app.reports(since=mark) == ["request started imported 28"] * 2


def test_a_timer_has_the_context_it_was_made_in(app: Serving):
    mark = app.mark()
    with Raw(app) as raw:
        raw.upgrade("/")
        raw.send(frame(TEXT, b"ticks"))
        assert raw.text() == "later"
        app.wait_log("^report ticks ticks ticks ticks", since=mark)
        app.wait_log("^report after ticks", since=mark)


def test_the_error_handler_has_that_of_what_failed(app: Serving):
    mark = app.mark()
    with Raw(app) as raw:
        raw.upgrade("/")
        raw.send(frame(TEXT, b"fails"))
        assert raw.close_frame()[0] == 1011
    app.wait_log("^report error fails", since=mark)
    app.wait_log("^report close started", since=mark)


def test_what_concerns_no_connection(app: Serving):
    """Tasks, their ends, messages between workers."""
    for _ in range(2):
        mark = app.mark()
        with Raw(app, get("/task") + get("/task")) as raw:
            assert [raw.answer().status, raw.answer().status] == [200, 200]
        for what in ("task", "finish", "pipe"):
            app.wait_log(f"^report {what} started imported 28", since=mark, count=2)
            assert set(app.reports(what, mark)) == {"started imported 28"}
