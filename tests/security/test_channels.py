"""Nonsense on the channels between the server's own processes, and on its control socket (C21).

Clients cannot get at these. What can is a fault: an extension that writes to a descriptor which is not its own, a
process of another version. What makes no sense is ignored and counted; where the stream itself is lost, the worker at
its end is replaced. Nothing that comes is ever evaluated, nobody else notices, and no process goes on in a circle.
"""

import json
import os
import pickle
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import mooring
from contract.clients import TEXT, Raw, get
from frames import frame
from mooring._core.channel import BadRecord
from mooring._core.channel_link import ChannelGatewayEnd
from mooring._core.contract import WorkerContract
from mooring._core.gateway_end import Outbox
from mooring._core.inlet import Inlet
from mooring._core.page import PAGE_BYTES
from mooring._core.reactor import Reactor
from mooring._core.table import Table
from mooring._core.wire import Call, Command, Event, Fate, Mail, Notice
from mooring.admin.requests import LINE_LIMIT
from mooring.app.loader import Application
from mooring.boot import Boot
from mooring.config.tasks import Tasks
from mooring.errors import StateError
from mooring.supervised import Supervised
from mooring.worker.dispatcher_link import DispatcherLink
from mooring.worker.tasks import TaskDesk
from security.watch import KEY, Canary, becomes_idle, watched
from support.descriptors import open_descriptors
from support.serving import LIMIT, Serving, eventually

HEAD = struct.Struct("=IBBHIIQ")
NO_TICKET = 0xFFFFFFFF

# The descriptors of a process, as it opens its ends; and a handler that writes to them.
APP = """
from mooring import runtime
from mooring.parts import gateway as gateway_part, worker as worker_part
ends = {}

def spy(module, name, key=None):
    real = getattr(module, name)
    def opened(*arguments, **named):
        ends.setdefault(name, named[key] if key else arguments[1])
        return real(*arguments, **named)
    setattr(module, name, opened)

spy(worker_part, "open_gateway_end", "channel")
spy(gateway_part, "open_worker_end", "channel")
spy(worker_part, "DispatcherLink")

@server.on("message")
def said(server, frame):
    word, _, rest = frame.data.partition(" ")
    if word == "write":
        name, data = rest.split()
        fd = runtime._host.controller._socket.fileno() if name == "control" else ends[name]
        return os.write(fd, bytes.fromhex(data)) and None
    server.push(frame.fd, str(os.getpid()) if word == "pid" else frame.data)

@server.on("request")
async def asked(request, response):
    if request.path == "/task":
        return response.end(str(await server.task("work")))
    response.end(json.dumps(server.stats()))
"""
TASKS = """
@server.on("task")
def work(server, task):
    return task.data
"""
PROCESS = {"mode": "process", "worker_num": 2, "gateway_num": 1}
BASE = {"mode": "base", "worker_num": 2}


