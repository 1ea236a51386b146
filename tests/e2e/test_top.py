"""`mooring top` on a server that runs: on a terminal, on a dumb one, in a pipe."""

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.sync.client import connect

from support.serving import HOME, LIMIT, Serving, eventually

APPLICATION = """
@server.on("message")
def said(server, frame):
    server.push(frame.fd, frame.data)
"""
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
COMMAND = [sys.executable, "-m", "mooring", "top", "--interval", "0.2"]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("top") / "control.sock"


@pytest.fixture(scope="module")
def served(path: Path) -> Iterator[Serving]:
    with Serving(APPLICATION, mode="process", gateway_num=2, worker_num=2, control_socket=str(path)) as server:
        with connect(f"{server.url}/room", proxy=None) as ws:
            ws.send("hello")
            assert ws.recv(LIMIT) == "hello"
            yield server
        assert server.stop() == 0


class Terminal:
    """The command on a terminal of its own."""

    def __init__(self, path: Path, *more: str, term: str = "xterm", rows: int = 40) -> None:
        self.master, self.slave = pty.openpty()
        termios.tcsetwinsize(self.slave, (rows, 200))
        self.before = termios.tcgetattr(self.slave)
        self.seen = ""
        environment = {**os.environ, "PYTHONPATH": HOME, "TERM": term}
        environment.pop("LINES", None)
        environment.pop("COLUMNS", None)
        self.process = subprocess.Popen(
            [*COMMAND, "--socket", str(path), *more],
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            env=environment,
            process_group=0,
        )

    def wait(self, pattern: str, since: int = 0) -> re.Match[str]:
        end = time.monotonic() + LIMIT
        while not (found := re.search(pattern, self.seen[since:])):
            assert time.monotonic() < end, f"no {pattern!r} in {self.seen[-3000:]!r}"
            self.read(0.5)
        return found

    def read(self, timeout: float) -> None:
        if select.select([self.master], [], [], timeout)[0]:
            self.seen += os.read(self.master, 65536).decode()

    def press(self, key: str) -> int:
        """What comes after it begins here."""
        mark = len(self.seen)
        os.write(self.master, key.encode())
        return mark

    def ended(self) -> int:
        end = time.monotonic() + LIMIT
        while self.process.poll() is None:
            assert time.monotonic() < end
            self.read(0.1)
        self.read(0)
        return self.process.returncode

    def restored(self) -> bool:
        return termios.tcgetattr(self.slave) == self.before and self.seen.rstrip().endswith("\x1b[?25h\x1b[?1049l")


@contextlib.contextmanager
def terminal(path: Path, *more: str, **options: object) -> Iterator[Terminal]:
    made = Terminal(path, *more, **options)
    try:
        yield made
    finally:
        if made.process.poll() is None:
            made.process.kill()
        made.process.wait()
        os.close(made.master)
        os.close(made.slave)


def test_on_a_terminal(served: Serving, path: Path):
    with terminal(path) as screen:
        screen.wait(r"\x1b\[\?1049h\x1b\[\?25l")
        screen.wait(r"1, 1 of them WebSockets")
        for role in ("supervisor", "gateway 0", "gateway 1", "worker 0", "worker 1"):
            screen.wait(rf"{role} +{served.pid if role == 'supervisor' else served.pid_of(role)}\b")
        screen.wait(r"1 of 1 connections, most bytes queued first")
        screen.wait(r"websocket +/room")
        assert termios.tcgetattr(screen.slave)[3] & termios.ECHO == 0
        screen.wait("most messages per second first", screen.press("s"))
        screen.wait("most messages first", screen.press("s"))
        screen.wait("most messages first", screen.press("r"))
        screen.press("q")
        assert screen.ended() == 0
        assert screen.restored()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 0)])
def test_it_restores_the_terminal(served: Serving, path: Path, number: int, code: int):
    with terminal(path) as screen:
        screen.wait("of them WebSockets")
        screen.process.send_signal(number)
        assert screen.ended() == code
        assert screen.restored()


