"""Each whole request is handed to Python, and so is what is no request."""

import os
import socket
import threading

from mooring._core.acceptor import Acceptor
from mooring._core.answering import Answering
from mooring._core.http_request import HttpError, ParsedRequest
from mooring._core.reactor import Reactor
from mooring._core.registry import Cause
from mooring._core.table import Table
from mooring._core.websocket import WebSockets
from mooring.monitor.endpoint import PROFILE


def test_requests_and_others():
    reactor, table = Reactor(), os.memfd_create("table")
    connections = WebSockets(reactor, Table(table, 4), 0, 1, PROFILE)
    os.close(table)
    told: list[str] = []

    def on_page(fd: int, request: ParsedRequest) -> None:
        told.append(f"{request.method} {request.target}")
        connections.answer(fd, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", 200, b"", Cause.ANSWERED)

    def on_bad(fd: int, error: HttpError) -> None:
        told.append(str(error.status))
        connections.answer(fd, b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", 400, b"", Cause.BAD_REQUEST)

    kept = Answering(connections, on_page, on_bad)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        acceptor = Acceptor(reactor, connections, listener.fileno(), 0)
        thread = threading.Thread(target=reactor.run)
        thread.start()
        try:
            answers = []
            for sent in (
                b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n",
                b"HEAD /b HTTP/1.1\r\nHost: h\r\n\r\n",
                b"what?\r\n\r\n",
            ):
                with socket.create_connection(listener.getsockname(), 10) as talk, talk.makefile("rb") as answer:
                    talk.sendall(sent)
                    answers.append(answer.read())
        finally:
            reactor.post(acceptor.stop)
            reactor.post(reactor.stop)
            thread.join(10)
    assert connections.sink is kept
    assert told == ["GET /a", "HEAD /b", "400"]
    assert [answer[9:12] for answer in answers] == [b"200", b"200", b"400"]
    assert [answer.endswith(b"hi") for answer in answers] == [True, False, False]
