"""Messages between workers while these come and go."""

import asyncio
import os
import signal

import pytest

from e2e.peers import HELD_BACK, app, client, in_loop, logged
from support.serving import Serving

APP = """
@server.on("message")
def said(server, frame):
    to, text = frame.data.split()
    server.push(frame.fd, str(server.send_message(text, int(to))))

@server.on("pipe_message")
def heard(server, source, data):
    report("heard", server.worker_id, os.getpid(), source, data)
"""


@pytest.mark.parametrize(("mode", "number"), [("process", 2), ("process", 1), ("base", 2), ("base", 1)])
@in_loop()
async def test_without_task_workers(mode, number):
    with Serving(APP, mode=mode, worker_num=number) as server:
        async with client(server) as ws:
            for target in range(number):
                await ws.send(f"{target} hello")
                assert await ws.recv() == "True"
                await logged(server, rf"report heard {target} \d+ \d hello")
        assert any("dispatcher" in title for title in server.titles().values()) == ((mode, number) != ("base", 1))
        assert server.stop() == 0


@in_loop()
async def test_one_for_a_worker_that_is_not_there():
    """It is held until the successor is, and the order with it."""
    with Serving(app(HELD_BACK, APP), worker_num=2) as server:
        async with client(server) as ws:
            await ws.send("0 who")
            who = int((await logged(server, r"report heard 0 \d+ (\d) who"))[1])
            other = 1 - who
            (server.script.parent / "held back").touch()
            os.kill(server.pid_of(f"worker {other}"), signal.SIGKILL)
            await logged(server, rf"worker {other} \(pid \d+\) was ended by SIGKILL")
            for n in range(3):
                await ws.send(f"{other} held{n}")
                assert await ws.recv() == "True"
            (server.script.parent / "held back").unlink()
            await logged(server, rf"report heard {other} \d+ {who} held2")
        assert [line.split()[-1] for line in server.reports(f"heard {other}")] == ["held0", "held1", "held2"]
        assert server.stop() == 0


@in_loop(60)
async def test_over_a_reload():
    """Each message reaches one generation or the other, once."""
    with Serving(APP, worker_num=2) as server:
        async with client(server) as ws:
            sent = 0
            reloading = asyncio.create_task(logged(server, "reload: done"))
            server.signal(signal.SIGHUP)
            while not reloading.done():
                await ws.send(f"1 {sent}")
                assert await ws.recv() == "True"
                sent += 1
            await ws.send("1 last")
            # not in that order: the old worker may be at one of them still
            await logged(server, "^report heard 1 ", count=sent + 1)
        heard = [line.split()[-1] for line in server.reports("heard 1")]
        assert sorted(heard) == sorted([*map(str, range(sent)), "last"])
        assert server.stop() == 0