class Trace:
    """Whoever unpickles it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.path, "w")


@pytest.fixture
def pickled(tmp_path: Path) -> Iterator[bytes]:
    """An object whose evaluation would be seen."""
    path = tmp_path / "evaluated"
    data = pickle.dumps(Trace(path))
    pickle.loads(data).close()
    path.unlink()
    yield data
    assert not path.exists(), "it was evaluated"


def record(kind: int, fd: int = 0, opcode: int = 0, arg: int = 0, payload: bytes = b"", **more: int) -> bytes:
    size = more.get("size", len(payload))
    return HEAD.pack(size, kind, opcode, arg, more.get("ticket", 0), more.get("extra", 0), fd) + payload


class Asker:
    """A WebSocket, and the process that answers it."""

    def __init__(self, server: Serving) -> None:
        self._raw = Raw(server)
        assert self._raw.upgrade("/asker").status == 101
        self.pid = int(self.ask("pid"))

    def ask(self, text: str) -> str:
        self._raw.send(frame(TEXT, text.encode(), key=KEY))
        return self._raw.text()

    def write(self, name: str, data: bytes) -> None:
        """Has the process write to one of its own channels; nobody waits for what comes of it."""
        self._raw.send(frame(TEXT, f"write {name} {data.hex()}".encode(), key=KEY))

    def close(self) -> None:
        self._raw.socket.close()


def stats(server: Serving) -> dict[str, Any]:
    with Raw(server, get("/")) as raw:
        return raw.answer().json()


# ---------------------------------------------------------------------------------------------- worker -> gateway


def test_records_that_make_no_sense_are_ignored(pickled: bytes):
    """Each is counted and logged, like refusals, and the worker and its clients go on."""
    bad = [
        record(Command.ACK, ticket=0xFFFFFF, extra=1),
        record(Command.ACK, ticket=0, extra=0xFFFFFFFF),
        record(Command.ACK, ticket=900, extra=5),
        record(Command.SEND, 1, 0, payload=b"x"),
        record(Command.SEND, 1, 15, payload=b"x"),
        record(Command.PUBLISH, 0, 9, 1, b"tx"),
        record(Command.PUBLISH, 0, TEXT, 60000, b"topic"),
        record(Command.PUBLISH, 0, TEXT, 5, b"topic" + bytes(7), extra=1),
        record(Command.PUBLISH, 0, TEXT, 5, b"topic" + bytes(8200), extra=1025),
        record(Command.PUBLISH, 0, TEXT, 5, b"topic", extra=0xFFFFFFFF),
        record(Command.DISCONNECT, 1, 0, 5),
        record(Command.DISCONNECT_USER, 0, 0, 5),
        record(Command.BIND, 1, payload=b"\xff\xfe"),
        record(Command.DISCONNECT_USER, 0, 0, 1000, b"ann", extra=4),
        record(Command.SESSION, 1, payload=pickled),
        record(Command.SESSION, 1, payload=b"\x91" * 5000),
        record(Command.HANDSHAKE, 1, 0, 101, pickled),
    ]
    # of no connection, of a request that is over, of a question that nobody has
    late = [
        record(Command.SEND, 0xFFFFFFFFFFFFFFFF, TEXT, payload=pickled),
        record(Command.RESPOND, 0, 3, payload=b"HTTP/1.1 200 OK\r\n\r\n", extra=1),
        record(Command.CALL, 0, 0, 999, pickled, ticket=7),
        record(Command.HANDSHAKE, 1, 0, 200, pickled),
    ]
    with Serving(APP, **PROCESS) as server:
        asker = Asker(server)
        with watched(server) as canary:
            for one in bad:
                asker.write("open_gateway_end", one)
            asker.write("open_gateway_end", b"".join(late))
            eventually(lambda: stats(server)["bad_records"] == len(bad))
            canary.beat(3)
            becomes_idle(*server.titles())
        assert stats(server)["bad_records"] == len(bad)
        server.wait_log(" ERROR .*a record of worker [01] makes no sense and is ignored: .*tickets .* are acknowledged")
        assert "Traceback" not in "\n".join(server.lines)
        asker.close()
        assert server.stop() == 0
        assert "(adds up)" in server.lines[-2]


def test_an_answer_to_an_old_request_is_not_given_to_the_next_one():
    app = """
    OLD = b"HTTP/1.1 500 Old\\r\\nContent-Length: 0\\r\\n\\r\\n"

    @server.on("message")
    def said(server, frame): ...

    @server.on("request")
    def asked(request, response):
        if request.path == "/old":
            # what a worker says late: an answer to the request before this one, on the same connection
            server._running().outbox.respond(request.fd, request.number - 1, 1, OLD)
        response.end(request.path)
    """
    with Serving(app, **PROCESS) as server, Raw(server, get("/first")) as raw:
        assert raw.answer().body == b"/first"
        for _ in range(3):
            raw.send(get("/old"))
            answer = raw.answer()
            assert (answer.status, answer.body) == (200, b"/old")


BROKEN = {
    "an oversized length": record(Command.SEND, 1, TEXT, size=0x40000001),
    "the largest length": b"\xff" * 24,
    "text": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "zeros": bytes(64),
    "an unknown kind": record(200),
    "an event": record(Event.MESSAGE, 1, TEXT, payload=b"x"),
    "a payload where none belongs": record(Command.ACK, payload=b"x" * 100),
}


@pytest.mark.parametrize("what", [*BROKEN, "a pickled object"])
def test_a_worker_whose_stream_is_lost_is_replaced(what: str, pickled: bytes):
    """The other worker goes on, and so do the clients of this one: with its successor."""
    data = BROKEN.get(what, pickled + bytes(24))
    with Serving(APP, **PROCESS) as server:
        canary = Canary(server)
        asker = Asker(server)
        canary.beat()
        gateway = server.pid_of("gateway 0")
        asker.write("open_gateway_end", data)
        server.wait_log(r" ERROR .*worker \d \(pid \d+\): a record of kind \d+ with \d+ bytes: the stream is broken")
        server.wait_log(r"can't be talked to: .*gateway 0.* can't follow it: .*the stream is broken")
        server.wait_log(r"worker \d .*serves in place")
        canary.beat(5)
        assert int(asker.ask("pid")) != asker.pid  # the connection is the same
        counts = stats(server)
        assert counts["bad_records"] == 1
        assert counts["tree"]["control_errors"] == 1
        assert server.pid_of("gateway 0") == gateway
        becomes_idle(*server.titles())
        canary.stop()
        asker.close()
        assert server.stop() == 0
        assert "(adds up)" in server.lines[-2]


def test_a_record_that_is_cut_off():
    """A worker dies in the middle of one: nothing of it is done."""
    half = record(Command.SEND, 1, TEXT, size=100) + b"half"
    app = f"""
