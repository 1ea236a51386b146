"""What an error of a handler does: to what the client sent behind it, to the connection, to the application that wants
to know, and never to anybody else, whatever it is that was raised or returned."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contract.clients import TEXT, Raw, close_frame, get
from contract.modes import only
from frames import frame
from support.serving import Serving, eventually

APP = """
import asyncio, collections.abc, decimal, functools, gc, signal, threading, types
from pathlib import Path

class NoText(Exception):
    def __str__(self): return self.missing
class OddText(Exception):
    def __str__(self): return 5
class Huge(Exception):
    def __str__(self): return "x" * (8 << 20)
class OddNotes(Exception):
    __notes__ = property(lambda self: 1 / 0)
class OddCause(Exception):
    __cause__ = property(lambda self: sys.exit(5))
class Exits(Exception):
    def __str__(self): sys.exit(6)
    __repr__ = __str__
class Bare(BaseException):
    pass
class Unnamed(type):
    def __getattribute__(self, name): 1 / 0
class OddClass(Exception, metaclass=Unnamed):
    pass
class Unclassed(Exception):
    __class__ = property(lambda self: 1 / 0)
class Unclassed2(BaseException):
    __class__ = property(lambda self: sys.exit(7))
class Shut(Exception):
    def __getattribute__(self, name): sys.exit(8)
    def __setattr__(self, name, value): sys.exit(9)
class Keeps(MemoryError):
    @property
    def __traceback__(self): sys.exit(10)
    @__traceback__.setter
    def __traceback__(self, value): sys.exit(11)
class Lacking(BadRequest):
    def __init__(self): pass
class Proxy:
    __class__ = property(lambda self: 1 / 0)

class Later:
    def __init__(self, running): self.running = running
    def __await__(self): return self.running.__await__()

@types.coroutine
def by_generator(running):
    return (yield from running.__await__())

async def gate(name):
    while not Path(name).exists():
        await asyncio.sleep(0.002)

async def parts():
    yield 1

async def child(error):
    await asyncio.sleep(0)
    raise error

kinds = {one.__name__: one for one in (
    SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError, StopIteration, StopAsyncIteration,
    NoText, OddText, Huge, OddNotes, OddCause, Exits, Bare, Unclassed, Unclassed2, Shut, Keeps, Lacking)}

def raised(kind):
    if kind == "group":
        return BaseExceptionGroup("several", [KeyboardInterrupt(), NoText()])
    if kind == "surrogates":
        return ValueError("\\ud800 " + "\\x00")
    if kind == "chain":
        error = ValueError("the first")
        for _ in range(300):
            error.__context__, error = NoText(), error
            new = ValueError("one more"); new.__cause__ = error; error = new
        return error
    if kind == "noted":
        error = ValueError("noted"); error.add_note("a note"); error.__notes__.append(object()); return error
    return OddClass() if kind == "OddClass" else kinds[kind]()

def spawned(error):
    async def alone():
        raise error
    keep.add(asyncio.ensure_future(alone()))
    asyncio.get_running_loop().call_soon(throw, error)
    server.after(0, throw, error)

keep = set()

def throw(error):
    raise error

async def in_group(error):
    async with asyncio.TaskGroup() as group:
        group.create_task(child(error))

def act(words):
    what, _, kind = words.partition(" ")
    if what == "raise":
        raise raised(kind)
    if what == "later":
        return child(raised(kind))
    if what == "group":
        return in_group(raised(kind))
    if what == "task":
        return asyncio.ensure_future(child(raised(kind)))
    if what == "spawn":
        return spawned(raised(kind))
    if what == "return":
        return {
            "generator": lambda: (_ for _ in ()), "async generator": parts,
            "coroutine function": lambda: child, "partial": lambda: functools.partial(child, 1),
            "object": object, "number": lambda: 5, "proxy": Proxy,
        }[kind]()
    if what == "forgets":
        async def forgetful():
            return child(NoText())
        return forgetful()
    if what == "cancel":
        for task in asyncio.all_tasks():
            task.cancel()
    if what == "stop":
        asyncio.get_running_loop().stop()

@server.on("open")
def opened(server, request):
    report("open", request.fd)
    return act(request.query.get("open", ""))

