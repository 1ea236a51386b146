"""/metrics, /health and /ready: whoever asks oddly holds nobody up."""

import os
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from typing import Any

import pytest

from mooring._core.reactor import Reactor
from mooring.monitor.endpoint import CLIENTS, PROFILE, Endpoint
from mooring.monitor.scoreboard import TREE, Place, Report, Seen, TreeReport, new_scoreboard
from support.serving import eventually

STATE: dict[str, Any] = {
    "gateways_wanted": 2,
    "gateways_running": 2,
    "workers_wanted": 2,
    "workers_running": 2,
    "degraded": [],
}


@contextmanager
def serving() -> Iterator[tuple[int, Callable[..., Any]]]:
    """An endpoint in a thread; its port, and what tells a state of the tree."""
    file = new_scoreboard()
    reactor = Reactor()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)

    def tell(phase: str = "running", **more: Any) -> None:
        seen = [
            Seen(TREE, "server", 0, os.getpid(), 1, "serving", 0, False, 1.0),
            Seen(1, "worker", 0, os.getpid(), 1, "serving", 0, False, 1.0),
        ]
        Place(file, 1, Report).write(Report(os.getpid(), {"bad_records": 3}))
        Place(file, TREE, TreeReport).write(TreeReport(phase, STATE | more, seen))

    tell()
    endpoint = Endpoint(reactor, listener, file, 30)
    thread = threading.Thread(target=reactor.run)
    thread.start()
    try:
        yield listener.getsockname()[1], tell
    finally:
        reactor.post(endpoint.close)
        reactor.post(reactor.stop)
        thread.join(10)
        listener.close()
        os.close(file)
        assert not thread.is_alive()


def get(port: int, path: str, method: str = "GET", **fields: str) -> tuple[int, str, str]:
    """Status, media type and body."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method, headers=fields)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read().decode()


def test_pages():
    with serving() as (port, tell):
        status, media_type, text = get(port, "/metrics?x=1")
        assert (status, media_type.partition(";")[0]) == (200, "text/plain")
        assert 'mooring_bad_records_total{number="0",role="worker"} 3.0' in text
        assert get(port, "/metrics", Accept="application/openmetrics-text; version=1.0.0")[1].startswith(
            "application/openmetrics-text"
        )
        assert get(port, "/health") == (200, "application/json", '{"status":"live"}\n')
        assert get(port, "/ready") == (200, "application/json", '{"status":"ready"}\n')
        tell("stopping")
        assert get(port, "/ready")[0] == 503
        assert get(port, "/health")[0] == 200
        assert get(port, "/ready", "HEAD") == (503, "application/json", "")
        assert get(port, "/other")[0] == 404
        assert get(port, "/health", "POST")[0] == 405


def test_bad_requests_are_answered_and_end():
    with serving() as (port, _):
        for sent, status in ((b"no http\r\n\r\n", 400), (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"a: b\r\n" * 200, 431)):
            with socket.create_connection(("127.0.0.1", port), 10) as talk:
                talk.sendall(sent)
                talk.settimeout(10)
                assert talk.recv(100).startswith(b"HTTP/1.1 %d" % status)
        connection = HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("POST", "/health", b"x" * 100)
        assert connection.getresponse().status == 413
        connection.close()


def test_those_who_say_nothing_keep_others_out_for_a_moment_only(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(PROFILE, "request_timeout", 0.3)
    with serving() as (port, _), ExitStack() as silent:
        for _ in range(CLIENTS):
            silent.enter_context(socket.create_connection(("127.0.0.1", port), 10))
        assert get(port, "/health")[0] == 503
        eventually(lambda: get(port, "/health")[0] == 200)