@server.on("open")
def opened(server, request):
    if request.path == "/die":
        os.write(ends["open_gateway_end"], {half!r})
        os._exit(3)
"""
    with Serving(APP + app, **PROCESS) as server:
        canary = Canary(server)
        canary.beat()
        with Raw(server) as raw:
            raw.upgrade("/die")
            server.wait_log("makes no sense and is ignored: the channel has ended in the middle of a record")
            server.wait_log("serves in place")
        canary.beat(3)
        assert stats(server)["bad_records"] == 1
        canary.stop()
        assert server.stop() == 0


# ---------------------------------------------------------------------------------------------- gateway -> worker


@pytest.mark.parametrize("what", ["an oversized length", "text", "zeros", "an unknown kind"])
def test_a_worker_that_is_told_nonsense_ends(what: str):
    """In base mode the application runs in the gateway's process, and can write to its end of the other's channel."""
    with Serving(APP, **BASE) as server:
        asker = Asker(server)
        asker.write("open_worker_end", BROKEN[what])
        server.wait_log(r"this worker ends, since it can't follow gateway \d any more: .*the stream is broken")
        assert asker.ask("still here") == "still here"
        server.wait_log(r"server \d .*serves in place")
        assert int(asker.ask("pid")) == asker.pid
        canary = Canary(server)
        canary.beat(3)
        canary.stop()
        becomes_idle(*server.titles())
        asker.close()
        assert server.stop() == 0


class Host(WorkerContract):
    """What a worker is to its channels; it notes what it is told."""

    def __init__(self) -> None:
        self.bad: list[str] = []
        self.broken: list[str] = []
        self.events: list[Any] = []

    def on_bad_record(self, whose: str, problem: Exception) -> None:
        assert isinstance(problem, ValueError | msgspec.MsgspecError), repr(problem)
        self.bad.append(str(problem))

    def on_broken(self, whose: str, why: str) -> None:
        self.broken.append(why)

    def cold(self, event: Notice) -> None:
        self.events.append((event.kind, event.fd))

    def note(self, gateway_end: object, notice: Notice) -> None:
        if notice.kind == Event.SESSION:
            msgspec.msgpack.decode(notice.payload)
        self.events.append((notice.kind, notice.fd))

    def failed(self, kind: int, listener: int, fd: int, error: BaseException) -> None:
        raise AssertionError(f"handler of {kind} on {fd}: {error!r}")

    def gateway_lost(self, gateway_end: object, why: str) -> None:
        self.events.append(("lost", why))


class WorkerEnd:
    """The worker's end of a link to a gateway, and the plain sockets at its other end."""

    def __init__(self) -> None:
        self.reactor = Reactor()
        self.host = Host()
        self.seen: list[tuple[int, Any]] = []
        inlet = Inlet(None, (lambda _server, frame: self.seen.append((frame.fd, frame.data)),), self.host, Outbox())
        self.gateway, channel = socket.socketpair()
        self.answers, reply = socket.socketpair()
        page = os.memfd_create("page")
        os.ftruncate(page, PAGE_BYTES)
        table = Table(os.memfd_create("table"), 4)
        self.gateway_end = ChannelGatewayEnd(0, table, inlet, self.reactor, channel.detach(), reply, page)

    def tell(self, data: bytes) -> None:
        self.gateway.sendall(data)
        self.reactor.poll(0.0)
        self.reactor.flush()

    def close(self) -> None:
        self.gateway_end.close()
        self.gateway.close()
        self.answers.close()


