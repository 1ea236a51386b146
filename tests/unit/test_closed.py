"""The last look at a connection, and the line of the log that is made of it."""

import json
import logging
import os
import socket
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import msgspec
import pytest

from mooring import CloseRecord
from mooring._core.acceptor import Acceptor
from mooring._core.contract import GatewayContract
from mooring._core.finder import Finder
from mooring._core.hub import Hub
from mooring._core.reactor import Reactor
from mooring._core.registry import Cause
from mooring._core.relay import Relay
from mooring._core.table import Table
from mooring._core.websocket import WebSockets
from mooring._core.wire import Event
from mooring.config import Settings
from mooring.gateway.closed import KEPT, CloseRecords, LastLook
from mooring.net.closed import log_record, shown
from mooring.net.lines import JsonLines
from mooring.types import CAUSES, PHASES
from unit.options import OPTIONS

RECORD = CloseRecord(
    fd=7,
    cause="client_closed",
    by="client",
    code=1000,
    reason='so "long"\n',
    phase="open",
    protocol="websocket",
    tls="TLSv1.3",
    subprotocol="",
    compression="",
    listener=0,
    remote_ip="192.0.2.7",
    remote_port=50123,
    path="/room",
    user="",
    gateway=0,
    worker_id=None,
    connect_time=1000.0,
    duration=2.5,
    requests=1,
    messages_received=2,
    messages_sent=3,
    bytes_received=4,
    bytes_sent=5,
    round_trip=None,
    least_round_trip=0.001,
    most_queued=6,
)


def gateway(reactor: Reactor, **options: Any) -> tuple[WebSockets, Relay]:
    """The compiled half of one, and what stands above it."""
    table = Table(os.memfd_create("table", os.MFD_CLOEXEC), 8)
    connections = WebSockets(reactor, table, 3, 100, {**OPTIONS, **options})
    return connections, Relay(connections, Hub(connections, 8), 16, 1 << 16, 64, 1 << 20)


class Quiet(GatewayContract):
    """What a relay asks of its gateway here."""

    def on_gone(self, fd: int, code: int, reason: bytes) -> None: ...
    def on_failed(self, fd: int, code: int, reason: bytes) -> None: ...


def client(reactor: Reactor, connections: WebSockets) -> int:
    """One that has connected, by the number of its connection."""
    before = set(connections.table.connections())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        Acceptor(reactor, connections, listener.fileno(), 0, 0, 0, lambda *_: None)
        other = socket.create_connection(listener.getsockname())
        try:
            while not (found := set(connections.table.connections()) - before):
                reactor.poll(0.1)
        finally:
            other.detach()
    return found.pop()


def test_a_last_look():
    reactor = Reactor()
    looks: list[tuple[LastLook, bool]] = []
    connections, relay = gateway(reactor, records=True)
    relay.gateway = Quiet()
    connections.on_ended = lambda seen, wanted: looks.append((LastLook._make(seen), wanted))
    fd = client(reactor, connections)
    Finder(connections, relay.hub).note_path(fd, b"/room")
    connections.cut(fd, b"enough", Cause.SHUTDOWN)
    connections.cut(fd, b"too late", Cause.SERVER_ERROR)
    reactor.flush()
    ((look, wanted),) = looks
    assert (look.fd, look.code, look.reason, wanted) == (fd, 1006, b"enough", False)
    assert Cause(look.cause) is Cause.SHUTDOWN
    assert PHASES[look.stage] == "request"
    assert (look.path, look.user, look.worker, look.upgraded) == (b"/room", b"", 0, False)
    assert look.remote_ip == "127.0.0.1"


def test_none_is_taken_where_no_records_are_kept():
    reactor = Reactor()
    connections, relay = gateway(reactor)
    relay.gateway = Quiet()
    connections.on_ended = lambda *_: pytest.fail("nobody wants it")
    connections.cut(client(reactor, connections), b"enough", Cause.SHUTDOWN)
    reactor.flush()
    assert connections.count == 0


def test_whatever_fails_the_end_is_told(caplog: pytest.LogCaptureFixture):
    reactor = Reactor()
    connections, relay = gateway(reactor, records=True)
    gone: list[int] = []
    relay.gateway = Quiet()
    relay.gateway.on_gone = lambda fd, _code, _reason: gone.append(fd)
    errors: list[str] = []
    reactor.on_error = lambda doing, _error: errors.append(doing)
    connections.on_ended = lambda *_: 1 // 0
    fd = client(reactor, connections)
    connections.cut(fd, b"enough", Cause.SHUTDOWN)
    reactor.flush()
    assert (gone, errors) == ([fd], ["keeping a close record"])