@server.on("message")
def said(server, frame):
    report("said", frame.data)
    if frame.data.startswith("gate "):
        _, name, words = frame.data.split(" ", 2)
        async def behind():
            await gate(name)
            if words == "leave":
                report("left", server.disconnect(frame.fd, 4000))
                return
            result = act(words)
            if result is not None:
                await result
        return behind()
    if frame.data.startswith("await "):
        _, kind, seconds = frame.data.split(" ")
        async def waits():
            await asyncio.sleep(float(seconds))
            server.push(frame.fd, kind)
        return {"future": lambda: asyncio.ensure_future(waits()), "object": lambda: Later(waits()),
                "generator": lambda: by_generator(waits()), "coroutine": waits,
                "gathered": lambda: asyncio.gather(waits())}[kind]()
    if frame.data.startswith("say "):
        server.push(frame.fd, frame.data[4:])
        return
    return act(frame.data)

@server.on("close")
def left(server, fd, code, reason):
    report("close", code)
    return act(act_in_close.get(fd, ""))

act_in_close = {}

@server.on("request")
def asked(request, response):
    if request.path == "/stats":
        response.end(json.dumps(server.stats()))
        return
    result = act(request.query["act"])
    if result is None:
        response.end("well")
    return result

if os.environ.get("TELLS"):
    @server.on("error")
    def failing(server, fd, failure):
        report("error", failure.event, type(failure.exception) is NoText, len(failure.id))
        how = os.environ["TELLS"]
        async def later():
            await asyncio.sleep(0.05)
            server.push(fd, "told")
        if how == "raise":
            raise NoText()
        return later() if how == "later" else server.push(fd, "told")
"""
KINDS = [
    "SystemExit", "KeyboardInterrupt", "GeneratorExit", "CancelledError", "StopIteration", "StopAsyncIteration",
    "NoText", "OddText", "Huge", "OddNotes", "OddCause", "Exits", "Bare", "OddClass", "group", "surrogates", "chain",
    "noted", "Unclassed", "Unclassed2", "Shut", "Keeps",
]  # fmt: skip


@pytest.fixture(scope="module")
def app(mode: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("errors")
    with Serving(APP, cwd=folder, env={"PYTHONDONTWRITEBYTECODE": "1"}, **mode) as running:
        running.folder = folder  # type: ignore[attr-defined]
        pids = running.pids()
        yield running
        assert running.pids() == pids  # nothing has ended, and nothing was started
        assert running.stop() == 0
        # errors of tasks that nobody has asked for may follow, when the interpreter throws them away
        assert any("(adds up)" in line for line in running.lines[-100:]), "\n".join(running.lines[-100:])


@contextlib.contextmanager
def opened(app: Serving, query: str = "") -> Iterator[Raw]:
    with Raw(app) as raw:
        assert raw.upgrade(f"/?{query}").status == 101
        yield raw


def say(raw: Raw, *texts: str) -> None:
    raw.send(b"".join(frame(TEXT, text.encode()) for text in texts))


def stats(app: Serving) -> dict[str, Any]:
    with Raw(app, get("/stats")) as raw:
        return json.loads(raw.answer().body)


def fails_with(app: Serving, raw: Raw, mark: int) -> None:
    """1011 with an id that leads to a line in the log, with a traceback behind it; `close` comes once, and last."""
    code, reason = raw.close_frame()
    assert code == 1011
    raw.send(close_frame(1011))
    assert raw.rest() == b""
    line = app.wait_log(f"{reason}: the '\\w+' handler failed", since=mark).string
    assert " ERROR " in line
    app.wait_log("Traceback", since=app.lines.index(line) + 1)
    app.wait_log("^report close 1011", since=mark)


# ---------------------------------------------------------------------------------------------- what was raised


@pytest.mark.parametrize("what", ["raise", "later", "task"])
def test_whatever_a_handler_raises_is_its_own_failure(app: Serving, what: str):
    """In `open`, `message` and `request`; a line is in the log, and everybody else goes on."""
    with opened(app) as other:
        for kind in KINDS:
            if what != "raise" and kind in ("StopIteration", "StopAsyncIteration"):
                continue
            mark = app.mark()
            with opened(app) as raw:
                say(raw, f"{what} {kind}")
                fails_with(app, raw, mark)
            with Raw(app, get(f"/?act={what}%20{kind}")) as raw:
                assert raw.answer().status == 500
            say(other, "say here")
            assert other.text() == "here"
        mark = app.mark()
        with opened(app, f"open={what}%20NoText") as raw:
            fails_with(app, raw, mark)


@pytest.mark.parametrize("what", ["raise", "later"])
def test_an_error_that_lacks_what_its_base_class_has(app: Serving, what: str):
    """A BadRequest whose class has not called the one above: a client's fault all the same, if not said in full."""
    with opened(app) as raw:
        mark = app.mark()
        say(raw, f"{what} Lacking", "say no more")
        assert raw.close_frame()[0] == 1008
        raw.send(close_frame(1008))
        assert raw.rest() == b""
        app.wait_log("^report close 1008", since=mark)
        assert "said say no more" not in app.reports(since=mark)
    with Raw(app, get(f"/?act={what}%20Lacking")) as raw:
        assert raw.answer().status == 500


