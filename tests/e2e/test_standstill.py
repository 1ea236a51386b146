"""One process that stands still, or has very much to do, keeps the clients of the others waiting a moment at most."""

import contextlib
import threading
from contextlib import ExitStack
from typing import Any

import pytest

from contract.clients import CLOSE, TEXT, Raw, halted, only_gateway
from frames import frame
from security.watch import KEY
from support.serving import Serving

BURST = """
@server.on("open")
def opened(server, request):
    server.subscribe(request.fd, "all")
    server.push(request.fd, str(os.getpid()))

@server.on("message")
def said(server, frame):
    if frame.data == "burst":
        for number in range(20000):
            server.publish("all", "%05d" % number)
    else:
        server.push(frame.fd, frame.data)
"""


@pytest.mark.parametrize(
    "mode",
    [
        pytest.param({"mode": "process", "worker_num": 2}, id="process"),
        pytest.param({"mode": "process", "worker_num": 2, "gateway_num": 2}, id="gateways"),
        pytest.param({"mode": "base", "worker_num": 2}, id="base"),
    ],
)
def test_a_burst_of_publishes_holds_nobody_up(mode: dict[str, Any]):
    """What another worker sends comes between those of a burst; the first of these does not wait for the last."""

    def client() -> tuple[Raw, str]:
        raw = stack.enter_context(Raw(server))
        assert raw.upgrade("/").status == 101
        return raw, raw.text()

    with Serving(BURST, **mode) as server, ExitStack() as stack:
        clients = [client() for _ in range(200)]
        boss, pid = clients[0]
        while all(other == pid for _, other in clients):  # one that has no processor now is asked by nobody
            clients.append(client())
            assert len(clients) < 2000
        listener = next(raw for raw, other in clients if other != pid)
        over = threading.Event()

        def ask() -> None:  # whether or not what was published can be read as fast as it comes
            while not over.wait(0.002):
                listener.send(frame(TEXT, b"echo", key=KEY))

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            boss.send(frame(TEXT, b"burst", key=KEY))
            numbers, between = 0, 0
            while numbers < 20000:
                text = listener.text()
                if text == "echo":
                    between += numbers > 0
                    continue
                assert text == f"{numbers:05d}"
                numbers += 1
        finally:
            over.set()
            asking.join()
        assert between > 1, "nothing was answered before the burst was over"


MANY = """
@server.on("open")
def opened(server, request):
    server.subscribe(request.fd, "all")
    server.push(request.fd, str(request.fd))

@server.on("message")
def said(server, frame):
    word, _, rest = frame.data.partition(" ")
    if word == "publish":
        for number in range(int(rest)):
            server.publish("all", f"{number} " + "x" * 50000)
    elif word == "stats":
        return server.push(frame.fd, " ".join(str(g.get("ended_by_standstill", g)) for g in server.stats()["gateways"]))
    elif word == "push":
        for number in range(400):
            server.push(int(rest), f"{number} " + "x" * 50000)
    server.push(frame.fd, "said")
"""
MODES = [
    pytest.param({"mode": "process", "worker_num": 2, "gateway_num": 2}, id="process"),
    pytest.param({"mode": "base", "worker_num": 2}, id="base"),
]


def say(raw: Raw, text: str) -> None:
    raw.send(frame(TEXT, text.encode(), key=KEY))


class Two:
    """A client of each gateway."""

    def __init__(self, server: Serving, mode: dict[str, Any], stack: ExitStack) -> None:
        self.clients: list[Raw] = []
        self.fds: list[int] = []
        for number in range(2):
            with only_gateway(server, mode, number):
                raw = stack.enter_context(Raw(server))
                assert raw.upgrade("/").status == 101
                self.fds.append(int(raw.text()))
                assert self.fds[-1] >> 57 == number
                self.clients.append(raw)
        self._stopped = server.pid_of("gateway 1" if mode["mode"] == "process" else "server 1")

    def one_stopped(self) -> contextlib.AbstractContextManager[None]:
        return halted(self._stopped)


def until_end(raw: Raw) -> tuple[list[int], tuple[int, str]]:
    """The numbers of the messages that come, and what it is closed with."""
    numbers = []
    while True:
        opcode, data = raw.frame()
        if opcode == CLOSE:
            return numbers, (int.from_bytes(data[:2], "big"), data[2:].decode())
        numbers.append(int(data.split()[0]))


@pytest.mark.parametrize("mode", MODES)
def test_who_is_behind_for_a_moment_misses_nothing(mode: dict[str, Any]):
    with Serving(MANY, write_limit=1 << 26, **mode) as server, ExitStack() as stack:
        two = Two(server, mode, stack)
        first, second = two.clients
        with two.one_stopped():
            say(first, "publish 400")
            assert [int(first.text().split()[0]) for _ in range(400)] == list(range(400))
            assert first.text() == "said"
        assert [int(second.text().split()[0]) for _ in range(400)] == list(range(400))
        say(second, "hello")
        assert second.text() == "said"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("word", ["publish", "push"])
def test_what_stands_still_holds_nobody_up(mode: dict[str, Any], word: str):
    """Neither within a gateway's limit nor beyond it. Who misses something is told, behind all that came before it."""
    with Serving(MANY, write_limit=1 << 26, gateway_bytes=1 << 20, **mode) as server, ExitStack() as stack:
        two = Two(server, mode, stack)
        first, second = two.clients
        with two.one_stopped():
            for _ in range(3):
                say(first, "publish 400" if word == "publish" else f"push {two.fds[1]}")
                if word == "publish":
                    assert [int(first.text().split()[0]) for _ in range(400)] == list(range(400))
                assert first.text() == "said"
            server.wait_log("gateway 1 stands still, and gateway_bytes=1048576 wait for it")
        numbers, closed = until_end(second)
        assert closed == (1013, "a process of the server stood still, and you have missed something")
        assert numbers == list(range(len(numbers)))
        say(first, "publish 3")
        assert [int(first.text().split()[0]) for _ in range(3)] == [0, 1, 2]
        assert first.text() == "said"
        server.wait_log("gateway 1 takes commands again")
        say(first, "stats")
        assert first.text() == "0 1"


OTHERS = """
@server.on("task")
def work(server, task):
    return task.data

@server.on("open")
def opened(server, request):
    server.subscribe(request.fd, "all")
    server.push(request.fd, str(os.getpid()))

@server.on("message")
async def said(server, frame):
    if frame.data == "task":
        await server.task("x")
    else:
        server.publish("all", frame.data)
"""


@pytest.mark.parametrize("mode", MODES)
def test_others_that_are_stopped_are_not_noticed(mode: dict[str, Any]):
    """By a client of another process: what it says, and what is published, comes back."""
    with Serving(OTHERS, task_worker_num=1, **mode) as server, ExitStack() as stack:
        sibling = server.pid_of("worker 1" if mode["mode"] == "process" else "server 1")
        clients = []
        while len(clients) < 2:
            with halted(sibling) if mode["mode"] == "base" else contextlib.nullcontext():
                raw = stack.enter_context(Raw(server))
                assert raw.upgrade("/").status == 101
                if int(raw.text()) != sibling:
                    clients.append(raw)
        raw, asks = clients
        for who in (server.pid, server.pid_of("dispatcher 0"), server.pid_of("task worker 0"), sibling):
            with halted(who):
                if who not in (server.pid, sibling):
                    say(asks, "task")
                for number in range(20):
                    say(raw, f"{number}")
                    assert raw.text() == f"{number}"
