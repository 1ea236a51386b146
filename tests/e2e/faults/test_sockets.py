"""Faults of sockets, by their numbers in the fault model: calls that fail, that do less than asked, and crowds."""

import asyncio
import contextlib
import errno
import socket

import pytest
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from contract.clients import TEXT, Raw, get
from e2e.peers import BOTH_MODES, client, in_loop
from frames import frame
from security.watch import becomes_idle, descriptors, gateway_of
from support.faults import Faults
from support.serving import Serving, eventually

MODES = pytest.mark.parametrize("mode", BOTH_MODES, ids=lambda settings: settings["mode"])

ECHO = """
@server.on("message")
def said(server, frame):
    server.push(frame.fd, frame.data, frame.opcode)

@server.on("request")
def page(request, response):
    response.end(json.dumps(server.stats()) if request.path == "/stats" else "hello")
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
    with Serving(ECHO, env=faults.env, **mode) as server, Raw(server) as first:
        pid = gateway_of(server)
        assert first.upgrade("/").status == 101
        before = descriptors(pid)
        for error in (errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.EINTR, errno.ENETDOWN):
            hits = faults.hits("accept")
            faults.set("accept", every=2, error=error)
            for _ in range(10):
                with Raw(server, get("/", "Connection: close")) as raw:
                    assert raw.answer().body == b"hello"
            assert faults.hits("accept") >= hits + 5
        faults.set("accept", every=1, error=errno.EPERM)
        with Raw(server, get("/", "Connection: close")) as waiting:
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
