"""Children that are forked in the middle of a handler never go on as the server, however they leave it."""

import asyncio

import pytest

from e2e.peers import app, client, fetch, in_loop, logged
from support.serving import Serving

APP = """
import asyncio, atexit, multiprocessing, select, signal

atexit.register(lambda: report("atexit", os.getpid()))

def awaited(pid):
    pidfd = os.pidfd_open(pid)
    if not select.select([pidfd], [], [], 15)[0]:
        os.kill(pid, signal.SIGKILL)
    os.close(pidfd)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def leaves(how):
    "What the child does at the end; the parent gets how it ended."
    pid = os.fork()
    return awaited(pid) if pid else leave(how)

async def leaves_later(how):
    pid = os.fork()
    if pid:
        return awaited(pid)
    if how == "awaits":
        await asyncio.sleep(0)
        report("went on")
    leave(how)

def leave(how):
    if how == "raises":
        raise ValueError("in the child")
    if how == "exits":
        sys.exit(3)
    if how == "says":
        sys.exit("some words")
"""

HANDLERS = """
@server.on("worker_start")
async def started(server, number):
    await asyncio.sleep(0)
    report("started", leaves("exits"))

@server.on("open")
def opened(server, request):
    server.push(request.fd, str(os.getpid()))

@server.on("message")
def said(server, frame):
    kind, how = frame.data.split()
    if kind == "pid":
        server.push(frame.fd, str(os.getpid()))
    elif kind == "plain":
        server.push(frame.fd, str(leaves(how)))
    elif kind == "coroutine":
        return coroutine(server, frame.fd, how)
    elif kind == "task":
        return task(server, frame.fd, frame.data)
    elif kind == "timer":
        server.after(0, timer, server, frame.fd, how)
    elif kind == "callback":
        asyncio.get_running_loop().call_soon(timer, server, frame.fd, how)
        asyncio.get_running_loop().call_soon(server.push, frame.fd, "another")

async def coroutine(server, fd, how):
    await asyncio.sleep(0)
    server.push(fd, str(await leaves_later(how)))

async def task(server, fd, data):
    server.push(fd, str(await server.task(data)))

if server.settings.tasks.task_worker_num:
    @server.on("task")
    def work(server, task):
        return leaves(task.data.split()[1])

def timer(server, fd, how):
    server.push(fd, str(leaves(how)))

@server.on("request")
def asked(request, response):
    others = {"/silent": silent, "/later": later, "/thread": in_thread, "/thread/raises": in_thread}
    if request.path in others:
        return others[request.path](response, request.path)
    response.end(str(leaves(request.path[1:])))

def silent(response, path):
    if pid := os.fork():
        response.end(str(awaited(pid)))

async def later(response, path):
    await asyncio.sleep(0)
    silent(response, path)

async def in_thread(response, path):
    response.end(str(await asyncio.to_thread(leaves, path[8:])))
"""

ENDS = {"returns": "0", "raises": "1", "exits": "3", "says": "1"}
SETTINGS = {
    "alone": {"mode": "base", "worker_num": 1},
    "base": {"mode": "base", "worker_num": 2, "task_worker_num": 1},
    "process": {"worker_num": 1, "task_worker_num": 1},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@in_loop(60)
async def test_a_child_that_leaves_a_handler_ends(settings, tmp_path):
    """With the exit code of a program that does the same; neither it nor its end runs anything of the server."""
    pid_file = tmp_path / "pid"
    kinds = ["plain", "coroutine", "timer"] + (["task"] if "task_worker_num" in settings else [])
    with Serving(app('shared = server.atomic("one")', APP, HANDLERS), **settings, pid_file=str(pid_file)) as server:
        async with client(server) as ws:
            pid = await ws.recv()
            for kind in kinds:
                for how, code in ENDS.items():
                    await ws.send(f"{kind} {how}")
                    assert (kind, how, await ws.recv()) == (kind, how, code)
            for how, code in ENDS.items():
                assert await asyncio.to_thread(fetch, server, f"/{how}") == code.encode()
            for path, code in {"/silent": b"0", "/later": b"0", "/thread": b"0", "/thread/raises": b"1"}.items():
                assert await asyncio.to_thread(fetch, server, path) == code
            await ws.send("coroutine awaits")
            assert await ws.recv() == "1"
            await ws.send("callback exits")
            assert [await ws.recv(), await ws.recv()] == ["3", "another"]
            await ws.send("pid x")
            assert await ws.recv() == pid
        assert pid_file.exists()
        assert server.reports("went on") == []
        assert server.reports("atexit") == []
        await logged(server, "ValueError: in the child", count=len(kinds) + 2)
        await logged(server, "some words", count=len(kinds) + 1)
        await logged(server, "come back to the server's loop")
        assert set(server.reports("started")) == {"3"}
        assert await asyncio.to_thread(server.stop) == 0
        assert any("drained: " in line and "uncertain=0" in line for line in server.lines)
        assert len(set(server.reports("atexit"))) == len(server.reports("atexit")) > 0
