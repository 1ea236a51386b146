"""Tasks while processes come and go: every one has a result, or an error that says why not."""

import asyncio
import json
import os
import signal
import time

import pytest

from e2e.peers import app, client, drained, fetch, in_loop, logged, stats, until
from support.serving import LIMIT, Serving, eventually

MODES = [{"mode": "process", "worker_num": 2}, {"mode": "base", "worker_num": 1}]

# A message is "[WAY] DATA", and its answer the result or the error; "block" lasts until there is a file "go on".
APP = """
import asyncio

VERSION = os.path.exists("new") and "new" or "old"
kept = []
while os.path.exists("hold back"):
    time.sleep(0.005)

@server.on("task")
def task(server, task):
    report("begin", task.data, os.getpid())
    if task.data == "block":
        while not os.path.exists("go on"):
            time.sleep(0.005)
    if task.data == "die":
        os.kill(os.getpid(), 9)
    if task.data == "give":
        kept.append(asyncio.ensure_future(server.task("block")))
    report("end", task.data)
    return f"{task.data} {VERSION}"

@server.on("message")
async def said(server, frame):
    way, _, data = frame.data.rpartition(" ")
    try:
        if way == "wait":
            result = server.task_wait(data)
        elif way == "short":
            result = await server.task(data, timeout=0.3)
        elif way == "short-wait":
            result = server.task_wait(data, timeout=0.3)
        elif way == "async":
            result = server.task_async(data)
        else:
            result = await server.task(data)
    except TaskError as error:
        result = f"{type(error).__name__}: {error}"
    server.push(frame.fd, str(result))

@server.on("finish")
def finish(server, outcome):
    report("finish", outcome)

@server.on("request")
def stats(request, response):
    response.end(json.dumps(server.stats()))
"""


def asked(server, name):
    return stats(server).get(name)


def tasks_queued(server):
    return asked(server, "tasks_queued")


@pytest.fixture(params=MODES, ids=lambda mode: mode["mode"])
def serving(request):
    def start(**settings):
        return Serving(APP, task_worker_num=1, **request.param, **settings)

    return start


@in_loop()
async def test_f39_a_killed_task_worker(serving):
    """Whoever waits is told, at once; what waits behind is done by the successor."""
    with serving() as server:
        async with client(server) as ws, client(server) as other:
            for way in ("", "wait "):
                mark = server.mark()
                await ws.send(way + "block")
                pid = int((await logged(server, r"report begin block (\d+)", since=mark))[1])
                await other.send("next")
                start = time.monotonic()
                os.kill(pid, signal.SIGKILL)
                answer = await ws.recv()
                assert time.monotonic() - start < LIMIT, "nobody waits for task_timeout"
                assert answer.startswith("TaskLost: task worker ")
                assert f"(pid {pid}) ended while it was at this task" in answer
                assert await other.recv() == "next old"
        assert server.stop() == 0
        assert "tasks=4 tasks_lost=2 (adds up)" in server.lines[-2]


@in_loop()
async def test_f39_a_killed_task_worker_at_a_task_that_it_gave_itself(serving):
    """It is lost, and nobody is there to be told; the dispatcher goes on."""
    with serving() as server:
        async with client(server) as ws:
            await ws.send("give")
            assert await ws.recv() == "give old"
            pid = int((await logged(server, r"report begin block (\d+)"))[1])
            dispatcher = server.pid_of("dispatcher 0")
            os.kill(pid, signal.SIGKILL)
            await ws.send("next")
            assert await ws.recv() == "next old"
            assert server.pid_of("dispatcher 0") == dispatcher
        assert server.stop() == 0
        assert "tasks=3 tasks_lost=1 (adds up)" in server.lines[-2]
        assert not [line for line in server.lines if " ERROR " in line]


@in_loop()
async def test_f39_a_result_that_comes_too_late(serving):
    """It is nobody's: neither told to the one who has given up nor taken for the result of the next task."""
    with serving() as server:
        async with client(server) as ws:
            for way in ("short", "short-wait"):
                mark = server.mark()
                await ws.send(f"{way} block")
                assert (await ws.recv()).startswith("TaskTimeout: no result within 0.3 s")
                await logged(server, "report begin block", since=mark)
                await ws.send("next")
                (server.script.parent / "go on").touch()
                assert await ws.recv() == "next old"
                await logged(server, "report end block", since=mark)
                (server.script.parent / "go on").unlink()
        assert server.stop() == 0
        assert not server.reports("finish")


