"""F35: allocations fail, in workers and in gateways."""

import asyncio
import contextlib
import resource
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from contract.clients import TEXT, Raw, get
from e2e.peers import BOTH_MODES, adds_up, app, client, in_loop, stats
from frames import frame
from security.watch import becomes_idle, gateway_of
from support.faults import Faults
from support.serving import Serving, eventually

MODES = pytest.mark.parametrize("mode", BOTH_MODES, ids=lambda settings: settings["mode"])

HUNGRY = """
@server.on("open")
def opened(server, request):
    server.subscribe(request.fd, "all")

@server.on("message")
def said(server, frame):
    if frame.data == "much":
        bytearray(4 << 30)
    if frame.data.startswith("all "):
        server.publish("news", frame.data)
    server.push(frame.fd, frame.data)

@server.on("close")
def left(server, fd, code, reason):
    report("close", fd, code, reason)

@server.on("request")
def page(request, response):
    if request.path == "/much":
        bytearray(4 << 30)
    response.end(json.dumps(server.stats()))
"""


def test_f35_a_handler_that_has_no_memory():
    """That message fails, and is reported; the worker and everybody else go on."""
    with Serving(HUNGRY, worker_num=1) as server, Raw(server) as other:
        worker = server.pid_of("worker 0")
        resource.prlimit(worker, resource.RLIMIT_AS, (3 << 30, 3 << 30))
        assert other.upgrade("/").status == 101
        with Raw(server) as raw:
            assert raw.upgrade("/").status == 101
            raw.send(frame(TEXT, b"much"))
            assert raw.close_frame()[0] == 1011
        server.wait_log("the 'message' handler failed")
        server.wait_log("^MemoryError")
        with Raw(server, get("/much")) as raw:
            assert raw.answer().status == 500
        other.send(frame(TEXT, b"still here"))
        assert other.text() == "still here"
        assert server.pid_of("worker 0") == worker
        assert server.stop() == 0


def sockets(pid):
    """How many the process has open."""
    found = 0
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found += str(file.readlink()).startswith("socket:")
    return found


async def echoed(server, name, count):
    """How many messages came back, as they were and in order, until the connection was closed."""
    done = 0
    with contextlib.suppress(ConnectionClosed, InvalidHandshake):
        async with client(server) as ws:
            for n in range(count):
                text = f"{name} {n} ".ljust(600 + 700 * (n % 8), chr(97 + n % 26))
                await ws.send(text)
                assert await ws.recv() == text
                done += 1
    return done


@MODES
@pytest.mark.parametrize("everywhere", [0, 1], ids=["core", "everywhere"])
@in_loop(90)
async def test_f35_a_gateway_that_has_no_memory(mode, everywhere, tmp_path):
    """Connections are closed, and their streams are never wrong; the process survives, and forgets none of them."""
    faults = Faults(tmp_path)
    with Serving(app(HUNGRY), env=faults.env, **mode) as server:
        pid, before = gateway_of(server), server.titles()
        opened = sockets(pid)
        faults.only(pid=pid, everywhere=everywhere)
        whole = 0
        for every in (29, 101, 211):
            faults.set("allocate", every=every)
            for n in range(4):
                whole += sum(await asyncio.gather(*[echoed(server, f"{n}/{m}", 30) for m in range(5)]))
        faults.stop()
        assert faults.hits("allocate") > 10
        assert whole > 60
        assert server.titles() == before
        assert await echoed(server, "after", 30) == 30
        await asyncio.to_thread(eventually, lambda: sockets(pid) <= opened, 20, "every socket is closed")
        await asyncio.to_thread(eventually, lambda: stats(server)["connections"] == 1, 20, "none is left")
        counts = stats(server)
        assert adds_up(counts)
        assert counts["in_flight"] == 1, "something is handled for ever"
        becomes_idle(pid)
        assert server.stop() == 0
