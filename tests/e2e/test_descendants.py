"""What processes of the server have started lives on when they die, with whatever it has inherited."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Iterator

import pytest

from e2e.peers import STATS, UNCERTAIN, app, client, drained, in_loop, logged, stats, until
from support.serving import Serving

# `descend` forks as C code may, without Python's hooks: the child has every descriptor, until the test lets it go.
DESCEND = """
import ctypes

def descend():
    # In the child no other thread is left that could take the interpreter or give it back: it is not let go of there,
    # and nobody may be asking for it at the fork. Who has asked before gets it.
    sys.setswitchinterval(1000)
    end = time.monotonic() + 0.01
    while time.monotonic() < end: pass
    c = ctypes.PyDLL(None)
    if c.fork() == 0:
        end = time.monotonic() + 60
        while c.access(b"release", 0) and time.monotonic() < end:
            c.usleep(20_000)
        os._exit(0)
    sys.setswitchinterval(0.005)
"""

APP = """
@server.on("message")
async def said(server, frame):
    word = frame.data.partition(" ")[0]
    if word == "descend":
        descend()
    elif word == "exit":
        server.push(frame.fd, "last words")
        os._exit(1)
    elif word == "hang":
        report("hangs")
        time.sleep(60)
    elif word == "task":
        try:
            await server.task(frame.data)
        except TaskLost as error:
            server.push(frame.fd, f"lost: {error}")
            return
    server.push(frame.fd, str(server.worker_id))

if server.settings.tasks.task_worker_num:
    @server.on("task")
    def work(server, task):
        descend()
        os._exit(1)
"""
CODE = app(STATS, UNCERTAIN, DESCEND, APP)


@contextlib.contextmanager
def serving(code: str = CODE, **settings: object) -> Iterator[Serving]:
    """A server whose descendants end with the test."""
    with Serving(code, **settings) as server:
        try:
            yield server
        finally:
            (server.script.parent / "release").touch()


def balanced(server: Serving) -> None:
    """It stops at once, and accounts for everything."""
    (server.script.parent / "release").touch()
    assert server.stop() == 0
    assert "in_flight" not in drained(server)


def ports(server: Serving) -> list[int]:
    """How many workers each gateway has a link to."""
    return [len(one["workers"]) for one in stats(server)["gateways"]]


@pytest.mark.parametrize("gateways", [1, 2])
@pytest.mark.parametrize("how", ["exits", "is killed", "hangs in a reload"])
@in_loop()
async def test_a_worker_dies_and_its_child_lives(how, gateways):
    with serving(worker_num=1, gateway_num=gateways, graceful_timeout=0.3, event_timeout=0.2) as server:
        async with client(server) as ws:
            await ws.send("descend")
            assert await ws.recv() == "0"
            if how == "exits":
                await ws.send("exit")
            else:
                await ws.send("hang")
                await logged(server, "report hangs")
                if how == "is killed":
                    os.kill(server.pid_of("worker 0"), signal.SIGKILL)
                else:
                    server.signal(signal.SIGHUP)
            assert (await ws.recv()).startswith("uncertain")
            await ws.send("x")
            assert await ws.recv() == "0"
        await until(lambda: ports(server) == [1] * gateways)
        await asyncio.to_thread(balanced, server)


@in_loop()
async def test_a_worker_leaves_in_order_and_its_child_lives():
    """Its gateway has nothing of it any more, and still forgets it."""
    with serving(worker_num=1) as server:
        async with client(server) as ws:
            await ws.send("descend")
            assert await ws.recv() == "0"
            server.signal(signal.SIGHUP)
            await logged(server, "reload: done")
            await until(lambda: ports(server) == [1])
            await ws.send("x")
            assert await ws.recv() == "0"
        await asyncio.to_thread(balanced, server)


@pytest.mark.parametrize("mode", ["process", "base"])
@in_loop()
async def test_a_task_worker_dies_and_its_child_lives(mode):
    with serving(mode=mode, worker_num=1, task_worker_num=1) as server:
        async with client(server) as ws:
            for _ in range(2):
                await ws.send("task")
                assert "ended while it was at this task" in await ws.recv()
        await until(lambda: ports(server) == [2])
        await asyncio.to_thread(balanced, server)


@pytest.mark.parametrize("mode", ["process", "base"])
@in_loop()
async def test_a_process_of_the_application_dies_and_its_child_lives(mode):
    code = app(
        CODE,
        """
    def own(server):
        descend()
        report("own", os.getpid())
        server.stopping.wait()

    server.add_process(own)
    """,
    )
    with serving(code, mode=mode, worker_num=1) as server:
        first = int((await logged(server, r"report own (\d+)"))[1])
        mark = server.mark()
        os.kill(first, signal.SIGKILL)
        await logged(server, r"report own \d+", since=mark)
        await until(lambda: ports(server) == [2])
        await asyncio.to_thread(balanced, server)


@in_loop()
async def test_a_spare_has_children_from_before_it_took_the_place():
    """Whatever it is told later, others know the worker that it has become."""
    with serving(app(CODE, "descend()"), worker_num=1, spare_worker_num=1) as server:
        await logged(server, r"spare 0 .* is ready to take the place")
        async with client(server) as ws:
            for _ in range(2):
                mark = server.mark()
                spare = server.pid_of("spare 0")
                await ws.send("exit")
                assert (await ws.recv()).startswith("uncertain")
                assert server.pid_of("worker 0") == spare
                await ws.send("x")
                assert await ws.recv() == "0"
                await logged(server, r"spare 0 .* is ready to take the place", since=mark)
        await until(lambda: ports(server) == [1])
        await asyncio.to_thread(balanced, server)


@in_loop()
async def test_a_server_process_dies_and_its_child_lives():
    """Base mode: the other one has two links with it, for either's worker."""
    with serving(mode="base", worker_num=2) as server:
        async with contextlib.AsyncExitStack() as clients:
            number = ""
            while number != "1":
                ws = await clients.enter_async_context(client(server))
                await ws.send("descend")
                number = await ws.recv()
            mark = server.mark()
            os.kill(server.pid_of("server 1"), signal.SIGKILL)
            await logged(server, r"worker 1 \(pid \d+\) is gone", since=mark)
            await logged(server, "the channel to gateway 1 has ended", since=mark)
            await logged(server, "server 1 .* serves in place", since=mark)
            await until(lambda: ports(server) == [2, 2])
            (server.script.parent / "release").touch()
        await asyncio.to_thread(balanced, server)


