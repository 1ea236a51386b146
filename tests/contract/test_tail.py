"""`mooring tail`: close records as connections end, and nobody waits for who looks."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mooring
from contract.clients import Raw, close_frame, get, websocket
from contract.modes import only
from mooring.cli import tail as command
from mooring.errors import AdminError, ServerUnreachable
from mooring.types import CAUSES
from support.serving import HOME, LIMIT, Serving, eventually

APP = """
@server.on("open")
def opened(server, request):
    server.bind(request.fd, request.query["user"])
    server.push(request.fd, json.dumps({"fd": request.fd}))

@server.on("message")
def said(server, frame): ...

@server.on("request")
def asked(request, response):
    response.end(str(request.fd))
"""


@pytest.fixture(scope="module")
def looked_at(mode: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Serving, str]]:
    path = str(tmp_path_factory.mktemp("tail") / "socket")
    with Serving(APP, close_records="on", control_socket=path, **mode) as running:
        yield running, path
        assert running.stop() == 0


class Looking:
    """One who looks, in a thread, until `stop()`; `found` is what it was told."""

    def __init__(self, path: str, /, **wanted: Any) -> None:
        self.found: list[dict[str, Any]] = []
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, args=(path, wanted))
        self._thread.start()

    def _run(self, path: str, wanted: dict[str, Any]) -> None:
        async def look() -> None:
            chat = await mooring.connect_async(path, LIMIT)
            async for told in chat.tail(**wanted):
                self.found.append(told)

        self._task = self._loop.create_task(look())
        with contextlib.suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._task)
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def wait(self, count: int) -> list[dict[str, Any]]:
        eventually(lambda: len(self.found) >= count)
        return self.found

    def stop(self) -> None:
        eventually(lambda: self._task)
        with contextlib.suppress(RuntimeError):  # it has failed, and its loop is closed
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(LIMIT)


@contextlib.contextmanager
def looking(server: Serving, path: str, /, **wanted: Any) -> Iterator[Looking]:
    """It is told of what ends from here on."""
    looks = Looking(path, **wanted)
    later = Looking(path, path="/are-you-there")

    def ended() -> int:
        with Raw(server, get("/are-you-there", "Connection: close")) as raw:
            raw.rest()
        return len(later.found)

    try:
        eventually(ended)
        yield looks
    finally:
        later.stop()
        looks.stop()


def ends(server: Serving, path: str, user: str, code: int) -> int:
    with websocket(server, path, user=user) as (raw, fd):
        raw.send(close_frame(code))
        raw.rest()
    return fd


def test_one_who_looks_sees_what_ends(looked_at: tuple[Serving, str]):
    server, path = looked_at
    with looking(server, path, path="/room*") as looks:
        fds = [ends(server, f"/room/{number}", "ann", 4000 + number) for number in range(8)]  # of each gateway
        found = looks.wait(8)
    assert sorted(record["fd"] for record in found) == sorted(fds)
    assert {record["code"] for record in found} == set(range(4000, 4008))
    assert set(found[0]) == set(mooring.CloseRecord.__dataclass_fields__)


@pytest.mark.parametrize(
    "wanted",
    [
        {"user": "bob"},
        {"path": "/bob"},
        {"path": "/b*"},
        {"code": 4002},
        {"cause": "client_ended"},
        {"cause": ["client_ended", "client_reset"], "listener": 0},
    ],
    ids=str,
)
def test_it_is_told_what_it_wants(looked_at: tuple[Serving, str], wanted: dict[str, Any]):
    server, path = looked_at
    with looking(server, path, **wanted) as looks:
        ends(server, "/ann", "ann", 4001)
        if "cause" in wanted:
            with websocket(server, "/bob", user="bob") as (raw, fd):
                raw.socket.shutdown(socket.SHUT_WR)
                raw.rest()
        else:
            fd = ends(server, "/bob", "bob", 4002)
        assert looks.wait(1)[0]["fd"] == fd
        ends(server, "/ann", "ann", 4001)
    assert [record["fd"] for record in looks.found if record["protocol"] == "websocket"] == [fd]


def test_wrong_questions_are_refused(looked_at: tuple[Serving, str]):
    _, path = looked_at
    with pytest.raises(AdminError, match="did you mean 'slow_consumer'"):
        next(mooring.connect(path).tail("slow_consumers"))

    async def asked() -> None:
        chat = await mooring.connect_async(path)
        async for _ in chat.tail("slow_consumers"):
            pass

    with pytest.raises(AdminError, match="did you mean 'slow_consumer'"):
        asyncio.run(asked())


def test_there_is_nothing_to_look_at(mode: dict[str, Any], tmp_path: Path):
    path = str(tmp_path / "control")
    with Serving(APP, control_socket=path, **mode) as server:
        with pytest.raises(AdminError, match="no close records are kept: set close_records to 'on' or 'log'"):
            next(mooring.connect(path).tail())
        assert server.stop() == 0


def test_that_listener_keeps_none(looked_at: tuple[Serving, str]):
    with pytest.raises(AdminError, match="no close records are kept of listener 9"):
        next(mooring.connect(looked_at[1]).tail(listener=9))


def test_so_many_can_look(looked_at: tuple[Serving, str]):
    _, path = looked_at

    def look() -> socket.socket:
        talk = socket.socket(socket.AF_UNIX)
        talk.settimeout(LIMIT)
        talk.connect(path)
        talk.sendall(b'{"command":"tail"}\n')
        return talk

    def answer(talk: socket.socket) -> dict[str, Any]:
        return json.loads(talk.recv(65536).split(b"\n")[0])

    def places() -> bool:  # those before are noticed to be gone after a while
        with contextlib.ExitStack() as stack:
            return all(answer(stack.enter_context(look()))["ok"] for _ in range(4))

    eventually(places)
    with contextlib.ExitStack() as stack:

        def four() -> bool:
            with contextlib.ExitStack() as attempt:
                talks = [attempt.enter_context(look()) for _ in range(4)]
                there = all(answer(talk)["ok"] for talk in talks)
                if there:  # else those that have a place give it back
                    stack.push(attempt.pop_all())
            return there

        eventually(four)
        with look() as fifth:
            refused = answer(fifth)
        assert (refused["ok"], refused["error"]) == (False, "4 others look at close records already")
    assert mooring.connect(path).stats()["tree"] is not None


async def test_in_coroutines(looked_at: tuple[Serving, str]):
    server, path = looked_at
    chat = await mooring.connect_async(path)
    found = []

    async def look() -> None:
        async for record in chat.tail(path="/later"):
            found.append(record)

    task = asyncio.create_task(look())
    while not found:
        await asyncio.to_thread(ends, server, "/later", "cleo", 4009)
    task.cancel()
    assert (found[0]["user"], found[0]["code"]) == ("cleo", 4009)


def test_who_does_not_take_it_is_told_how_many_it_missed(mode: dict[str, Any], tmp_path: Path):
    """Nobody waits meanwhile: clients come and go, other requests are answered."""
    path = str(tmp_path / "socket")
    with Serving(APP, close_records="on", control_socket=path, **mode) as server:
        with socket.socket(socket.AF_UNIX) as talk:
            talk.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            talk.settimeout(LIMIT)
            talk.connect(path)
            talk.sendall(b'{"command":"tail"}\n')
            assert json.loads(talk.recv(12)) == {"ok": True}
            ended = 0
            for _ in range(3000):  # in less than a minute, after which who takes nothing is cut
                with Raw(server, get("/", "Connection: close")) as raw:
                    raw.rest()
                ended += 1
            assert mooring.connect(path).stats()["connections_closed"] >= 3000
            rest, seen, missed = b"", 0, 0
            while seen + missed < ended:
                part = talk.recv(1 << 16)
                assert part, "it was cut"
                *lines, rest = (rest + part).split(b"\n")
                for line in lines:
                    result = json.loads(line)["result"]
                    missed += result["missed"]
                    seen += len(result["records"])
            assert seen + missed == ended
            assert missed > 0
        assert server.stop() == 0


@only("process", "process-2")
def test_it_goes_on_over_a_reload(mode: dict[str, Any], tmp_path: Path):
    path = str(tmp_path / "socket")
    with Serving(APP, close_records="on", control_socket=path, **mode) as server:
        with looking(server, path, path="/room") as looks:
            fds = [ends(server, "/room", "ann", 4000)]
            looks.wait(1)
            server.signal(signal.SIGHUP)
            for _ in range(20):
                fds.append(ends(server, "/room", "ann", 4000))
            server.wait_log("reload: done")
            later = len(fds)

            def one_more() -> bool:
                fds.append(ends(server, "/room", "ann", 4000))
                return any(record.get("fd") in fds[later:] for record in looks.found)

            eventually(one_more)
            seen = [record["fd"] for record in looks.found]
            assert len(seen) == len(set(seen))
            assert set(seen) <= set(fds)
        assert server.stop() == 0


def test_the_command(looked_at: tuple[Serving, str]):
    server, path = looked_at
    asked = [sys.executable, "-m", "mooring", "tail", "--socket", path, "--path", "/cli"]
    env = os.environ | {"PYTHONPATH": HOME, "PYTHONUNBUFFERED": "1"}
    for more in ((), ("--json",)):
        with subprocess.Popen([*asked, *more], stdout=subprocess.PIPE, text=True, env=env) as process:
            assert process.stdout is not None
            lines: list[str] = []
            reader = threading.Thread(target=lambda out=process.stdout, to=lines: to.extend(out))
            reader.start()
            wanted = 1 if more else 2

            def shown(lines: list[str] = lines, wanted: int = wanted) -> bool:
                ends(server, "/cli", "dora", 4010)
                return len(lines) >= wanted

            eventually(shown)
            process.send_signal(signal.SIGINT)
            assert process.wait(LIMIT) == 0
            reader.join(LIMIT)
        if more:
            assert json.loads(lines[0])["user"] == "dora"
        else:
            assert lines[0].split() == command.head().split()
            assert lines[1].split()[1:6] == ["client_closed", "4010", "open", "/cli", "dora"]


def test_nobody_answers(tmp_path: Path):
    client = mooring.ControlClient(tmp_path / "nothing", 0.1)
    with pytest.raises(ServerUnreachable):
        next(client.tail())


def test_what_was_missed_is_said():
    assert command.line({"missed": 1204}) == "(1,204 more have ended, which were not taken in time)"
    assert "unknown" not in CAUSES
