"""Reload: new code takes over from old without a client noticing. Guarantee 4 of the design."""

import asyncio
import contextlib
import os
import re
import signal
import sys
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from e2e.peers import BUSY, STATS, Talkers, adds_up, app, client, drained, edit, in_loop, logged, stats, until
from support.serving import Serving

DONE = r"reload: done, the generation before (\d+) is gone"

# Each message is answered with the version of the code; "reload" and "slow" do what they say.
VERSIONED = """
import asyncio
import contextlib
VERSION = "v1"

@server.on("message")
async def said(server, frame):
    if frame.data == "reload":
        server.reload()
    if frame.data == "slow":
        report("begin", VERSION)
        while not os.path.exists("go on"):
            await asyncio.sleep(0.01)
        report("end", VERSION)
    server.push(frame.fd, f"{frame.data} {VERSION}")

@server.on("close")
def left(server, fd, code, reason):
    report("close", VERSION, code)
"""


async def ask(ws, text="who"):
    await ws.send(text)
    return await ws.recv()


@in_loop(60)
@pytest.mark.parametrize("gateways", [1, 2])
async def test_five_reloads_under_load(gateways):
    """0 lost, 0 duplicated, 0 reordered, 0 disconnected, and each time the new code answers everybody."""
    with Serving(app(BUSY, STATS), worker_num=2, gateway_num=gateways) as server:
        workers = {pid for pid, title in server.titles().items() if "worker" in title}
        gateway = {pid for pid, title in server.titles().items() if "gateway" in title}
        async with Talkers(server, 8, window=8) as talkers:
            for version in range(2, 7):
                mark = server.mark()
                edit(server.script, f'"v{version - 1}"', f'"v{version}"')
                server.signal(signal.SIGUSR1)
                await asyncio.gather(*[one.answered_by(f"v{version}") for one in talkers])
                assert (await logged(server, DONE, since=mark))[1] == str(version)
                await asyncio.gather(*[one.goes_on(5) for one in talkers])
        for one in talkers:
            assert one.in_order()
            versions = [by for _, by in one.answers]
            assert versions == sorted(versions), "an old worker answered behind a new one"
            assert set(versions) == {f"v{n}" for n in range(1, 7)}
        now = server.titles()
        assert {pid for pid, title in now.items() if "gateway" in title} == gateway
        assert not workers & set(now)
        assert len(now) == 1 + gateways + 2
        counts = stats(server)
        assert adds_up(counts)
        assert (counts["uncertain"], counts["redelivered"], counts["dropped"]) == (0, 0, 0)
        assert counts["connections_accepted"] == len(talkers) + 1
        assert server.stop() == 0
        assert drained(server)["accepted"] == sum(one.sent for one in talkers) + 1


@in_loop()
async def test_a_handler_that_runs_finishes_in_the_old_worker():
    """Old and new side by side: the old one is in the middle of a handler while the new one answers others."""
    with Serving(VERSIONED, worker_num=1) as server:
        old = server.pid_of("worker 0")
        async with client(server) as slow, client(server) as quick:
            assert await ask(quick) == "who v1"
            await slow.send("slow")
            await logged(server, "^report begin v1$")
            await slow.send("behind")
            edit(server.script, "v1", "v2")
            server.signal(signal.SIGUSR1)
            await logged(server, "generation 2 serves")
            while await ask(quick) != "who v2":
                pass
            assert sorted(server.titles().values()) == [
                "mooring: gateway 0",
                "mooring: supervisor",
                "mooring: worker 0",
                "mooring: worker 0",
            ]
            server.script.with_name("go on").touch()
            assert await slow.recv() == "slow v1"
            assert await slow.recv() == "behind v1"  # it was the old worker's already
            await logged(server, DONE)
            assert await ask(slow) == "who v2"
            assert old not in server.titles()


LEFT_LATE = """
import asyncio
import contextlib

@server.on("close")
async def left(server, fd, code, reason):
    report("begin")
    while not os.path.exists("go on"):
        await asyncio.sleep(0.01)
    report("end")

@server.on("message")
def said(server, frame):
    server.push(frame.fd, frame.data)
"""


@in_loop()
async def test_a_last_event_of_which_no_gateway_knows_is_finished():
    """Of a gateway that has died: nobody but the worker can tell when its clients' `close` is handled."""
    with Serving(LEFT_LATE, worker_num=1, gateway_num=1, graceful_timeout=60) as server:
        ws = await client(server).__aenter__()
        await ws.send("hello")
        assert await ws.recv() == "hello"
        os.kill(server.pid_of("gateway 0"), signal.SIGKILL)
        await logged(server, "^report begin$")
        await logged(server, "gateway 0 .*serves in place")
        server.signal(signal.SIGUSR1)
        await logged(server, "generation 2 serves")
        server.script.with_name("go on").touch()
        await logged(server, "^report end$")
        await logged(server, DONE)
        assert server.reports() == ["begin", "end"]


