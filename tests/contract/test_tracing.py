"""Spans of OpenTelemetry: one for each call of a handler, the current one while it runs, with the context that came."""

import json
import signal
from typing import Any

import pytest

from contract.clients import TEXT, Raw, close_frame, get, handshake
from contract.modes import only
from frames import frame
from support.serving import Serving, eventually

pytest.importorskip("opentelemetry.sdk")

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
HEADER = f"traceparent: 00-{TRACE}-{PARENT}-01"
APP = """
import asyncio
from opentelemetry import propagate, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
tracer = trace.get_tracer("app")

def current():
    return format(trace.get_current_span().get_span_context().span_id, "016x")

async def inner(name):
    before = current()
    with tracer.start_as_current_span(name):
        await asyncio.sleep(0.01)
    assert current() == before

@server.on("open")
def opened(server, request):
    server.push(request.fd, current())

@server.on("message")
async def said(server, frame):
    await asyncio.gather(inner("one"), inner("two"))
    if frame.data == "fail":
        raise KeyError("on purpose")
    headers = {}
    propagate.inject(headers)
    server.push_json(frame.fd, [current(), headers])

@server.on("close")
def left(server, fd, code, reason):
    report("close", current())

@server.on("request")
def asked(request, response):
    if request.path == "/spans":
        response.json([json.loads(span.to_json()) for span in exporter.get_finished_spans()])
    elif request.path == "/later":
        return later(request, response)
    elif request.path == "/missing":
        raise HttpError(404, "no such thing")
    elif request.path == "/fails":
        1 / 0
    elif request.path == "/fails-late":
        response.write("a part")
        1 / 0
    elif request.path == "/events":
        return events(request, response)
    elif request.path == "/long":
        return long(request, response)
    elif request.path != "/nothing":
        response.end(current())

async def events(request, response):
    await response.event_stream().send("one")
    await asyncio.sleep(60)

async def long(request, response):
    while True:
        await response.write(bytes(100_000))

async def later(request, response):
    await inner("inside")
    response.status(503)
    response.end(current())
"""


@pytest.fixture(scope="module")
def traced(mode: dict[str, Any]):
    one = {name: 1 for name in ("worker_num", "gateway_num") if name in mode}
    with Serving(APP, tracing=True, **{**mode, **one}) as server:
        yield server
        assert server.stop() == 0


def spans(server: Serving) -> list[dict[str, Any]]:
    with Raw(server, get("/spans", "Connection: close")) as raw:
        return raw.answer().json()


def the_span(server: Serving, number: str) -> dict[str, Any]:
    """The one with this id, once it has ended."""
    found: list[dict[str, Any]] = []

    def there() -> bool:
        found[:] = [span for span in spans(server) if span["context"]["span_id"] == f"0x{number}"]
        return bool(found)

    eventually(there)
    return found[0]


def children(server: Serving, span: dict[str, Any]) -> list[str]:
    return sorted(one["name"] for one in spans(server) if one["parent_id"] == span["context"]["span_id"])


@only("base", "process")
def test_a_request(traced: Serving):
    with Raw(traced, get("/here?a=b", HEADER, "User-Agent: tests", "Connection: close")) as raw:
        answer = raw.answer()
    span = the_span(traced, answer.body.decode())
    assert (span["name"], span["kind"], span["parent_id"]) == ("GET", "SpanKind.SERVER", f"0x{PARENT}")
    assert span["context"]["trace_id"] == f"0x{TRACE}"
    assert span["status"]["status_code"] == "UNSET"
    attributes = span["attributes"]
    assert attributes["http.request.method"] == "GET"
    assert (attributes["url.path"], attributes["url.query"], attributes["url.scheme"]) == ("/here", "a=b", "http")
    assert (attributes["http.response.status_code"], attributes["user_agent.original"]) == (200, "tests")
    assert attributes["client.address"] == "127.0.0.1"
    assert attributes["network.protocol.version"] == "1.1"


@only("base", "process")
def test_a_request_whose_handler_awaits(traced: Serving):
    with Raw(traced, get("/later", "Connection: close")) as raw:
        answer = raw.answer()
    span = the_span(traced, answer.body.decode())
    assert span["parent_id"] is None
    assert (span["attributes"]["http.response.status_code"], span["status"]["status_code"]) == (503, "ERROR")
    assert children(traced, span) == ["inside"]


