"""The end: SIGTERM, Ctrl-C, and a supervisor that is gone from one moment to the next."""

import asyncio
import contextlib
import os
import re
import select
import signal
import sys
import time

import pytest
from websockets.exceptions import ConnectionClosed

from contract.clients import Raw, get, handshake
from e2e.peers import BOTH_MODES, HELD_BACK, Rude, alive, app, client, drained, in_loop, logged
from support.serving import LIMIT, Serving

MODES = pytest.mark.parametrize("mode", BOTH_MODES, ids=lambda settings: settings["mode"])

# "async" and "plain" take a moment; "stuck", "sleeping" and "waiting" never end, each in its own way.
APP = """
import asyncio

@server.on("message")
async def said(server, frame):
    report("begin", frame.data)
    if frame.data == "async":
        await asyncio.sleep(0.4)
    if frame.data == "plain":
        time.sleep(0.4)
    if frame.data == "stuck":
        while True:
            pass
    if frame.data == "sleeping":
        time.sleep(60)
    if frame.data == "waiting":
        await asyncio.Event().wait()
    report("end", frame.data, server.push(frame.fd, str(frame.fd) if frame.data == "fd" else frame.data))

@server.on("close")
def left(server, fd, code, reason):
    report("close", code, reason)

@server.on("worker_stop")
def stops(server, worker_id):
    report("worker_stop", worker_id)

@server.on("shutdown")
def ends(server):
    report("shutdown")
"""


def told_and_gone(rude):
    """When the close frame is there, and when the stream ends, for each client; nothing is read."""
    told, gone = {}, {}
    poller = select.poll()
    clients = {one.socket.fileno(): one for one in rude}
    for number in clients:
        poller.register(number, select.POLLIN | select.POLLRDHUP)
    while clients.keys() - gone.keys():
        found = poller.poll(LIMIT * 1000)
        now = time.monotonic()
        assert found, f"{len(clients) - len(gone)} clients are still connected"
        for number, events in found:
            told.setdefault(number, now)
            if events & ~select.POLLIN:
                gone[number] = now
                poller.unregister(number)
            else:
                poller.modify(number, select.POLLRDHUP)
    return [told[number] for number in clients], [gone[number] for number in clients]


async def told_to_go(ws):
    """The close frame that the server sends when it stops."""
    try:
        while True:
            await ws.recv()
    except ConnectionClosed as closed:
        return closed.rcvd


@pytest.mark.parametrize(
    "mode",
    [{"mode": "process", "worker_num": 2, "gateway_num": 2}, {"mode": "base", "worker_num": 3}],
    ids=lambda settings: settings["mode"],
)
@in_loop()
async def test_processes_that_end_in_order_are_not_missed(mode):
    """What a worker says when a gateway or the dispatcher has died is not said in a reload or a stop."""
    tasks = "@server.on('task')\ndef work(server, task): ...\n"
    with Serving(app(APP, tasks), task_worker_num=1, **mode) as server:
        async with client(server) as ws:
            await ws.send("hello")
            assert await ws.recv() == "hello"
            server.signal(signal.SIGHUP)
            await logged(server, "reload: done")
            server.signal(signal.SIGTERM)
            with contextlib.suppress(ConnectionClosed):
                while True:
                    await ws.recv()
        assert await asyncio.to_thread(server.ended) == 0
        assert [line for line in server.lines if "the channel to" in line] == []


@pytest.mark.parametrize("role", ["gateway 1", "dispatcher 0"])
@in_loop()
async def test_a_process_that_dies_is_missed(role):
    tasks = "@server.on('task')\ndef work(server, task): ...\n"
    with Serving(app(APP, tasks), worker_num=2, gateway_num=2, task_worker_num=1) as server:
        async with contextlib.AsyncExitStack() as stack:
            fds = []
            while sum(fd >> 57 for fd in fds) < 3:  # the kernel chooses the gateway
                ws = await stack.enter_async_context(client(server, close_timeout=0.1))
                await ws.send("fd")
                fds.append(int(await ws.recv()))
            await logged(server, "^report end fd", count=len(fds))
            mark = server.mark()
            os.kill(server.pid_of(role), signal.SIGKILL)
            await logged(server, f"{role} .*serves in place", since=mark)
            # both workers, and the task worker
            await logged(server, "WARNING .* the channel to (gateway 1|the dispatcher) has ended", since=mark, count=3)
            said = "\n".join(server.lines[mark:])
            lost = re.findall(r"; (\d+) connections that this worker served are lost", said)
            assert sum(map(int, lost)) == (3 if role == "gateway 1" else 0)
            mark = server.mark()
            assert await asyncio.to_thread(server.stop) == 0
            assert [line for line in server.lines[mark:] if "the channel to" in line] == []