def test_it_can_be_stopped_and_goes_on(served: Serving, path: Path):
    with terminal(path) as screen:
        screen.wait("of them WebSockets")
        screen.process.send_signal(signal.SIGTSTP)
        stat = Path(f"/proc/{screen.process.pid}/stat")
        eventually(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T")
        screen.read(0)
        assert screen.restored()
        mark = len(screen.seen)
        screen.process.send_signal(signal.SIGCONT)
        screen.wait("of them WebSockets", mark)
        screen.press("q")
        assert screen.ended() == 0
        assert screen.restored()


def test_a_small_terminal_gets_what_fits(served: Serving, path: Path):
    with terminal(path, rows=5) as screen:
        screen.wait("of them WebSockets")
        screen.press("q")
        assert screen.ended() == 0
        assert "supervisor " not in screen.seen


def test_on_a_dumb_terminal(served: Serving, path: Path):
    with terminal(path, term="dumb") as screen:
        screen.wait(r"(?s)1, 1 of them WebSockets.*1, 1 of them WebSockets")
        screen.process.send_signal(signal.SIGINT)
        assert screen.ended() == 0
        assert not ESCAPES.search(screen.seen)
        assert termios.tcgetattr(screen.slave) == screen.before


def top(path: Path, *more: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": HOME}
    return subprocess.run(
        [*COMMAND, "--socket", str(path), *more], capture_output=True, text=True, timeout=LIMIT, env=environment
    )


def test_once(served: Serving, path: Path):
    done = top(path, "--once")
    assert done.returncode == 0, done.stderr
    assert "1, 1 of them WebSockets" in done.stdout
    assert not ESCAPES.search(done.stdout)
    head, *rows = [line for line in done.stdout.splitlines() if re.match(r"process |supervisor|gateway|worker", line)]
    assert len(rows) == 5
    assert len({len(row) for row in [head, *rows]}) == 1, "columns are aligned"


def test_json(served: Serving, path: Path):
    with connect(f"{served.url}/other", proxy=None) as ws:
        seen = json.loads(top(path, "--once", "--json", "--sort", "age", "--reverse").stdout)
        assert ws.recv_streaming
    assert [one["path"] for one in seen["connections"]] == ["/other", "/room"]
    assert seen["totals"]["connections"] == 2
    assert [(row["role"], row["number"]) for row in seen["processes"]][:3] == [
        ("supervisor", 0),
        ("gateway", 0),
        ("gateway", 1),
    ]
    assert sum(row["connections"] for row in seen["processes"] if row["role"] == "gateway") == 2
    assert sum(row["connections"] for row in seen["processes"] if row["role"] == "worker") == 2
    for row in seen["processes"]:
        assert row["memory"] > 1 << 20
        assert row["cpu"] > 0
        assert row["pulse_age"] is None if row["role"] == "supervisor" else row["pulse_age"] < 60


def test_one_line_of_json_after_the_other(served: Serving, path: Path):
    environment = {**os.environ, "PYTHONPATH": HOME}
    command = [*COMMAND, "--socket", str(path), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as running:
        assert running.stdout is not None
        for _ in range(3):
            assert json.loads(running.stdout.readline())["totals"]["websockets"] >= 1
        running.send_signal(signal.SIGINT)
        assert running.wait(LIMIT) == 0


def test_without_a_server(tmp_path: Path):
    done = top(tmp_path / "none.sock")
    assert done.returncode == 1
    assert "is it running, with control_socket=" in done.stderr
    with terminal(tmp_path / "none.sock") as screen:
        assert screen.ended() == 1
        assert "no server answers at" in screen.seen
        assert termios.tcgetattr(screen.slave) == screen.before


@pytest.mark.parametrize("mode", [{"mode": "base", "worker_num": 1}, {"mode": "base", "worker_num": 2}])
def test_base_mode_and_a_server_that_ends(tmp_path: Path, mode: dict[str, object]):
    path = tmp_path / "control.sock"
    with Serving(APPLICATION, **mode, control_socket=str(path)) as server, terminal(path) as screen:
        for number in range(mode["worker_num"]):
            screen.wait(rf"server {number} +{server.pid_of(f'server {number}')}\b")
        assert server.stop() == 0
        screen.wait("trying again")
        screen.press("q")
        assert screen.ended() == 0
        assert screen.restored()
