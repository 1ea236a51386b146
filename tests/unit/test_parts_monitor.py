"""The monitor as a part of a process: it answers as soon as it is made."""

import os
import socket
import time
from types import SimpleNamespace

from mooring._core.reactor import Reactor
from mooring.monitor.scoreboard import new_scoreboard
from mooring.net.listener import bind_listener
from mooring.parts.monitor import MonitorPart

LIMIT = 10.0  # seconds


def test_it_answers_from_the_scoreboard_and_gives_its_listener_back():
    reactor, board, listener = Reactor(), new_scoreboard(), bind_listener("127.0.0.1", 0)
    address = listener.getsockname()
    boot = SimpleNamespace(metrics=listener.detach(), scoreboard=board)
    part = MonitorPart(SimpleNamespace(reactor=reactor, boot=boot))
    with socket.create_connection(address) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        client.setblocking(False)
        answer, end = b"", time.monotonic() + LIMIT
        while b"\r\n\r\n" not in answer and time.monotonic() < end:
            reactor.poll(0.01)
            try:
                answer += client.recv(65536)
            except BlockingIOError:
                continue
    assert answer.startswith(b"HTTP/1.1 ")
    part.abandon()
    assert not os.path.exists(f"/proc/self/fd/{boot.metrics}")
    os.close(board)
