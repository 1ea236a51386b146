"""What becomes of what a handler of a connection has raised: a line in the log, perhaps an end of the connection, and
news for the application.
"""

import contextvars
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import msgspec

from mooring._core.channel import BadRecord
from mooring._core.gateway_end import Outbox
from mooring._core.wire import MAX_ATTEMPTS, Event, Notice
from mooring._core.ws import Frame
from mooring.app.foreign import is_a, running_of, text_of
from mooring.app.handlers import Handler
from mooring.errors import BadMessage, BadRequest, WorkLost
from mooring.journal import own_logger
from mooring.net import forks
from mooring.net.refusals import RefusalLog
from mooring.net.report import new_error_id, report
from mooring.types import CloseCode, Failure, Opcode
from mooring.worker.site import Site

log = own_logger("mooring.worker")

SPAWN = "spawn"  # as the event of a failure
OF_WEBSOCKET = ("open", "message", SPAWN)  # whose failure closes it
_REASON_BYTES = 123  # RFC 6455 section 5.5
_INVALID_TEXT = 500  # characters of what a client is told of its message, which may quote it


def reason_of(error: BadRequest) -> str:
    """For `text_of`: a class of the application's may lack it."""
    return str(error.reason)


class Failures:
    """Of one worker. `call(function, context=...)` calls a function of the application; `on_bad_record(whose, problem)`
    is told of what is no failure of a handler."""

    def __init__(
        self,
        server: object,
        sites: Sequence[Site],
        outbox: Outbox,
        refusals: RefusalLog,
        call: Callable[..., None],
        on_bad_record: Callable[[str, Exception], None],
    ) -> None:
        self._server = server
        self._sites = sites
        self._outbox = outbox
        self._refusals = refusals
        self._call = call
        self._on_bad_record = on_bad_record

    def failed(self, kind: int, listener: int, fd: int, error: BaseException) -> Coroutine[Any, Any, None] | None:
        """A handler has raised: a log line with the traceback, and 1011 for the WebSocket it was for, if it does not
        stay; a short one and 1008 for what the client got wrong. What is to be run: the handler of `error`, ahead of
        what comes next on that connection."""
        forks.end_child(error)
        if is_a(error, BadRecord):
            self._on_bad_record("a gateway", error)
            return None
        return self._failed(self._sites[listener], Event(kind).name.lower(), fd, error)

    def ended_failed(self, site: Site, fd: int, error: BaseException) -> Coroutine[Any, Any, None] | None:
        """The handler of `ended` has raised."""
        forks.end_child(error)
        return self._failed(site, "ended", fd, error)

    def work_failed(self, listener: int, fd: int, name: str, error: BaseException) -> None:
        """The same for work that a connection owns, beside its handlers."""
        self._run(self._failed(self._sites[listener], SPAWN, fd, error, name))

    def work_cut(self, listener: int, fd: int, name: str, why: str) -> None:
        """Work that a connection owns was cancelled, since its worker has to go."""
        self._run(self._work_lost(self._sites[listener], fd, name, why))

    def _run(self, told: Coroutine[Any, Any, None] | None) -> None:
        if told is not None:
            self._call(lambda: told, context=contextvars.copy_context())

    def lost(self, site: Site, told: Notice) -> Awaitable[Any] | None:
        """A worker ended while this event's handler ran there: whether it had an effect, nobody knows."""
        name, kind, fd, opcode, payload = Event(told.kind).name.lower(), told.arg, told.fd, told.opcode, told.payload
        end = 2 + int.from_bytes(payload[:2], "little")
        reason, data = payload[2:end].decode(errors="replace"), payload[end:]
        if kind == Event.WORK:
            return self._work_lost(site, fd, data.decode(errors="replace"), reason)
        handler = site.handlers.get(name)
        if kind == Event.MESSAGE and handler is not None:
            attempt = MAX_ATTEMPTS if told.kind == Event.QUARANTINED else 1
            frame = Frame(data.decode() if opcode == Opcode.TEXT else data, opcode, fd=fd, attempt=attempt)
            return running_of(handler(self._server, frame, reason), f"the {name!r} handler")
        log.warning("%s: %s of connection %d: %s", name, Event(kind).name.lower(), fd, reason)
        return None

    def _work_lost(self, site: Site, fd: int, name: str, why: str) -> Coroutine[Any, Any, None] | None:
        """Work that a connection owns has not come to its end; what is to be run: the handler of `error`."""
        failure = Failure("", SPAWN, WorkLost(name, why), name)
        self._refusals.say(logging.WARNING, "%r, spawned for connection %d, is lost: %s", name, fd, why)
        handler = site.handlers.get("error")
        return None if handler is None else self._tell(handler, fd, failure, "error", closes=True)

    def _failed(
        self, site: Site, name: str, fd: int, error: BaseException, spawned: str = ""
    ) -> Coroutine[Any, Any, None] | None:
        if name in ("message", SPAWN) and is_a(error, BadMessage):
            return self._invalid(site, fd, error)
        of_websocket = name in OF_WEBSOCKET
        closes = of_websocket and not site.keeps_failed
        if of_websocket and is_a(error, BadRequest):
            failure = Failure("", name, error, spawned)
            reason = text_of(error, reason_of)
            if closes:
                cut = reason.encode()[:_REASON_BYTES].decode(errors="ignore")
                self._outbox.fail_client(fd, CloseCode.POLICY_VIOLATION, cut)
            message = "connection %d%s, %s refuses what came: %s"
            who = f"{spawned!r}, spawned for it," if spawned else f"its {name!r} handler"
            self._refusals.say(logging.INFO, message, fd, " closed with 1008" if closes else "", who, reason[:200])
        else:
            failure = Failure(new_error_id(), name, error, spawned)
            if closes:
                self._outbox.fail_client(fd, CloseCode.INTERNAL_ERROR, f"error {failure.id}")
            self._log(fd, failure)
        handler = site.handlers.get("error")
        return None if handler is None else self._tell(handler, fd, failure, "error", closes=of_websocket)

    def _invalid(self, site: Site, fd: int, problem: BadMessage) -> Coroutine[Any, Any, None] | None:
        """A message is not what the application takes. That is no failure: the client is told, and stays. What is to be
        run: the handler of `invalid`, ahead of what comes next on that connection."""
        reason, path = (
            text_of(problem, reason_of, _INVALID_TEXT),
            text_of(problem, lambda of: str(of.path), _INVALID_TEXT),
        )
        self._outbox.refuse_message(fd)
        if site.on_invalid == "answer":
            told = msgspec.json.encode({"error": {"reason": reason, "path": path}})
            self._outbox.push(fd, told, Opcode.TEXT)
        elif site.on_invalid == "close":
            cut = text_of(problem).encode()[:_REASON_BYTES].decode(errors="ignore")
            self._outbox.fail_client(fd, CloseCode.POLICY_VIOLATION, cut)
        message = "a message of connection %d is not what its handler takes: %s (at %s)"
        self._refusals.say(logging.INFO, message, fd, reason[:200], path[:200])
        handler = site.handlers.get("invalid")
        return None if handler is None else self._tell(handler, fd, problem, "invalid", closes=True)

    def answered(self, site: Site, kind: Event, fd: int, error: BaseException) -> str:
        """A handler has raised whose client is told in an answer: a log line, and the error's id."""
        forks.end_child(error)
        failure = Failure(new_error_id(), kind.name.lower(), error)
        self._log(fd, failure)
        handler = site.handlers.get("error")
        if handler is not None:
            self._run(self._tell(handler, fd, failure, "error", closes=False))
        return failure.id

    async def _tell(self, handler: Handler, fd: int, what: object, event: str, *, closes: bool) -> None:
        """What the handler of `error` or `invalid` raises is a failure of its own, of which nobody is told."""
        try:
            running = running_of(handler(self._server, fd, what), f"the {event!r} handler")
            if running is not None:
                await running
        except BaseException as error:
            forks.end_child(error)
            own = Failure(new_error_id(), event, error)
            if closes:
                self._outbox.fail_client(fd, CloseCode.INTERNAL_ERROR, f"error {own.id}")
            self._log(fd, own)

    def _log(self, fd: int, failure: Failure) -> None:
        if failure.name:
            message, what = "error %s: %r, spawned for connection %d, failed", failure.name
        else:
            message, what = "error %s: the %r handler failed on connection %d", failure.event
        report(log, message, failure.id, what, fd, error=failure.exception)
