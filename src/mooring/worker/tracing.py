"""OpenTelemetry spans for what handlers do; imported only where `tracing` is on.

A handler is wrapped: its span is the current one while it runs, also over each `await`, since the context that it is
called in is its own and OpenTelemetry keeps the current span there (contextvars). Without `tracing` nothing is wrapped,
and no message passes here.

* A request is a span of kind SERVER, after the semantic conventions for HTTP; its parent is what the headers say, read
  by the propagator that is configured (W3C `traceparent` unless OTEL_PROPAGATORS says otherwise).
* So is the handshake of a WebSocket, and its `open`. The context of `open` is kept in the session, as text and under
  ENTRY, so that a worker that takes the connection over has it, too.
* A message has a trace of its own, with a link to that of `open`: a connection may live for days, and a trace that long
  is of no use to anybody. So has `close`; `disconnect` has
  no link, as there was no `open`.
* A task is a child of the span in which it was handed over, in another process: what the propagator makes of the
  context goes along with it, baggage too. One that was handed over outside of a span begins a trace.
* What a handler raises is recorded, and the span's status is an error; not so for what the client got wrong, nor for a
  client that has left.
"""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import wraps
from typing import Any

from opentelemetry import context, propagate, trace
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from mooring.app.handlers import Handler, Handlers
from mooring.app.request import Request
from mooring.app.response import Response
from mooring.errors import HttpError
from mooring.types import Opcode
from mooring.worker.tasks import Task

ENTRY = "traceparent"  # of a session
FAILED = 500  # and above: the server's fault
_METHODS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE", "QUERY"})
_HANDSHAKE = ("origin", "handshake", "subprotocol", "open")
TRACED = frozenset({"request", "message", "close", "disconnect", "task", *_HANDSHAKE})
_links = TraceContextTextMapPropagator()

Session = Callable[[int], Any]
"""session(fd): that of a connection, a mapping that can be written."""


