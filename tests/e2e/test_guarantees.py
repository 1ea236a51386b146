"""`server.guarantees` says what is so: each value against what happens."""

import asyncio
import os
import re
import signal

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from e2e.peers import app, client, in_loop, logged, until
from mooring import Guarantees, Server
from support.serving import Serving

APP = """
@server.on("message")
def said(server, frame):
    if frame.data == "die" and frame.attempt < 2:
        report("dying")
        os.kill(os.getpid(), signal.SIGKILL)
    if frame.data == "block":
        report("blocks")
        while not os.path.exists("go on"):
            time.sleep(0.01)
    server.push(frame.fd, repr(server.guarantees) if frame.data == "what?" else f"{frame.data} {frame.attempt}")

@server.on("uncertain")
def uncertain(server, frame, reason):
    report("uncertain", frame.data)
    server.push(frame.fd, "uncertain")
"""
PROCESS = {"mode": "process", "worker_num": 2}
SEVERAL = {"mode": "base", "worker_num": 2}
ALONE = {"mode": "base", "worker_num": 1}
MODES = pytest.mark.parametrize("mode", [PROCESS, SEVERAL, ALONE], ids=["process", "base-2", "base-1"])


async def told(ws) -> Guarantees:
    await ws.send("what?")
    return eval(await ws.recv(), {"Guarantees": Guarantees})


async def lives(ws) -> bool:
    try:
        await ws.send("still there?")
        return await ws.recv() == "still there? 1"
    except ConnectionClosed:
        return False


@MODES
@in_loop(60)
async def test_a_reload(mode):
    with Serving(app(APP), **mode) as server:
        async with client(server) as ws:
            says = await told(ws)
            assert says == Server(**mode).guarantees, "it is known before the start"
            server.signal(signal.SIGHUP)
            await logged(server, "reload: done" if says.can_reload else "a single process cannot replace itself")
            assert await lives(ws) is (says.connections_outlive_reloads or not says.can_reload)


@MODES
@in_loop(60)
async def test_a_worker_dies(mode):
    with Serving(app("import signal", APP), **mode) as server:
        async with client(server) as ws:
            says = await told(ws)
            await ws.send("die")
            await logged(server, "^report dying")
            if says.reports_uncertain:
                assert await ws.recv() == "uncertain"
                await logged(server, "^report uncertain die")
            assert await lives(ws) is says.connections_outlive_workers
        assert len(server.reports("uncertain")) == says.reports_uncertain


@MODES
@in_loop(60)
async def test_a_handler_blocks(mode):
    """The gateway's answer to a ping of the client comes, or does not."""
    with Serving(app(APP), **mode) as server:
        async with client(server) as ws:
            says = await told(ws)
            await ws.send("block")
            await logged(server, "^report blocks")
            pong = await ws.ping()
            try:
                await asyncio.wait_for(asyncio.shield(pong), 20 if says.works_while_blocked else 0.5)
                came = True
            except TimeoutError:
                came = False
            server.script.with_name("go on").touch()
            assert came is says.works_while_blocked
            assert await ws.recv() == "block 1"


@in_loop(60)
async def test_redeliver_is_a_matter_of_the_listener():
    code = """
    import signal
    other = server.listen("127.0.0.1", 0, redeliver=True)
    """
    with Serving(app(code, APP), **PROCESS) as server:
        async with client(server) as ws:
            assert (await told(ws)).at_least_once == (False, True)
            await ws.send("die")
            assert await ws.recv() == "uncertain"
        ports = re.findall(r"127\.0\.0\.1:(\d+)", server.wait_log("listening on .*").group())
        async with connect(f"ws://127.0.0.1:{ports[1]}/", ping_interval=None, proxy=None) as ws:
            await ws.send("die")
            assert await ws.recv() == "die 2"
        await until(lambda: len(server.reports("dying")) == 2)
        assert len(server.reports("uncertain")) == 1


def test_base_mode_delivers_nothing_again():
    assert Server(redeliver=True, **SEVERAL).guarantees.at_least_once == (False,)
    assert Server(redeliver=True, **PROCESS).guarantees.at_least_once == (True,)


def test_a_single_process_that_needs_a_supervisor_has_one():
    assert not Server(**ALONE).guarantees.can_reload
    assert Server(task_worker_num=1, **ALONE).guarantees.can_reload
    assert os.getpid() != 1