@MODES
@in_loop()
async def test_sigterm_drains(mode):
    """Clients are told 1001, handlers finish, and what was accepted is accounted for."""
    with Serving(APP, **mode) as server:
        pids = server.titles()
        async with client(server) as a, client(server) as b, client(server) as idle:
            for ws in (a, b, idle):
                await ws.send("hello")
                assert await ws.recv() == "hello"
            await a.send("async")
            await logged(server, "^report begin async")
            await b.send("plain")
            await logged(server, "^report begin plain")
            start = time.monotonic()
            server.signal(signal.SIGTERM)
            for ws in (a, b, idle):
                close = await told_to_go(ws)
                assert (close.code, close.reason) == (1001, "the server is shutting down")
            code = await asyncio.to_thread(server.ended)
        assert code == 0
        assert time.monotonic() - start < 10
        # Both came to their end; whether they could still push depends on who was quicker.
        assert {line.split()[0] for line in server.reports("end")} == {"hello", "async", "plain"}
        assert len(server.reports("close 1001")) == 3
        assert len(server.reports("shutdown")) == 1
        assert len(server.reports("worker_stop")) == mode["worker_num"]
        assert drained(server) == {"accepted": 5, "finished": 5, "uncertain": 0, "dropped": 0}
        assert not [pid for pid in pids if alive(pid)]


TASK = """
@server.on("task")
def task(server, task): ...
"""


@pytest.mark.parametrize("mode", ["process", "base"])
def test_a_worker_that_ends_in_its_turn_is_nothing_to_warn_of(mode):
    """One process is the last, and sees the others end."""
    with Serving(APP + TASK, mode=mode, worker_num=2, task_worker_num=1) as server:
        assert server.stop() == 0
        assert not [line for line in server.lines if "WARNING" in line]


@MODES
@pytest.mark.parametrize("how", ["waiting", "stuck"])
@in_loop()
async def test_a_handler_that_never_ends(mode, how):
    """It is not waited for longer than graceful_timeout and a second, and it is counted."""
    with Serving(APP, graceful_timeout=0.5, **mode) as server:
        pids = server.titles()
        async with client(server) as busy, client(server) as idle:
            await busy.send(how)
            await logged(server, f"^report begin {how}")
            start = time.monotonic()
            server.signal(signal.SIGTERM)
            if how == "waiting" or mode["mode"] == "process":  # else there is nobody who could tell it
                assert (await told_to_go(idle)).code == 1001
            code = await asyncio.to_thread(server.ended)
            took = time.monotonic() - start
        assert code == 0
        assert took < 0.5 + 1.0 + 4.0, "the last four seconds are this machine's"
        assert drained(server) == {"accepted": 1, "finished": 0, "uncertain": 0, "dropped": 0, "in_flight": 1}
        assert not [pid for pid in pids if alive(pid)]


@MODES
@in_loop()
async def test_clients_that_never_answer(mode):
    """Neither their close frame nor their attention is waited for longer than close_timeout."""
    with Serving(APP, close_timeout=0.5, **mode) as server:
        with contextlib.ExitStack() as stack:
            rude = [stack.enter_context(Rude(server)) for _ in range(20)]
            looking = asyncio.create_task(asyncio.to_thread(told_and_gone, rude))
            start = time.monotonic()
            assert await asyncio.to_thread(server.stop) == 0
            told, gone = await looking
            assert min(gone) - start > 0.4
            assert max(end - begin for begin, end in zip(told, gone, strict=True)) < 3.0
            for one in rude:
                _, close = await asyncio.to_thread(one.read_to_end)
                assert close is not None
                assert close.code == 1001
        drained(server)


