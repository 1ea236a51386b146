"""F5, F8: processes that start: broken code, and forks that fail."""

import asyncio
import errno
import os
import re
import signal
import time

import pytest

from e2e.faults.injection import no_new_processes
from e2e.peers import BUSY, STATS, UNCERTAIN, Talkers, app, drained, edit, in_loop, logged, stats, until
from support.serving import Serving

# The first process of all, which was started by hand, can load it; whoever comes later can't.
BROKEN = """
if os.path.exists("started"):
    raise RuntimeError("the database is not there")
open("started", "w").close()

@server.on("message")
def said(server, frame):
    pass
"""


def test_f05_a_worker_that_cannot_start():
    """At the start somebody looks: the traceback, exit code 1 within 5 s, no restart and nothing left behind."""
    with Serving(BROKEN, worker_num=2, ready=False) as server:
        server.wait_log("RuntimeError: the database is not there")
        began = time.monotonic()
        assert server.ended() == 1
        assert time.monotonic() - began < 5
        log = "\n".join(server.lines)
        assert "Traceback (most recent call last)" in log
        assert re.search(r"the start failed: worker \d .*exit code 1 before it was ready", log)
        assert "restarting" not in log


@in_loop(60)
async def test_f05_a_reload_to_code_that_is_broken():
    """The old generation serves on under load, the log has the traceback, and a good one works afterwards."""
    with Serving(BUSY, worker_num=2) as server:
        workers = {pid for pid, title in server.titles().items() if "worker" in title}
        async with Talkers(server, 4) as talkers:
            good = server.script.read_text()
            for old, broken, log in (
                ("said(server", "said((server", "SyntaxError: "),
                ("VERSION =", "VERSION = 1 / 0 #", "ZeroDivisionError: "),
                ('"message"', '"massage"', "no event is called 'massage'; did you mean 'message'"),
            ):
                mark = server.mark()
                edit(server.script, old, broken)
                server.signal(signal.SIGUSR1)
                await logged(server, log, since=mark)
                await logged(server, r"reload failed: worker \d .*the old one serves on", since=mark)
                if "Error" in log:
                    assert await logged(server, rf'File "{server.script}", line \d+', since=mark)
                await asyncio.gather(*[one.goes_on(20) for one in talkers])
                server.script.write_text(good)
            # the failed ones are gone before the next one begins
            await until(lambda: {p for p, title in server.titles().items() if "worker" in title} == workers)
            edit(server.script, "v1", "v2")
            server.signal(signal.SIGUSR1)
            await asyncio.gather(*[one.answered_by("v2") for one in talkers])
        assert all(one.in_order() for one in talkers)
        assert server.stop() == 0


@pytest.mark.parametrize("error", ["EAGAIN", "ENOMEM"])
@in_loop(60)
async def test_f08_a_fork_that_fails_is_tried_again(error):
    """The kernel has no process to give: the others serve on, the missing one is shown, and never forgotten."""
    why = os.strerror(getattr(errno, error))
    with Serving(app(BUSY, UNCERTAIN, STATS), worker_num=2, restart_free=0, restart_backoff_max=0.2) as server:
        old = server.pid_of("worker 1")
        async with Talkers(server, 8) as talkers:
            with no_new_processes(server.pid, error):
                os.kill(old, signal.SIGKILL)
                await logged(server, rf"worker 1 can't be started: {why}: restarting it in 0\.")
                tree = await until(lambda: (t := stats(server)["tree"])["workers_running"] == 1 and t, "it is missed")
                assert tree["workers_wanted"] == 2
                await logged(server, "worker 1 can't be started: ", count=3)
                await asyncio.gather(*[one.goes_on(10) for one in talkers])
            await logged(server, r"worker 1 \(pid \d+\) serves in place")
            await until(lambda: stats(server)["tree"]["workers_running"] == 2, "both run again")
            assert server.pid_of("worker 1") != old
            await asyncio.gather(*[one.goes_on(10) for one in talkers])
        assert server.stop() == 0
        assert drained(server)["accepted"] > 160


@pytest.mark.parametrize("error", ["EAGAIN", "ENOMEM"])
@in_loop(60)
async def test_f08_a_reload_that_cannot_fork_leaves_the_old_workers(error):
    why = os.strerror(getattr(errno, error))
    with Serving(BUSY, worker_num=2) as server:
        before = set(server.pids())
        async with Talkers(server, 4) as talkers:
            with no_new_processes(server.pid, error):
                server.signal(signal.SIGHUP)
                await logged(server, f"reload failed: a process can't be started: {why}")
                await asyncio.gather(*[one.goes_on(10) for one in talkers])
            assert set(server.pids()) == before
            server.signal(signal.SIGHUP)
            await logged(server, "reload: done")
        assert all(one.in_order() for one in talkers)
        assert server.stop() == 0