@pytest.mark.parametrize("kind", ["SystemExit", "KeyboardInterrupt", "GeneratorExit", "Bare", "Exits"])
def test_a_child_of_a_task_group_is_part_of_its_handler(app: Serving, kind: str):
    with opened(app) as other, opened(app) as raw:
        mark = app.mark()
        say(raw, f"group {kind}")
        fails_with(app, raw, mark)
        say(other, "say here")
        assert other.text() == "here"


@pytest.mark.parametrize("kind", ["SystemExit", "KeyboardInterrupt", "GeneratorExit", "Exits"])
def test_what_the_application_has_started_itself_ends_nobody(app: Serving, kind: str):
    """Tasks, callbacks of the loop, timers: their errors are in the log, and that is all."""
    mark = app.mark()
    with opened(app) as raw:
        say(raw, f"spawn {kind}", "say here")
        assert raw.text() == "here"
        app.wait_log("error [0-9a-f]{8}: throw failed", since=mark)
        if kind in ("SystemExit", "KeyboardInterrupt"):
            app.wait_log("error [0-9a-f]{8}: a task or a callback of the application raised", since=mark, count=2)
        say(raw, "say again")
        assert raw.text() == "again"


def test_a_loop_that_the_application_stops_goes_on(app: Serving):
    mark = app.mark()
    with opened(app) as raw:
        say(raw, "stop", "say here")
        assert raw.text() == "here"
        app.wait_log("the application has stopped the worker's loop", since=mark)


def test_a_process_whose_tasks_the_application_cancels_goes_on(app: Serving):
    mark = app.mark()
    with opened(app) as raw:
        say(raw, "cancel", "say here")
        assert raw.text() == "here"
        app.wait_log("the application has cancelled the task of this process", since=mark)


# ---------------------------------------------------------------------------------------------- what was returned


@pytest.mark.parametrize("kind", ["coroutine", "future", "object", "generator", "gathered"])
def test_whatever_can_be_awaited_is_awaited_in_order(app: Serving, kind: str):
    with opened(app) as raw:
        say(raw, f"await {kind} 0.05", "say second", f"await {kind} 0", "say fourth")
        assert [raw.text() for _ in range(4)] == [kind, "second", kind, "fourth"]


@pytest.mark.parametrize("kind", ["generator", "async generator", "coroutine function", "partial"])
def test_what_nobody_would_run_is_an_error(app: Serving, kind: str):
    with opened(app) as raw:
        mark = app.mark()
        say(raw, f"return {kind}")
        fails_with(app, raw, mark)
        app.wait_log(r"TypeError: the 'message' handler returned the (generator|function)", since=mark)
    with opened(app) as raw:
        mark = app.mark()
        say(raw, "forgets")
        fails_with(app, raw, mark)
        app.wait_log("returned the coroutine child and did not await it", since=mark)
    with opened(app) as raw:
        say(raw, "return object", "return number", "return proxy", "say fine")
        assert raw.text() == "fine"


# ---------------------------------------------------------------------------------------------- what was sent behind it


def dropped(app: Serving, reason: str) -> int:
    return sum(gateway["dropped_reasons"].get(reason, 0) for gateway in stats(app)["gateways"])