@only("base", "process")
@pytest.mark.parametrize(("path", "status", "code"), [("/missing", 404, "UNSET"), ("/fails", 500, "ERROR")])
def test_a_request_whose_handler_raises(traced: Serving, path: str, status: int, code: str):
    with Raw(traced, get(path, "Connection: close")) as raw:
        assert raw.answer().status == status
    (span,) = [span for span in spans(traced) if span["attributes"].get("url.path") == path]
    assert span["attributes"]["http.response.status_code"] == status
    assert span["status"]["status_code"] == code
    assert [event["name"] for event in span["events"]] == (["exception"] if code == "ERROR" else [])
    assert span["attributes"].get("error.type") == ("ZeroDivisionError" if code == "ERROR" else None)


def spans_of(server: Serving, path: str) -> list[dict[str, Any]]:
    return [span for span in spans(server) if span["attributes"].get("url.path") == path]


@only("base", "process")
@pytest.mark.parametrize("path", ["/events", "/long"])
def test_a_client_that_leaves_is_no_error(traced: Serving, path: str):
    with Raw(traced, get(path)) as raw:
        raw.until(b"\r\n\r\n")
    (span,) = eventually(lambda: spans_of(traced, path))  # type: ignore[misc]
    assert span["attributes"]["http.response.status_code"] == 200
    assert (span["status"]["status_code"], span["events"]) == ("UNSET", [])
    assert "error.type" not in span["attributes"]


@only("base", "process")
@pytest.mark.parametrize(
    ("path", "status", "kind"), [("/fails-late", 200, "ZeroDivisionError"), ("/nothing", 500, "500")]
)
def test_a_failed_request_has_the_status_that_its_client_was_sent(traced: Serving, path: str, status: int, kind: str):
    with Raw(traced, get(path, "Connection: close")) as raw:
        assert raw.until(b"\r\n\r\n").startswith(b"HTTP/1.1 %d " % status)
        raw.rest()
    (span,) = spans_of(traced, path)
    assert (span["attributes"]["http.response.status_code"], span["attributes"]["error.type"]) == (status, kind)
    assert span["status"]["status_code"] == "ERROR"


