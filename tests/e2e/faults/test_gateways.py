"""F24 to F27: the supervisor is killed; a gateway is killed, stands still, or meets a fault of its core."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import statistics
import sys
import time

import pytest
from websockets.exceptions import ConnectionClosed

from e2e.peers import STATS, Rude, adds_up, alive, app, client, in_loop, logged, stats, until, waited_for_a_cpu
from mooring.config import Process
from mooring.net.listener import ListenError, bind_listener
from support.serving import Serving

KILLS = 5

# "stuck" and "sleeping" never end.
STUCK = """
@server.on("message")
def said(server, frame):
    report("begin", frame.data)
    if frame.data == "stuck":
        while True:
            pass
    if frame.data == "sleeping":
        time.sleep(60)
    server.push(frame.fd, frame.data)
"""

# What is known of a connection, and what is told of it.
KNOWN = """
import asyncio

@server.on("open")
def opened(server, request):
    report("open", request.fd, dict(server.session(request.fd)))
    server.session(request.fd)["name"] = request.query["name"]
    server.subscribe(request.fd, "room")
    server.bind(request.fd, "somebody")
    server.push(request.fd, str(request.fd))

@server.on("message")
async def said(server, frame):
    if frame.data == "block":
        report("begin block")
        while not os.path.exists("go on"):
            await asyncio.sleep(0.01)
        report("blocked push", server.push(frame.fd, "too late"))
    server.publish("room", frame.data)

@server.on("close")
def left(server, fd, code, reason):
    report("close", fd, code, reason)
