"""Answers requests: with a file under `document_root`, or by the handler of `request`; with 426 where there is neither.

    head ──> a document? ──> the handler ──> what it left open is completed ──> the rest of a large file
                   └─────────────┴── raises: an HttpError is the answer, anything else a 500 with an id that the log has

Whatever a handler does, its client gets one answer: a whole one, or one that can be seen to be cut. Nobody has to
answer a client that has left.
"""

import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from mooring._core.channel import BadRecord
from mooring._core.gateway_end import Outbox
from mooring._core.wire import Event, Notice, Respond
from mooring.app.foreign import class_name, is_a, refuse_odd, running_of, text_of
from mooring.app.forms import FormLimits
from mooring.app.request import Request, decode_request
from mooring.app.response import Response, Send
from mooring.app.static import Documents
from mooring.errors import BadRequest, HttpError
from mooring.net import forks
from mooring.net.refusals import RefusalLog
from mooring.worker import access, advice
from mooring.worker.failures import reason_of
from mooring.worker.session import Sessions
from mooring.worker.site import Site
from mooring.worker.streams import Streams

Failed = Callable[[Site, Event, int, BaseException], str]


def request_of(event: Notice, *limits: FormLimits) -> Request:
    """The request that a gateway tells of. Raises BadRecord for what it can't have told."""
    try:
        return decode_request(event.fd, event.payload, *limits)
    except ValueError as problem:
        raise BadRecord(str(problem)) from None


class Requests:
    """Those of one worker; `failed(site, kind, fd, error)` logs what a handler raised and gives the error's id."""

    def __init__(
        self, outbox: Outbox, streams: Streams, sessions: Sessions, refusals: RefusalLog, failed: Failed
    ) -> None:
        self._outbox = outbox
        self._streams = streams
        self._sessions = sessions
        self._refusals = refusals
        self._failed = failed

    def answer(self, site: Site, event: Notice) -> Awaitable[Any] | None:
        """Answers one; what is still to be awaited. Raises BadRecord for what no gateway can have told."""
        request, fd, number = request_of(event, site.forms), event.fd, event.arg
        request._source = partial(self._streams.part, fd, number)
        send = self._sender(fd, number)
        over = None
        if site.http.access_log:
            send, over = access.logged(send, request, lambda: response, time.monotonic())
        response = Response(
            request,
            send,
            server_header=site.http.server_header,
            keepalive_requests=site.http.keepalive_requests,
            file_limit=site.http.static_file_limit,
            compressor=site.compressor,
            flow=(partial(self._streams.room, fd, number), partial(self._streams.watch, fd, number)),
            transfer=partial(self._streams.transfer, over, fd, number),
            window=site.window,
        )
        handler = site.handlers.get("request")
        try:
            if site.documents is not None and self._sent_document(site.documents, request, response):
                return self._rest(site, request, response)
            if handler is None and site.documents is not None:
                if request.method not in ("GET", "HEAD"):
                    raise HttpError(405, "files can be read here, nothing else", [("Allow", "GET, HEAD")])
                raise HttpError(404, "there is no such file")
        except Exception as error:
            self._fail(site, request, response, error)
            return self._rest(site, request, response)
        if handler is None:
            response.status(426)
            response.header("Upgrade", "websocket")
            response.end("This server speaks WebSocket only.\n")
            return None
        try:
            result = handler(request, response)
            forks.end_child()
            running = running_of(result, "the 'request' handler")
        except BaseException as error:  # SystemExit and CancelledError too: a client waits for its answer
            self._fail(site, request, response, error)
            return self._rest(site, request, response)
        if running is not None:
            return self._later(site, request, response, running)
        self._finish(request, response, result)
        return self._rest(site, request, response)

    def _rest(self, site: Site, request: Request, response: Response) -> Awaitable[Any] | None:
        """What is left of a large file is sent behind the handler."""
        return self._later(site, request, response, response._send_rest()) if response._has_rest else None

    def _sent_document(self, documents: Documents, request: Request, response: Response) -> bool:
        """Whether a file under `document_root` was the answer."""
        if request.method not in ("GET", "HEAD"):
            return False
        found = documents.find(request.target)
        if isinstance(found, str):
            response.redirect(found, 301)
        elif found is not None:
            response._send_opened(found)
        return found is not None

    async def _later(self, site: Site, request: Request, response: Response, running: Awaitable[Any]) -> None:
        try:
            result = await running
            forks.end_child()
            if result is not None:
                refuse_odd(result, "the 'request' handler")
        except BaseException as error:
            self._fail(site, request, response, error)
        else:
            self._finish(request, response, result)
        finally:
            self._streams.forget(request.fd, request.number)
            if response._event_source is not None:
                response._event_source._finish()
        if response._has_rest:
            await self._later(site, request, response, response._send_rest())

    def _fail(self, site: Site, request: Request, response: Response, error: BaseException) -> None:
        """An HttpError is the answer, as long as there is none; anything else is a fault."""
        request._close()
        self._sessions.forget(request.fd)
        if is_a(error, HttpError) and not response.started:
            if is_a(error, BadRequest):
                self._outbox.respond(request.fd, request.number, Respond.REFUSES, b"")
            try:
                response._refuse(error)
            except BaseException as fault:  # fields that it lacks, or that can't be sent
                error = fault
            else:
                what = text_of(error, _answer_of, 200)
                self._refusals.say(logging.INFO, "request on connection %d refused with %s", request.fd, what)
                return
        if is_a(error, BadRequest):
            message = "the answer on connection %d had begun when what the client sent was refused: %s"
            self._refusals.say(logging.INFO, message, request.fd, text_of(error, reason_of, 200))
            response._abandon()
            return
        if response._is_over_by(error):
            response._abandon()
            return
        response._fail(self._failed(site, Event.REQUEST, request.fd, error))

    def _finish(self, request: Request, response: Response, result: object) -> None:
        request._close()
        self._sessions.forget(request.fd)  # no `close` will say that this connection is gone
        if response._finish_unanswered():
            message = "the 'request' handler gave no answer to %s %s: %s"
            self._refusals.say(logging.ERROR, message, request.method, request.target, advice.of_request(result))

    def _sender(self, fd: int, number: int) -> Send:
        outbox = self._outbox

        def send(data: bytes, last: bool, close: bool) -> bool:
            return outbox.respond(fd, number, (Respond.LAST if last else 0) | (Respond.CLOSE if close else 0), data)

        return send


def _answer_of(error: HttpError) -> str:
    """With what it was raised from, which its client is not told."""
    cause = error.__cause__
    return f"{error.status}: {error.reason!r}" + (f" ({class_name(cause)}: {cause})" if cause is not None else "")
