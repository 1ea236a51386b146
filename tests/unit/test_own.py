"""The endpoint of one process: it answers while the loop does not turn."""

import gc
import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mooring.monitor.own import OwnMonitor
from mooring.supervisor.bulletin import alone

PHASE = ["starting"]


@contextmanager
def monitor() -> Iterator[tuple[OwnMonitor, int]]:
    """One whose loop never turns."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    port = listener.getsockname()[1]
    PHASE[0] = "starting"

    def report() -> tuple[dict[str, Any], dict[str, Any]]:
        return {"connections": 3}, {}

    made = OwnMonitor(lambda _seconds, _action: None, listener, 30, report, lambda: (PHASE[0], alone()))
    made.start()
    try:
        yield made, port
    finally:
        made.stop()
        del made
        gc.collect()  # a reactor and its sources know each other
    assert threading.active_count() == 1


def get(port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


def test_it_answers_by_itself_and_is_told_of_phases(descriptors: None):
    with monitor() as (made, port):
        assert get(port, "/ready")[0] == 503
        PHASE[0] = "running"
        made.tell()
        assert get(port, "/ready") == (200, '{"status":"ready"}\n')
        status, text = get(port, "/metrics")
        assert status == 200
        assert 'mooring_connections{number="0",role="server"} 3.0' in text
        assert 'mooring_gateways_wanted{number="0",role="server"} 1.0' in text
        PHASE[0] = "stopping"
        made.tell()
        status, text = get(port, "/ready")
        assert status == 503
        assert "draining" in text
        assert get(port, "/health")[0] == 200
        del made
