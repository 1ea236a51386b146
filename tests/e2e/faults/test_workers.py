"""F2, F3, F6, F11: how workers end, hang, end again and again, and grow."""

import asyncio
import os
import signal

import pytest

from e2e.peers import STATS, Talkers, adds_up, app, client, drained, in_loop, logged, stats, until
from support.serving import Serving

DEADLY = """
import ctypes, re

@server.on("message")
def said(server, frame):
    if frame.data == "exit":
        os._exit(0)
    if frame.data == "segv":
        ctypes.string_at(0)
    if frame.data.isdigit():
        os.kill(os.getpid(), int(frame.data))
    if frame.data == "sleep":
        time.sleep(600)
    if frame.data == "regex":
        re.match("(a+)+$", "a" * 64 + "b")
    server.push(frame.fd, f"{frame.data} {os.getpid()}")

@server.on("worker_error")
def worker_error(server, worker_id, pid, exit_code, number, reason):
    report("worker_error", os.getpid(), worker_id, pid, exit_code, number, "|", reason)
"""


@pytest.mark.parametrize(
    ("message", "text", "code", "number"),
    [
        ("exit", "ended with exit code 0", 0, None),
        ("segv", "was ended by SIGSEGV", None, signal.SIGSEGV.value),
        ("6", "was ended by SIGABRT", None, signal.SIGABRT.value),
        ("9", "was ended by SIGKILL", None, signal.SIGKILL.value),
    ],
)
@in_loop(60)
async def test_f02_every_end_of_a_worker_is_one_line_and_one_event(message, text, code, number):
    with Serving(app(DEADLY, STATS), worker_num=1) as server:
        old = server.pid_of("worker 0")
        async with client(server) as ws:
            await ws.send("hello")
            await ws.recv()
            await ws.send(message)
            line = await logged(
                server, rf"worker 0 \(pid {old}\) {text}; its last event, the 3rd: message of connection"
            )
            assert "restarting it" in line.string
            told = await logged(server, r"^report worker_error (\d+) (.*)$")
            assert int(told[1]) != old
            assert told[2].startswith(f"0 {old} {code} {number} | {text}")
            if number in (signal.SIGSEGV, signal.SIGABRT):
                await logged(server, r"app.py\", line \d+ in said")
            await ws.send("still here")
            assert (await ws.recv()).startswith("still here ")
        tree = (await asyncio.to_thread(stats, server))["tree"]
        assert (tree["workers_wanted"], tree["workers_running"], tree["restarts"]) == (1, 1, 1)
        assert len(server.reports("worker_error")) == 1


@pytest.mark.parametrize(("how", "name"), [("sleep", "SIGABRT"), ("regex", "SIGABRT"), ("stop", "SIGKILL")])
@in_loop(60)
async def test_f03_a_worker_whose_loop_stands_still(how, name):
    """Its stack is in the log, it is ended, and neither its client nor anybody else notices more than a delay."""
    with Serving(app(DEADLY, STATS), worker_num=1, worker_hang_timeout=1.0) as server:
        old = server.pid_of("worker 0")
        async with client(server) as ws:
            await ws.send("hello")
            await ws.recv()
            if how == "stop":
                os.kill(old, signal.SIGSTOP)
            await ws.send(how)
            await logged(server, rf"worker 0 \(pid {old}\) hangs: its loop has not turned for")
            if how != "stop":
                await logged(server, r"app.py\", line \d+ in said")
                assert not [line for line in server.lines if "Fatal Python error" in line], "not only when it ends"
            await logged(server, rf"was ended by {name}: its loop had not turned")
            await ws.send("after")
            while not (await ws.recv()).startswith("after "):
                pass
        assert (await asyncio.to_thread(stats, server))["tree"]["hangs"] == 1


@in_loop(60)
async def test_f03_a_worker_that_turns_again_lives_on():
    with Serving(app(DEADLY, STATS), worker_num=1, worker_hang_timeout=1.0) as server:
        old = server.pid_of("worker 0")
        os.kill(old, signal.SIGSTOP)
        try:
            await logged(server, r"hangs: its loop has not turned")
        finally:
            os.kill(old, signal.SIGCONT)
        await logged(server, r"worker 0 .* turns again")
        async with client(server) as ws:
            await ws.send("hello")
            assert await ws.recv() == f"hello {old}"


@in_loop(60)
async def test_f06_a_process_that_keeps_ending_is_degraded_and_recovers():
    code = """
    if os.path.exists("broken"):
        os._exit(7)

    @server.on("message")
    def said(server, frame):
        server.push(frame.fd, "here")
    """
    settings = {"restart_free": 1, "restart_backoff_max": 0.2, "restart_window": 0.5, "degraded_after": 3}
    with Serving(app(code, STATS), worker_num=2, **settings) as server:
        server.script.with_name("broken").touch()
        os.kill(server.pid_of("worker 1"), signal.SIGKILL)
        await logged(server, r"worker 1 is degraded: it has ended 3 times in a row")
        tree = await until(lambda: (t := stats(server)["tree"])["degraded"] and t, "the state is told")
        assert tree["degraded"] == ["worker 1"]
        assert (tree["workers_wanted"], tree["workers_running"]) == (2, 1)
        server.script.with_name("broken").unlink()
        await logged(server, r"worker 1 .* is not degraded any more")
        await until(lambda: stats(server)["tree"]["workers_running"] == 2, "both run")
        await until(lambda: stats(server)["tree"]["degraded"] == [], "the end of the state is told")
        assert len([line for line in server.lines if "is degraded:" in line]) == 1


@in_loop(90)
async def test_f11_workers_that_have_worked_enough_are_replaced_and_nothing_is_lost():
    code = """
    @server.on("message")
    def said(server, frame):
        time.sleep(0.001)
        server.push(frame.fd, f"{frame.data} {os.getpid()}")
    """
    with Serving(app(code, STATS), worker_num=2, max_request=200) as server:
        first = {server.pid_of("worker 0"), server.pid_of("worker 1")}
        async with Talkers(server, 8) as talkers:
            await logged(server, r"replacing worker \d .*: it has had max_request=200")
            await logged(server, r"replacing worker .*: done", count=3, limit=60)
        assert all(one.in_order() for one in talkers)
        pids = {int(by) for one in talkers for _, by in one.answers}
        assert len(pids - first) >= 3
        counts = await asyncio.to_thread(stats, server)
        assert adds_up(counts)
        assert (counts["uncertain"], counts["connections_closed"]) == (0, 8)
        assert counts["tree"]["replacements"] >= 3
        assert server.stop() == 0
        assert drained(server)["uncertain"] == 0


@in_loop(60)
async def test_f11_a_worker_that_grows_is_replaced():
    code = """
    kept = []

    @server.on("message")
    def said(server, frame):
        if frame.data == "grow":
            kept.append(b"x" * (200 << 20))
        server.push(frame.fd, f"{frame.data} {os.getpid()}")
    """
    with Serving(app(code, STATS), worker_num=1, worker_memory_limit=150 << 20) as server:
        old = server.pid_of("worker 0")
        async with client(server) as ws:
            await ws.send("grow")
            assert await ws.recv() == f"grow {old}"
            await logged(server, rf"replacing worker 0 \(pid {old}\): it has \d+ bytes in memory, more than")
            await logged(server, r"replacing worker .*: done")
            await ws.send("after")
            assert await ws.recv() == f"after {server.pid_of('worker 0')}"
            assert server.pid_of("worker 0") != old