@pytest.mark.parametrize(
    ("words", "code", "reason"), [("raise NoText", 1011, "handler failed"), ("leave", 4000, "disconnected")]
)
def test_messages_behind_the_end_are_dropped_and_counted(app: Serving, words: str, code: int, reason: str):
    """Those that the worker has already, too; `close` is told behind them, once."""
    folder: Path = app.folder  # type: ignore[attr-defined]
    mark, before = app.mark(), dropped(app, reason)
    gate = f"{code}-open"
    with opened(app) as raw:
        say(raw, f"gate {gate} {words}", "withdraw 100", "withdraw 200", "gate never raise NoText")
        eventually(lambda: stats(app)["in_flight"] >= 4)
        (folder / gate).touch()
        assert raw.close_frame()[0] == code
        say(raw, "withdraw 300")
        raw.send(close_frame(code))
        assert raw.rest() == b""
    app.wait_log(f"^report close {code}", since=mark)
    said = app.reports(since=mark)
    assert f"said gate {gate} {words}" in said
    assert not [line for line in said if "withdraw" in line or "never" in line]
    eventually(lambda: dropped(app, reason) == before + 3)
    (folder / gate).unlink()


def test_a_client_that_left_behind_what_fails(app: Serving):
    """Its messages are not handled either: whether it is still there must not decide about them."""
    folder: Path = app.folder  # type: ignore[attr-defined]
    mark, before = app.mark(), dropped(app, "handler failed")
    with opened(app) as raw:
        say(raw, "gate gone raise NoText", "withdraw 100")
        raw.send(close_frame(1000))
        assert raw.close_frame()[0] == 1000
    (folder / "gone").touch()
    app.wait_log("^report close 1000", since=mark)
    assert not [line for line in app.reports(since=mark) if "withdraw" in line]
    eventually(lambda: dropped(app, "handler failed") == before + 1)
    (folder / "gone").unlink()


# ---------------------------------------------------------------------------------------------- the error event


@only("base", "process-2")
@pytest.mark.parametrize("tells", ["now", "later", "raise"])
def test_an_application_that_keeps_its_clients(mode: dict[str, Any], tells: str):
    """The error is in the log and told to `error`, before the next message; what `error` raises ends the connection."""
    with Serving(APP, env={"TELLS": tells}, on_error="keep", **mode) as app:
        with opened(app, "open=raise%20NoText" if tells != "raise" else "") as raw:
            if tells != "raise":
                app.wait_log("the 'open' handler failed")
                assert raw.text() == "told"
            say(raw, "raise NoText", "later NoText", "say behind")
            if tells == "raise":
                code, reason = raw.close_frame()
                assert code == 1011
                app.wait_log(f"{reason}: the 'error' handler failed")
            else:
                assert [raw.text() for _ in range(3)] == ["told", "told", "behind"]
                app.wait_log("^report said say behind")
                told = [line for line in app.reports() if line.startswith(("error", "said"))]
                error = "error message True 8"
                first = ["error open True 8", "said raise NoText", error, "said later NoText", error, "said say behind"]
                assert told == first
        with Raw(app, get("/?act=raise%20NoText")) as raw:
            assert raw.answer().status == 500
        app.wait_log("^report error request True 8")
        assert app.stop() == 0
        assert any("(adds up)" in line for line in app.lines[-20:]), "\n".join(app.lines[-20:])


@only("base", "process")
def test_the_error_event_of_a_connection_that_is_closed(mode: dict[str, Any]):
    with Serving(APP, env={"TELLS": "now"}, **mode) as app, opened(app) as raw:
        say(raw, "raise NoText", "say behind")
        assert raw.close_frame()[0] == 1011
        app.wait_log("^report error message True 8")
        assert "said say behind" not in app.reports()


# ---------------------------------------------------------------------------------------------- where no client is

