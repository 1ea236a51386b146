"""F21: the pid file: stale, somebody else's number, unwritable, many starts at once."""

import fcntl
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from e2e.peers import BOTH_MODES
from mooring.errors import ConfigError
from mooring.supervisor.pid_file import take_pid_file
from support.serving import Serving, eventually

MODES = pytest.mark.parametrize("mode", BOTH_MODES, ids=lambda settings: settings["mode"])
APP = """
@server.on("message")
def said(server, frame):
    server.push(frame.fd, frame.data)
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "chat.pid"


@pytest.fixture(autouse=True)
def folder(path):
    path.parent.mkdir()
    return path.parent


def refused(path, mode, **more):
    """What a server says that does not start because of its pid file."""
    with Serving(APP, ready=False, pid_file=str(path), **mode, **more) as server:
        assert server.ended() == 1
    lines = [line for line in server.lines if line != "(end of output)"]
    assert len(lines) == 1, lines
    assert f"pid_file='{path}': " in lines[0]
    return lines[0]


@MODES
def test_f21_it_is_there_while_the_server_runs(path, mode):
    with Serving(APP, pid_file=str(path), **mode) as server:
        assert path.read_text() == f"{server.pid}\n"
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
        with path.open("r+") as file, pytest.raises(BlockingIOError):
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert f"another server runs with it (pid {server.pid})" in refused(path, mode)
        assert path.read_text() == f"{server.pid}\n"
        assert server.stop() == 0
    assert list(path.parent.iterdir()) == []


@MODES
def test_f21_a_second_one_may_start_when_the_first_was_killed(path, mode):
    with Serving(APP, pid_file=str(path), **mode) as first:
        first.process.kill()
        first.process.wait()
        assert path.read_text() == f"{first.pid}\n"
        with Serving(APP, pid_file=str(path), **mode) as second:
            assert path.read_text() == f"{second.pid}\n"
            assert second.stop() == 0
    assert not path.exists()


@MODES
def test_f21_a_foreign_process_with_that_number_is_left_alone(path, mode):
    """It would die of any signal, and it is nobody's reason not to start."""
    with subprocess.Popen(["sleep", "600"]) as foreign:
        try:
            path.write_text(f"{foreign.pid}\n")
            before = path.stat().st_ino
            reader = path.open()
            with reader, Serving(APP, pid_file=str(path), **mode) as server:
                assert path.read_text() == f"{server.pid}\n"
                assert path.stat().st_ino != before, "replaced by rename: it is whole at every moment"
                assert reader.read() == f"{foreign.pid}\n"
                assert server.stop() == 0
            assert foreign.poll() is None
        finally:
            foreign.kill()


@MODES
def test_f21_one_that_is_not_ours_any_more_stays(path, mode):
    with Serving(APP, pid_file=str(path), **mode) as server:
        path.unlink()
        path.write_text("12345\n")
        assert server.stop() == 0
    assert path.read_text() == "12345\n"


@pytest.mark.parametrize(
    "content", ["root:x:0:0:root:/root:/bin/bash\n", "1" * 33, "12 34"], ids=["text", "long", "two"]
)
@MODES
def test_f21_a_file_that_is_no_pid_file_is_left_alone(path, mode, content):
    path.write_text(content)
    assert "holds something else than a process id" in refused(path, mode)
    assert path.read_text() == content


def _link(path):
    path.symlink_to("elsewhere.pid")


@pytest.mark.parametrize(
    ("prepare", "text"),
    [
        (lambda path: path.parent.rmdir(), "there is no directory"),
        (lambda path: path.mkdir(), "a directory is there"),
        (_link, "a symbolic link is there"),
        (os.mkfifo, "something that is no file is there"),
    ],
    ids=["no directory", "a directory", "a link", "a pipe"],
)
@MODES
def test_f21_what_can_not_be_a_pid_file_is_one_clear_line(path, mode, prepare, text):
    prepare(path)
    assert text in refused(path, mode)
    assert not (path.parent / "elsewhere.pid").exists()


@MODES
def test_f21_no_permission_is_one_clear_line(mode):
    """In a file system where nobody may make files, not even root."""
    assert "/proc/chat.pid" in refused(Path("/proc/chat.pid"), mode)


def test_f21_a_start_that_fails_takes_it_away(path):
    with Serving(APP, ready=False, pid_file=str(path), unix_socket="/nowhere/socket") as server:
        assert server.ended() == 1
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("stale", [None, "1\n"], ids=["nothing", "stale"])
def test_f21_of_twenty_that_start_at_once_one_survives(path, stale):
    """They meet at a pipe that opens for all of them, right before they take the file."""
    if stale is not None:
        path.write_text(stale)
    code = (
        "import os, sys\n"
        "from mooring.supervisor.pid_file import take_pid_file\n"
        "from mooring.errors import ConfigError\n"
        "print('here', flush=True)\n"
        "os.read(0, 1)\n"
        "try:\n"
        "    taken = take_pid_file(sys.argv[1])\n"
        "except ConfigError as error:\n"
        "    sys.exit(str(error))\n"
        "os.read(int(sys.argv[2]), 1)\n"
        "taken.close()\n"
    )
    gate, opener = os.pipe()
    end, ender = os.pipe()
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(path), str(end)],
            stdin=gate,
            pass_fds=(end,),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(20)
    ]
    os.close(gate)
    os.close(end)
    try:
        for racer in racers:
            assert racer.stdout.readline() == "here\n"
        os.write(opener, b"\n" * 20)
        eventually(lambda: sum(racer.poll() is None for racer in racers) == 1, what="19 have given up")
        (winner,) = [racer for racer in racers if racer.poll() is None]
        assert path.read_text() == f"{winner.pid}\n"
        for racer in racers:
            if racer is not winner:
                assert racer.returncode == 1
                assert "another server runs with it" in racer.stderr.read()
    finally:
        os.close(opener)
        os.close(ender)
        for racer in racers:
            racer.wait(20)
            racer.stdout.close()
            racer.stderr.close()
    assert list(path.parent.iterdir()) == []


def test_f21_of_servers_that_start_at_once_one_survives(path):
    """The same with whole servers, over a stale file; the others name it in one line."""
    path.write_text("1\n")
    servers = [Serving(APP, ready=False, pid_file=str(path), mode="base", worker_num=1) for _ in range(4)]
    try:
        eventually(lambda: sum(server.process.poll() is None for server in servers) == 1, 60)
        (winner,) = [server for server in servers if server.process.poll() is None]
        winner.wait_log("ready")
        assert path.read_text() == f"{winner.pid}\n"
        assert winner.stop(signal.SIGTERM) == 0
    finally:
        for server in servers:
            server.__exit__()
    assert all(server.process.returncode == (0 if server is winner else 1) for server in servers)
    assert not path.exists()


def test_f21_who_finds_nothing_takes_turns_with_who_has_just_made_it(path, monkeypatch):
    """Both have seen a stale file; the second one looks again when it is its turn."""
    path.write_text("1\n")
    real = fcntl.flock
    rivals = []

    def flock(fd, how):
        if not rivals:
            rivals.append(None)
            rivals[0] = take_pid_file(str(path))
        real(fd, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(ConfigError, match="another server runs with it"):
        take_pid_file(str(path))
    rivals[0].close()
    assert list(path.parent.iterdir()) == []