"""


async def ended(ws) -> ConnectionClosed:
    """How a connection was ended, behind whatever came before."""
    try:
        while True:
            await ws.recv()
    except ConnectionClosed as closed:
        return closed


# ------------------------------------------------------------------ the supervisor


@pytest.mark.parametrize("mode", [{"mode": "process", "worker_num": 3}, {"mode": "base", "worker_num": 3}], ids=str)
@in_loop(40)
async def test_f24_nothing_outlives_the_supervisor(mode):
    """SIGKILL of the supervisor: everybody leaves, clients are told, and who is stuck is ended by the kernel."""
    with Serving(STUCK, **mode) as server:
        pids = set(server.titles()) - {server.pid}
        assert len(pids) >= 3
        async with contextlib.AsyncExitStack() as stack:
            idle = await stack.enter_async_context(client(server))
            if mode["mode"] == "process":  # one worker each; in base mode the kernel chooses
                for how in ("stuck", "sleeping"):
                    ws = await stack.enter_async_context(client(server, close_timeout=0.1))
                    await ws.send(how)
                    await logged(server, f"^report begin {how}")
            else:
                ws = await stack.enter_async_context(client(server, close_timeout=0.1))
                await ws.send("stuck")
                await logged(server, "^report begin stuck")
            start = time.monotonic()
            server.process.kill()
            if mode["mode"] == "process":
                assert (await ended(idle)).rcvd.code == 1001
            await until(lambda: not [pid for pid in pids if alive(pid)], f"all of {pids} are gone", limit=8)
            assert time.monotonic() - start < 8


@in_loop(60)
async def test_f24_another_one_can_bind_at_once():
    """While the orphans still drain, with a client that does not leave and a handler that never ends."""
    with Serving(STUCK, worker_num=2) as server:
        port, script = server.port, server.script
        orphans = server.pids()
        with Rude(server) as stays:
            stays.send("stuck")
            await logged(server, "^report begin stuck")
            script.write_text(script.read_text().replace("server.start()", ""))
            server.process.kill()
            await until(lambda: can_bind(port), "the port is free")
            assert still_open(stays.socket), "it was not free before the gateway had ended its clients"
            command = (sys.executable, "-m", "mooring", "run", f"{script.stem}:server", "--port", str(port))
            with Serving("", start=False, argv=command, cwd=script.parent, port=port, worker_num=1) as another:
                await until(lambda: not [pid for pid in orphans if alive(pid)], "the orphans are gone", limit=8)
                async with client(another) as second:
                    await second.send("hello")
                    assert await second.recv() == "hello"
                assert another.stop() == 0


def can_bind(port: int) -> bool:
    try:
        bind_listener("127.0.0.1", port).close()
    except ListenError:
        return False
    return True


def still_open(connection: socket.socket) -> bool:
    """Whether the other side has not ended it, behind whatever it has sent."""
    connection.setblocking(False)
    try:
        while connection.recv(4096):
            pass
    except BlockingIOError:
        return True
    return False


# ------------------------------------------------------------------ a gateway is gone


@in_loop(90)
async def test_f25_a_gateway_is_killed():
    """Its clients are gone, each told once, with the cause; what it knew of them is gone; another one serves.

    A client that comes at once is served by that one within 2 s of the kill, most times, without what other programs
    kept it waiting for a CPU.
    """
    took = []
    with Serving(app(KNOWN, STATS), worker_num=2, restart_free=100) as server:
        seen: set[int] = set()
        for turn in range(KILLS):
            mark = server.mark()
            async with contextlib.AsyncExitStack() as stack:
                sockets = [
                    await stack.enter_async_context(client(server, f"/?name={turn}.{n}", close_timeout=0.1))
                    for n in range(6)
                ]
                fds = [int(await ws.recv()) for ws in sockets]
                assert not seen & set(fds), "an fd was given out twice"
                seen.update(fds)
                await sockets[0].send("news")
                assert [await ws.recv() for ws in sockets] == ["news"] * 6
                await logged(server, "^report open", since=mark, count=6)
                gateway = server.pid_of("gateway 0")
                workers = {server.pid_of(f"worker {n}") for n in (0, 1)}
                killed = time.monotonic()
                os.kill(gateway, signal.SIGKILL)
                async with client(server, "/?name=after") as ws:
                    await ws.recv()
                    took.append(time.monotonic() - killed - waited_for_a_cpu(server.pid_of("gateway 0")))
                await logged(server, r"^report close", since=mark, count=7)
                await logged(server, r"gateway 0 \(pid \d+\) serves in place of the one that ended", since=mark)
                assert {(await ended(ws)).rcvd for ws in sockets} == {None}
            closed = [line for line in server.reports("close", mark) if " 1006 " in line]
            assert sorted(closed) == sorted(f"{fd} 1006 gateway 0 has ended" for fd in fds)
            assert {line.split(maxsplit=1)[1] for line in server.reports("open", mark)} == {"{}"}, (
                "sessions begin empty"
            )
            assert workers == {server.pid_of(f"worker {n}") for n in (0, 1)}
            counts = await asyncio.to_thread(stats, server)
            assert (counts["topics"], counts["users"], counts["websockets"]) == (0, 0, 0)
        assert statistics.median(took) < 2, took
        assert counts["tree"]["restarts"] == KILLS
        assert len(server.reports("close")) == 7 * KILLS
        assert server.stop() == 0


@in_loop(60)
async def test_f25_a_handler_that_runs_meanwhile_ends_and_the_other_gateway_serves_on():
    with Serving(app(KNOWN, STATS), worker_num=2, gateway_num=2) as server:
        async with contextlib.AsyncExitStack() as stack:
            sockets: dict[int, list] = {0: [], 1: []}
            while not (sockets[0] and sockets[1]):  # the kernel chooses the gateway
                ws = await stack.enter_async_context(client(server, "/?name=x", close_timeout=0.1))
                fd = int(await ws.recv())
                sockets[gateway_of(fd)].append((fd, ws))
            fd, ws = sockets[1][0]
            await ws.send("block")
            await logged(server, "^report begin block")
            mark = server.mark()
            os.kill(server.pid_of("gateway 1"), signal.SIGKILL)
            assert (await ended(ws)).rcvd is None
            await logged(server, "gateway 1 .* serves in place", since=mark)
            assert f"{fd} 1006 gateway 1 has ended" not in server.reports("close"), "its handler runs"
            server.script.with_name("go on").touch()
            await logged(server, "^report blocked push False", since=mark)
            await logged(server, rf"^report close {fd} 1006 gateway 1 has ended", since=mark)
            for _, other in sockets[0]:
                await other.send("still here")
                assert await other.recv() in ("block", "still here")
            await until(lambda: len(server.reports("close")) >= len(sockets[1]))
            assert len(server.reports("close")) == len(sockets[1])
        assert server.stop() == 0


def gateway_of(fd: int) -> int:
    return fd >> 57  # as mooring._core.table does


# ------------------------------------------------------------------ a gateway stands still

# A rule of the application that runs in the gateways: in one of them it never comes back.
DISPATCH = """
if not os.path.exists("rule.py"):
    with open("rule.py", "w") as file:
        file.write('''if True:
            import os, sys, time

            def choose(client):
                if os.path.exists("blocked") and open("blocked").read() == str(os.getpid()):
                    print("report blocked", file=sys.stderr, flush=True)
                    time.sleep(600)
        ''')

@server.on("open")
def opened(server, request):
    server.push(request.fd, str(request.fd))

@server.on("message")
def said(server, frame):
    server.push(frame.fd, json.dumps(server.stats()))