@only("base", "process")
@pytest.mark.parametrize(
    ("host", "address"),
    [("a.example", "a.example"), ("b.example:80", "b.example"), ("[::1]", "[::1]"), ("[::2]:99", "[::2]")],
)
def test_the_address_of_the_server_is_its_host_without_the_port(traced: Serving, host: str, address: str):
    with Raw(traced, f"GET /at HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()) as raw:
        span = the_span(traced, raw.answer().body.decode())
    assert span["attributes"]["server.address"] == address


@only("base", "process")
def test_a_websocket(traced: Serving):
    mark = traced.mark()
    with Raw(traced, handshake("/room", HEADER)) as raw:
        assert raw.until(b"\r\n\r\n").startswith(b"HTTP/1.1 101")
        opened = the_span(traced, raw.text())
        assert (opened["name"], opened["parent_id"]) == ("GET open", f"0x{PARENT}")
        raw.send(frame(TEXT, "hellö".encode()))
        number, headers = json.loads(raw.text())
        span = the_span(traced, number)
        assert headers["traceparent"].split("-")[1:3] == [span["context"]["trace_id"][2:], number]
        assert (span["name"], span["kind"], span["parent_id"]) == ("message", "SpanKind.CONSUMER", None)
        assert span["context"]["trace_id"] != opened["context"]["trace_id"]
        (link,) = span["links"]
        assert link["context"]["span_id"] == opened["context"]["span_id"]
        assert link["context"]["trace_id"] == f"0x{TRACE}"
        assert span["attributes"]["messaging.message.body.size"] == 6
        assert span["attributes"]["messaging.operation.type"] == "process"
        assert children(traced, span) == ["one", "two"]
        raw.send(close_frame(1000))
        closed = the_span(traced, traced.wait_log("^report close (.*)", since=mark)[1])
        assert closed["links"][0]["context"]["span_id"] == opened["context"]["span_id"]


@only("base", "process")
def test_a_message_whose_handler_raises(traced: Serving):
    with Raw(traced, handshake("/room")) as raw:
        raw.until(b"\r\n\r\n")
        raw.text()
        raw.send(frame(TEXT, b"fail"))
        assert raw.close_frame()[0] == 1011

    def failed() -> list[dict[str, Any]]:
        return [span for span in spans(traced) if span["name"] == "message" and span["attributes"].get("error.type")]

    (span,) = eventually(failed)  # type: ignore[misc]
    assert (span["attributes"]["error.type"], span["status"]["status_code"]) == ("KeyError", "ERROR")
    assert span["events"][0]["attributes"]["exception.type"] == "KeyError"


@only("process")
def test_a_link_outlives_a_reload(mode: dict[str, Any]):
    with Serving(APP, tracing=True, **{**mode, "worker_num": 1}) as server:
        with Raw(server, handshake("/room", HEADER)) as raw:
            raw.until(b"\r\n\r\n")
            number = raw.text()
            server.signal(signal.SIGHUP)
            server.wait_log("reload: done")
            raw.send(frame(TEXT, b"hello"))
            span = the_span(server, json.loads(raw.text())[0])
            assert span["links"][0]["context"]["span_id"] == f"0x{number}"
        assert server.stop() == 0


@only("base")
def test_nothing_is_imported_unless_asked_for(mode: dict[str, Any]):
    app = """
    @server.on("request")
    def asked(request, response):
        response.json([name for name in sys.modules if name.startswith("opentelemetry")])
    """
    with Serving(app, **mode) as server:
        with Raw(server, get("/", "Connection: close")) as raw:
            assert raw.answer().json() == []
        assert server.stop() == 0


@only("base")
def test_without_the_library_it_does_not_start(mode: dict[str, Any]):
    app = """
    import importlib.util, mooring.runtime
    found = importlib.util.find_spec
    mooring.runtime.find_spec = lambda name: None if name == "opentelemetry" else found(name)

    @server.on("request")
    def asked(request, response): ...
    """
    with Serving(app, ready=False, tracing=True, **mode) as server:
        server.wait_log(r"tracing needs opentelemetry-api: pip install 'mooring-server\[otel\]'")


TASKS = """
from opentelemetry import baggage, context

@server.on("task")
async def work(server, task):
    if task.data == "spans":
        return [json.loads(span.to_json()) for span in exporter.get_finished_spans()]
    if task.data == "fail":
        raise KeyError("on purpose")
    await inner("inside")
    return [current(), baggage.get_baggage("room"), sorted(task.trace_context)]

@server.on("finish")
def finished(server, outcome):
    report("finished", json.dumps(outcome.result))

@server.on("start")
def begin(server):
    server.task_async("alone")

@server.on("request")
async def asked(request, response):
    if "data" not in request.query:
        return response.json(await server.task("spans"))
    token = context.attach(baggage.set_baggage("room", "lobby"))
    try:
        if request.path == "/wait":
            result = server.task_wait(request.query["data"])
        elif request.path == "/send":
            result = server.task_async(request.query["data"])
        elif request.path == "/map":
            (result,) = await server.task_map([request.query["data"]])
        else:
            result = await server.task(request.query["data"])
    except TaskError:
        result = None
    finally:
        context.detach(token)
    response.json([current(), result])
"""


@pytest.fixture(scope="module")
def with_tasks(mode: dict[str, Any]):
    app = APP.partition('@server.on("open")')[0] + "from mooring import TaskError\n" + TASKS
    with Serving(app, tracing=True, task_worker_num=1, **{**mode, "worker_num": 1}) as server:
        yield server
        assert server.stop() == 0


@only("base", "process")
@pytest.mark.parametrize("how", ["await", "wait", "map", "send"])
def test_a_task_is_a_child_of_what_has_handed_it_over(with_tasks: Serving, how: str):
    mark = with_tasks.mark()
    with Raw(with_tasks, get(f"/{how}?data=x", HEADER, "Connection: close")) as raw:
        asker, result = raw.answer().json()
    if how == "send":
        result = json.loads(with_tasks.wait_log("^report finished (.*)", since=mark)[1])
    number, room, carried = result
    assert room == "lobby"
    assert carried == ["baggage", "traceparent"]
    span = the_span(with_tasks, number)
    assert (span["name"], span["kind"], span["parent_id"]) == ("task", "SpanKind.CONSUMER", f"0x{asker}")
    assert span["context"]["trace_id"] == f"0x{TRACE}"
    assert (span["attributes"]["mooring.event"], span["attributes"]["mooring.task.worker_id"]) == ("task", 0)
    assert span["status"]["status_code"] == "UNSET"
    assert children(with_tasks, span) == ["inside"]


@only("base", "process")
def test_a_task_that_raises_is_an_error_there(with_tasks: Serving):
    with Raw(with_tasks, get("/?data=fail", "Connection: close")) as raw:
        asker, _ = raw.answer().json()
    (span,) = [one for one in spans(with_tasks) if one["attributes"].get("error.type")]
    assert (span["attributes"]["error.type"], span["status"]["status_code"]) == ("KeyError", "ERROR")
    assert span["parent_id"] == f"0x{asker}"


@only("base", "process")
def test_a_task_that_nothing_traced_begins_a_trace(with_tasks: Serving):
    number, room, carried = json.loads(with_tasks.wait_log("^report finished (.*)")[1])
    assert (room, carried) == (None, [])
    assert the_span(with_tasks, number)["parent_id"] is None
