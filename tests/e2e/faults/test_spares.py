"""F1, F2: spare workers shorten the end of a worker; a spare or a task worker ends itself."""

import asyncio
import os
import signal
import statistics
import time

from e2e.peers import (
    STATS,
    UNCERTAIN,
    Talkers,
    app,
    client,
    drained,
    in_loop,
    logged,
    stats,
    until,
    waited_for_a_cpu,
)
from support.serving import Serving

WARM = r"spare \d \(pid (\d+)\) is ready to take the place"

SAYS = """
import asyncio

@server.on("worker_start")
async def worker_start(server, worker_id):
    report("worker_start", os.getpid(), worker_id, server.worker_id, server.exists(1))

@server.on("message")
def said(server, frame):
    server.push(frame.fd, f"{frame.data} {os.getpid()}")
"""


def title(pid: int) -> str:
    with open(f"/proc/{pid}/cmdline") as file:
        return file.read().strip("\0")


@in_loop(90)
async def test_f01_the_first_answer_of_a_spare_comes_within_half_a_second():
    """The application takes 1 s to load. Most of the kills count: the machine may have other things to do."""
    with Serving(app("time.sleep(1)", SAYS), worker_num=1, spare_worker_num=1, restart_free=100) as server:
        took: list[float] = []
        async with client(server) as ws:
            for _ in range(7):
                spare = await logged(server, WARM, count=len(took) + 1, limit=40)
                await ws.send("hello")
                old = int((await ws.recv()).split()[1])
                waited = waited_for_a_cpu(int(spare[1]))
                start = time.monotonic()
                os.kill(old, signal.SIGKILL)
                await ws.send("after")
                answer = await ws.recv()
                took.append(time.monotonic() - start - (waited_for_a_cpu(int(spare[1])) - waited))
                # sent before the death was noticed it may be lost with the old one's channel, and is handed on then
                assert answer == f"after {spare[1]}"
        assert statistics.median(took) < 0.5, took
        assert server.stop() == 0


@in_loop(60)
async def test_f01_a_spare_becomes_the_worker_in_every_respect():
    settings = {"worker_num": 2, "gateway_num": 2, "spare_worker_num": 1}
    with Serving(app(SAYS, STATS), **settings) as server:
        spare = int((await logged(server, WARM))[1])
        assert title(spare) == "mooring: spare 0"
        tree = await until(lambda: (t := stats(server)["tree"])["spares_running"] and t, "the state is told")
        assert (tree["spares_wanted"], tree["workers_wanted"]) == (1, 2)
        assert len(server.reports("worker_start")) == 2, "a spare has not been started as a worker"
        mark = server.mark()
        os.kill(server.pid_of("worker 1"), signal.SIGKILL)
        await logged(server, rf"worker 1 \(pid {spare}\) serves in place of the one that ended", since=mark)
        # it had its number and its links when worker_start ran
        assert server.reports("worker_start", mark) == [f"{spare} 1 1 False"]
        assert title(spare) == "mooring: worker 1"
        again = int((await logged(server, WARM, since=mark))[1])
        assert title(again) == "mooring: spare 0"
        mark = server.mark()
        server.signal(signal.SIGHUP)
        await logged(server, WARM, since=mark)
        await logged(server, "reload: done", since=mark)
        await until(lambda: again not in server.pids(), "the spare of the old code is gone")
        assert server.stop() == 0
        assert not [line for line in server.lines if "did not end in time" in line]


@in_loop(60)
async def test_f01_nothing_is_lost_when_spares_take_over():
    code = """
    @server.on("message")
    def said(server, frame):
        time.sleep(0.001)
        server.push(frame.fd, f"{frame.data} {os.getpid()}")
    """
    settings = {"worker_num": 2, "spare_worker_num": 2, "restart_free": 100}
    with Serving(app(code, UNCERTAIN, STATS), **settings) as server:
        await logged(server, WARM, count=2)
        async with Talkers(server, 8) as talkers:
            for kill in range(4):
                mark = server.mark()
                os.kill(server.pid_of(f"worker {kill % 2}"), signal.SIGKILL)
                await logged(server, "serves in place of the one that ended", since=mark)
                await asyncio.gather(*[one.goes_on(20) for one in talkers])
        for one in talkers:
            assert sorted([number for number, _ in one.answers] + one.uncertain) == list(range(one.sent))
        doubtful = sum(len(one.uncertain) for one in talkers)
        assert doubtful <= 4
        assert server.stop() == 0
        assert drained(server)["uncertain"] == doubtful


@in_loop(60)
async def test_f02_a_spare_that_ends_is_replaced_and_disturbs_nobody():
    with Serving(app(SAYS, STATS), worker_num=1, spare_worker_num=1) as server:
        first = int((await logged(server, WARM))[1])
        async with client(server) as ws:
            await ws.send("hello")
            worker = (await ws.recv()).split()[1]
            os.kill(first, signal.SIGKILL)
            await logged(server, rf"spare 0 \(pid {first}\) was ended by SIGKILL: restarting it")
            second = int((await logged(server, WARM, count=2))[1])
            await ws.send("still")
            assert await ws.recv() == f"still {worker}"
            os.kill(int(worker), signal.SIGKILL)
            await ws.send("after")
            assert await ws.recv() == f"after {second}"


@in_loop(60)
async def test_f02_a_task_worker_has_a_spare_too():
    code = """
    @server.on("task")
    def task(server, task):
        return [os.getpid(), server.worker_id]

    @server.on("message")
    async def said(server, frame):
        server.push(frame.fd, json.dumps(await server.task("who", timeout=20)))
    """
    with Serving(app(code), worker_num=1, task_worker_num=1, spare_worker_num=1) as server:
        spare = int((await logged(server, WARM))[1])
        os.kill(server.pid_of("task worker 0"), signal.SIGKILL)
        await logged(server, rf"task worker 0 \(pid {spare}\) serves in place")
        async with client(server) as ws:
            await ws.send("go")
            assert await ws.recv() == f"[{spare}, 1]"
        assert server.stop() == 0
