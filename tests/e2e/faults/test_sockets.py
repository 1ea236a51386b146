"""F32 to F34, F38: calls on sockets that fail or do less than asked, no descriptors, and crowds."""

import asyncio
import contextlib
import errno
import os
import resource
import signal
import socket
import statistics
import time

import pytest
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from contract.clients import TEXT, Raw, get, handshake
from e2e.peers import BOTH_MODES, client, in_loop, stats
from frames import frame
from security.watch import becomes_idle, cpu, descriptors, gateway_of
from support.faults import Faults
from support.serving import Serving, eventually

MODES = pytest.mark.parametrize("mode", BOTH_MODES, ids=lambda settings: settings["mode"])

ECHO = """
@server.on("message")
def said(server, frame):
    server.push(frame.fd, frame.data, frame.opcode)

@server.on("request")
def page(request, response):
    response.end("hello" if request.query else json.dumps(server.stats()))
"""


@pytest.fixture
def faults(tmp_path):
    return Faults(tmp_path)


def is_echoed(raw, text):
    raw.send(frame(TEXT, text.encode()))
    return raw.text() == text


@MODES
def test_f33_accepts_that_fail(mode, faults):
    """The next client is served; a socket that can't accept at all is left alone between tries."""
    with Serving(ECHO, env=faults.env, close_timeout=0.3, **mode) as server, Raw(server) as first:
        pid = gateway_of(server)
        assert first.upgrade("/").status == 101
        before = descriptors(pid)
        for error in (errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.EINTR, errno.ENETDOWN):
            hits = faults.hits("accept")
            faults.set("accept", every=2, error=error)
            for _ in range(10):
                with Raw(server, get("/?hello", "Connection: close")) as raw:
                    assert raw.answer().body == b"hello"
            assert faults.hits("accept") >= hits + 5
        faults.set("accept", every=1, error=errno.EPERM)
        with Raw(server, get("/?hello", "Connection: close")) as waiting:
            hits = faults.hits("accept")
            server.wait_log(r"cannot accept \(Operation not permitted\)")
            becomes_idle(pid)
            assert is_echoed(first, "still here")
            eventually(lambda: faults.hits("accept") > hits, what="it tries again")
            faults.stop()
            assert waiting.answer().body == b"hello"
        eventually(lambda: descriptors(pid) <= before, what="every socket is closed again")
        assert server.stop() == 0


async def echoes(server, name, count, size):
    """So many messages, a few at a time, each of which must come back as it was, in order."""
    texts = [f"{name} {n} ".ljust(size + n % 7, chr(97 + n % 26)) for n in range(count)]
    async with client(server) as ws:
        for at in range(0, count, 4):
            for text in texts[at : at + 4]:
                await ws.send(text)
            for text in texts[at : at + 4]:
                assert await ws.recv() == text
    return count


@MODES
@in_loop(60)
async def test_f34_sends_of_one_byte(mode, faults):
    """Between gateway and worker too: each message arrives whole."""
    with Serving(ECHO, env=faults.env, **mode) as server:
        faults.only(most=1)
        assert await asyncio.gather(*[echoes(server, n, 16, 300) for n in range(4)]) == [16] * 4
        faults.only(most=0)
        assert server.stop() == 0


@MODES
@pytest.mark.parametrize("most", [20, 1000, 20000])
@in_loop(60)
async def test_f34_sends_that_take_a_part_of_a_large_message(mode, most, faults):
    """Large records leave from where they are: what was not taken, be it a part of the head, follows in its place."""
    with Serving(ECHO, env=faults.env, **mode) as server:
        faults.only(most=most)
        assert await asyncio.gather(*[echoes(server, n, 3, 50_000) for n in range(4)]) == [3] * 4
        faults.only(most=0)
        assert server.stop() == 0


@MODES
@in_loop(60)
async def test_f34_calls_that_are_interrupted(mode, faults):
    with Serving(ECHO, env=faults.env, **mode) as server:
        for kind in ("send", "recv", "wait"):
            faults.set(kind, every=3, error=errno.EINTR)
        assert await asyncio.gather(*[echoes(server, n, 100, 2000) for n in range(4)]) == [100] * 4
        for kind in ("send", "recv", "wait"):
            assert faults.hits(kind) > 10
        faults.stop()
        assert server.stop() == 0


