"""F8, F34: the system has no thread, process, watch or memory file left. It is said, whatever needs one is refused by
name or tried again, and nothing else is affected."""

import errno
import os
import signal
import time

import pytest

from contract.clients import Raw, get
from e2e.peers import BOTH_MODES
from support.faults import Faults
from support.serving import Serving, eventually

MODES = pytest.mark.parametrize("mode", BOTH_MODES, ids=lambda settings: settings["mode"])

APP = """
import asyncio, threading

@server.on("message")
async def said(server, frame):
    server.push(frame.fd, await asyncio.to_thread(str.upper, frame.data))

done = []

@server.on("request")
async def asked(request, response):
    if request.path == "/thread":
        await asyncio.to_thread(done.append, 1)
    response.end(str(len(done)))
"""


@pytest.fixture
def faults(tmp_path):
    return Faults(tmp_path)


def answer(server, path):
    with Raw(server, get(path, "Connection: close")) as raw:
        found = raw.answer()
        return found.status, found.body


@MODES
def test_no_thread_can_be_started(mode, faults):
    """A request that needs one is answered 503 and not done later; others are served; a process ends in order."""
    with Serving(APP, env=faults.env, **mode) as server:
        faults.set("thread", every=1, error=errno.EAGAIN)
        for _ in range(3):
            assert answer(server, "/thread")[0] == 503
        server.wait_log("no thread could be started: can't start new thread; raise the limit of processes")
        assert answer(server, "/") == (200, b"0")
        faults.set("thread", every=1, error=errno.EAGAIN, times=0)
        assert answer(server, "/thread") == (200, b"1"), "what was refused is not done later"
        faults.set("thread", every=1, error=errno.EAGAIN)
        assert answer(server, "/thread") == (200, b"2"), "one that is there does it"
        assert server.stop() == 0
        assert faults.hits("thread") > 4
        assert not [line for line in server.lines if "exit code 1" in line or "application has failed" in line]
        assert "(adds up)" in server.lines[-2]


def test_no_thread_can_be_started_for_a_process_of_the_application(faults):
    """It ends and is started again, instead of serving without its function."""
    app = """
    @server.on("message")
    def said(server, frame): ...

    def own(server):
        report("runs")
        server.stopping.wait()

    server.add_process(own)
    """
    # No worker watches for handlers that block: the one thread that can't be started is the process' own.
    with Serving(app, env=faults.env, mode="process", worker_num=1, blocked_after=0) as server:
        server.wait_log("report runs")
        mark = server.mark()
        faults.set("thread", every=1, error=errno.EAGAIN, times=1)
        os.kill(server.pid_of("process 0"), signal.SIGKILL)
        server.wait_log("the process function own failed", since=mark)
        server.wait_log("report runs", since=mark)
        assert server.stop() == 0


@pytest.mark.parametrize(
    ("what", "error"),
    [("fork", errno.EAGAIN), ("fork", errno.ENOMEM), ("memfd", errno.ENOSPC), ("watch", errno.ENOSPC)],
)
def test_no_process_can_be_started(faults, what, error):
    """It is tried again, as often as it takes; who serves goes on, and a reload that fails changes nothing."""
    with Serving(APP, env=faults.env, mode="process", worker_num=2, restart_backoff_max=0.5) as server:
        faults.only(pid=server.pid)
        faults.set(what, every=1, error=error)
        os.kill(server.pid_of("worker 1"), signal.SIGKILL)
        server.wait_log(f"worker 1.* can't be started: {os.strerror(error)}: restarting it in", count=2)
        assert answer(server, "/")[0] == 200
        mark = server.mark()
        server.signal(signal.SIGHUP)
        server.wait_log("reload failed: a process can't be started", since=mark)
        assert answer(server, "/")[0] == 200
        mark = server.mark()
        faults.stop()
        server.wait_log(r"worker 1 \(pid \d+\) serves in place", since=mark)
        eventually(lambda: len(server.pids()) == 3, what="one that was not heard of lives on")
        server.signal(signal.SIGHUP)
        server.wait_log("reload: done", since=mark)
        assert server.stop() == 0


@pytest.mark.parametrize("when", ["at the start", "for a folder that comes later"])
def test_no_watches_are_left(faults, tmp_path, when):
    """Changes are found all the same, and it is said that this costs more."""
    folder = tmp_path / "code"
    (folder / "deep").mkdir(parents=True)
    path = folder / "deep" / "app.py"
    if when == "at the start":
        path.write_text("1")
        faults.set("notify", every=1, error=errno.ENOSPC)
    with Serving(APP, env=faults.env, mode="process", worker_num=1, watch=[str(folder)]) as server:
        if when != "at the start":
            faults.set("notify", every=1, error=errno.ENOSPC)
            path = folder / "new" / "app.py"
            path.parent.mkdir()
        server.wait_log(r"watch: files are looked at each 1 s, .* raise fs\.inotify\.max_user_watches")
        number = 0

        def is_noticed():
            nonlocal number
            number += 1
            path.write_text(str(number))
            until = time.monotonic() + 2
            eventually(lambda: time.monotonic() > until or f"{path.parent.name}/app.py" in "\n".join(server.lines))
            return "app.py" in "\n".join(server.lines)

        eventually(is_noticed)
        server.wait_log("reload: done")