@in_loop()
async def test_a_killed_dispatcher(serving):
    """Its tasks are lost, and said to be; its successor takes new ones as soon as it serves."""
    with serving() as server:
        async with client(server) as ws, client(server) as other:
            await ws.send("block")
            await logged(server, "report begin block")
            await other.send("behind it")
            await until(lambda: tasks_queued(server) == 1)
            mark = server.mark()
            os.kill(server.pid_of("dispatcher 0"), signal.SIGKILL)
            for peer in (ws, other):
                assert (await peer.recv()).startswith("TaskLost: the dispatcher, which kept the queue, has ended")
            await logged(server, r"dispatcher 0 \(pid \d+\) serves in place", since=mark)
            await asyncio.to_thread(eventually, lambda: asked(server, "tasks_accepted") == 0)
            await ws.send("after")  # waits for the task worker, which is still at the one that was lost
            (server.script.parent / "go on").touch()
            assert await ws.recv() == "after old"
        assert server.stop() == 0


@in_loop()
async def test_a_killed_worker():
    """What somebody waited for there and had not begun is never run; what nobody waits for is."""
    with Serving(APP, task_worker_num=1, mode="process", worker_num=1) as server:
        async with client(server) as ws, client(server) as second, client(server) as third:
            await ws.send("block")
            await logged(server, "report begin block")
            await second.send("waited-for")
            await third.send("async forgotten")
            assert await third.recv() == "3"
            await until(lambda: tasks_queued(server) == 2)
            mark = server.mark()
            os.kill(server.pid_of("worker 0"), signal.SIGKILL)
            await logged(server, r"worker 0 \(pid \d+\) serves in place", since=mark)
            await until(lambda: tasks_queued(server) == 1)
            (server.script.parent / "go on").touch()
            await logged(server, "report end forgotten")
        assert server.stop() == 0
        assert not server.reports("begin waited-for")


@in_loop(60)
async def test_a_reload_with_tasks_running():
    """A task that runs is finished by the old code, what waits goes to the new; nothing is lost or run twice."""
    with Serving(APP, task_worker_num=1, mode="process", worker_num=2) as server:
        async with client(server) as ws, client(server) as other:
            await ws.send("block")
            await logged(server, "report begin block")
            await other.send("queued")
            await until(lambda: tasks_queued(server) == 1)
            (server.script.parent / "new").touch()
            mark = server.mark()
            server.signal(signal.SIGHUP)
            await logged(server, "reload: generation 2 serves", since=mark)
            assert await other.recv() == "queued new"
            (server.script.parent / "go on").touch()
            assert await ws.recv() == "block old"
            await logged(server, "reload: done", since=mark)
            roles = ["supervisor", "gateway 0", "dispatcher 0", "task worker 0", "worker 0", "worker 1"]
            assert sorted(server.titles().values()) == sorted(f"mooring: {role}" for role in roles)
        assert server.stop() == 0
        assert drained(server)["tasks"] == 2
        assert len(server.reports("begin")) == 2


@in_loop(60)
async def test_reloads_under_load():
    """Three reloads while tasks come and go: each message is answered, with a result."""
    with Serving(APP, task_worker_num=2, mode="process", worker_num=2) as server:
        stop = asyncio.Event()

        async def talk(number):
            count = 0
            async with client(server) as ws:
                while not stop.is_set():
                    await ws.send(("wait " if number == 0 else "") + f"{number}/{count}")
                    assert await ws.recv() == f"{number}/{count} old"
                    count += 1
            return count

        async with asyncio.TaskGroup() as group:
            talks = [group.create_task(talk(n)) for n in range(4)]
            for _ in range(3):
                mark = server.mark()
                server.signal(signal.SIGHUP)
                await logged(server, "reload: done", since=mark, limit=30)
            stop.set()
        assert server.stop() == 0
        counts = drained(server)
        assert counts["tasks"] == sum(talk.result() for talk in talks) > 0
        assert "tasks_lost" not in counts


@in_loop()
async def test_a_stop_lets_tasks_finish(serving):
    with serving() as server:
        async with client(server) as ws:
            for n in range(2):
                await ws.send(f"async {n}")
                await ws.recv()
            await ws.send("async block")
            await ws.recv()
            await logged(server, "report begin block")
            server.signal(signal.SIGTERM)
            await logged(server, "stopping: SIGTERM")
            (server.script.parent / "go on").touch()
            await ws.wait_closed()
        assert server.ended() == 0
        assert drained(server)["tasks"] == 3
        assert len(server.reports("end")) == 3


