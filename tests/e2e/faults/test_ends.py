"""F1, F4, F9: a worker ends inside a handler; a handler never ends; no zombie is left."""

import asyncio
import os
import signal
import statistics
import time
from collections import Counter
from pathlib import Path

from e2e.peers import (
    STATS,
    UNCERTAIN,
    Talkers,
    adds_up,
    app,
    client,
    drained,
    in_loop,
    logged,
    stats,
    taken,
    until,
    waited_for_a_cpu,
)
from support.serving import Serving

KILLS = 5

# "block" never ends; anything else is answered with the pid.
BLOCKING = """
@server.on("message")
def said(server, frame):
    if frame.data == "block":
        report("begin block")
        time.sleep(600)
    server.push(frame.fd, f"{frame.data} {os.getpid()}")
"""


@in_loop(90)
async def test_f01_a_worker_killed_inside_a_handler():
    """The one message is uncertain, what was behind it is answered soon by the successor, in order; nobody is cut.

    Soon is within 2 s of the kill, most times, without what other programs kept the successor waiting for a CPU.
    """
    took = []
    with Serving(app(BLOCKING, UNCERTAIN, STATS), worker_num=1, restart_free=100) as server:
        async with client(server) as ws:
            for _ in range(KILLS):
                old = server.pid_of("worker 0")
                mark = server.mark()
                await ws.send("block")
                await logged(server, "^report begin block", since=mark)
                for n in range(5):
                    await ws.send(str(n))
                await taken(ws)
                killed = time.monotonic()
                os.kill(old, signal.SIGKILL)
                got = [await ws.recv() for _ in range(2)]
                answered = time.monotonic()
                new = server.pid_of("worker 0")
                took.append(answered - killed - waited_for_a_cpu(new))
                got += [await ws.recv() for _ in range(4)]
                assert got == ["uncertain block", *[f"{n} {new}" for n in range(5)]]
        counts = await asyncio.to_thread(stats, server)
        assert adds_up(counts)
        assert statistics.median(took) < 2, took
        assert (counts["uncertain"], counts["redelivered"], counts["connections_closed"]) == (KILLS, 5 * KILLS, 1)
        assert Counter(server.reports("uncertain")).total() == KILLS
        assert server.stop() == 0
        assert drained(server)["uncertain"] == KILLS


@in_loop(90)
async def test_f01_clients_of_other_workers_notice_nothing():
    """Kills of one worker, one after the other, while the clients of another one are answered as before; some of them
    go to its successor, as its share."""
    code = """
    @server.on("message")
    def said(server, frame):
        server.push(frame.fd, f"{frame.data} {server.worker_id}")
    """
    with Serving(app(code, UNCERTAIN), worker_num=2, restart_free=100) as server:
        async with Talkers(server, 8) as talkers:
            others = [one for one in talkers if one.answers[-1][1] == "0"]
            assert 0 < len(others) < 8
            for _ in range(4):
                mark = server.mark()
                os.kill(server.pid_of("worker 1"), signal.SIGKILL)
                await logged(server, r"worker 1 \(pid \d+\) serves in place", since=mark)
                await asyncio.gather(*[one.goes_on(20) for one in talkers])
        assert all(one.in_order() for one in others)
        assert max(one.longest for one in others) < 5.0
        assert server.stop() == 0


@in_loop(60)
async def test_f04_a_handler_that_never_ends_is_no_hang_and_is_reported():
    """One coroutine waits for ever: its worker lives on and serves, the message stays in flight, its age is told."""
    code = """
    import asyncio

    @server.on("message")
    async def said(server, frame):
        while frame.data == "wait" and not os.path.exists("go on"):
            await asyncio.sleep(0.01)
        server.push(frame.fd, f"{frame.data} {os.getpid()}")
    """
    with Serving(app(code, STATS), worker_num=1, worker_hang_timeout=3.0, overdue_after=3.5) as server:
        pid = server.pid_of("worker 0")
        async with client(server) as ws, client(server) as other:
            await ws.send("wait")
            await ws.send("behind")
            line = r"the 'message' handler of connection \d+ has not ended after \d\.\d s, in worker 0 \(pid"
            await logged(server, f"{line} {pid}", count=2)  # the one behind it waits as long
            await other.send("hello")
            assert await other.recv() == f"hello {pid}"
            counts = await asyncio.to_thread(stats, server)
            assert adds_up(counts)
            assert (counts["in_flight"], counts["overdue"]) == (3, 2)
            assert counts["oldest_in_flight"] >= 3.5
            server.script.with_name("go on").touch()
            assert [await ws.recv(), await ws.recv()] == [f"wait {pid}", f"behind {pid}"]
            await until(lambda: stats(server)["oldest_in_flight"] < 1, "nothing is old any more")
        assert len([text for text in server.lines if "has not ended after" in text]) == 2
        assert not [text for text in server.lines if "hangs" in text]
        assert server.stop() == 0
        assert drained(server)["uncertain"] == 0


@in_loop(60)
async def test_f09_no_zombie_is_left():
    """Workers, gateways and a whole generation end, and each is reaped at once."""
    code = """
    @server.on("message")
    def said(server, frame):
        pass
    """
    with Serving(code, worker_num=3, gateway_num=2, restart_free=100) as server:
        for role in ("worker 0", "gateway 1", "worker 2"):
            pid, mark = server.pid_of(role), server.mark()
            ended = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            await until(lambda pid=pid: state(pid) is None, f"{role} is reaped")
            assert time.monotonic() - ended < 5
            await logged(server, rf"{role} \(pid \d+\) serves in place", since=mark)
        server.signal(signal.SIGHUP)
        await logged(server, "reload: done")
        assert [state(pid) for pid in server.pids() if state(pid) == "Z"] == []
        assert len(server.pids()) == 5
        assert server.stop() == 0


def state(pid: int) -> str | None:
    """As the kernel says it; Z: ended, and not reaped. None: there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return None