SPAWN = """
import subprocess

def inherited():
    \"\"\"What a program is given that inherits whatever can be inherited.\"\"\"
    ask = ["readlink"] + [f"/proc/self/fd/{fd}" for fd in range(3, 256)]
    return subprocess.run(ask, close_fds=False, stdout=subprocess.PIPE, text=True).stdout.split()

print("loading", inherited(), file=sys.stderr)

@server.on("message")
async def said(server, frame):
    if frame.data == "exit":
        os._exit(1)
    found = await server.task("x") if frame.data == "task" else inherited()
    server.push(frame.fd, json.dumps(found))

if server.settings.tasks.task_worker_num:
    @server.on("task")
    def work(server, task):
        return inherited()

@server.on("uncertain")
def uncertain(server, frame, reason):
    server.push(frame.fd, frame.data)
"""


@pytest.mark.parametrize(
    "settings",
    [
        {"mode": "base", "worker_num": 1},
        {"mode": "base", "worker_num": 2, "task_worker_num": 1},
        {"worker_num": 1, "gateway_num": 2, "task_worker_num": 1, "spare_worker_num": 1},
    ],
    ids=["alone", "base", "process"],
)
@in_loop()
async def test_no_program_inherits_anything(settings, tmp_path):
    """Not from a worker, a spare that took the place of one, a task worker, a server in base mode."""
    code = app('shared = server.atomic("one")', SPAWN)
    control, pid_file = str(tmp_path / "control"), str(tmp_path / "pid")
    with serving(code, **settings, control_socket=control, pid_file=pid_file) as server:
        async with client(server) as ws:
            await ws.send("x")
            assert json.loads(await ws.recv()) == []
            if "spare_worker_num" in settings:
                await logged(server, r"spare 0 .* is ready to take the place")
                await ws.send("exit")
                assert await ws.recv() == "exit"
                await ws.send("x")
                assert json.loads(await ws.recv()) == []
            if "task_worker_num" in settings:
                await ws.send("task")
                assert json.loads(await ws.recv()) == []
        loading = [line for line in server.lines if line.startswith("loading ")]
        assert set(loading) == {"loading []"}
        assert await asyncio.to_thread(server.stop) == 0