@in_loop()
async def test_a_stop_does_not_wait_for_ever(serving):
    """What is left is said."""
    with serving(graceful_timeout=0.5) as server:
        async with client(server) as ws:
            await ws.send("async block")
            await ws.recv()
            await logged(server, "report begin block")
        assert server.stop() == 0
        assert drained(server)["tasks_left"] == 1


@in_loop()
async def test_a_stop_in_a_hurry_says_what_is_left(serving):
    """The dispatcher is stopped while it still waits for its tasks."""
    with serving(graceful_timeout=60) as server:
        async with client(server) as ws:
            await ws.send("async block")
            await ws.recv()
            await logged(server, "report begin block")
            server.signal(signal.SIGINT)
            await logged(server, "stopping: SIGINT")
            server.signal(signal.SIGINT)
            assert await asyncio.to_thread(server.ended) == 0
        assert drained(server)["tasks_left"] == 1
        assert "no counts from" not in server.lines[-2]


@in_loop()
async def test_a_stop_waits_for_no_task_that_nobody_is_left_to_do(serving):
    """The task worker is killed at the stop, which starts no other one: who waits is told, and the stop goes on."""
    with serving(graceful_timeout=60) as server:
        async with client(server) as ws, client(server) as other:
            await ws.send("block")
            pid = int((await logged(server, r"report begin block (\d+)"))[1])
            await other.send("next")
            await until(lambda: tasks_queued(server) == 1, "it waits")
            server.signal(signal.SIGTERM)
            await logged(server, "stopping: SIGTERM")
            os.kill(pid, signal.SIGKILL)
            assert await asyncio.to_thread(server.ended) == 0
        assert (drained(server)["tasks"], drained(server)["tasks_lost"]) == (2, 2)
        assert "tasks_left" not in drained(server)
        assert drained(server)["finished"] == drained(server)["accepted"]


@in_loop()
async def test_nor_for_one_whose_task_worker_was_gone_before(serving):
    """Its successor had begun to start, and is ended with the stop."""
    with serving(graceful_timeout=60) as server:
        async with client(server) as ws:
            (server.script.parent / "hold back").touch()
            mark = server.mark()
            os.kill(server.pid_of("task worker 0"), signal.SIGKILL)
            await logged(server, "task worker 0 .* was ended by SIGKILL", since=mark)
            await ws.send("next")
            await until(lambda: tasks_queued(server) == 1, "it waits")
            server.signal(signal.SIGTERM)
            assert await asyncio.to_thread(server.ended) == 0
        assert (drained(server)["tasks"], drained(server)["tasks_lost"]) == (1, 1)
        assert drained(server)["finished"] == drained(server)["accepted"]


def test_task_max_request():
    """A worn task worker ends behind its last result, however large; what waits is done by the next."""
    code = """
    @server.on("message")
    def said(server, frame): pass

    @server.on("task")
    def task(server, task):
        return [os.getpid(), "x" * 3_000_000]

    @server.on("request")
    async def page(request, response):
        if request.path == "/tree":
            response.end(json.dumps(server.stats()["tree"]))
            return
        results = await server.task_map(range(8), at_once=8)
        response.end(" ".join(str(pid) for pid, text in results if len(text) == 3_000_000))

    @server.on("worker_exit")
    def worker_exit(server, worker_id, reason):
        report("worker_exit", worker_id, reason)

    @server.on("worker_error")
    def worker_error(server, worker_id, pid, exit_code, number, reason):
        report("worker_error", worker_id, reason)
    """
    with Serving(app(code), task_worker_num=1, worker_num=1, task_max_request=3) as server:
        pids = fetch(server).decode().split()
        assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 2]
        # as workers are: it is no end that nobody asked for, and no restart that the next one has to wait for
        server.wait_log(r"replacing task worker 0 .*: done", count=2)
        tree = eventually(lambda: (t := json.loads(fetch(server, "/tree")))["replacements"] == 2 and t)
        assert (tree["restarts"], tree["reloads"]) == (0, 0)
        assert server.reports("worker_error") == []
        assert server.reports("worker_exit") == ["1 replaced: it has done task_max_request=3 tasks"] * 2
        assert server.stop() == 0
        assert "tasks=8 (adds up)" in server.lines[-2]


def test_task_workers_without_a_handler():
    app_without = """
    @server.on("message")
    def said(server, frame): pass
    """
    with Serving(app(app_without), ready=False, task_worker_num=1) as server:
        assert server.ended() == 1
        server.wait_log("register one before start")
