"""The application that the contract tests talk to.

Most tests say themselves what shall happen in a worker: they send a Python expression, which is evaluated there, in
a handler. So one running server serves many tests, and a test shows both sides of what it is about.

    /eval      a message, or the body of a request, is an expression; the answer is what it gave, and where
    /echo      a message comes back as it was; a request comes back described
    /order     "N SECONDS": the handler tells that it begins, is suspended for that time, tells that it ends
    /fails...  the handler raises

A task that is a text is an expression, too, evaluated in the task worker.

`?open=EXPRESSION` and `?close=EXPRESSION` are evaluated in those handlers. With `?name=NAME` every event of the
connection is reported in the log.
"""

import ast
import asyncio
import dataclasses  # noqa: F401 - for expressions, like gc
import datetime  # noqa: F401
import decimal  # noqa: F401
import gc  # noqa: F401
import itertools  # noqa: F401
import json
import os
import subprocess  # noqa: F401
import sys
import threading
import time
import uuid  # noqa: F401
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forking  # noqa: F401 - it stands beside this file

import mooring
from mooring import Frame, Request, Response, Server, Task, TaskOutcome

server = Server("127.0.0.1", 0, **json.loads(os.environ["MOORING_TEST_SETTINGS"]))
hits = server.atomic("hits", 5)
people = server.table("people", rows=4, row_bytes=100, name=str, age=int, score=float, photo=bytes, here=bool)
opened: dict[int, Request] = {}  # of the WebSockets that this worker serves
kept: dict[str, Any] = {}  # what expressions want to find again in the same worker


def report(*words: object) -> None:
    # one write, so that the lines of several processes do not mix
    os.write(2, ("report " + " ".join(map(str, words)) + "\n").encode())


async def seen(path: str) -> None:
    """Until that file is in the server's folder: a test holds a handler up as long as it likes."""
    while not Path(path).exists():
        await asyncio.sleep(0.002)


async def until(check: Callable[[], object]) -> None:
    while not check():
        await asyncio.sleep(0.002)


def block_until(path: str) -> None:
    """The same without letting anything else run in this process."""
    report("blocked until", path)
    while not Path(path).exists():
        time.sleep(0.002)


class Boom(Exception):
    """What is raised on purpose."""


def fail(what: str = "on purpose") -> None:
    raise Boom(what)


def run_later(seconds: float, code: str) -> None:
    """Evaluates an expression in a thread of its own, when the worker's loop is asleep."""

    def run() -> None:
        time.sleep(seconds)
        eval(code, scope())

    threading.Thread(target=run).start()


def scope(**names: object) -> dict[str, Any]:
    known = {name: getattr(mooring, name) for name in mooring.__all__}
    return {**known, **globals(), **names}


