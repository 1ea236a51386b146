"""The timing wheel, seen from outside: connections that send no request are closed at their deadline."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from mooring._core.acceptor import Acceptor
from mooring._core.http_exchange import Sink
from mooring._core.reactor import Reactor
from mooring._core.table import Table
from mooring._core.websocket import WebSockets

LIMIT = 10.0
TICK = 0.032  # of the wheel
ROUND = 1024 * TICK
SLACK = 0.25  # for a machine that does something else, too


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


class Gate:
    """A listener whose connections get `timeout` seconds for their request."""

    def __init__(self, stack: ExitStack, reactor: Reactor, timeout: float) -> None:
        self.reactor = reactor
        self.timeout = timeout
        self.stack = stack
        file = os.memfd_create("table", os.MFD_CLOEXEC)
        stack.callback(os.close, file)
        self.connections = WebSockets(
            reactor,
            Table(file, 64),
            0,
            0,
            {
                "max_message": 1,
                "max_fragments": 1,
                "write_limit": 1,
                "high_water": 1,
                "request_timeout": timeout,
                "idle_timeout": 60.0,
                "write_timeout": 60.0,
                "close_timeout": 60.0,
                "http": {},
            },
        )
        self.connections.sink = Sink()
        self.listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.listener.setblocking(False)
        self.acceptor = Acceptor(reactor, self.connections, self.listener.fileno(), 0)
        stack.callback(self.acceptor.stop)
        self.closed: list[float] = []
        """Seconds from the connect of each client to its end."""

    def client(self) -> socket.socket:
        client = self.stack.enter_context(socket.create_connection(self.listener.getsockname()))
        begin = time.monotonic()

        def readable() -> None:
            self.closed.append(time.monotonic() - begin)
            self.reactor.remove_reader(client.fileno())
            assert client.recv(1) == b""
            self.reactor.stop()

        self.reactor.add_reader(client.fileno(), readable)
        return client


def run_until_closed(reactor: Reactor, gates: list[Gate], count: int) -> None:
    """Runs until each of the gates has closed that many. Only what happens wakes the loop."""
    late: list[bool] = []
    guard = reactor.call_later(LIMIT, lambda: (late.append(True), reactor.stop()))
    while any(len(gate.closed) < count for gate in gates) and not late:
        reactor.run()
    reactor.cancel_call(guard)
    assert not late, "it took too long"


def test_deadlines_come_in_time(stack: ExitStack) -> None:
    """Never early; late by a tick at most, and by what the machine adds."""
    reactor = Reactor()
    gates = [Gate(stack, reactor, timeout) for timeout in (0.4, 0.05, 0.0, 0.3, 0.1, 0.2, 0.032, 0.5)]
    for gate in gates:
        for _ in range(5):
            gate.client()
    run_until_closed(reactor, gates, 5)
    for gate in gates:
        assert min(gate.closed) >= gate.timeout - 0.002, gate.timeout  # the clock is read in milliseconds
        assert max(gate.closed) < gate.timeout + TICK + SLACK, gate.timeout
        assert gate.connections.count == 0
        assert gate.connections.stats()["timed_out"] == 5


def test_a_later_deadline_does_not_hold_up_a_nearer_one(stack: ExitStack) -> None:
    """Not even one of another round of the wheel. Its deadline is in a bucket that the near one is looked for in."""
    reactor = Reactor()
    far, farther, near = (Gate(stack, reactor, timeout) for timeout in (ROUND + TICK, 3 * ROUND + TICK, 0.2))
    far.client()
    farther.client()
    while far.connections.count + farther.connections.count < 2:
        reactor.poll(LIMIT)
    near.client()
    run_until_closed(reactor, [near], 1)
    assert near.closed[0] < 0.2 + TICK + SLACK
    assert (far.connections.count, farther.connections.count) == (1, 1)


def test_a_nearer_deadline_shortens_the_sleep(stack: ExitStack) -> None:
    """The loop knows already how long it may sleep for the far one."""
    reactor = Reactor()
    far, near = Gate(stack, reactor, 20.0), Gate(stack, reactor, 0.1)
    far.client()
    while far.connections.count == 0:
        reactor.poll(LIMIT)
    reactor.poll(0.05)
    near.client()
    run_until_closed(reactor, [near], 1)
    assert near.closed[0] < 0.1 + TICK + SLACK


def test_a_deadline_of_a_connection_that_is_gone_is_gone(stack: ExitStack) -> None:
    reactor = Reactor()
    gate = Gate(stack, reactor, 0.1)
    early, other = gate.client(), gate.client()
    while gate.connections.count < 2:
        reactor.poll(LIMIT)
    reactor.remove_reader(early.fileno())
    early.close()
    while gate.connections.count == 2:
        reactor.poll(LIMIT)
    run_until_closed(reactor, [gate], 1)
    assert gate.connections.count == 0
    assert gate.connections.stats()["timed_out"] == 1
    assert other.fileno() >= 0


def test_waiting_for_deadlines_costs_no_turns(stack: ExitStack) -> None:
    """Whether they are near, far, in another round, or were cancelled: the loop sleeps until one may be due."""
    reactor = Reactor()
    gates = [Gate(stack, reactor, timeout) for timeout in (5.0, 30.0, 40.0, 3600.0)]
    for gate in gates:
        client = gate.client()
        while gate.connections.count == 0:
            reactor.poll(LIMIT)
        if gate.timeout == 5.0:
            reactor.remove_reader(client.fileno())
            client.close()
            while gate.connections.count:
                reactor.poll(LIMIT)
    before, cpu = reactor.turns, time.process_time()
    begin = time.monotonic()
    while time.monotonic() - begin < 0.2:
        reactor.poll(0.2)
    assert reactor.turns - before <= 4
    assert time.process_time() - cpu < 0.1
