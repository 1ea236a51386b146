"""F19: an address that can't be had: one line says who has it, the exit code why, at once, and nothing is left."""

import errno
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from e2e.peers import waited_for_a_cpu
from mooring.net.holder import program
from support.serving import LIMIT, Serving, eventually

WAYS = pytest.mark.parametrize("way", ["script", "command line"])
MODES = pytest.mark.parametrize(
    "mode",
    [{"worker_num": 2, "gateway_num": 2}, {"mode": "base", "worker_num": 1}, {"mode": "base", "worker_num": 2}],
    ids=["process", "base", "base-2"],
)
APP = """
@server.on("message")
def said(server, frame): pass
"""
TRIES = 4


def refused(way, mode, *, port, before=()):
    """Exit code, log and seconds of a start that comes to nothing. `before`: a command that runs it.

    What other programs took of the CPUs meanwhile does not count: a start is two interpreters, half a second of work.
    """
    text = f"server.set(port={port})" + APP
    if way == "script":
        command = None
        if before:
            text, command = text + "\nserver.start()\n", (*before, sys.executable, "app.py")
    else:
        command = (*before, sys.executable, "-m", "mooring", "run", "app:server", "--port", str(port))
    started = time.monotonic()
    with Serving(text, start=way == "script" and not before, ready=False, argv=command, cwd=None, **mode) as server:
        ended = os.WEXITED | os.WNOHANG | os.WNOWAIT
        eventually(lambda: os.waitid(os.P_PID, server.pid, ended), what="it has ended")
        took = time.monotonic() - started - waited_for_a_cpu(server.pid)
        code = server.ended()
        assert not server.pids()
        lines = [line for line in server.lines if line != "(end of output)"]
    assert len(lines) == 1, lines
    assert " ERROR " in lines[0]
    return code, lines[0], took


@WAYS
@MODES
def test_f19_a_port_in_use(way, mode):
    """Within a second; the best of a few starts counts."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        took = []
        while not took or (min(took) > 1 and len(took) < TRIES):
            code, line, seconds = refused(way, mode, port=port)
            took.append(seconds)
            assert code == errno.EADDRINUSE == 98
            assert f"cannot listen on 127.0.0.1:{port}: the port is in use by {program(os.getpid())}; stop" in line
        assert min(took) <= 1, took
        assert other.fileno() >= 0


@WAYS
@MODES
def test_f19_a_server_of_ours_has_it(way, mode):
    """Of the processes that have the socket it is the one to be stopped that is named."""
    with Serving(APP, **mode) as server:
        code, line, _ = refused(way, mode, port=server.port)
        assert code == errno.EADDRINUSE
        assert (
            f"in use by mooring: {'server 0' if mode['worker_num'] == 1 else 'supervisor'} (pid {server.pid}); " in line
        )
        assert server.stop() == 0


@WAYS
@MODES
def test_f19_no_permission(way, mode):
    """For a port below 1024, without the capability that root has."""
    drop = ("setpriv", "--bounding-set=-net_bind_service") if os.geteuid() == 0 else ()
    code, line, _ = refused(way, mode, port=free_low_port(), before=drop)
    assert code == errno.EACCES == 13
    assert "no permission; choose a port from 1024 up" in line


def free_low_port() -> int:
    """One that nobody listens on, that only a privileged process may have."""
    first = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    assert first > 1, "any process may have any port here"
    taken = subprocess.run(["cat", "/proc/net/tcp"], capture_output=True, text=True, timeout=LIMIT).stdout
    return next(port for port in range(first - 1, 0, -1) if f":{port:04X} " not in taken)