@pytest.mark.parametrize("error", [errno.ENOBUFS, errno.ENOMEM], ids=errno.errorcode.get)
@in_loop(60)
async def test_f34_a_channel_for_which_the_kernel_has_no_memory(error, faults):
    """It is tried again: no message is lost, no worker is given up."""
    with Serving(ECHO, env=faults.env, worker_num=2) as server:
        before = server.titles()
        faults.only(domain=socket.AF_UNIX)
        faults.set("send", every=5, error=error)
        assert await asyncio.gather(*[echoes(server, n, 100, 2000) for n in range(4)]) == [100] * 4
        assert faults.hits("send") > 10
        faults.stop()
        assert server.titles() == before
        assert server.stop() == 0


@MODES
@in_loop(60)
async def test_f34_a_client_for_which_the_kernel_has_no_memory(mode, faults):
    """It may lose its connection, but never gets a byte that is wrong; nobody else is concerned."""
    with Serving(ECHO, env=faults.env, **mode) as server:
        async with client(server) as other:
            faults.only(domain=socket.AF_INET)
            faults.set("send", every=40, error=errno.ENOBUFS)
            cut = 0
            for n in range(10):
                try:
                    await echoes(server, n, 40, 2000)
                except (ConnectionClosed, InvalidHandshake):
                    cut += 1
            assert 0 < cut <= faults.hits("send")
            faults.stop()
            await other.send("still here")
            with contextlib.suppress(ConnectionClosed):  # if it is one of those
                assert await other.recv() == "still here"
            assert await echoes(server, "last", 40, 2000) == 40
        assert server.stop() == 0


