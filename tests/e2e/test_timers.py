"""Timers over reloads, deaths and stops."""

import os
import signal

from e2e.peers import HELD_BACK, app
from support.serving import Serving, eventually

TICKING = """
@server.on("message")
def said(server, frame): pass

@server.on("worker_start")
def started(server, number):
    server.tick(0.05, lambda: report("tick", server.worker_id, os.getpid()), once_per_server=True)
    server.tick(0.05, lambda: report("each", server.worker_id))
"""


def test_once_per_server_moves():
    """One process ticks at any time: the one that serves as worker 0, not its successor while that is starting."""
    with Serving(app(HELD_BACK, TICKING), worker_num=2, task_worker_num=0) as server:
        first = server.pid_of("worker 0")
        server.wait_log(rf"report tick 0 {first}$", count=3)
        server.wait_log(r"report each 1$")
        (server.script.parent / "held back").touch()
        server.signal(signal.SIGHUP)
        eventually(lambda: len(server.pids()) == 5)
        mark = server.mark()
        server.wait_log(rf"report tick 0 {first}$", since=mark, count=3)
        assert {line.split()[1] for line in server.reports("tick")} == {str(first)}
        (server.script.parent / "held back").unlink()
        server.wait_log("reload: done")
        second = server.pid_of("worker 0")
        assert second != first
        server.wait_log(rf"report tick 0 {second}$", count=2)
        pids = [line.split()[1] for line in server.reports("tick")]
        assert pids == sorted(pids, key=[str(first), str(second)].index), "both ticked at the same time"
        os.kill(second, signal.SIGKILL)
        server.wait_log("worker 0 .* serves in place")
        server.wait_log(rf"report tick 0 {server.pid_of('worker 0')}$")
        assert server.stop() == 0


def test_in_base_mode():
    with Serving(app(TICKING), mode="base", worker_num=2) as server:
        first = server.pid_of("server 0")
        server.wait_log(rf"report tick 0 {first}$", count=2)
        server.signal(signal.SIGHUP)
        server.wait_log("reload: done")
        second = server.pid_of("server 0")
        server.wait_log(rf"report tick 0 {second}$", count=2)
        pids = [line.split()[1] for line in server.reports("tick")]
        assert pids == sorted(pids, key=[str(first), str(second)].index)
        assert server.stop() == 0


def test_a_stop_waits_for_a_call_under_way():
    code = """
    import asyncio

    @server.on("message")
    def said(server, frame): pass

    @server.on("worker_start")
    def started(server, number):
        server.after(0.01, slow)

    async def slow():
        report("begin")
        while not os.path.exists("go on"):
            await asyncio.sleep(0.01)
        report("end")

    @server.on("worker_stop")
    def stopped(server, number):
        report("stop")
    """
    with Serving(app(code), mode="base", worker_num=1) as server:
        server.wait_log("report begin")
        server.signal(signal.SIGTERM)
        server.wait_log("stopping")
        (server.script.parent / "go on").touch()
        assert server.ended() == 0
        assert server.reports() == ["begin", "end", "stop"]
