"""status, reload and stop of a server that has no control socket: its pid file says who it is."""

import contextlib
import fcntl
import json
import os
import pwd
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mooring.cli import main
from mooring.errors import ConfigError
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


@pytest.mark.parametrize(
    ("content", "text"),
    [("listen 80;\n", "that file holds something else than a process id"), ("", "there is no number in it")],
)
def test_what_is_no_pid_file_of_a_server(path: str, content: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(content)
        file.flush()
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack("@hhqqi0q", fcntl.F_WRLCK, 0, 0, 0, 0))
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


HOLD = """
import fcntl, os, struct, sys
file = os.open(sys.argv[1], os.O_RDONLY if sys.argv[2] == "r" else os.O_RDWR)
if sys.argv[2] == "r":
    fcntl.flock(file, fcntl.LOCK_EX)
    fcntl.lockf(file, fcntl.LOCK_SH)
else:
    fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack("@hhqqi0q", fcntl.F_WRLCK, 0, 0, 0, 0))
print("held", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def held(path: str, how: str) -> Iterator[None]:
    """Another process has the file locked, as whoever may read it can, or only who may write it."""
    argv = [sys.executable, "-c", HOLD, path, how]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        try:
            assert holder.stdout.readline() == "held\n"
            yield
        finally:
            holder.communicate(timeout=LIMIT)


def test_what_a_reader_has_locked_means_nothing(path: str, ours: int) -> None:
    """Neither that a server runs, whose number would get a signal, nor that none may start."""
    with held(path, "r"):
        found = command("stop", "--pid-file", path)
        assert (found.exit_code, found.output) == (0, "not running\n")
        assert command("status", "--pid-file", path).exit_code == 1
        taken = take_pid_file(path)
        assert taken is not None
        assert command("status", "--pid-file", path).output == f"running, process {os.getpid()}\n"
        taken.close()


def test_a_process_that_has_not_the_lock_itself_gets_no_signal(path: str, ours: int) -> None:
    """Somebody who may write a file there may write any number into it."""
    with held(path, "w"):
        for name, code in (("status", 4), ("stop", 1), ("reload", 1)):
            found = command(name, "--pid-file", path)
            assert found.exit_code == code
            assert f"locked, but not by a process {os.getpid()} here" in found.output


def test_a_lock_of_another_user_is_named(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = take_pid_file(path)
    assert taken is not None
    user = pwd.getpwuid(os.geteuid()).pw_name
    guard = os.path.join(os.path.dirname(path), ".chat.pid.lock")
    other = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: other)  # the files are another user's then
    with pytest.raises(ConfigError, match=f"{guard} is in the way, a file of user {user}"):
        take_pid_file(path)
    os.unlink(guard)
    monkeypatch.undo()
    os.symlink("elsewhere", guard)
    with pytest.raises(ConfigError, match=f"{guard} is in the way"):
        take_pid_file(path)
    assert not os.path.exists(os.path.join(os.path.dirname(path), "elsewhere"))
    os.unlink(guard)
    taken.close()