class Worker:
    """The worker end of who looks."""

    def __init__(self) -> None:
        self.usable = True
        self.waits = 0
        self.told: list[tuple[int, list[CloseRecord]]] = []

    def unsent(self) -> int:
        return self.waits

    def say(self, kind: int, extra: int = 0, payload: bytes = b"") -> int:
        assert (kind, extra) == (Event.TAIL, 0)
        self.told.append(msgspec.msgpack.decode(payload, type=tuple[int, list[CloseRecord]]))
        return 0


LOOK = LastLook(
    *(9, 0, Cause.CLIENT_RESET, 3, 1006, b"the connection was reset", False, 0, "192.0.2.7", 50123, b"", b"ann", 2),
    *(1000.0, 2.5, 1, 0, 0, 100, 200, 0, 0, 300),
)


def test_records_of_a_gateway_are_made_for_who_wants_them():
    later: list[Callable[[], None]] = []
    settings = Settings.from_options({"close_records": "on"})
    records = CloseRecords(3, [settings, Settings()], lambda _delay, call: later.append(call))
    records.requested(9, 0, "/a?b=c")
    records.requested(8, 1, "/not-kept")
    assert records.ended(LOOK, False) is None
    records.requested(9, 0, "/a?b=c")
    packed = records.ended(LOOK, True)
    assert packed is not None
    record = msgspec.msgpack.decode(packed, type=CloseRecord)
    assert (record.cause, record.by, record.code, record.phase) == ("client_reset", "client", None, "idle")
    assert (record.path, record.user, record.worker_id, record.gateway) == ("/a", "ann", 1, 3)
    records.opened(9, 0, "chat", compressed=True)
    upgraded = LOOK._replace(upgraded=True, path=b"/room", round_trip=1500)
    record = msgspec.msgpack.decode(records.ended(upgraded, True) or b"", type=CloseRecord)
    assert (record.protocol, record.code, record.path) == ("websocket", 1006, "/room")
    assert (record.subprotocol, record.compression, record.round_trip) == ("chat", "permessage-deflate", 0.0015)
    assert later == []
    assert not records._paths
    assert not records._agreed


def test_a_tail_is_told_in_batches_and_nobody_waits_for_it():
    later: list[Callable[[], None]] = []
    records = CloseRecords(3, [Settings.from_options({"close_records": "on"})], lambda _delay, call: later.append(call))
    worker = Worker()
    records.watch(worker)
    assert worker.told.pop() == (0, []), "that it is heard"
    for fd in range(KEPT + 7):
        assert records.ended(LOOK._replace(fd=fd), False) is None
    assert len(later) == 1
    worker.waits = 1 << 21
    later.pop()()
    assert worker.told == []  # it has enough
    worker.waits = 0
    records.watch(worker)
    ((missed, told),) = worker.told
    assert (missed, [record.fd for record in told]) == (7, list(range(KEPT)))
    worker.usable = False  # it is gone; what is kept waits for the next one
    records.ended(LOOK, False)
    later.pop()()
    successor = Worker()
    records.watch(successor)
    assert later == []
    assert [record.fd for record in successor.told[0][1]] == [9]


def test_a_line_for_people():
    assert shown(RECORD) == (
        'by=client code=1000 reason="so \\"long\\"\\n" phase=open protocol=websocket tls=TLSv1.3 listener=0 '
        "remote_ip=192.0.2.7 remote_port=50123 path=/room gateway=0 connect_time=1000.000000 duration=2.500000 "
        "requests=1 messages_received=2 messages_sent=3 bytes_received=4 bytes_sent=5 "
        "least_round_trip=0.001000 most_queued=6"
    )
    assert "\n" not in shown(replace(RECORD, path="/\x1b[2J\n", user='"', reason="ä" * 5000))
    assert 'user="\\""' in shown(replace(RECORD, user='"'))


def test_a_line_for_programs(monkeypatch: pytest.MonkeyPatch):
    lines: list[logging.LogRecord] = []
    own = logging.Handler()
    own.emit = lines.append  # type: ignore[method-assign]
    from mooring.net.closed import log

    level = log.level
    log.addHandler(own)
    log.setLevel(logging.INFO)
    try:
        log_record(RECORD, as_json=True)
    finally:
        log.removeHandler(own)
        log.setLevel(level)
    line = json.loads(JsonLines("gateway 0").line(lines[0]))
    assert line["message"] == "connection 7 ended by client_closed"
    assert {name: line[name] for name in asdict(RECORD)} == asdict(RECORD)


def test_every_cause_has_a_meaning_and_somebody_who_did_it():
    assert {cause.name.lower() for cause in Cause} - {"unknown"} == set(CAUSES)
    assert {by for by, _ in CAUSES.values()} == {
        "application",
        "client",
        "failure",
        "limit",
        "refusal",
        "server",
        "shutdown",
    }
