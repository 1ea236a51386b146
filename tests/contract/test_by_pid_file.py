"""status, reload and stop of a server that has no control socket: its pid file says who it is."""

import fcntl
import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mooring.cli import main
from mooring.supervisor.pid_file import take_pid_file
from support.serving import LIMIT, Serving

APP = """
@server.on("message")
def said(server, frame):
    time.sleep(60)
"""


def command(*words: str) -> Result:
    return CliRunner().invoke(main, words)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "chat.pid")


@pytest.fixture
def ours(path: str) -> Iterator[int]:
    """A pid file with the number of this process in it, open."""
    with open(path, "w+") as file:
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield file.fileno()


def test_the_life_of_a_server(mode: dict[str, Any], path: str) -> None:
    assert (command("status", "--pid-file", path).exit_code, command("stop", "--pid-file", path).exit_code) == (3, 0)
    assert command("reload", "--pid-file", path).exit_code == 7
    with Serving(APP, **mode, pid_file=path) as server:
        found = command("status", "--pid-file", path)
        assert (found.exit_code, found.output) == (0, f"running, process {server.pid}\n")
        found = command("status", "--pid-file", path, "--json")
        assert json.loads(found.output) == {"running": True, "pid": server.pid}
        assert command("reload", "--pid-file", path).exit_code == 0
        server.wait_log("reload: done|a single process cannot replace itself")
        with Serving(APP, ready=False, **mode, pid_file=path) as second:
            assert second.ended() == 1
        found = command("stop", "--pid-file", path)
        assert (found.exit_code, found.output) == (0, f"process {server.pid} has ended\n")
        assert server.ended() == 0
    found = command("status", "--pid-file", path)
    assert (found.exit_code, found.output) == (3, "not running\n")


def test_a_server_that_was_killed(mode: dict[str, Any], path: str) -> None:
    with Serving(APP, **mode, pid_file=path) as server:
        server.signal(signal.SIGKILL)
        server.ended()
        found = command("status", "--pid-file", path)
        assert (found.exit_code, found.output) == (1, f"not running; it has left {path}\n")


def test_a_server_that_does_not_stop_in_time(path: str) -> None:
    with Serving(APP, worker_num=1, pid_file=path) as server:
        os.kill(server.pid, signal.SIGSTOP)
        found = command("stop", "--pid-file", path, "--timeout", "0.2")
        assert found.exit_code == 1
        assert "was told to stop, and runs still after 0.2 s: --timeout waits longer" in found.output
        os.kill(server.pid, signal.SIGCONT)
        assert server.ended() == 0


def test_a_number_without_a_lock_is_nobody_and_gets_no_signal(path: str, ours: int) -> None:
    """The server is gone, and the number may be anybody's by now: here it is our own, and SIGTERM would end us."""
    assert command("status", "--pid-file", path).exit_code == 1
    found = command("stop", "--pid-file", path)
    assert (found.exit_code, found.output) == (0, "not running\n")
    assert command("reload", "--pid-file", path).exit_code == 7


def test_who_looks_keeps_nobody_from_starting(path: str, ours: int) -> None:
    """For a moment a look has the lock; a server that starts meanwhile does not take it for another server's."""
    fcntl.flock(ours, fcntl.LOCK_SH)
    released = []

    def let_go() -> None:
        fcntl.flock(ours, fcntl.LOCK_UN)
        released.append(True)

    timer = threading.Timer(0.05, let_go)
    timer.start()
    taken = take_pid_file(path)
    assert taken is not None
    assert released
    taken.close()
    timer.join(LIMIT)


@pytest.mark.parametrize(
    ("content", "text"),
    [("listen 80;\n", "that file holds something else than a process id"), ("", "there is no number in it")],
)
def test_what_is_no_pid_file_of_a_server(path: str, content: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(content)
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        for name, code in (("status", 4), ("stop", 1), ("reload", 1)):
            found = command(name, "--pid-file", path)
            assert found.exit_code == code
            assert text in found.output
    os.unlink(path)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        assert command("status", "--pid-file", path).exit_code == 4
    os.unlink(path)
    os.mkfifo(path)
    assert "that is no pid file" in command("status", "--pid-file", path).output


def test_how_to_say_which_server(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MOORING_SOCKET", raising=False)
    found = command("status")
    assert found.exit_code == 2
    assert "give --socket PATH (control_socket), or --pid-file PATH" in found.output
    found = command("stop", "--pid-file", path, "--socket", path)
    assert found.exit_code == 2
    assert "not both" in found.output
    monkeypatch.setenv("MOORING_SOCKET", path)
    assert command("status", "--pid-file", path).exit_code == 3, "what is given on the command line goes first"