@in_loop()
async def test_sigterm_while_there_is_no_worker():
    """Nobody will come for what waits: it is told in the last line."""
    with Serving(app(HELD_BACK, APP), worker_num=1, graceful_timeout=1.0) as server:
        async with client(server) as ws, client(server) as other:
            await ws.send("sleeping")
            await logged(server, "^report begin sleeping")
            server.script.with_name("held back").touch()
            await other.send("hello")
            os.kill(server.pid_of("worker 0"), signal.SIGKILL)
            await logged(server, "is gone")
            server.signal(signal.SIGTERM)
            assert (await told_to_go(other)).code == 1001
            assert await asyncio.to_thread(server.ended) == 0
        counts = drained(server)
        assert counts["uncertain"] == 1
        assert counts["accepted"] in (1, 2)  # whether "hello" had come before the end of the worker


def test_what_waits_for_a_worker_when_there_is_none_is_refused_at_once():
    """Else it would keep its connection, and the stop, until graceful_timeout is over."""
    code = """
    @server.on("handshake")
    def judge(server, request): ...

    @server.on("message")
    def said(server, frame): ...

    @server.on("request")
    def asked(request, response): ...
    """
    with Serving(app(HELD_BACK, code), worker_num=1, graceful_timeout=60) as server:
        server.script.with_name("held back").touch()
        os.kill(server.pid_of("worker 0"), signal.SIGKILL)
        server.wait_log("worker 0 .* is gone")
        with Raw(server, get("/")) as asking, Raw(server, handshake("/")) as shaking:
            with Raw(server, b"nonsense\r\n\r\n") as behind:
                assert behind.answer().status == 400, "so the gateway has read what was there before"
            server.signal(signal.SIGTERM)
            for raw in (asking, shaking):
                answer = raw.answer()
                assert (answer.status, answer.headers["retry-after"], answer.closes) == (503, "1", True)
            assert server.ended() == 0
        assert (drained(server)["accepted"], drained(server)["dropped"]) == (1, 1)


@pytest.mark.parametrize("mode", [*BOTH_MODES, {"mode": "base", "worker_num": 2}], ids=["process", "alone", "base"])
@in_loop()
async def test_ctrl_c(mode, tmp_path):
    """A terminal sends SIGINT to the whole group; only the supervisor acts on it, and in order."""
    argv = ("-c", "import os, sys; os.setsid(); os.execv(sys.executable, [sys.executable, 'app.py'])")
    with Serving(APP, argv=(sys.executable, *argv), **mode) as server:
        assert os.getpgid(server.pid) == server.pid
        async with client(server) as ws:
            await ws.send("async")
            await logged(server, "^report begin async")
            os.killpg(server.pid, signal.SIGINT)
            assert (await told_to_go(ws)).code == 1001
            assert await asyncio.to_thread(server.ended) == 0
        assert server.reports("end async")
        assert "stopping: SIGINT" in "\n".join(server.lines)
        assert "Traceback" not in "\n".join(server.lines)
        assert drained(server)["finished"] == 1


@MODES
@in_loop()
async def test_the_application_stops_the_server(mode):
    code = """
    @server.on("message")
    def said(server, frame):
        server.shutdown()
    """
    with Serving(code, **mode) as server:
        async with client(server) as ws:
            await ws.send("stop")
            assert (await told_to_go(ws)).code == 1001
            assert await asyncio.to_thread(server.ended) == 0
        assert re.search(r"stopping: asked for by (worker \d|the application)", "\n".join(server.lines))
        assert drained(server)["finished"] == 1


@pytest.mark.parametrize(
    ("settings", "roles"),
    [
        (
            {"gateway_num": 2, "worker_num": 2},
            ["gateway 0", "gateway 1", "supervisor", "worker 0", "worker 1"],
        ),
        ({"mode": "base", "worker_num": 2}, ["server 0", "server 1", "supervisor"]),
        ({"mode": "base", "worker_num": 1}, ["server 0"]),
    ],
    ids=["process", "base", "alone"],
)
def test_roles_are_shown_in_ps(settings, roles):
    with Serving(APP, **settings) as server:
        assert sorted(server.titles().values()) == [f"mooring: {role}" for role in roles]
        assert server.stop() == 0