@pytest.fixture
def end() -> Iterator[WorkerEnd]:
    one = WorkerEnd()
    yield one
    one.close()


def test_events_that_make_no_sense_are_ignored(end: WorkerEnd, pickled: bytes):
    bad = [
        record(Event.MESSAGE, 1, TEXT, payload=b"x", ticket=100_000),
        record(Event.MESSAGE, 1, TEXT, payload=b"x", ticket=1, extra=7),
        record(Event.MESSAGE, 1, TEXT, payload=b"\xff", ticket=1),
        record(Event.MESSAGE, 1, TEXT, payload=b"x", ticket=NO_TICKET, extra=7),
        record(Event.ROOM, 1, ticket=1),
        record(Event.SESSION, 1, payload=pickled, ticket=NO_TICKET),
    ]
    for count, one in enumerate(bad, 1):
        end.tell(one)
        assert len(end.host.bad) == count
    assert not end.seen
    assert not end.host.events
    end.tell(record(Event.MESSAGE, 5, TEXT, payload=b"good", ticket=1))
    assert end.seen == [(5, "good")]
    assert not end.host.broken


@pytest.mark.parametrize("what", [*BROKEN, "a pickled object"])
def test_a_stream_that_is_lost_is_told_once_and_thrown_away(end: WorkerEnd, what: str, pickled: bytes):
    data = {**BROKEN, "an event": record(Command.SEND, 1), "a payload where none belongs": record(Event.GONE, size=9)}
    end.tell(data.get(what, pickled + bytes(24)))
    assert len(end.host.broken) == 1
    end.tell(record(Event.MESSAGE, 5, TEXT, payload=b"good", ticket=1))
    end.tell(b"\xff" * 100)
    assert len(end.host.broken) == 1
    assert not end.seen
    end.gateway.close()
    end.reactor.poll(0.0)
    assert end.host.events == [("lost", "the other end closed the channel")]


def test_a_record_in_many_pieces_is_one(end: WorkerEnd):
    data = record(Event.MESSAGE, 5, TEXT, payload=b"good", ticket=1)
    for n in range(len(data)):
        end.tell(data[n : n + 1])
    assert end.seen == [(5, "good")]


def answer(call: int, payload: bytes, size: int | None = None) -> bytes:
    return struct.pack("=II", call, len(payload) if size is None else size) + payload


def test_answers_of_a_gateway(end: WorkerEnd):
    """Of earlier calls, of calls that were never made; then one whose length is nonsense."""
    for number in (0, 7, 0xFFFFFFFF):
        end.answers.sendall(answer(number, b"stale"))
    end.answers.sendall(answer(1, b"mine"))
    assert end.gateway_end.call(Call.STATS, 0, b"") == b"mine"
    end.answers.sendall(answer(1, b"again"))
    end.answers.sendall(answer(2, b"", 0xFFFFFFFF))
    with pytest.raises(StateError, match="an answer of 4294967295 bytes"):
        end.gateway_end.call(Call.STATS, 0, b"")
    with pytest.raises(StateError):
        end.gateway_end.call(Call.STATS, 0, b"")


# ---------------------------------------------------------------------------------------------- the dispatcher


