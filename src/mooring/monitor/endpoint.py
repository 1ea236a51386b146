"""The listener for those who watch: GET /metrics, /health and /ready over HTTP/1.1.

It is this server's own HTTP, with limits of its own: CLIENTS connections, none of which the clients of the application
can take, nor the other way round; each is closed behind its answer.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

import msgspec

from mooring._core.acceptor import Acceptor
from mooring._core.answering import Answering
from mooring._core.http_request import HttpError, ParsedRequest
from mooring._core.http_response import response_head
from mooring._core.reactor import Reactor
from mooring._core.registry import Cause
from mooring._core.table import Table
from mooring._core.websocket import WebSockets
from mooring.app.dates import http_date
from mooring.journal import own_logger
from mooring.monitor import health
from mooring.monitor.board import Board
from mooring.monitor.metrics import Metrics
from mooring.net.refusals import RefusalLog

log = own_logger("mooring.monitor")

CLIENTS = 64  # connections at the same time; more are told to come again
LOOK_EACH = 1.0  # seconds, so that what a process has counted is known when it has ended
JSON, TEXT = "application/json", "text/plain; charset=utf-8"
PROFILE: dict[str, Any] = {
    "max_message": 1,
    "max_fragments": 1,
    "write_limit": 64 << 20,  # one answer
    "high_water": 64 << 10,
    "request_timeout": 5,
    "idle_timeout": 5,
    "write_timeout": 10,
    "close_timeout": 1,
    "http": {"body_limit": 0},
}


class Endpoint:
    """Answers on `listener`, which stays the caller's, in the loop of `reactor`, from the scoreboard `file`."""

    def __init__(self, reactor: Reactor, listener: socket.socket, file: int, hang_limit: float) -> None:
        """`hang_limit`: seconds without a sign of life after which /health says no; 0: it never does."""
        self._reactor = reactor
        self._hang_limit = hang_limit
        self._board = Board(file)
        self._snapshot = self._board.look
        self._metrics = Metrics(self._snapshot)
        self._pages: dict[str, Callable[[ParsedRequest], tuple[int, bytes, str]]] = {
            "/metrics": self._tell_metrics,
            "/health": lambda _request: _json(health.live(self._snapshot(), self._hang_limit)),
            "/ready": lambda _request: _json(health.ready(self._snapshot())),
        }
        table = os.memfd_create("mooring-monitor", os.MFD_CLOEXEC)
        self.connections = WebSockets(reactor, Table(table, CLIENTS), 0, 1, PROFILE)
        os.close(table)
        self._answering = Answering(self.connections, self._on_page, self._on_bad)
        refusals = RefusalLog(reactor.call_later, log)
        address = listener.getsockname()
        port = address[1] if isinstance(address, tuple) else 0
        self._acceptor = Acceptor(reactor, self.connections, listener.fileno(), port, 0, 0, refusals.say)
        self._reactor.call_later(LOOK_EACH, self._look)

    def _look(self) -> None:
        self._snapshot()
        self._reactor.call_later(LOOK_EACH, self._look)

    def close(self) -> None:
        """Accepts nobody any more, and ends those who are here."""
        self._acceptor.stop()
        for fd in self.connections.table.connections():
            self.connections.end(fd)

    def _on_page(self, fd: int, request: ParsedRequest) -> None:
        page = self._pages.get(request.target.partition("?")[0])
        if page is None:
            self._answer(fd, 404, b"there are /metrics, /health and /ready\n", TEXT)
        elif request.method not in ("GET", "HEAD"):
            self._answer(fd, 405, b"only GET and HEAD\n", TEXT, ("Allow", "GET, HEAD"))
        else:
            self._answer(fd, *page(request))

    def _on_bad(self, fd: int, error: HttpError) -> None:
        self._answer(fd, error.status, f"{error.reason}\n".encode(), TEXT)

    def _tell_metrics(self, request: ParsedRequest) -> tuple[int, bytes, str]:
        accept = ", ".join(value for name, value in request.headers if name == "accept")
        return 200, *self._metrics.text(accept)

    def _answer(self, fd: int, status: int, body: bytes, media_type: str, *more: tuple[str, str]) -> None:
        head = [("Content-Type", media_type), ("Content-Length", str(len(body))), ("Cache-Control", "no-store")]
        head += [("Date", http_date()), ("Connection", "close"), *more]
        self.connections.answer(fd, response_head(status, head) + body, status, b"", Cause.ANSWERED)


def _json(verdict: health.Verdict) -> tuple[int, bytes, str]:
    status, body = verdict
    return status, msgspec.json.encode(body) + b"\n", JSON
