"""What a worker asks a gateway: answers of any size, and those that come too late."""

import os
import socket
import threading
from collections.abc import Iterator

import pytest

from mooring._core import channel_link
from mooring._core.channel_link import ChannelGatewayEnd, ChannelWorkerEnd
from mooring._core.commands import Commands
from mooring._core.gateway_end import Outbox
from mooring._core.hub import Hub
from mooring._core.inlet import Inlet
from mooring._core.page import PAGE_BYTES
from mooring._core.reactor import Reactor
from mooring._core.relay import Relay
from mooring._core.table import Table
from mooring._core.websocket import WebSockets
from unit.options import OPTIONS


def new_page() -> int:
    page = os.memfd_create("page", os.MFD_CLOEXEC)
    os.ftruncate(page, PAGE_BYTES)
    return page


@pytest.fixture
def table() -> Iterator[Table]:
    file = os.memfd_create("table", os.MFD_CLOEXEC)
    yield Table(file, 4)
    os.close(file)


def answer(call: int, payload: bytes) -> bytes:
    return call.to_bytes(4, "little") + len(payload).to_bytes(4, "little") + payload


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, ...]]:
    """Channel and reply socket, both ends."""
    everything = (*socket.socketpair(), *socket.socketpair())
    yield everything
    for one in everything:
        one.close()


def test_an_answer_need_not_fit_into_the_socket(table: Table, sockets: tuple[socket.socket, ...]):
    ours, _, reply, theirs = sockets
    theirs.settimeout(10)
    reactor = Reactor()
    connections = WebSockets(reactor, table, 0, 1, OPTIONS)
    relay = Relay(connections, Hub(connections, 8), 16, 1 << 18, 64, 1 << 22)
    worker_end = ChannelWorkerEnd(Commands(relay), 0, 1, True, reactor, ours.detach(), reply, new_page())
    expected = answer(1, b"a" * 3_000_000) + answer(2, b"") + answer(3, b"c" * 500_000)
    received = bytearray()

    def read() -> None:
        while len(received) < len(expected):
            received.extend(theirs.recv(65536))
        reactor.post(reactor.stop)

    for call, payload in ((1, b"a" * 3_000_000), (2, b""), (3, b"c" * 500_000)):
        worker_end.reply(call, payload)
    reader = threading.Thread(target=read)
    reader.start()
    reactor.call_later(20, reactor.stop)
    reactor.run()
    reader.join(10)
    assert received == expected
    worker_end.close()


def test_an_answer_that_came_too_late_is_not_taken_for_the_next(
    table: Table, sockets: tuple[socket.socket, ...], monkeypatch: pytest.MonkeyPatch
):
    ours, commands, reply, theirs = sockets
    reactor = Reactor()
    inlet = Inlet(None, (None,), None, Outbox())
    gateway_end = ChannelGatewayEnd(0, table, inlet, reactor, ours.detach(), reply, new_page())
    monkeypatch.setattr(channel_link, "CALL_TIMEOUT", 0.05)
    late = answer(1, b"late" * 1000)
    theirs.sendall(late[:7])
    with pytest.raises(channel_link.StateError, match="does not answer"):
        gateway_end.call(2, 0, b"")
    theirs.sendall(late[7:500])
    with pytest.raises(channel_link.StateError, match="does not answer"):
        gateway_end.call(2, 0, b"")
    theirs.sendall(late[500:] + answer(2, b"too") + answer(3, b"this"))
    assert gateway_end.call(2, 0, b"") == b"this"
    gateway_end.close()
    commands.close()