@in_loop()
async def test_a_close_does_not_overtake_the_handler_that_runs():
    """The connection ends in the middle of a reload: `close` stays behind, in the worker that has the message."""
    with Serving(VERSIONED, worker_num=1) as server:
        async with client(server) as slow, client(server) as quick:
            await slow.send("slow")
            await logged(server, "^report begin v1$")
            edit(server.script, "v1", "v2")
            server.signal(signal.SIGUSR1)
            while await ask(quick) != "who v2":
                pass
            slow.transport.abort()
            await asyncio.wait_for(await quick.ping(), 5)
            server.script.with_name("go on").touch()
            await logged(server, "^report close v1 1006$")
            assert server.reports() == ["begin v1", "end v1", "close v1 1006"]
            await logged(server, DONE)


@in_loop()
async def test_the_application_asks_for_it():
    with Serving(VERSIONED, worker_num=2) as server:
        async with client(server) as ws:
            edit(server.script, "v1", "v2")
            assert await ask(ws, "reload") == "reload v1"
            await logged(server, r"reload: asked for by worker \d")
            await logged(server, DONE)
            assert await ask(ws) == "who v2"


@in_loop()
@pytest.mark.parametrize("how", ["setting", "command line"])
async def test_watch(how, tmp_path):
    """Saving the file is enough; two saves and a broken one in between included."""
    text = "import json, os, sys, time\nfrom mooring import *\nserver = Server('127.0.0.1', 0, worker_num=1)\n"
    (tmp_path / "versioned.py").write_text(text + "report = print\n" + VERSIONED)
    if how == "setting":
        server = Serving(VERSIONED, worker_num=1, watch=["."])
        script = server.script
    else:
        script = tmp_path / "versioned.py"
        command = (sys.executable, "-m", "mooring", "run", "versioned:server", "--watch", ".", "--port", "0")
        server = Serving("", start=False, argv=command, cwd=tmp_path)
    with server:
        async with client(server) as ws:
            assert await ask(ws) == "who v1"
            edit(script, "v1", "version 2")
            await logged(server, rf"reload: {script.name}.* changed; starting generation 2")
            await logged(server, DONE)
            assert await ask(ws) == "who version 2"
            edit(script, "VERSION =", "VERSION +")
            await logged(server, "reload failed: ")
            assert await ask(ws) == "who version 2"
            edit(script, 'VERSION + "version 2"', 'VERSION = "3rd"')
            await logged(server, DONE, count=2)
            assert await ask(ws) == "who 3rd"
        assert server.stop() == 0


@in_loop()
@pytest.mark.parametrize("mode", [{"worker_num": 1}, {"mode": "base", "worker_num": 2}], ids=["process", "base"])
async def test_what_the_server_itself_writes_is_no_change(tmp_path, mode):
    """In the folder that is watched: logs, pid file, sockets, tables, compiled code, spooled uploads."""
    code = """
    server.table("people", name=str)

    @server.on("message")
    def said(server, frame):
        server.push(frame.fd, frame.data)

    @server.on("request")
    async def page(request, response):
        await request.read_form()
        response.end(f"took {request.files['file'].size}")
    """
    (tmp_path / "other.py").write_text("x = 1\n")
    settings = {"log_file": "log", "access_log": True, "access_log_file": "access", "pid_file": "pid", "watch": ["."]}
    settings |= {"control_socket": "control", "unix_socket": "socket", "upload_spool_size": 1024, **mode}
    environment = {"TMPDIR": str(tmp_path), "PYTHONDONTWRITEBYTECODE": ""}
    with Serving(app(code), cwd=tmp_path, env=environment, ready=False, **settings) as server:
        log, access = tmp_path / "log", tmp_path / "access"
        await until(lambda: log.exists() and "ready" in log.read_text())
        body = b'--x\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n' + b"x" * 9000
        body += b"\r\n--x--\r\n"
        head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        head += f"Content-Length: {len(body)}\r\n"
        for _ in range(3):
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "socket"))
            writer.write(head.encode() + b"Connection: close\r\n\r\n" + body)
            assert (await reader.read()).endswith(b"took 9000")
            writer.close()
            await asyncio.sleep(0.3)  # longer than the watcher waits before it tells of a change
        await until(lambda: access.read_text().count("POST") == 3)
        (tmp_path / "other.py").write_text("x = 2\n")
        await until(lambda: "reload: done" in log.read_text())
        assert server.stop() == 0
    assert re.findall(r"reload: (.*) changed", log.read_text()) == ["other.py"]


@in_loop()
async def test_base_mode_replaces_one_process_after_the_other():
    """Its clients cannot be handed over: they are told 1012 and find another process at once."""
    with Serving(VERSIONED, mode="base", worker_num=2) as server:
        first = {pid for pid, title in server.titles().items() if "server" in title}
        edit(server.script, "v1", "v2")
        async with client(server) as ws:
            assert await ask(ws) == "who v1"
            server.signal(signal.SIGUSR1)
            with pytest.raises(ConnectionClosed) as closed:
                await ws.recv()
            assert closed.value.rcvd.code == 1012
            assert closed.value.rcvd.reason == "the server restarts"
            answer = ""
            while not answer:
                with contextlib.suppress(ConnectionClosed):  # the other one may be next just then
                    async with client(server) as again:
                        answer = await ask(again)
            assert answer.startswith("who ")
            await logged(server, DONE)
        async with client(server) as ws:
            assert await ask(ws) == "who v2"
        second = {pid for pid, title in server.titles().items() if "server" in title}
        assert len(second) == 2
        assert not first & second
        assert not [pid for pid in first if Path(f"/proc/{pid}").exists()]
        os.kill(server.pid, 0)
