"""F9: process 1 of a container: orphans of the application are reaped, whatever their exit code, and signals work."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from e2e.peers import BOTH_MODES, client, in_loop, until
from support.serving import Serving

MODES = pytest.mark.parametrize("mode", BOTH_MODES, ids=lambda settings: settings["mode"])
CONTAINER = ("unshare", "--fork", "--pid", "--mount-proc", "--kill-child")
APP = """
import subprocess

@server.on("message")
def said(server, frame):
    # the shell ends at once, what it has started is an orphan and ends with code 3 a little later
    subprocess.run(["sh", "-c", "(sleep 0.2; exit 3) & echo $! > orphan"])
    server.push(frame.fd, f"{os.getppid()} {open('orphan').read()}")
"""


def can_make_containers():
    return (
        shutil.which("unshare") is not None
        and subprocess.run([*CONTAINER, "true"], capture_output=True).returncode == 0
    )


def states(pid):
    """State letter by pid, of the children of this process."""
    found = {}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with contextlib.suppress(OSError):
            found[child] = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0]
    return found


@pytest.mark.skipif(not can_make_containers(), reason="no PID namespace can be made here")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
@MODES
@in_loop(60)
async def test_f09_as_process_1(mode, number):
    with Serving(APP, argv=(*CONTAINER, sys.executable, "app.py"), **mode) as server:
        (first,) = server.pids()
        assert Path(f"/proc/{first}/status").read_text().split("NSpid:")[1].split()[1] == "1"
        before = set(states(first))
        async with client(server) as ws:
            for _ in range(5):
                await ws.send("orphan")
                assert (await ws.recv()).startswith("1 "), "in a container there is always a supervisor: it reaps"
            await until(lambda: set(states(first)) == before, "every orphan is gone")
            assert "Z" not in states(first).values()
        assert not [line for line in server.lines if "ended with" in line or "restarting" in line]
        os.kill(first, number)
        assert server.ended() == 0
        assert f"stopping: {number.name}" in "\n".join(server.lines)