FEW = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (400, 400))
"""
KEPT_BACK = 64


@pytest.mark.parametrize("limit", [0, 4096], ids=["by itself", "told too many"])
@pytest.mark.parametrize(
    "mode",
    [{"worker_num": 1}, {"worker_num": 8}, {"mode": "base", "worker_num": 1}, {"mode": "base", "worker_num": 3}],
    ids=["process-1", "process-8", "base-1", "base-3"],
)
def test_f32_descriptors_are_kept_back(mode, limit):
    """A server that is full of clients still has 64, and those that new workers need besides.

    They have WebSockets that nobody pings: however long it takes until it is full, none of them gives way or goes.
    """
    settings = {"max_connections": limit, "ping_interval": 0, "close_timeout": 0.5, **mode}
    with Serving(FEW + ECHO, **settings) as server, contextlib.ExitStack() as stack:
        pids = [
            pid for pid, title in server.titles().items() if title.startswith(("mooring: gateway", "mooring: server"))
        ]
        first = stack.enter_context(Raw(server))
        assert first.upgrade("/").status == 101
        refused = 0
        for _ in range(400 * len(pids)):
            refused += stack.enter_context(Raw(server)).upgrade("/").status == 503
            if refused == 10 * len(pids):
                break
        assert refused == 10 * len(pids)
        server.wait_log("descriptors run short" if limit else "all [0-9]+ connections are taken: new clients get 503")
        for pid in pids:
            # those who were refused a moment ago are still closed; and it does serve
            eventually(lambda pid=pid: KEPT_BACK <= 400 - descriptors(pid) < 250, what="descriptors kept back")
        if mode == {"worker_num": 8}:  # there a reload leaves the clients where they are
            server.signal(signal.SIGHUP)
            server.wait_log("reload: done")
            assert 400 - descriptors(pids[0]) >= KEPT_BACK
        assert is_echoed(first, "still here")
        assert server.stop() == 0


@MODES
def test_f32_without_descriptors_one_client_is_told(mode):
    """Somebody has lowered the limit. Who is there is served, one client each 0.1 s is told, the others wait."""
    with Serving(ECHO, close_timeout=0.3, **mode) as server, contextlib.ExitStack() as stack:
        pid = gateway_of(server)
        first = stack.enter_context(Raw(server))
        assert first.upgrade("/").status == 101
        room = descriptors(pid) + 20
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (room, room))
        crowd = [stack.enter_context(Raw(server, get("/?hello"))) for _ in range(400)]
        served, told = [], []
        for raw in crowd:
            (served if raw.answer().status == 200 else told).append(raw)
            if len(told) == 5:
                break
        assert len(served) == 20
        assert is_echoed(first, "still here")
        start, mark, used = time.monotonic(), server.mark(), cpu(pid)
        server.wait_log(r"cannot accept \(Too many open files\)", since=mark, count=3)
        took = time.monotonic() - start
        assert cpu(pid) - used < 0.1 * took
        lines = [line for line in server.lines[mark:] if "cannot accept" in line]
        assert len(lines) <= took + 1
        assert "one client each time gets 503, raise the limit of open files" in lines[0]
        assert descriptors(pid) <= room
        for raw in crowd[:-1]:
            raw.reset()
        assert crowd[-1].answer().body == b"hello"
        assert server.stop() == 0


@MODES
def test_f32_the_machine_has_no_descriptors(mode, faults):
    """ENFILE, as if another program had them all."""
    with Serving(ECHO, env=faults.env, close_timeout=0.3, **mode) as server, Raw(server) as first:
        assert first.upgrade("/").status == 101
        pid = gateway_of(server)
        before = descriptors(pid)
        faults.set("accept", every=2, error=errno.ENFILE)
        found = []
        for _ in range(8):
            with Raw(server, get("/?hello", "Connection: close")) as raw:
                found.append(raw.answer().status)
        assert set(found) <= {200, 503}
        assert found.count(503) >= 4, found
        assert is_echoed(first, "still here")
        faults.stop()
        with Raw(server, get("/?hello", "Connection: close")) as raw:
            assert raw.answer().body == b"hello"
        assert stats(server)["connections_refused"] == found.count(503)
        eventually(lambda: descriptors(pid) <= before, what="every socket is closed again")
        assert server.stop() == 0


def stand_in_line(server, count):
    """So many sockets that try to connect."""
    crowd = []
    for _ in range(count):
        raw = socket.socket()
        raw.setblocking(False)
        raw.connect_ex(("127.0.0.1", server.port))
        crowd.append(raw)
    return crowd


@MODES
def test_f38_a_crowd_is_accepted_a_few_at_a_time(mode, faults):
    """Whoever is connected is served in between; what the kernel had to turn away is counted."""
    with Serving(ECHO, env=faults.env, backlog=256, close_timeout=0.3, **mode) as server, Raw(server) as first:
        assert first.upgrade("/").status == 101
        pid = gateway_of(server)
        faults.only(pid=pid)
        os.kill(pid, signal.SIGSTOP)
        try:
            crowd = stand_in_line(server, 300)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert is_echoed(first, "still here")
        eventually(lambda: stats(server)["connections_accepted"] > 256)
        assert 32 <= faults.longest_row <= 64
        assert stats(server)["listen_overflows"] > 0
        for raw in crowd:
            raw.close()
        assert server.stop() == 0


@in_loop(60)
async def test_f38_many_clients_come_back_at_once():
    """Nobody is refused, and those who are there already are answered in time."""
    with Serving(ECHO, worker_num=2) as server:
        taken = []
        there = asyncio.Event()

        async def talk():
            async with client(server) as ws:
                while not there.is_set():
                    start = time.monotonic()
                    await ws.send("hello")
                    await ws.recv()
                    taken.append(time.monotonic() - start)
                    await asyncio.sleep(0.01)

        def come_back():
            crowd = stand_in_line(server, 1500)
            for raw in crowd:
                raw.settimeout(30)
                while raw.connect_ex(("127.0.0.1", server.port)) not in (0, errno.EISCONN):
                    pass
                raw.sendall(handshake("/"))
            for raw in crowd:
                assert raw.recv(12) == b"HTTP/1.1 101"
                raw.close()

        async with asyncio.TaskGroup() as group:
            for _ in range(10):
                group.create_task(talk())
            await asyncio.to_thread(come_back)
            there.set()
        assert statistics.quantiles(taken, n=100)[98] < 1.5  # on an idle machine it is 0.05
        assert server.stop() == 0
