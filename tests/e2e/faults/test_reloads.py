"""F12 to F14: reloads under load, in storms, and with handlers that never end."""

import asyncio
import os
import signal
import time

import pytest

from e2e.peers import STATS, Talkers, adds_up, app, client, drained, in_loop, logged, stats, until
from support.serving import Serving
from support.tools import verdict

DONE = r"reload: done, the generation before (\d+) is gone"

BUSY = """
@server.on("message")
def said(server, frame):
    time.sleep(0.0005)
    server.push(frame.fd, f"{frame.data} {os.getpid()}")
"""


@pytest.mark.parametrize("gateways", [1, 2])
def test_f12_a_reload_every_two_seconds_under_load(gateways):
    """By the checker: nothing lost, doubled, reordered, nobody disconnected, and no handler ran twice."""
    load = ("--clients", "16", "--workers", "2", "--gateways", str(gateways), "--work", "1", "--handlers", "async")
    result = verdict("nothing_lost", "--nemesis", "reload", "--duration", "9", *load)
    assert not any(result["faults"].values()), (result["seed"], result["faults"], result["log"])
    assert result["acts"]["reload"] >= 3
    assert result["sent"] == result["answered"] > 100
    assert (result["uncertain"], result["reconnects"]) == (0, 0)


def resources(pid: int) -> tuple[int, int]:
    """Descriptors and threads of a process."""
    return len(os.listdir(f"/proc/{pid}/fd")), len(os.listdir(f"/proc/{pid}/task"))


async def storm(server: Serving) -> int:
    """100 requests to reload within a second or little more; the largest number of processes seen meanwhile."""
    most = 0
    for n in range(100):
        server.signal((signal.SIGHUP, signal.SIGUSR1)[n % 2])
        most = max(most, len(server.pids()))
        await asyncio.sleep(0.01)  # this is the pace of the storm
    return most


@in_loop(90)
async def test_f13_a_storm_of_reloads():
    """One runs and one waits, however many are asked for: no client notices, and nothing is left behind."""
    bound = 2 * 2 + 1  # children: the gateway and two generations of two workers
    with Serving(app(BUSY, STATS), worker_num=2) as server:
        gateway = server.pid_of("gateway 0")
        server.signal(signal.SIGHUP)
        await logged(server, DONE)
        async with Talkers(server, 8) as talkers:
            before = [resources(pid) for pid in (server.pid, gateway)]
            for _ in range(2):
                mark = server.mark()
                assert await storm(server) <= bound
                started = len([line for line in server.lines[mark:] if "; starting generation " in line])
                await logged(server, DONE, since=mark, count=max(1, started))
                await until(lambda: len(server.pids()) == 3, "one generation is left")
                assert started <= 20
            await asyncio.gather(*[one.goes_on(10) for one in talkers])
            await until(lambda: [resources(pid) for pid in (server.pid, gateway)] == before, "nothing is left open")
        assert all(one.in_order() for one in talkers)
        counts = await asyncio.to_thread(stats, server)
        assert adds_up(counts)
        assert (counts["uncertain"], counts["connections_accepted"]) == (0, len(talkers) + 1)
        assert server.stop() == 0
        assert drained(server)["uncertain"] == 0


@in_loop(60)
async def test_f13_a_storm_during_the_start_is_one_reload():
    code = """
    while os.path.exists("started") and not os.path.exists("go on"):
        time.sleep(0.01)
    open("started", "w").close()    # by the first run, which waits for nobody
    """
    with Serving(app(code, BUSY), worker_num=2, ready=False) as server:
        await logged(server, "starting 3 processes")
        assert await storm(server) <= 3
        server.script.with_name("go on").touch()
        await logged(server, DONE)
        async with client(server) as ws:
            await ws.send("hello 1")
            assert int((await ws.recv()).split()[2]) in server.pids()
        assert len([line for line in server.lines if "starting generation" in line]) == 1
        assert len(server.pids()) == 3
        assert server.stop() == 0


@in_loop(60)
async def test_f13_a_storm_during_the_drain_starts_nothing():
    code = """
    @server.on("message")
    def said(server, frame):
        report("begin")
        while not os.path.exists("go on"):
            time.sleep(0.01)
        report("end")
    """
    with Serving(code, worker_num=1, graceful_timeout=20) as server:
        async with client(server) as ws:
            await ws.send("wait")
            await logged(server, "^report begin")
            server.signal(signal.SIGTERM)
            await logged(server, "stopping: SIGTERM")
            assert await storm(server) <= 2
            await logged(server, "reload refused: SIGHUP, but the server is stopping")
            server.script.with_name("go on").touch()
            began = time.monotonic()
            assert await asyncio.to_thread(server.ended) == 0
            assert time.monotonic() - began < 10
        assert server.reports("end")
        assert not [line for line in server.lines if "starting generation" in line]
        assert drained(server) == {"accepted": 1, "finished": 1, "uncertain": 0, "dropped": 0}


@in_loop()
async def test_f14_a_handler_that_never_ends_does_not_hold_up_the_reload():
    code = """
    import asyncio
    @server.on("message")
    async def said(server, frame):
        if frame.data == "forever":
            await asyncio.Event().wait()
        server.push(frame.fd, f"{frame.data} {os.getpid()}")

    @server.on("uncertain")
    def uncertain(server, frame, reason):
        server.push(frame.fd, f"uncertain {frame.data}")
    """
    with Serving(code, worker_num=1, graceful_timeout=0.5) as server:
        async with client(server) as ws:
            await ws.send("forever")
            await ws.send("behind")
            server.signal(signal.SIGUSR1)
            await logged(server, "did not end within 0.5 s: killing it")
            assert await ws.recv() == "uncertain forever"
            assert await ws.recv() == f"behind {server.pid_of('worker 0')}"
            await logged(server, DONE)
            assert len(server.pids()) == 2
