"""breakpoint() and others that want a terminal, and subprocesses of coroutines, in processes of the server."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError

from e2e.peers import client, in_loop, until
from support.serving import HOME, LIMIT, PREAMBLE, Serving

MODES = pytest.mark.parametrize(
    "mode", [{"mode": "process", "worker_num": 1}, {"mode": "base", "worker_num": 1}], ids=["process", "base"]
)
ASKING = """
import pdb

@server.on("message")
def said(server, frame):
    if frame.data == "breakpoint":
        answer = 41
        breakpoint()
        server.push(frame.fd, str(answer))
    elif frame.data == "set_trace":
        pdb.set_trace()
    else:
        server.push(frame.fd, input("? "))
"""


@MODES
@in_loop()
async def test_without_a_terminal_one_line_says_how_to_get_a_debugger(mode):
    with Serving(ASKING, **mode) as server:
        async with client(server) as ws:
            for _ in range(2):
                await ws.send("breakpoint")
                assert await ws.recv() == "41"
        for what in ("set_trace", "input"):
            async with client(server) as ws:
                await ws.send(what)
                with pytest.raises(ConnectionClosedError, match="1011"):
                    await ws.recv()
        async with client(server) as ws:
            await ws.send("breakpoint")
            assert await ws.recv() == "41"
        assert server.stop() == 0
    said = [line for line in server.lines if "mode='base' and worker_num=1" in line]
    assert "breakpoint() is passed over" in said[0]
    assert "app.py:" in said[0]
    assert len(said) == 3, "once for each place"


@in_loop()
async def test_what_one_process_is_given_on_standard_input_is_its_own(tmp_path):
    code = """
    first = sys.stdin.readline().strip()
    server.on("message", lambda server, frame: None)

    @server.on("start")
    def started(server):
        report(first, sys.stdin.read().split())
        server.shutdown()
    """
    settings = {"mode": "base", "worker_num": 1}
    with Serving("", start=False, ready=False, argv=piped(tmp_path, code), **settings) as server:
        assert server.ended() == 0
        assert server.reports() == ["one ['two', 'three']"]
        assert not [line for line in server.lines if "which is empty" in line]


def piped(folder, code):
    script = folder / "app.py"
    script.write_text(PREAMBLE + textwrap.dedent(code) + "\nserver.start()\n")
    return ("sh", "-c", f"printf 'one\\ntwo\\nthree\\n' | '{sys.executable}' '{script}'")


@in_loop()
async def test_another_debugger_is_called_as_always():
    app = """
    sys.modules["other"] = type("other", (), {"debugger": staticmethod(lambda: report("other"))})

    @server.on("message")
    def said(server, frame):
        breakpoint()
        server.push(frame.fd, "went on")
    """
    with Serving(app, worker_num=1, env={"PYTHONBREAKPOINT": "other.debugger"}) as server:
        async with client(server) as ws:
            await ws.send("x")
            assert await ws.recv() == "went on"
        assert server.reports("other") == [""]


class Terminal:
    """A server in the foreground of a terminal of its own."""

    def __init__(self, folder, code, **settings):
        self.master, slave = os.openpty()
        script = folder / "app.py"
        script.write_text(PREAMBLE + code + "\nserver.start()\n")
        take = (
            "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
        )
        settings = {"unix_socket": str(folder / "socket"), **settings}
        environment = {"PYTHONPATH": HOME, "MOORING_TEST_SETTINGS": json.dumps(settings)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", take, sys.executable, str(script)],
            stdin=slave, stdout=slave, stderr=slave, start_new_session=True, env={**os.environ, **environment},
        )  # fmt: skip
        os.close(slave)
        os.set_blocking(self.master, False)
        self.text = ""

    async def reads(self, text):
        """Until the terminal shows this, once more."""
        before, self.text = self.text, ""

        def shown():
            with contextlib.suppress(BlockingIOError):
                self.text += os.read(self.master, 1 << 16).decode(errors="replace")
            return text in self.text

        self.text = before
        await until(shown, text)
        self.text = self.text.partition(text)[2]

    def types(self, line):
        os.write(self.master, line.encode())


@contextlib.contextmanager
def at_a_terminal(*arguments, **settings):
    terminal = Terminal(*arguments, **settings)
    try:
        yield terminal
    finally:
        if terminal.process.poll() is None:
            terminal.process.kill()
            terminal.process.wait()
        os.close(terminal.master)


@pytest.mark.parametrize("number", [1, 2])
@in_loop(60)
async def test_at_a_terminal_workers_have_a_debugger(tmp_path, number):
    """Also longer than a worker may hang; Ctrl-C is the debugger's while it asks, and the server's before and after."""
    limits = {"worker_hang_timeout": 2 if number == 1 else 0, "log_level": "warning"}
    code = ASKING + "\n@server.on('start')\ndef started(server): report('started')\n"
    with at_a_terminal(tmp_path, code, worker_num=number, **limits) as terminal:
        await terminal.reads("report started")
        uri = "ws://localhost/"
        sockets = [
            await asyncio.wait_for(
                connect(uri, unix=True, sock=await opened(tmp_path / "socket"), ping_interval=None, proxy=None), LIMIT
            )
            for _ in range(number)
        ]
        for ws in sockets:
            await ws.send("breakpoint")
        for _ in sockets:  # one after the other
            await terminal.reads("(Pdb) ")
            if number == 1:
                await asyncio.sleep(3.5)  # longer than worker_hang_timeout and a second: no matter
            terminal.types("\x03")
            await terminal.reads("KeyboardInterrupt")
            await terminal.reads("(Pdb) ")
            terminal.types("answer += 1\n")
            await terminal.reads("(Pdb) ")
            terminal.types("continue\n")
        for ws in sockets:
            assert await asyncio.wait_for(ws.recv(), LIMIT) == "42"
            await ws.send("breakpoint")
            await terminal.reads("(Pdb) ")
            terminal.types("quit\n")
            assert await asyncio.wait_for(ws.recv(), LIMIT) == "41"
        terminal.types("\x03")
        for ws in sockets:
            with pytest.raises(Exception, match="1001"):
                await ws.recv()
        assert await asyncio.to_thread(terminal.process.wait, LIMIT) == 0
        assert "hang" not in terminal.text


async def opened(path):
    import socket

    found = socket.socket(socket.AF_UNIX)
    found.setblocking(False)
    await asyncio.get_running_loop().sock_connect(found, str(path))
    return found


# ---------------------------------------------------------------------------------------------- subprocesses

POLICIES = {
    # as uvloop's
    "no watcher": "def get_child_watcher(self): raise NotImplementedError",
    "a watcher of another loop": "def get_child_watcher(self): return type('W', (), {'is_active': lambda s: False, "
    "'__enter__': lambda s: s, '__exit__': lambda s, *a: None})()",
    "another loop": "def new_event_loop(self): raise NotImplementedError",
}
SUBPROCESS = """
import asyncio, signal

class Policy(asyncio.DefaultEventLoopPolicy):
    {method}

asyncio.set_event_loop_policy(Policy())

@server.on("message")
async def said(server, frame):
    one = await asyncio.create_subprocess_exec("sh", "-c", "exit 7")
    two = await asyncio.create_subprocess_shell("cat; kill -9 $$", stdin=-1, stdout=-1)
    out, _ = await two.communicate(b"text")
    left = await asyncio.create_subprocess_exec("sleep", "60")
    left.terminate()
    try:
        await asyncio.create_subprocess_exec("/nowhere/program")
    except FileNotFoundError:
        told = "none"
    server.push(frame.fd, f"{{await one.wait()}} {{two.returncode}} {{out}} {{await left.wait()}} {{told}}")
"""


@MODES
@pytest.mark.parametrize("method", POLICIES.values(), ids=POLICIES)
@in_loop()
async def test_subprocesses_whatever_policy_is_installed(mode, method):
    with Serving(SUBPROCESS.format(method=method), **mode) as server:
        async with client(server) as ws:
            await ws.send("x")
            assert await asyncio.wait_for(ws.recv(), LIMIT) == f"7 -9 b'text' {-signal.SIGTERM} none"
        assert server.stop() == 0
