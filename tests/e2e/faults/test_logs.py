"""F36: the disk is full, whoever reads the log is gone or does not read, standard output is closed: serving goes on."""

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from websockets.asyncio.client import unix_connect

from e2e.peers import BOTH_MODES, STATS, app, in_loop, until
from support.serving import HOME, LIMIT, PREAMBLE, eventually

MODES = pytest.mark.parametrize("mode", BOTH_MODES, ids=lambda settings: settings["mode"])
APP = app(
    """
    import logging

    @server.on("message")
    def said(server, frame):
        logging.getLogger("mooring.chat").info("said %s", frame.data)
        server.push(frame.fd, frame.data)

    @server.on("start")
    def started(server):
        open(os.environ["STARTED"], "w").close()
    """,
    STATS,
)


@contextlib.contextmanager
def running(tmp_path, redirect="", **settings):
    """A server on a Unix socket, whose standard output and error are `redirect` in the shell's words, or a pipe.

    Gives the process and the read end.
    """
    script, started = tmp_path / "app.py", tmp_path / "started"
    script.write_text(PREAMBLE + APP + "\nserver.start()\n")
    settings = {"unix_socket": str(tmp_path / "socket"), **settings}
    environment = {"PYTHONPATH": HOME, "MOORING_TEST_SETTINGS": json.dumps(settings)}
    process = subprocess.Popen(
        ["sh", "-c", f'exec "{sys.executable}" "{script}" {redirect}'],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **environment, "STARTED": str(started)},
    )
    children = set()
    try:
        eventually(lambda: started.exists() or process.poll() is not None)
        assert process.poll() is None, process.stdout.read().decode()
        children = set(offspring(process.pid))
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        process.stdout.close()
        eventually(lambda: not [pid for pid in children if Path(f"/proc/{pid}").exists()])


def offspring(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def unix_client(tmp_path):
    return unix_connect(str(tmp_path / "socket"), "ws://localhost/", ping_interval=None, compression=None)


async def asked(tmp_path, request=b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"):
    """What is answered to a request; the body only."""
    reader, writer = await asyncio.open_unix_connection(str(tmp_path / "socket"))
    writer.write(request)
    answer = await reader.read()
    writer.close()
    return answer.partition(b"\r\n\r\n")[2]


async def talk(tmp_path, first, last):
    async with unix_client(tmp_path) as ws:
        for number in range(first, last):
            await ws.send(str(number))
            assert await asyncio.wait_for(ws.recv(), LIMIT) == str(number)


@MODES
@in_loop(60)
async def test_f36_a_full_disk(tmp_path, mode):
    """Lines are dropped and counted, in each process, and one line says how many once they can be written again."""
    log = tmp_path / "log"
    log.symlink_to("/dev/full")
    with running(tmp_path, log_file=str(log), **mode) as process:
        await talk(tmp_path, 0, 50)
        for _ in range(3):  # a line of the gateway each
            await asked(tmp_path, b"nonsense\r\n\r\n")
        stats = json.loads(await asked(tmp_path))
        assert stats["log_lines_dropped"] >= 3
        log.unlink()
        process.send_signal(signal.SIGRTMIN)
        held = [process.pid, *offspring(process.pid)]
        await until(lambda: log.exists() and all(has_open(pid, log) for pid in held))
        for number in range(mode["worker_num"] * 4):  # every worker gets some
            await talk(tmp_path, 100 + number, 101 + number)
        await asked(tmp_path, b"nonsense\r\n\r\n")
        stats = json.loads(await asked(tmp_path))
    lines = log.read_text().splitlines()
    told = [re.search(r"^(\d+) log lines were dropped: No space left on device$", line) for line in lines]
    counts = [int(match[1]) for match in told if match]
    assert len(counts) == (1 if mode["mode"] == "base" else 3), (
        "supervisor, gateway and the worker that served, once each"
    )
    assert sum(counts) >= 50 + 3 + 1
    assert stats["log_lines_dropped"] in (counts if mode["mode"] == "process" else [sum(counts)])
    assert [line.split()[-1] for line in lines if " said " in line] == [
        str(100 + n) for n in range(mode["worker_num"] * 4)
    ]
    assert "drained: " in lines[-1]


def has_open(pid, path):
    wanted = path.stat()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            if os.path.samestat(fd.stat(), wanted):
                return True
    return False


@MODES
@in_loop(60)
async def test_f36_the_reader_of_the_log_is_gone(tmp_path, mode):
    """As with `python app.py 2>&1 | head -1`; also processes that are started later live on."""
    with running(tmp_path, **mode) as process:
        process.stdout.read1()
        process.stdout.close()
        await talk(tmp_path, 0, 50)
        if mode["mode"] == "process":
            before = offspring(process.pid)
            process.send_signal(signal.SIGHUP)
            await until(lambda: not set(before[1:]) & set(offspring(process.pid)) and len(offspring(process.pid)) == 3)
            await talk(tmp_path, 50, 60)
        for _ in range(3):
            await asked(tmp_path, b"nonsense\r\n\r\n")
        assert json.loads(await asked(tmp_path))["log_lines_dropped"] >= 3


@MODES
@in_loop(60)
async def test_f36_the_reader_of_the_log_does_not_read(tmp_path, mode):
    """It holds nobody up, and hears of what it has missed as soon as it reads again."""
    with running(tmp_path, **mode) as process:
        async with unix_client(tmp_path) as ws:
            for number in range(2000):
                await ws.send(str(number))
                await asyncio.wait_for(ws.recv(), 5)
            os.set_blocking(process.stdout.fileno(), False)
            lines = []

            def read():
                lines.extend((process.stdout.read() or b"").decode().splitlines())
                return any("log lines were dropped: whoever reads them is too slow" in line for line in lines)

            read()
            await ws.send("again")
            assert await ws.recv() == "again"
            await until(read)
        said = [line.split()[-1] for line in lines if " said " in line]
        assert said[-1] == "again"
        assert len(said) < 2000
        os.set_blocking(process.stdout.fileno(), True)


@MODES
@pytest.mark.parametrize("log_file", [False, True], ids=["no log", "log file"])
@in_loop(60)
async def test_f36_standard_streams_that_are_closed(tmp_path, mode, log_file):
    """No file and no socket of ours gets their numbers: what a program prints must not reach a client."""
    settings = {**mode, **({"log_file": str(tmp_path / "log")} if log_file else {})}
    with running(tmp_path, "<&- >&- 2>&-", **settings) as process:
        await talk(tmp_path, 0, 20)
        for pid in [process.pid, *offspring(process.pid)]:
            assert [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in range(3)] == ["/dev/null"] * 3
    if log_file:
        text = (tmp_path / "log").read_text()
        assert text.count(" said ") == 20
        assert "drained: " in text.splitlines()[-1]
