"""Log files: who writes into which, and rotation as logrotate does it."""

import asyncio
import contextlib
import os
import re
import signal
from pathlib import Path

import pytest

from e2e.peers import client, fetch, in_loop, logged, until
from support.serving import Serving, eventually

MODES = pytest.mark.parametrize(
    "mode",
    [
        {"mode": "process", "worker_num": 2, "task_worker_num": 1, "spare_worker_num": 1},
        {"mode": "base", "worker_num": 2},
        {"mode": "base", "worker_num": 1},
    ],
    ids=["process", "base", "alone"],
)
APP = """
import logging

log = logging.getLogger("mooring.chat")

@server.on("message")
def said(server, frame):
    log.info("said %s", frame.data)
    server.push(frame.fd, frame.data)

@server.on("request")
def page(request, response):
    response.end("here")

if server.settings.tasks.task_worker_num:
    @server.on("task")
    def work(server, task):
        return 1

@server.on("start")
def started(server):
    report("start")
"""


def holders(server, inode):
    """Processes of the server that have this file open."""
    found = set()
    for pid in [server.pid, *server.pids()]:
        with contextlib.suppress(OSError):
            for fd in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    if fd.stat().st_ino == inode:
                        found.add(pid)
    return found


def port(log):
    return int(re.search(r"listening on \S+:(\d+)", log.read_text())[1])


@MODES
@in_loop(90)
async def test_rotation_loses_no_line(tmp_path, mode):
    """Renamed and signalled, as often as you like: each line is in one file, and nobody keeps an old one."""
    log, access = tmp_path / "log", tmp_path / "access"
    settings = {"log_file": str(log), "access_log_file": str(access), "access_log": True}
    with Serving(APP, ready=False, **settings, **mode) as server:
        await logged(server, "^report start")
        server._port = port(log)
        for path in (log, access):
            await until(lambda path=path: holders(server, path.stat().st_ino) == {server.pid, *server.pids()})
        old = []
        said = requested = 0
        async with client(server) as ws:
            for round in range(1, 4):
                for now in (log, access):
                    old.append((now.stat().st_ino, now.with_name(f"{now.name}.{round}")))
                    now.rename(old[-1][1])
                turn = asyncio.get_running_loop().time()
                server.signal(signal.SIGRTMIN)
                while any(holders(server, inode) for inode, _ in old) or not said or said % 10:
                    said += 1
                    await ws.send(str(said))
                    assert await ws.recv() == str(said)
                    requested += 1
                    assert await asyncio.to_thread(fetch, server) == b"here"
                    assert asyncio.get_running_loop().time() < turn + 20, [
                        server.titles().get(pid) for inode, _ in old for pid in holders(server, inode)
                    ]
                sizes = {path: path.stat().st_size for _, path in old}
                # everybody writes once more: into the new files
                mark = len(log.read_text())
                said += 1
                await ws.send(str(said))
                assert await ws.recv() == str(said)
                server.signal(signal.SIGRTMIN)
                await until(lambda mark=mark, last=f"said {said}": last in log.read_text()[mark:])
                assert {path: path.stat().st_size for path in sizes} == sizes
            pids = {pid: title.removeprefix("mooring: ") for pid, title in server.titles().items()}
        server.signal(signal.SIGTERM)
        assert await asyncio.to_thread(server.ended) == 0
    lines = [line for path in tmp_path.glob("log*") for line in path.read_text().splitlines()]
    assert sorted(int(line.split()[-1]) for line in lines if " said " in line) == list(range(1, said + 1))
    requests = [line for path in tmp_path.glob("access*") for line in path.read_text().splitlines()]
    assert len(requests) == requested
    assert all('"GET / HTTP/1.1" 200' in line for line in requests)
    assert any("drained: " in line for line in log.read_text().splitlines()[-3:])
    assert not [line for line in server.lines if "INFO" in line], "nothing on standard error"
    for line in lines:
        name, pid = re.search(r"\[(.+), (\d+)\]", line).groups()
        assert pids.get(int(pid), name).startswith(name)


@pytest.mark.parametrize("to", ["gateway 0", "worker 0", "task worker 0", "dispatcher 0"])
def test_the_signal_to_everybody_ends_nobody(tmp_path, to):
    """As `systemctl kill` sends it, unless told otherwise."""
    log = tmp_path / "log"
    with Serving(APP, ready=False, log_file=str(log), worker_num=1, task_worker_num=1) as server:
        server.wait_log("^report start")
        pid = server.pid_of(to)
        old = log.stat().st_ino
        log.rename(tmp_path / "log.1")
        os.kill(pid, signal.SIGRTMIN)
        server._port = port(tmp_path / "log.1")
        eventually(lambda: pid not in holders(server, old))
        assert fetch(server) == b"here"
        assert server.pid_of(to) == pid
        assert server.stop() == 0


def test_stacks_of_a_process_that_hangs_go_to_the_log_file(tmp_path):
    log = tmp_path / "log"
    with Serving(APP, ready=False, log_file=str(log), worker_num=1) as server:
        server.wait_log("^report start")
        log.rename(tmp_path / "log.1")
        server.signal(signal.SIGRTMIN)
        eventually(log.exists)
        worker = server.pid_of("worker 0")
        eventually(lambda: worker in holders(server, log.stat().st_ino))
        os.kill(worker, signal.SIGUSR2)
        eventually(lambda: "most recent call first" in log.read_text())
        assert server.stop() == 0


@MODES
def test_a_signal_makes_every_process_write_its_stacks(tmp_path, mode):
    # without the thread that names blocking handlers: while it begins, no thread is the current one
    with Serving(APP, blocked_after=0, **mode) as server:
        pids = server.pids()
        server.signal(signal.SIGUSR2)
        # a spare that is not warm yet can't, and the supervisor says so
        server.wait_log("^Current thread|it can't write its stacks yet", count=max(1, len(pids)))
        assert set(pids) <= set(server.pids())
        assert server.stop() == 0


@MODES
def test_a_log_file_that_can_not_be_written_is_said_before_the_start(tmp_path, mode):
    with Serving(APP, ready=False, log_file=str(tmp_path / "nowhere" / "log"), **mode) as server:
        assert server.ended() == 1
        assert "log lines can't be written there: No such file or directory" in "\n".join(server.lines)