ELSEWHERE = """
import asyncio, logging
class NoText(Exception):
    def __str__(self): return self.missing
class Value:
    pass
kinds = {kind.__name__: kind for kind in (SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError, NoText)}

class Refuses(logging.Filter):
    def filter(self, record):
        if "refuse me" in str(record.exc_info): raise KeyboardInterrupt
        return True

@server.on("worker_start")
def started(server, worker_id):
    logging.getLogger("mooring.worker").addFilter(Refuses())

def ending(event):
    async def later(*arguments):
        report(event)
        await asyncio.sleep(0)
        raise SystemExit(7)
    def now(*arguments):
        report(event)
        raise KeyboardInterrupt
    return later if event in ("start", "worker_stop") else now

for event in ("start", "worker_exit", "worker_stop", "shutdown"):
    server.on(event, ending(event))

if server.settings.tasks.task_worker_num:
    @server.on("task")
    def task(server, task):
        if task.data == "fine":
            return task.data
        if task.data == "future":
            return asyncio.ensure_future(asyncio.sleep(0.01, "waited"))
        if task.data == "value":
            return Value()
        raise kinds[task.data]()

def failing(*arguments):
    raise kinds["KeyboardInterrupt"]()

if server.settings.tasks.task_worker_num:
    server.on("finish", failing)
server.on("pipe_message", failing)

class Torn:
    def write(self, text): raise BlockingIOError(11, "torn")
    def flush(self): raise BlockingIOError(11, "torn")

def output(how):
    if how == "closed":
        sys.stdout.close()
    elif how == "none":
        sys.stdout = sys.stderr = None
    elif how == "torn":
        sys.stdout = sys.stderr = Torn()
    else:
        reader, writer = os.pipe()
        os.close(reader)
        sys.stdout = open(writer, "w")

@server.on("message")
async def said(server, frame):
    what, _, rest = frame.data.partition(" ")
    if what == "task":
        try:
            server.push(frame.fd, await server.task(rest))
        except TaskFailed as failed:
            server.push(frame.fd, failed.kind)
    elif what == "elsewhere":
        server.task_async("fine")
        server.send_message("x", server.worker_id)
    elif what == "output":
        output(rest)
    elif what == "print":
        print("something")
        sys.stdout.flush()
    elif what == "log":
        raise ValueError("refuse me")
    server.push(frame.fd, "well")
"""


@only("base", "base-2", "process-2")
def test_tasks_events_and_messages_that_raise(mode: dict[str, Any]):
    """Nothing of it ends a process; what waits is told, and the next one is handled."""
    with Serving(ELSEWHERE, task_worker_num=1, **mode) as app:
        pids = app.pids()
        app.wait_log("error [0-9a-f]{8}: the 'start' handler failed")
        with opened(app) as raw:
            kinds = {
                kind: kind for kind in ("SystemExit", "KeyboardInterrupt", "GeneratorExit", "CancelledError", "NoText")
            }
            for data, result in {**kinds, "future": "waited", "value": "TypeError", "fine": "fine"}.items():
                say(raw, f"task {data}")
                assert [raw.text(), raw.text()] == [result, "well"]
            say(raw, "elsewhere")
            assert raw.text() == "well"
            app.wait_log("error [0-9a-f]{8}: failing failed", count=2)
            mark = app.mark()
            say(raw, "log")
            code, reason = raw.close_frame()
            assert code == 1011
            app.wait_log(f"{reason}: the 'message' handler failed", since=mark)
        assert app.pids() == pids
        assert app.stop() == 0
        assert any("(adds up)" in line for line in app.lines[-20:]), "\n".join(app.lines[-20:])
        for event in ("worker_exit", "worker_stop", "shutdown"):
            app.wait_log(f"error [0-9a-f]{{8}}: the '{event}' handler failed")


@only("base", "process")
def test_a_start_that_raises_what_cannot_be_looked_at(mode: dict[str, Any]):
    app = """
class Unclassed(Exception):
    __class__ = property(lambda self: 1 / 0)

@server.on("message")
def said(server, frame): ...

@server.on("worker_start")
def started(server, worker_id):
    raise Unclassed("the reason")
"""
    with Serving(app, ready=False, **mode) as running:
        assert running.ended() == 1
        running.wait_log("the 'worker_start' handler raised what can't be looked at")
        running.wait_log("Unclassed: the reason")


@only("base", "process")
@pytest.mark.parametrize("how", ["closed", "none", "torn", "pipe"])
def test_what_is_printed_to_nobody(mode: dict[str, Any], how: str):
    """It is the handler's error, if it is one; the process goes on, writes its log, and ends with 0."""
    with Serving(ELSEWHERE, **(mode | {"worker_num": 1}), task_worker_num=0) as app:
        with opened(app) as raw:
            say(raw, f"output {how}", "print")
            assert raw.text() == "well"
            code, reason = raw.close_frame()
            assert code == 1011
            app.wait_log(f"{reason}: the 'message' handler failed")
        with opened(app) as raw:
            say(raw, "anything")
            assert raw.text() == "well"
        assert app.stop() == 0
        assert any("(adds up)" in line for line in app.lines[-10:]), "\n".join(app.lines[-10:])
