"""Asks the application whether a client may become a WebSocket, and tells the gateway, which has judged what RFC 6455
says of it before.

    origin       only when the Origin is none that the settings allow; False ends it with 403
    handshake    accepts or refuses
    subprotocol  when the client offers any and `handshake` has not chosen

Each handler is optional. Where there is none for `message`, only HTTP is spoken, and the answer is 404: the service is
not available (RFC 6455 section 4.2.2, 4). The session is open to handlers already; all else that is sent to the
connection before the gateway has written the 101 reaches nobody, because it is no open WebSocket until then.
"""

import logging
from collections.abc import Callable
from typing import Any

import msgspec

from mooring._core.gateway_end import Outbox
from mooring.app.foreign import running_of, text_of
from mooring.app.handlers import Handlers
from mooring.app.handshake import Accept, Reject
from mooring.app.request import Request
from mooring.app.response import Response
from mooring.errors import HttpError
from mooring.net.refusals import RefusalLog
from mooring.worker.session import Session, Sessions

FOREIGN = 1  # opcode of a HANDSHAKE event: the settings do not allow its Origin
Failed = Callable[[int, BaseException], str]


class Handshakes:
    """The handshakes of a worker; `failed(fd, error)` logs what a handler raised and gives the error's id."""

    def __init__(
        self,
        server: object,
        handlers: Handlers,
        outbox: Outbox,
        sessions: Sessions,
        failed: Failed,
        refusals: RefusalLog,
        *,
        server_header: bool,
    ) -> None:
        self._server = server
        self._handlers = handlers
        self._outbox = outbox
        self._sessions = sessions
        self._failed = failed
        self._refusals = refusals
        self._server_header = server_header

    async def judge(self, request: Request, *, foreign: bool) -> None:
        """Calls the handlers and tells the gateway what came of it."""
        fd = request.fd
        self._sessions.begin(fd)
        try:
            answer = await self._judged(request, foreign=foreign)
        except BaseException as error:  # SystemExit and CancelledError too: a client waits for its answer
            error_id = self._failed(fd, error)
            answer = self._refused(request, Reject(500, f"the handler failed, error {error_id}\n"))
        # If the client is accepted, the gateway tells of the session before `open`; else nobody reads it any more.
        self._sessions.forget(fd)
        self._outbox.handshake(fd, *answer)

    async def _judged(self, request: Request, *, foreign: bool) -> tuple[int, bytes]:
        try:
            verdict = await self._verdict(request, foreign=foreign)
            if isinstance(verdict, Accept):
                return self._accepted(request, verdict, await self._subprotocol(request, verdict))
        except HttpError as error:
            fields = [(name, value) for name, value in error.headers if name.lower() != "connection"]  # it ends anyway
            verdict = Reject(error.status, f"{error.status}: {text_of(error.reason)}\n", fields)
        return self._refused(request, verdict)

    async def _verdict(self, request: Request, *, foreign: bool) -> Accept | Reject:
        if self._handlers.get("message") is None:
            return Reject(404, "404 Not Found: this server speaks HTTP only, and no WebSocket\n")
        if foreign and not await self._call("origin", request):
            return Reject(403, "403 Forbidden: this Origin is not allowed\n")
        verdict = await self._call("handshake", request)
        if verdict is None or verdict is True:
            return Accept()
        if verdict is False:
            return Reject(403)
        if not isinstance(verdict, Accept | Reject):
            raise TypeError(
                f"the 'handshake' handler returned {text_of(verdict, repr, 200)}; "
                "return Accept(...), Reject(...), True, False or None"
            )
        return verdict

    async def _subprotocol(self, request: Request, verdict: Accept) -> str | None:
        """The one to answer with, "" for none; None leaves it to the gateway."""
        chosen = verdict.subprotocol
        if chosen is None and self._handlers.get("subprotocol") is not None and request.subprotocols:
            chosen = await self._call("subprotocol", request) or ""
        if chosen and chosen not in request.subprotocols:
            raise ValueError(
                f"sub-protocol {text_of(chosen, repr, 200)} was chosen and the client offers {request.subprotocols}: "
                "choose one of request.subprotocols (RFC 6455 section 4.2.2)"
            )
        return None if chosen is None else str.__str__(chosen)

    async def _call(self, event: str, request: Request) -> Any:
        handler = self._handlers.get(event)
        if handler is None:
            return None
        result = handler(self._server, request)
        running = running_of(result, f"the {event!r} handler")
        return result if running is None else await running

    def _accepted(self, request: Request, verdict: Accept, subprotocol: str | None) -> tuple[int, bytes]:
        session = Session(self._sessions, request.fd)
        for key, value in verdict.session.items():
            session[key] = value
        return 101, msgspec.msgpack.encode([subprotocol, verdict.headers])

    def _refused(self, request: Request, verdict: Reject) -> tuple[int, bytes]:
        parts: list[bytes] = []

        def collect(data: bytes, _last: bool, _close: bool) -> bool:
            parts.append(data)
            return True

        response = Response(request, collect, server_header=self._server_header)
        response.status(verdict.status)
        for name, value in verdict.headers:
            response.add_header(name, value)
        response.header("Connection", "close")
        response.end(verdict.body)
        self._refusals.say(logging.INFO, "handshake on connection %d refused with %d", request.fd, verdict.status)
        return verdict.status, b"".join(parts)
