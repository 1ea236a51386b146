"""Gateways that accept from one listener: nobody is refused while one of them has room."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from support.serving import LIMIT, Serving, eventually

APP = """
@server.on("message")
def said(server, frame):
    server.push(frame.fd, str(frame.fd >> 57))
"""
MODES = {
    "process": ({"mode": "process", "worker_num": 1, "gateway_num": 2}, "gateway"),
    "base": ({"mode": "base", "worker_num": 2}, "server"),
}
SETTINGS = {"worker_hang_timeout": 0, "gateway_hang_timeout": 0, "max_connections_per_address": 0}
FEW_DESCRIPTORS = ("sh", "-c", f"ulimit -n 200; exec {sys.executable} app.py")


class Clients(contextlib.ExitStack):
    """WebSockets, and whose each is."""

    def __init__(self, server: Serving) -> None:
        super().__init__()
        self.server = server
        self.count = [0, 0]

    def come(self, limit: float = LIMIT) -> tuple[ClientConnection, int]:
        """One more, and the number of its gateway. InvalidStatus when it is refused."""
        one = connect(self.server.url, compression=None, proxy=None, open_timeout=limit, ping_interval=None)
        one = self.enter_context(one)
        gateway = ask(one)
        self.count[gateway] += 1
        return one, gateway


def ask(one: ClientConnection) -> int:
    one.send("")
    return int(one.recv(LIMIT))


@contextlib.contextmanager
def uneven(server: Serving, role: str, room: int = 0) -> Iterator[Clients]:
    """The first of two gateways is full, and the second one, which has nearly nobody, is there again.

    `room`: how many the first one can take, if that is known."""
    second = server.pid_of(f"{role} 1")
    with Clients(server) as clients:
        canary, gateway = clients.come()
        while gateway != 1:
            canary, gateway = clients.come()
        os.kill(second, signal.SIGSTOP)
        try:
            while clients.count[0] < room:
                clients.come()
            with contextlib.suppress(ConnectionClosed, InvalidMessage, InvalidStatus, OSError):
                while True:
                    clients.come(4.0)
        finally:
            os.kill(second, signal.SIGCONT)
        # its loop has turned, so the others know that it has room
        for _ in range(3):
            assert ask(canary) == 1
        yield clients


def refused(server: Serving, clients: Clients) -> bool:
    """Its connection is ended with the answer, which may overtake the request: then there is no answer, but a reset."""
    try:
        clients.come()
    except InvalidStatus as problem:
        return problem.response.status_code == 503
    except TimeoutError:  # an OSError, too; it waits
        return False
    except (ConnectionClosed, InvalidMessage, OSError):
        return True
    return False


@pytest.mark.parametrize("mode", MODES)
def test_who_is_full_leaves_the_listener_to_who_has_room(mode):
    settings, role = MODES[mode]
    with Serving(APP, **settings, **SETTINGS, max_connections=12) as server, uneven(server, role, 12) as clients:
        assert clients.count[0] == 12
        while clients.count[1] < 11:
            clients.come()
        # one that was waiting while nobody took it has a place, too: then all are taken, and it is said at once
        start = time.monotonic()
        eventually(lambda: refused(server, clients))
        assert time.monotonic() - start < 10
        server.wait_log("all 12 connections are taken: new clients get 503")
        assert clients.count[1] <= 12
        clients.close()
        with Clients(server) as again:
            eventually(lambda: not refused(server, again))


@pytest.mark.parametrize("mode", MODES)
def test_who_has_no_descriptor_left_does_the_same(mode):
    settings, role = MODES[mode]
    with (
        Serving(APP, argv=FEW_DESCRIPTORS, **settings, **SETTINGS, max_connections=5000) as server,
        uneven(server, role) as clients,
    ):
        before = clients.count[0]
        assert before >= 60
        for _ in range(30):
            clients.come()
        assert clients.count[0] == before


@pytest.mark.parametrize("mode", MODES)
def test_after_the_death_of_a_gateway_its_clients_find_room_with_its_successor(mode):
    """They come back at once, and more of them than the other one can take."""
    settings, role = MODES[mode]
    with Serving(APP, **settings, **SETTINGS, max_connections=12) as server, Clients(server) as clients:
        for _ in range(20):
            clients.come()
        assert min(clients.count) >= 8
        mark = server.mark()
        os.kill(server.pid_of(f"{role} 0"), signal.SIGKILL)
        with Clients(server) as back:
            for _ in range(clients.count[0]):
                back.come()
            assert back.count[1] == 12 - clients.count[1]
        server.wait_log(f"{role} 0 .* serves in place", since=mark)
        assert not [line for line in server.lines if "are taken" in line]


def test_one_that_stands_still_is_no_reason_to_let_clients_wait():
    settings, role = MODES["process"]
    with Serving(APP, **settings, **SETTINGS, max_connections=12) as server, Clients(server) as clients:
        second = server.pid_of(f"{role} 1")
        os.kill(second, signal.SIGSTOP)
        try:
            while clients.count[0] < 12:
                clients.come()
            assert refused(server, clients)
        finally:
            os.kill(second, signal.SIGCONT)


@pytest.mark.parametrize("mode", MODES)
def test_clients_of_a_dead_gateway_are_back_before_anybody_knows(mode):
    """Its last word was that it is full. The supervisor is at something else, such as starting another one."""
    settings, role = MODES[mode]
    with Serving(APP, **settings, **SETTINGS, max_connections=6) as server, Clients(server) as clients:
        for _ in range(12):
            clients.come()
        victim = server.pid_of(f"{role} 0")
        server.signal(signal.SIGSTOP)
        goes_on = threading.Timer(0.5, server.signal, [signal.SIGCONT])
        goes_on.start()
        try:
            os.kill(victim, signal.SIGKILL)
            with Clients(server) as back:
                for _ in range(6):
                    back.come()
                assert back.count == [6, 0]
        finally:
            goes_on.join()
        assert not [line for line in server.lines if "are taken" in line]


def test_after_the_death_of_a_full_gateway_nobody_is_refused():
    """All places were taken, and those of the one that has died will be there again in a moment, which is a long one
    here: longer than what it has said itself counts."""
    settings, role = MODES["process"]
    slow = {"restart_free": 0, "restart_backoff_max": 4}
    with Serving(APP, **settings, **SETTINGS, **slow, max_connections=6) as server, Clients(server) as clients:
        for _ in range(12):
            clients.come()
        assert clients.count == [6, 6]
        os.kill(server.pid_of(f"{role} 0"), signal.SIGKILL)
        server.wait_log("gateway 0 .* was ended by SIGKILL")
        with Clients(server) as back:
            for _ in range(6):
                back.come()
            assert back.count == [6, 0]