def trace_context() -> dict[str, str]:
    """The context of whoever calls this, for a task; empty outside of a trace."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier


class TracedHandlers(Handlers):
    """Those of `handlers`, each with a span around its call."""

    __slots__ = ("_session", "_traced", "_tracer", "_whole")

    def __init__(self, handlers: Handlers, session: Session) -> None:
        super().__init__()
        self._whole = handlers
        self._session = session
        self._tracer = trace.get_tracer("mooring")
        self._traced: dict[str, Handler] = {}

    def get(self, name: str) -> Handler | None:
        handler = self._whole.get(name)
        if handler is None or name not in TRACED:
            return handler
        if name not in self._traced:
            self._traced[name] = self._wrapped(name, handler)
        return self._traced[name]

    def is_typed(self, name: str) -> bool:
        return self._whole.is_typed(name)

    def _wrapped(self, name: str, handler: Handler) -> Handler:
        if name == "request":

            @wraps(handler)
            def traced(request: Request, response: Response) -> Any:
                return self._run(*self._of_request(request, ""), handler, (request, response), response)

        elif name in _HANDSHAKE:

            @wraps(handler)
            def traced(server: Any, request: Request) -> Any:
                span, parent = self._of_request(request, name)
                if name == "open":
                    self._keep(request.fd, span)
                return self._run(span, parent, handler, (server, request))

        elif name == "task":

            @wraps(handler)
            def traced(server: Any, task: Task) -> Any:
                return self._run(*self._of_task(task), handler, (server, task))

        else:

            @wraps(handler)
            def traced(server: Any, about: Any, *more: Any) -> Any:
                return self._run(self._of_connection(name, about), None, handler, (server, about, *more))

        return traced

    # ------------------------------------------------------------------ spans

    def _of_request(self, request: Request, event: str) -> tuple[Span, context.Context]:
        parent = propagate.extract(request.headers)
        method = request.method if request.method in _METHODS else "_OTHER"
        name = "HTTP" if method == "_OTHER" else method
        attributes: dict[str, Any] = {
            "http.request.method": method,
            "url.path": request.path,
            "url.scheme": request.scheme,
            "network.protocol.name": "http",
            "network.protocol.version": request.http_version,
            "client.address": request.remote_ip,
            "server.port": request.server_port,
            "mooring.connection.fd": request.fd,
            **{
                key: value
                for key, value in (
                    ("http.request.method_original", request.method if method == "_OTHER" else ""),
                    ("url.query", request.query_string),
                    ("server.address", _without_port(request.headers.get("host", ""))),
                    ("user_agent.original", request.headers.get("user-agent", "")),
                    ("mooring.event", event),
                )
                if value
            },
        }
        span = self._tracer.start_span(
            f"{name} {event}".rstrip(), parent, SpanKind.INTERNAL if event else SpanKind.SERVER, attributes
        )
        return span, parent

    def _of_connection(self, event: str, about: Any) -> Span:
        """`about`: its fd, or a frame of it."""
        fd: int = about.fd if event == "message" else about
        attributes: dict[str, Any] = {"mooring.event": event, "mooring.connection.fd": fd}
        kind = SpanKind.INTERNAL
        if event == "message":
            kind = SpanKind.CONSUMER
            attributes |= {
                "messaging.system": "websocket",
                "messaging.operation.name": "message",
                "messaging.operation.type": "process",
                "messaging.message.body.size": _size(about.data),
                "network.protocol.name": "websocket",
                "mooring.message.opcode": Opcode(about.opcode).name.lower(),
            }
        return self._tracer.start_span(
            event, context.Context(), kind, attributes, self._links(fd) if event != "disconnect" else []
        )

    def _of_task(self, task: Task) -> tuple[Span, context.Context]:
        parent = propagate.extract(task.trace_context, context.Context())
        attributes: dict[str, Any] = {
            "mooring.event": "task",
            "mooring.task.id": task.id,
            "mooring.task.worker_id": task.worker_id,
        }
        return self._tracer.start_span("task", parent, SpanKind.CONSUMER, attributes), parent

    def _keep(self, fd: int, span: Span) -> None:
        carrier: dict[str, str] = {}
        _links.inject(carrier, trace.set_span_in_context(span, context.Context()))
        if carrier:
            with suppress(ValueError):  # the session is full: messages have no link then, and the connection stays
                self._session(fd)[ENTRY] = carrier["traceparent"]

    def _links(self, fd: int) -> list[Link]:
        text = self._session(fd).get(ENTRY)
        carrier: Mapping[str, str] = {"traceparent": text} if isinstance(text, str) else {}
        opened = trace.get_current_span(_links.extract(carrier, context.Context())).get_span_context()
        return [Link(opened)] if opened.is_valid else []

    # ------------------------------------------------------------------ calls

    def _run(
        self,
        span: Span,
        parent: context.Context | None,
        handler: Handler,
        arguments: tuple[Any, ...],
        response: Response | None = None,
    ) -> Any:
        """Calls the handler in the span, which ends with it."""
        current = trace.set_span_in_context(span, parent or context.Context())
        token = context.attach(current)
        try:
            result = handler(*arguments)
        except BaseException as error:
            _failed(span, error, response)
            span.end()
            raise
        finally:
            context.detach(token)
        if inspect.isawaitable(result):
            return _going_on(span, current, result, response)
        if response is not None:
            _answered(span, response)
        span.end()
        return result


async def _going_on(span: Span, current: context.Context, running: Awaitable[Any], response: Response | None) -> Any:
    token = context.attach(current)
    try:
        result = await running
        if response is not None:
            _answered(span, response)
    except BaseException as error:
        _failed(span, error, response)
        raise
    finally:
        span.end()
        context.detach(token)
    return result


def _answered(span: Span, response: Response) -> None:
    """The handler has returned; one that has given no answer is answered for, with a 500."""
    status = response.status_code if response.started else FAILED
    span.set_attribute("http.response.status_code", status)
    if status >= FAILED:
        span.set_attribute("error.type", str(status))
        span.set_status(Status(StatusCode.ERROR))


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host  # of "[::1]" it is a part


def _size(data: str | bytes) -> int:
    return len(data) if isinstance(data, bytes) or data.isascii() else len(data.encode(errors="replace"))


def _failed(span: Span, error: BaseException, response: Response | None) -> None:
    """What has been raised; an HttpError is an answer, and if it says that the client is wrong, no error. Nor is it one
    that nobody is left to answer. What has begun keeps its status."""
    gone = response is not None and response._is_over_by(error)
    status = error.status if isinstance(error, HttpError) else FAILED
    if response is not None and (response.started or not gone):
        span.set_attribute("http.response.status_code", response.status_code if response.started else status)
    if status >= FAILED and not gone:
        span.record_exception(error)
        span.set_attribute("error.type", type(error).__qualname__)
        span.set_status(Status(StatusCode.ERROR, type(error).__name__))
