"""What becomes of what a handler of a connection has raised: a line in the log, perhaps an end of the connection, and
news for the application.
"""

import contextvars
import logging
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

import msgspec

from mooring._core.channel import BadRecord
from mooring._core.outlet import Outbox
from mooring._core.wire import Event
from mooring.app.foreign import is_a, running_of, text_of
from mooring.app.handlers import Handler
from mooring.errors import BadMessage, BadRequest
from mooring.journal import own_logger
from mooring.net import forks
from mooring.net.refusals import RefusalLog
from mooring.net.report import new_error_id, report
from mooring.types import CloseCode, Failure, Opcode
from mooring.worker.site import Site

log = own_logger("mooring.worker")

_REASON_BYTES = 123  # RFC 6455 section 5.5
_INVALID_TEXT = 500  # characters of what a client is told of its message, which may quote it


def _path_of(error: BadMessage) -> str:
    return str(error.path)


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
        forks.leave(error)
        if is_a(error, BadRecord):
            self._on_bad_record("a gateway", error)
            return None
        site = self._sites[listener]
        if kind == Event.MESSAGE and is_a(error, BadMessage):
            return self._invalid(site, fd, error)
        name = Event(kind).name.lower()
        of_websocket = kind in (Event.OPEN, Event.MESSAGE)
        closes = of_websocket and not site.keeps_failed
        if of_websocket and is_a(error, BadRequest):
            failure = Failure("", name, error)
            reason = text_of(error, reason_of)
            if closes:
                cut = reason.encode()[:_REASON_BYTES].decode(errors="ignore")
                self._outbox.fail_client(fd, CloseCode.POLICY_VIOLATION, cut)
            message = "connection %d%s, its %r handler refuses what came: %s"
            self._refusals.say(logging.INFO, message, fd, " closed with 1008" if closes else "", name, reason[:200])
        else:
            failure = Failure(new_error_id(), name, error)
            if closes:
                self._outbox.fail_client(fd, CloseCode.INTERNAL_ERROR, f"error {failure.id}")
            self._log(fd, failure)
        handler = site.handlers.get("error")
        return None if handler is None else self._tell(handler, fd, failure, "error", closes=of_websocket)

    def _invalid(self, site: Site, fd: int, problem: BadMessage) -> Coroutine[Any, Any, None] | None:
        """A message is not what the application takes. That is no failure: the client is told, and stays. What is to be
        run: the handler of `invalid`, ahead of what comes next on that connection."""
        reason, path = text_of(problem, reason_of, _INVALID_TEXT), text_of(problem, _path_of, _INVALID_TEXT)
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
        forks.leave(error)
        failure = Failure(new_error_id(), kind.name.lower(), error)
        self._log(fd, failure)
        handler = site.handlers.get("error")
        if handler is not None:
            tell = partial(self._tell, handler, fd, failure, "error", closes=False)
            self._call(tell, context=contextvars.copy_context())
        return failure.id

    async def _tell(self, handler: Handler, fd: int, what: object, event: str, *, closes: bool) -> None:
        """What the handler of `error` or `invalid` raises is a failure of its own, of which nobody is told."""
        try:
            running = running_of(handler(self._server, fd, what), f"the {event!r} handler")
            if running is not None:
                await running
        except BaseException as error:
            forks.leave(error)
            own = Failure(new_error_id(), event, error)
            if closes:
                self._outbox.fail_client(fd, CloseCode.INTERNAL_ERROR, f"error {own.id}")
            self._log(fd, own)

    def _log(self, fd: int, failure: Failure) -> None:
        message = "error %s: the %r handler failed on connection %d"
        report(log, message, failure.id, failure.event, fd, error=failure.exception)
