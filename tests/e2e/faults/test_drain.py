"""F15: a stop of a server with many clients, with some that never answer, with a handler that never ends."""

import asyncio
import contextlib
import errno
import os
import resource
import signal
import socket
import time

import pytest
from websockets.exceptions import ConnectionClosed

from e2e.peers import BOTH_MODES, Rude, client, drained, in_loop, logged, until
from support.serving import Serving

MODES = pytest.mark.parametrize("mode", BOTH_MODES, ids=lambda settings: settings["mode"])
APP = """
import asyncio

@server.on("message")
async def said(server, frame):
    if frame.data == "stuck":
        report("stuck")
        await asyncio.sleep(600)
    server.push(frame.fd, frame.data)
"""
HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
CLOSE_1001 = b"\x88\x1d\x03\xe9the server is shutting down"
CLOSE_ANSWER = b"\x88\x82\x00\x00\x00\x00\x03\xe9"


class Many(asyncio.Protocol):
    """A WebSocket client of a few lines, so that there can be thousands: it notes when it was told to go."""

    times: list[float]

    def __init__(self, times):
        self.times = times
        self.open = asyncio.get_running_loop().create_future()
        self.gone = asyncio.get_running_loop().create_future()
        self.heard = b""

    def connection_made(self, transport):
        self.transport = transport
        transport.write(HANDSHAKE)

    def data_received(self, data):
        self.heard += data
        if not self.open.done() and b"\r\n\r\n" in self.heard:
            self.open.set_result(self.heard.startswith(b"HTTP/1.1 101"))
            self.heard = self.heard.partition(b"\r\n\r\n")[2]
        if self.heard == CLOSE_1001:
            self.times.append(time.monotonic())
            self.transport.write(CLOSE_ANSWER)

    def connection_lost(self, problem):
        self.gone.set_result(self.heard == CLOSE_1001)


def refuses(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED


async def crowd(server, number, times):
    """So many open clients."""
    loop = asyncio.get_running_loop()
    clients = []
    for start in range(0, number, 200):
        batch = await asyncio.gather(
            *[
                loop.create_connection(lambda: Many(times), "127.0.0.1", server.port)
                for _ in range(min(200, number - start))
            ]
        )
        clients += [protocol for _, protocol in batch]
        assert all(await asyncio.gather(*[protocol.open for _, protocol in batch]))
    return clients


@pytest.fixture
def many_descriptors():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(before[1], 20_000), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.usefixtures("many_descriptors")
@MODES
@in_loop(150)
async def test_f15_five_thousand_clients_are_not_sent_away_at_once(mode):
    """Each is told 1001, spread over the first 80 % of the time, and all is over in time."""
    timeout = 10.0
    times = []
    with Serving(APP, graceful_timeout=timeout, **mode) as server:
        clients = await crowd(server, 5000, times)
        async with client(server) as ws:
            await ws.send("hello")
            assert await ws.recv() == "hello"
        start = time.monotonic()
        server.signal(signal.SIGTERM)
        code = await asyncio.to_thread(server.ended)
        took = time.monotonic() - start
        assert all(await asyncio.gather(*[one.gone for one in clients]))
        assert code == 0
        assert took < timeout + 1 + 3, "three seconds are this machine's"
        assert len(times) == 5000
        moments = sorted(at - start for at in times)
        assert moments[-1] < timeout * 0.8 + 1.0, "a second is this machine's"
        assert moments[-1] > timeout * 0.6
        third = [len([at for at in moments if low <= at < low + 2.0]) for low in (0.5, 3.0, 5.0)]
        assert min(third) > 600, third  # 2 of 8 seconds should have 1,225
        counts = drained(server)
        assert (counts["accepted"], counts["finished"]) == (1, 1)


@MODES
@in_loop(60)
async def test_f15_a_few_are_sent_away_at_once(mode):
    times = []
    with Serving(APP, graceful_timeout=60, **mode) as server:
        clients = await crowd(server, 90, times)
        start = time.monotonic()
        assert await asyncio.to_thread(server.stop) == 0
        assert all(await asyncio.gather(*[one.gone for one in clients]))
        assert max(times) - min(times) < 1.0
        assert time.monotonic() - start < 5


@MODES
@in_loop(60)
async def test_f15_nobody_is_let_in_any_more(mode):
    """While clients are still being sent away, nobody new connects; those that are left are still served."""
    times = []
    with Serving(APP, graceful_timeout=15, **mode) as server:
        async with contextlib.AsyncExitStack() as stack:
            port = server.port
            await crowd(server, 400, times)
            last = await stack.enter_async_context(client(server))  # the table is gone through from its beginning
            server.signal(signal.SIGTERM)
            await logged(server, "stopping: SIGTERM")
            await last.send("hello")
            assert await last.recv() == "hello"
            await until(lambda: refuses(port))
            await last.send("again")
            assert await last.recv() == "again", "it was refused only when all had been sent away"
            with pytest.raises(ConnectionClosed) as closed:
                await last.recv()
            assert closed.value.rcvd.code == 1001
            assert 2.0 < max(times) - min(times) < 12.0, "100 a second at least"
            assert await asyncio.to_thread(server.ended) == 0


@MODES
@in_loop(60)
async def test_f15_a_handler_that_never_ends_and_clients_that_never_answer(mode):
    """Neither is waited for longer than graceful_timeout and a second, and the counts add up."""
    with Serving(APP, graceful_timeout=2, close_timeout=60, **mode) as server, contextlib.ExitStack() as stack:
        rude = [stack.enter_context(Rude(server)) for _ in range(5)]
        async with client(server, close_timeout=0.1) as ws:
            await ws.send("stuck")
            await logged(server, "^report stuck")
            start = time.monotonic()
            assert await asyncio.to_thread(server.stop) == 0
            assert time.monotonic() - start < 2 + 1 + 3, "three seconds are this machine's"
        for one in rude:
            _, close = await asyncio.to_thread(one.read_to_end)
            assert close.code == 1001
    counts = drained(server)
    assert counts["accepted"] == counts["in_flight"] == 1
    assert not [pid for pid in server._seen if os.path.exists(f"/proc/{pid}")]
