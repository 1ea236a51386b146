"""F17: an admin sends SIGTERM to one process of a server."""

import asyncio
import os
import signal

import pytest
from websockets.exceptions import ConnectionClosed

from e2e.peers import STATS, app, client, drained, in_loop, logged, stats, until
from support.serving import Serving

APP = app(
    """
    import asyncio

    @server.on("message")
    async def said(server, frame):
        report("begin", frame.data)
        await asyncio.sleep(float(frame.data))
        server.push(frame.fd, str(os.getpid()))

    if server.settings.tasks.task_worker_num:
        @server.on("task")
        def work(server, task):
            return os.getpid()

    @server.on("worker_error")
    def worker_error(server, worker_id, pid, exit_code, number, reason):
        report("worker_error", reason)
    """,
    STATS,
)


@in_loop(60)
async def test_f17_a_worker_finishes_its_handlers_and_is_replaced():
    """No client notices, nothing is uncertain, and it is no crash."""
    with Serving(APP, worker_num=1) as server:
        async with client(server) as busy, client(server) as other:
            old = server.pid_of("worker 0")
            await busy.send("1.5")
            await logged(server, "^report begin 1.5")
            os.kill(old, signal.SIGTERM)
            await logged(server, rf"worker 0 \(pid {old}\) ends: it was sent SIGTERM")
            await logged(server, "serves in place")
            await other.send("0")
            assert int(await other.recv()) == server.pid_of("worker 0") != old
            await busy.send("0")
            assert int(await busy.recv()) == old
            assert int(await busy.recv()) == server.pid_of("worker 0")
            await until(lambda: old not in server.pids())
            counts = await asyncio.to_thread(stats, server)
            assert counts["uncertain"] == 0
            assert counts["tree"]["restarts"] == 0
        assert await asyncio.to_thread(server.stop) == 0
        assert not server.reports("worker_error")
        assert drained(server)["uncertain"] == 0


@in_loop(60)
async def test_f17_a_worker_that_does_not_finish_is_ended():
    with Serving(APP, worker_num=1, graceful_timeout=0.5) as server:
        async with client(server) as ws:
            old = server.pid_of("worker 0")
            await ws.send("60")
            await logged(server, "^report begin 60")
            os.kill(old, signal.SIGTERM)
            await until(lambda: old not in server.pids())
            await ws.send("0")
            assert int(await ws.recv()) != old


@pytest.mark.parametrize(
    ("mode", "role"),
    [
        ({"mode": "process", "worker_num": 1}, "gateway 0"),
        ({"mode": "base", "worker_num": 2}, "server 0"),
    ],
    ids=["process", "base"],
)
@in_loop(60)
async def test_f17_a_gateway_drains_and_is_replaced(mode, role):
    """Its clients are told 1001 after their handlers, it ends in time, and the next client is served."""
    with Serving(APP, graceful_timeout=10, **mode) as server:
        old = server.pid_of(role)
        clients = [await client(server) for _ in range(12)]  # in base mode the kernel chooses
        for ws in clients:
            await ws.send("0.5")
        os.kill(old, signal.SIGTERM)
        await logged(server, rf"{role} \(pid {old}\) ends: it was sent SIGTERM")
        codes = []
        if mode["mode"] == "base":
            await until(lambda: old not in server.pids())
        for ws in clients:
            try:
                while True:
                    await asyncio.wait_for(ws.recv(), 0.5 if mode["mode"] == "base" else 20)
            except ConnectionClosed as closed:
                codes.append(closed.rcvd.code)
            except TimeoutError:
                pass  # it is with the other server
        assert set(codes) == {1001}
        await until(lambda: old not in server.pids())
        await logged(server, "serves in place")
        async with client(server) as ws:
            await ws.send("0")
            await asyncio.wait_for(ws.recv(), 20)
        for ws in clients:
            await ws.close()
        assert await asyncio.to_thread(server.stop) == 0
        assert "Traceback" not in "\n".join(server.lines)
        assert not server.reports("worker_error")


@pytest.mark.parametrize(
    ("mode", "role"),
    [({"mode": "process", "worker_num": 1}, "gateway 0"), ({"mode": "base", "worker_num": 2}, "server 0")],
    ids=["process", "base"],
)
@in_loop(60)
async def test_f17_a_gateway_that_stands_still_while_it_leaves_is_replaced(mode, role):
    """Nobody watches its pulse any more, and its end was asked for: the server must not be left without it."""
    with Serving(APP, graceful_timeout=1.0, **mode) as server:
        old = server.pid_of(role)
        clients = [await client(server) for _ in range(8)]  # in base mode the kernel chooses
        for number, ws in enumerate(clients, 1):
            await ws.send("60")
            await until(lambda number=number: len(server.reports("begin")) == number)
        os.kill(old, signal.SIGTERM)
        await logged(server, rf"{role} \(pid {old}\) ends: it was sent SIGTERM")
        os.kill(old, signal.SIGSTOP)
        await logged(server, rf"{role} \(pid {old}\) did not end in time: killing it")
        await logged(server, rf"{role} \(pid \d+\) serves in place")
        assert old not in server.pids()
        async with client(server) as ws:
            await ws.send("0")
            await asyncio.wait_for(ws.recv(), 20)
        for ws in clients:
            ws.transport.abort()
        assert await asyncio.to_thread(server.stop) == 0


@pytest.mark.parametrize("role", ["dispatcher 0", "task worker 0"])
def test_f17_other_processes_leave_and_are_replaced(role):
    with Serving(APP, worker_num=1, task_worker_num=1) as server:
        old = server.pid_of(role)
        os.kill(old, signal.SIGTERM)
        server.wait_log(rf"{role} \(pid {old}\) ends: it was sent SIGTERM")
        server.wait_log(rf"{role} \(pid \d+\) serves in place")
        assert server.pid_of(role) != old
        assert server.stop() == 0
        assert not server.reports("worker_error")


@in_loop(60)
async def test_f17_sigterm_to_everybody_is_a_stop_in_order():
    """As systemd sends it, unless told otherwise: the handlers still finish."""
    with Serving(APP, worker_num=2, gateway_num=2) as server:
        async with client(server) as ws:
            await ws.send("0.5")
            await logged(server, "^report begin 0.5")
            for pid in [*server.pids(), server.pid]:
                os.kill(pid, signal.SIGTERM)
            assert await asyncio.to_thread(server.ended) == 0
        counts = drained(server)
        assert (counts["finished"], counts["uncertain"]) == (1, 0)