"""


def test_f26_ten_seconds_unless_told_otherwise():
    """Of a gateway, which has nothing to do that takes so long; a handler may."""
    assert (Process().gateway_hang_timeout, Process().worker_hang_timeout) == (10, 30)


@in_loop(90)
async def test_f26_half_of_the_time_is_survived_and_half_as_much_again_is_not():
    """With the default limit: 5 s of SIGSTOP, and 15 s. Here with one of 6 s."""
    limit = 6.0
    with Serving(app(KNOWN, STATS), worker_num=1, gateway_hang_timeout=limit, ping_interval=1.0) as server:
        gateway = server.pid_of("gateway 0")
        async with client(server, "/?name=x", close_timeout=0.1) as ws:
            await ws.recv()
            os.kill(gateway, signal.SIGSTOP)
            try:
                await ws.send("sent to nobody")
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(ws.recv(), limit / 2)
            finally:
                os.kill(gateway, signal.SIGCONT)
            assert await ws.recv() == "sent to nobody"
            assert server.pid_of("gateway 0") == gateway
            assert not [line for line in server.lines if "hangs" in line]
            stopped = time.monotonic()
            os.kill(gateway, signal.SIGSTOP)
            hangs = await logged(server, rf"gateway 0 \(pid {gateway}\) hangs: its loop has not turned for ([0-9.]+) s")
            assert limit <= float(hangs[1]) < limit * 1.5
            await logged(server, rf"gateway 0 \(pid {gateway}\) was ended by SIGKILL: its loop had not turned")
            assert limit < time.monotonic() - stopped < limit * 1.5 + 3, "3 s for what else the machine has to do"
            assert (await ended(ws)).rcvd is None
            await logged(server, "gateway 0 .* serves in place")
        async with client(server, "/?name=y") as ws:
            await ws.recv()
        assert server.stop() == 0


@pytest.mark.parametrize(("how", "end"), [("blocked", "SIGABRT"), ("stopped", "SIGKILL")])
@in_loop(100)
async def test_f26_a_gateway_whose_loop_stands_still(how, end):
    """Its stack is in the log, and it is ended; meanwhile the other one serves, and its counts can be read."""
    settings = {"gateway_num": 2, "worker_num": 2, "gateway_hang_timeout": 9.0, "dispatch": "rule:choose"}
    with Serving(DISPATCH, **settings) as server:
        async with contextlib.AsyncExitStack() as stack:
            sockets = {}
            while len(sockets) < 2:  # the kernel chooses the gateway
                ws = await stack.enter_async_context(client(server, close_timeout=0.1))
                sockets[gateway_of(int(await ws.recv()))] = ws
            pid = server.pid_of("gateway 1")
            if how == "stopped":
                os.kill(pid, signal.SIGSTOP)
            else:
                server.script.with_name("blocked").write_text(str(pid))
                while not server.reports("blocked"):
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(1), client(server, close_timeout=0.1):
                            pass
            for _ in range(5):  # the first waits for an answer, later ones know better
                await sockets[0].send("stats")
                counts = json.loads(await sockets[0].recv())
                assert [one["gateway"] for one in counts["gateways"]] == [0, 1]
                assert adds_up(counts)
                assert counts["connections"] == counts["gateways"][0]["connections"] > 0
                assert counts["gateways"][1] == {"gateway": 1, "error": "gateway 1 does not answer: timed out"}
                assert counts["gateways_silent"] == 1
            assert server.pid_of("gateway 1") == pid, "all that was before it was ended"
            await logged(server, rf"gateway 1 \(pid {pid}\) hangs: its loop has not turned for")
            if how == "blocked":
                await logged(server, r"rule.py\", line \d+ in choose")
            await logged(server, rf"gateway 1 \(pid {pid}\) was ended by {end}: its loop had not turned")
            await logged(server, "gateway 1 .* serves in place")
            assert (await ended(sockets[1])).rcvd is None
            counts = {"gateways_silent": 1}
            while counts["gateways_silent"] or counts["tree"]["gateways_running"] < 2:  # each worker is told
                await sockets[0].send("stats")
                counts = json.loads(await sockets[0].recv())
            assert counts["gateways"][1]["connections"] == 0
            assert counts["tree"]["hangs"] == 1
            server.script.with_name("blocked").unlink(missing_ok=True)
        assert server.stop() == 0


# ------------------------------------------------------------------ a fault in a gateway's own code


@pytest.mark.parametrize("number", [signal.SIGABRT, signal.SIGSEGV], ids=lambda number: number.name)
@in_loop(60)
async def test_f27_a_fault_in_the_core_ends_the_gateway_with_its_stack(number):
    """As a failed assertion, or a bad address, in C code does. Nothing goes on in an unknown state."""
    with Serving(app(KNOWN, STATS), worker_num=1) as server:
        old = server.pid_of("gateway 0")
        async with client(server, "/?name=x", close_timeout=0.1) as ws:
            fd = int(await ws.recv())
            await logged(server, "^report open")
            os.kill(old, number)
            await logged(server, "Fatal Python error: " + {6: "Aborted", 11: "Segmentation fault"}[number])
            await logged(server, r"process_host.py\", line \d+ in run")
            await logged(server, rf"gateway 0 \(pid {old}\) was ended by {number.name}: restarting it")
            assert (await ended(ws)).rcvd is None
            await logged(server, rf"^report close {fd} 1006 gateway 0 has ended")
        await logged(server, "gateway 0 .* serves in place")
        async with client(server, "/?name=y") as ws:
            assert int(await ws.recv()) != fd
        assert server.stop() == 0
