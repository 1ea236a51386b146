"""F16: signals that come while the server starts, reloads or stops already: twelve pairs."""

import asyncio
import os
import signal
import subprocess
import time

import pytest
from websockets.exceptions import ConnectionClosed

from e2e.peers import BOTH_MODES, HELD_BACK, app, client, drained, in_loop, logged
from support.serving import Serving

MODES = pytest.mark.parametrize("mode", BOTH_MODES, ids=lambda settings: settings["mode"])
SECOND = pytest.mark.parametrize("second", ["TERM", "INT", "QUIT"])
NUMBERS = {"TERM": signal.SIGTERM, "INT": signal.SIGINT, "QUIT": signal.SIGQUIT}
APP = """
import asyncio

@server.on("message")
async def said(server, frame):
    report("begin", frame.data)
    while not os.path.exists(frame.data):
        await asyncio.sleep(0.02)
    report("end", frame.data)
"""


@pytest.mark.parametrize("first", ["TERM", "INT"])
@SECOND
@MODES
@in_loop(60)
async def test_f16_while_it_stops(first, second, mode):
    """A second SIGTERM changes nothing; SIGINT and SIGQUIT end it within two seconds."""
    with Serving(APP, graceful_timeout=40, **mode) as server:
        async with client(server, close_timeout=0.1) as ws:
            await ws.send("let go")
            await logged(server, "^report begin")
            server.signal(NUMBERS[first])
            with pytest.raises(ConnectionClosed) as closed:
                await ws.recv()
            assert closed.value.rcvd.code == 1001
            mark = server.mark()
            start = time.monotonic()
            server.signal(NUMBERS[second])
            if second == "TERM":
                with pytest.raises(subprocess.TimeoutExpired):
                    await asyncio.to_thread(server.process.wait, 2.5)
                server.script.with_name("let go").touch()
            assert await asyncio.to_thread(server.ended) == 0
            if second != "TERM":
                assert time.monotonic() - start < 2 + 3, "three seconds are this machine's"
                assert f"stopping at once: SIG{second}" in "\n".join(server.lines[mark:])
            else:
                assert server.reports("end")
        counts = drained(server)
        assert counts["finished" if second == "TERM" else "in_flight"] == 1


@SECOND
@MODES
def test_f16_while_it_starts(second, mode, tmp_path):
    """It ends in order, though nothing has served yet. (In one process there is a start once the application runs.)"""
    (tmp_path / "held back").touch()
    alone = """
    @server.on("worker_start")
    async def starts(server, worker_id):
        report("starting")
        while os.path.exists("held back"):
            await asyncio.sleep(0.02)
    """
    code = app(HELD_BACK, APP) if mode["mode"] == "process" else app(APP, alone)
    if mode["mode"] == "process":  # the process that becomes the supervisor is let through
        code = app(
            "import sys",
            "supervised = '_process' in sys.orig_argv",
            code.replace("while os", "while supervised and os", 1),
        )
    with Serving(code, ready=False, cwd=tmp_path, graceful_timeout=40, **mode) as server:
        server.wait_log("starting")
        pids = server.pids()
        start = time.monotonic()
        server.signal(NUMBERS[second])
        server.wait_log(f"stopping: SIG{second}")
        if mode["mode"] == "base":
            (tmp_path / "held back").unlink()
        assert server.ended() == 0
        assert time.monotonic() - start < 5
        assert not [pid for pid in pids if os.path.exists(f"/proc/{pid}")]
        assert "Traceback" not in "\n".join(server.lines)


@SECOND
@pytest.mark.parametrize(
    "mode", [{"mode": "process", "worker_num": 2}, {"mode": "base", "worker_num": 2}], ids=["process", "base"]
)
@in_loop(60)
async def test_f16_while_it_reloads(second, mode):
    """The new generation is given up, the clients of the old one are told, and what was accepted is accounted for."""
    held = 'if os.path.exists("held back"):\n    report("held")'
    with Serving(app(held, HELD_BACK, APP), graceful_timeout=40, **mode) as server:
        async with client(server) as ws:
            server.script.with_name("go on").touch()
            await ws.send("go on")
            await logged(server, "^report end")
            server.script.with_name("held back").touch()
            server.signal(signal.SIGHUP)
            await logged(server, "^report held")  # it is within the application: no message reaches it there
            start = time.monotonic()
            server.signal(NUMBERS[second])
            with pytest.raises(ConnectionClosed) as closed:
                await ws.recv()
            assert closed.value.rcvd.code == 1001
            assert await asyncio.to_thread(server.ended) == 0
            assert time.monotonic() - start < 5
        assert drained(server)["finished"] == 1


@SECOND
def test_f16_while_it_becomes_the_supervisor(second):
    """Between the application and the supervisor there is an exec, and nobody who could handle a signal."""
    code = app(
        f"""
        become = os.execv
        def signalled(*arguments):
            os.kill(os.getpid(), {int(NUMBERS[second])})
            become(*arguments)
        os.execv = signalled
        """,
        APP,
    )
    with Serving(code, ready=False, worker_num=1) as server:
        assert server.ended() == 0
        assert f"stopping: SIG{second}" in "\n".join(server.lines)