def test_mail_that_makes_no_sense_is_ignored_by_the_dispatcher(pickled: bytes):
    bad = [
        record(Mail.RESULT, 999, Fate.DONE, payload=pickled),
        record(Mail.HELLO, 5, 1),
        record(Mail.RESULT, 1, 77, payload=b"\xc0"),
    ]
    with Serving(APP + TASKS, task_worker_num=1, **PROCESS) as server:
        asker = Asker(server)
        with watched(server) as canary:
            for one in bad:
                asker.write("DispatcherLink", one)
            # taken, but no task worker can read it: it has failed
            asker.write("DispatcherLink", record(Mail.TASK, 1_000_000, payload=pickled))
            asker.write("DispatcherLink", record(Mail.TASK, 1_000_001, 1, payload=pickled))
            eventually(lambda: stats(server)["tasks_failed"] == 2)
            # what else nobody waits for
            for kind in (Mail.PROGRESS, Mail.CANCEL):
                asker.write("DispatcherLink", record(kind, 999))
            with Raw(server, get("/task")) as raw:
                assert raw.answer().body == b"work"
            assert stats(server)["bad_records"] >= len(bad)
            canary.beat(3)
            becomes_idle(*server.titles())
        server.wait_log(" ERROR .*a record of worker [01] makes no sense and is ignored: the result of task 999")
        asker.close()
        assert server.stop() == 0


def test_a_worker_that_the_dispatcher_cannot_follow_is_replaced():
    with Serving(APP + TASKS, task_worker_num=1, **PROCESS) as server:
        canary = Canary(server)
        asker = Asker(server)
        dispatcher = server.pid_of("dispatcher 0")
        asker.write("DispatcherLink", b"\xff" * 24)
        server.wait_log(r"can't be talked to: .*dispatcher 0.* can't follow it: .*the stream is broken")
        server.wait_log(r"worker \d .*serves in place")
        canary.beat(3)
        with Raw(server, get("/task")) as raw:
            assert raw.answer().body == b"work"
        assert server.pid_of("dispatcher 0") == dispatcher
        canary.stop()
        asker.close()
        assert server.stop() == 0


class Post:
    def connect(self, channel: object) -> None: ...
    def receive(self, source: int, payload: bytes) -> None:
        msgspec.msgpack.decode(payload)


def test_mail_that_makes_no_sense_is_ignored_by_a_worker(pickled: bytes):
    reactor, host = Reactor(), Host()
    ours, theirs = socket.socketpair()
    desk = TaskDesk(Tasks(), lambda outcome: host.events.append(outcome), lambda *_: None)
    link = DispatcherLink(reactor, theirs.detach(), desk, None, Post(), host)
    link.hello()
    bad = [
        record(Mail.RESULT, 1, Fate.DONE, payload=pickled),
        record(Mail.PROGRESS, 9, payload=pickled),
        record(Mail.MESSAGE, 0, payload=pickled),
        record(Mail.TASK, 1, payload=pickled),
    ]
    with ours:
        for count, one in enumerate(bad, 1):
            ours.sendall(one)
            reactor.poll(0.0)
            assert len(host.bad) == count
        ours.sendall(b"\xff" * 24)
        reactor.poll(0.0)
        assert len(host.broken) == 1
    assert not host.events


# ---------------------------------------------------------------------------------------------- the supervisor


@pytest.mark.parametrize(
    "data",
    [
        b"garbage",
        b"\x81\xa2op",
        msgspec.msgpack.encode({"no": "op"}),
        b"\x81\xa2op" + b"\x91" * 60000,
        b"\x81\xa2op\xa1\xff",
    ],
    ids=["garbage", "cut", "no op", "deep", "not UTF-8"],
)
def test_a_process_that_speaks_nonsense_to_the_supervisor_is_replaced(data: bytes):
    with Serving(APP, **PROCESS) as server:
        canary = Canary(server)
        asker = Asker(server)
        asker.write("control", data)
        server.wait_log("can't be talked to: a child message is not")
        server.wait_log(r"worker \d .*serves in place")
        canary.beat(3)
        eventually(lambda: stats(server)["tree"]["control_errors"] == 1)
        becomes_idle(server.pid)
        canary.stop()
        asker.close()
        assert server.stop() == 0


def test_control_messages_of_no_meaning_are_ignored_by_the_supervisor(pickled: bytes):
    encode = msgspec.msgpack.encode
    with Serving(APP, **PROCESS) as server:
        asker = Asker(server)
        with watched(server) as canary:
            for message in [
                {"op": "dance"},
                {"op": "retired"},
                {"op": "retired", "worker": [], "generation": {}, "pid": "x"},
                {"op": "broken", "worker": 99, "generation": 1, "pid": 0, "why": pickled},
                {"op": "broken"},
                {"op": "drained", "counts": {"accepted": "many"}},
                {"op": "drained", "counts": pickled},
                {"op": "ready"},
            ]:
                asker.write("control", encode(message))
            server.wait_log("the child message 'dance' is refused")
            eventually(lambda: stats(server)["tree"]["control_errors"] == 7)  # all but "broken" and "ready"
            canary.beat(3)
            becomes_idle(server.pid)
        asker.close()
        assert server.stop() == 0
        assert "(adds up)" in server.lines[-2]


