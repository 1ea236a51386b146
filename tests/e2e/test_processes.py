"""Processes of the application's own, under the supervisor."""

import os
import signal

import pytest

from e2e.peers import app, client, in_loop, logged
from support.serving import Serving

APP = """
import asyncio

@server.on("message")
def said(server, frame):
    server.push(frame.fd, str(server.send_message(frame.data, int(frame.data))))

@server.on("open")
def opened(server, request):
    server.subscribe(request.fd, "news")

@server.on("pipe_message")
def heard(server, source, data):
    report("heard", server.worker_id, data)

def plain(server, word):
    report("plain", os.getpid(), server.worker_id, word)
    while not server.stopping.wait(0.02):
        server.publish("news", f"from {word}")
    report("plain over")

async def suspended(server):
    report("suspended", os.getpid(), server.worker_id)
    try:
        while not os.path.exists("return"):
            await asyncio.sleep(0.01)
    except asyncio.CancelledError:
        report("suspended cancelled")
        raise

server.add_process(plain, "here")
server.add_process(suspended)
"""


@pytest.mark.parametrize(("mode", "number"), [("process", 2), ("base", 1)])
@in_loop()
async def test_they_run_and_reach_everybody(mode, number):
    with Serving(APP, mode=mode, worker_num=number) as server:
        await logged(server, rf"report plain {server.pid_of('process 0')} {number} here")
        await logged(server, rf"report suspended {server.pid_of('process 1')} {number + 1}")
        async with client(server) as ws:
            assert await ws.recv() == "from here"
            await ws.send(str(number))
            await logged(server, rf"report heard {number} {number}")
        assert server.stop() == 0
        assert server.reports("plain over")
        assert server.reports("suspended cancelled")


def test_they_are_started_again():
    """After a kill, and after the function has returned."""
    with Serving(APP, worker_num=1) as server:
        server.wait_log("report plain")
        mark = server.mark()
        os.kill(server.pid_of("process 0"), signal.SIGKILL)
        server.wait_log(r"report plain \d+ 1 here", since=mark)
        server.wait_log("report suspended")
        mark = server.mark()
        (server.script.parent / "return").touch()
        server.wait_log(r"process 1 \(pid \d+\) ended with exit code 0: restarting it", since=mark)
        (server.script.parent / "return").unlink()
        server.wait_log(r"report suspended \d+ 2", since=mark)
        assert server.stop() == 0


def test_one_that_raises_is_reported():
    code = """
    def broken(server):
        raise ValueError("on purpose")

    @server.on("message")
    def said(server, frame): pass

    server.add_process(broken)
    """
    with Serving(app(code), worker_num=1) as server:
        server.wait_log("the process function broken failed")
        server.wait_log("ValueError: on purpose")
        server.wait_log(r"process 0 .* ended with exit code 0: restarting it in 0\.\d s")  # later and later
        assert server.stop() == 0


def test_a_reload_replaces_them():
    with Serving(APP, worker_num=1) as server:
        server.wait_log("report plain")
        before = {server.pid_of("process 0"), server.pid_of("process 1")}
        mark = server.mark()
        server.signal(signal.SIGHUP)
        server.wait_log("reload: done", since=mark)
        assert not before & set(server.pids())
        server.wait_log("report plain over", since=mark)
        server.wait_log("report suspended cancelled", since=mark)
        server.wait_log(r"report plain \d+ 1 here", since=mark)
        server.wait_log(r"report suspended \d+ 2", since=mark)
        assert server.stop() == 0


def test_what_cannot_be_called():
    with Serving("server.add_process(5)", start=False, ready=False) as server:
        assert server.ended() == 1
        server.wait_log(r"add_process\(5\): it can't be called")