async def evaluate(expression: str, /, in_thread: bool = False, **names: object) -> dict[str, Any]:
    """What an expression gives, or what it raises; and which worker it was."""
    told: dict[str, Any] = {"worker": server.worker_id, "pid": os.getpid()}
    try:
        compiled = compile(expression, "<the test>", "eval", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        if in_thread:
            told["value"] = await asyncio.to_thread(eval, compiled, scope(**names))
        else:
            value = eval(compiled, scope(**names))
            told["value"] = await value if asyncio.iscoroutine(value) else value
    except Exception as error:
        told["error"] = [[kind.__name__ for kind in type(error).__mro__], str(error)]
    return told


def as_json(value: object) -> str:
    return json.dumps(value, default=lambda other: getattr(other, "__dict__", None) or repr(other))


@server.on("open")
async def on_open(server: Server, request: Request) -> None:
    opened[request.fd] = request
    name = request.query.get("name")
    if name:
        report(name, "open", request.path)
    if request.path == "/fails-in-open":
        fail("in open")
    server.push(request.fd, as_json({"fd": request.fd, "worker": server.worker_id, "pid": os.getpid()}))
    if "open" in request.query:
        told = await evaluate(request.query["open"], fd=request.fd, request=request)
        if name:
            report(name, "opened", as_json(told.get("value", told.get("error"))))


@server.on("message")
async def on_message(server: Server, frame: Frame) -> None:
    request, fd = opened[frame.fd], frame.fd
    name = request.query.get("name")
    if name:
        report(name, "message", frame.data)
    if request.path == "/echo":
        server.push(fd, frame.data, frame.opcode)
    elif request.path == "/eval":
        server.push(fd, as_json(await evaluate(str(frame.data), fd=fd, frame=frame)))
    elif request.path == "/order":
        number, seconds = str(frame.data).split()
        server.push(fd, f"begin {number}")
        await asyncio.sleep(float(seconds))
        server.push(fd, f"end {number}")
    elif request.path == "/fails-in-message":
        fail("in message")
    elif request.path == "/fails-later":
        await asyncio.sleep(0)
        fail("in message, later")
    elif request.path == "/exits":
        sys.exit(3)
    elif request.path == "/exits-later":
        await asyncio.sleep(0)
        sys.exit(3)
    elif request.path == "/cancels":
        raise asyncio.CancelledError
    if name:
        report(name, "handled", frame.data)


@server.on("close")
async def on_close(server: Server, fd: int, code: int, reason: str) -> None:
    request = opened.pop(fd)
    name = request.query.get("name")
    if "close" in request.query:
        told = await evaluate(request.query["close"], fd=fd, code=code, reason=reason)
        if name:
            report(name, "closing", as_json(told.get("value", told.get("error"))))
    if name:
        report(name, "close", code, reason)
    if request.path == "/fails-in-close":
        fail("in close")


@server.on("request")
async def on_request(request: Request, response: Response) -> None:
    if request.path == "/eval":
        told = request.json() if request.body else {"code": request.query["code"]}
        answer = await evaluate(told.pop("code"), **told, request=request, response=response)
        if not response.started:
            response.header("Content-Type", "application/json")
            response.end(as_json(answer))
        elif "error" in answer:
            report("an expression failed:", answer["error"])
    elif request.path.startswith("/echo"):
        response.end(as_json(described(request)))
    elif request.path == "/slow":
        await seen(request.query["until"])
        response.end("slow")
    elif request.path == "/fails":
        fail("in request")
    elif request.path == "/fails-later":
        await asyncio.sleep(0)
        fail("in request, later")
    elif request.path == "/fails-halfway":
        response.write("half of it")
        fail("in request, halfway")
    elif request.path == "/exits":
        sys.exit(3)
    elif request.path == "/cancels":
        raise asyncio.CancelledError
    elif request.path == "/half":
        response.write("not ended by the handler")
    elif request.path != "/silent":
        response.end("hello")


if server.settings.tasks.task_worker_num:  # without any there may be no handlers of tasks

    @server.on("task")
    def on_task(server: Server, task: Task) -> Any:
        """A text is evaluated in the task worker, anything else is the result."""
        return eval(task.data, scope(task=task)) if isinstance(task.data, str) else task.data

    @server.on("finish")
    def on_finish(server: Server, outcome: TaskOutcome) -> None:
        report("finish", server.worker_id, outcome.id, as_json(str(outcome.error) if outcome.error else outcome.result))

    # else every server of these tests would have a dispatcher

    @server.on("pipe_message")
    async def on_pipe_message(server: Server, src_worker_id: int, data: Any) -> None:
        report("pipe", src_worker_id, server.worker_id, as_json(data))
        if data == "answer me":
            server.send_message("here you are", src_worker_id)


def described(request: Request) -> dict[str, object]:
    names = (
        "fd method target path query_string query query_list cookies remote_ip remote_port server_port scheme"
        " http_version number subprotocols received"
    )
    found = {name: getattr(request, name) for name in names.split()}
    return {**found, "headers": request.headers.raw, "body": request.body.decode("latin-1")}


if __name__ == "__main__":
    server.start()