def test_control_messages_of_no_meaning_are_ignored_by_a_child(caplog: pytest.LogCaptureFixture):
    """And the descriptors that came with them are closed."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    boot = Boot("dispatcher", Application("target", "a:b", [], [], ""), {}, control=theirs.detach())
    supervised = Supervised(boot, None)
    before = open_descriptors()
    file = os.memfd_create("sent along")
    link = {"worker": 1, "gateway": None, "generation": 1, "pid": 1, "link": 1}
    for message in [
        {"op": "dance"},
        {"op": "retired", "worker": 1, "generation": 1},  # for the supervisor
        {"op": "attach", "worker": 1},
        {"op": "retire", "worker": 1, "generation": 1, "nonsense": 1},
        {"op": "attach", **link, "gateway": 0},  # which has three descriptors
    ]:
        socket.send_fds(ours, [msgspec.msgpack.encode(message)], [file])
    socket.send_fds(ours, [msgspec.msgpack.encode({"op": "retire", "worker": 1, "generation": 1})], [file])
    os.close(file)
    supervised._hear()
    assert open_descriptors() == before
    assert caplog.text.count("is refused") == 5
    ours.close()
    supervised.abandon()


# ---------------------------------------------------------------------------------------------- the control socket


@pytest.mark.parametrize("mode", [PROCESS, {"mode": "base", "worker_num": 1}], ids=["process", "base"])
def test_garbage_on_the_control_socket(mode: dict[str, Any], tmp_path: Path, pickled: bytes):
    """Refused with a reason, counted, a line each; clients of the server and other programs are served meanwhile."""
    path = tmp_path / "control.sock"
    bad = [
        b"\n",
        pickled + b"\n",
        b"\x00" * 5000 + b"\n",
        b"\xff" * 100_000 + b"\n",
        b"[" * 100_000 + b"\n",
        b'{"command": "stats"' * 50_000 + b"\n",
        b'{"command": "eval", "text": "1"}\n',
        b'{"command": "push", "fd": 1, "text": "' + b"\\ud800" * 10 + b'"}\n',
        b'{"command": "push", "fd": 1e3, "binary": "?"}\n',
        b'{"command": "stop", "id": 7}\n',
        b"x" * (LINE_LIMIT + 100_000) + b"\n",
        b"GET /stats HTTP/1.1\r\nHost: x\r\n\r\n",
        record(Mail.STATS) + b"\n",
    ]
    with Serving(APP, control_socket=str(path), **mode) as server:
        client = mooring.connect(path, timeout=LIMIT)
        with watched(server, grows=32 << 20) as canary:
            for one in bad:
                with socket.socket(socket.AF_UNIX) as raw:
                    raw.settimeout(LIMIT)
                    raw.connect(str(path))
                    try:
                        raw.sendall(one)
                    except BrokenPipeError:
                        assert len(one) > LINE_LIMIT
                    answer = b""
                    while not answer.endswith(b"\n"):
                        part = raw.recv(65536)
                        assert part, f"no answer to {one[:40]!r}"
                        answer += part
                    assert json.loads(answer)["ok"] is False, one[:40]
                    assert json.loads(answer)["error"]
            for cut in (b'{"command": "st', b'{"command": "stop"}', pickled):
                with socket.socket(socket.AF_UNIX) as raw:
                    raw.settimeout(LIMIT)
                    raw.connect(str(path))
                    raw.sendall(cut)
                    raw.shutdown(socket.SHUT_WR)
                    assert b"without a newline" in raw.recv(65536)
            canary.beat(3)
            assert client.stats()["control_refused"] == len(bad) + 3
        assert len([line for line in server.lines if "request on the control socket refused" in line]) >= 9
        becomes_idle(*server.titles())
        assert server.stop() == 0


def test_bad_records_are_value_errors():
    assert issubclass(BadRecord, ValueError)
