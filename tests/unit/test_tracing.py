"""Spans around handlers, without a server."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from mooring import Frame, HttpError
from mooring.app.handlers import Handlers
from mooring.app.request import Request
from mooring.app.request_record import RequestRecord
from mooring.worker import tracing
from mooring.worker.tasks import Task
from mooring.worker.tracing import ENTRY, TracedHandlers

LINK = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    found = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(found))
    monkeypatch.setattr(tracing.trace, "get_tracer", provider.get_tracer)
    yield found
    provider.shutdown()


def traced(sessions: dict[int, dict[str, Any]] | None = None, **handlers: Any) -> TracedHandlers:
    made = Handlers()
    for name, handler in handlers.items():
        made.on(name, handler)
    kept = {} if sessions is None else sessions
    return TracedHandlers(made, lambda fd: kept.setdefault(fd, {}))


def the_span(exporter: InMemorySpanExporter) -> ReadableSpan:
    (span,) = exporter.get_finished_spans()
    return span


def test_a_handler_that_is_not_there_and_one_that_has_no_span(exporter: InMemorySpanExporter):
    def failed(server: object, fd: int, failure: object) -> None: ...

    handlers = traced(error=failed)
    assert handlers.get("message") is None
    assert handlers.get("error") is failed
    assert exporter.get_finished_spans() == ()


def test_its_name_stays(exporter: InMemorySpanExporter):
    async def said(server: object, frame: Frame) -> None: ...

    handlers = traced(message=said)
    handler = handlers.get("message")
    assert handler is handlers.get("message")
    assert handler.__name__ == "said"


def test_nothing_is_current_behind_it(exporter: InMemorySpanExporter):
    seen = []

    def said(server: object, frame: Frame) -> str:
        seen.append(trace.get_current_span().get_span_context().span_id)
        return "as it was"

    handler = traced(message=said).get("message")
    assert handler is not None
    assert handler(None, Frame("ä", fd=7)) == "as it was"
    assert not trace.get_current_span().get_span_context().is_valid
    span = the_span(exporter)
    assert span.context.span_id == seen[0]
    assert span.attributes["messaging.message.body.size"] == 2
    assert span.attributes["mooring.connection.fd"] == 7


@pytest.mark.parametrize(("text", "links"), [(LINK, 1), ("nonsense", 0), (7, 0), (None, 0)])
def test_a_link_is_what_the_session_says(exporter: InMemorySpanExporter, text: Any, links: int):
    handler = traced({7: {ENTRY: text}}, close=lambda server, fd, code, reason: None).get("close")
    assert handler is not None
    handler(None, 7, 1000, "")
    assert len(the_span(exporter).links) == links


def test_two_that_wait_at_the_same_time_have_each_its_own(exporter: InMemorySpanExporter):
    async def said(server: object, frame: Frame) -> int:
        own = trace.get_current_span().get_span_context().span_id
        for _ in range(5):
            await asyncio.sleep(0)
            assert trace.get_current_span().get_span_context().span_id == own
        return own

    handler = traced(message=said).get("message")
    assert handler is not None

    async def run() -> list[int]:
        return await asyncio.gather(*(asyncio.ensure_future(handler(None, Frame("x", fd=fd))) for fd in range(3)))

    assert sorted(asyncio.run(run())) == sorted(span.context.span_id for span in exporter.get_finished_spans())


def test_one_that_is_cancelled_has_ended(exporter: InMemorySpanExporter):
    async def said(server: object, frame: Frame) -> None:
        await asyncio.sleep(60)

    handler = traced(message=said).get("message")
    assert handler is not None

    async def run() -> None:
        task = asyncio.ensure_future(handler(None, Frame("x", fd=7)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert the_span(exporter).attributes["error.type"] == "CancelledError"


@pytest.mark.parametrize(
    ("error", "recorded"), [(KeyError("x"), True), (HttpError(503, "x"), True), (HttpError(404, "x"), False)]
)
def test_what_it_raises(exporter: InMemorySpanExporter, error: Exception, recorded: bool):
    def left(server: object, fd: int, code: int, reason: str) -> None:
        raise error

    handler = traced(close=left).get("close")
    assert handler is not None
    with pytest.raises(type(error)):
        handler(None, 7, 1000, "")
    span = the_span(exporter)
    assert bool(span.events) is recorded
    assert "http.response.status_code" not in span.attributes


def test_a_session_that_is_full_fails_nobody(exporter: InMemorySpanExporter):
    """Messages have no link then."""

    class Full(dict[str, Any]):
        def __setitem__(self, key: str, value: Any) -> None:
            raise ValueError("the session would have 68 bytes and session_limit is 16")

    opened = []

    def on_open(server: object, request: Request) -> None:
        opened.append(request.fd)

    def said(server: object, frame: Frame) -> None: ...

    handlers = traced({7: Full()}, open=on_open, message=said)
    first, second = handlers.get("open"), handlers.get("message")
    assert first is not None
    assert second is not None
    record = RequestRecord("GET", "/", 1, [], "::1", 1, 2, "http", 0.0, 1)
    first(None, Request(7, record))
    second(None, Frame("a", fd=7))
    assert opened == [7]
    assert [(span.name, len(span.links)) for span in exporter.get_finished_spans()] == [("GET open", 0), ("message", 0)]


@pytest.mark.parametrize(("carried", "is_child"), [({"traceparent": LINK}, True), ({}, False), ({"other": "x"}, False)])
def test_a_task_has_the_parent_that_came_along(exporter: InMemorySpanExporter, carried: dict[str, str], is_child: bool):
    seen = []

    def work(server: object, task: Task) -> int:
        seen.append(trace.get_current_span().get_span_context())
        return 1

    handler = traced(task=work).get("task")
    assert handler is not None
    assert handler(None, Task(None, 7, 2, "data", carried)) == 1  # type: ignore[arg-type]
    span = the_span(exporter)
    assert span.context == seen[0]
    assert (span.name, span.attributes["mooring.task.id"], span.attributes["mooring.task.worker_id"]) == ("task", 7, 2)
    if is_child:
        assert f"{span.context.trace_id:032x}-{span.parent.span_id:016x}" == LINK[3:52]
    else:
        assert span.parent is None


def test_what_goes_along_is_the_context_of_who_asks(exporter: InMemorySpanExporter):
    found = []

    def said(server: object, frame: Frame) -> None:
        found.append(tracing.trace_context())

    handler = traced(message=said).get("message")
    assert handler is not None
    assert tracing.trace_context() == {}
    handler(None, Frame("x", fd=7))
    span = the_span(exporter)
    (carried,) = found
    assert list(carried) == ["traceparent"]
    assert carried["traceparent"].startswith(f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-")
