"""F18: the wall clock is set while limits run. tests/unit/test_sources.py looks whether anything reads it."""

import asyncio
import signal
import time

import pytest

from contract.clients import TEXT, Raw
from e2e.peers import BOTH_MODES, client, drained, in_loop, logged
from frames import frame
from support.faults import Faults
from support.serving import Serving

PROCESS, BASE = BOTH_MODES
STEPS = pytest.mark.parametrize(
    ("mode", "step"), [(PROCESS, 3600), (PROCESS, -3600), (BASE, -3600)], ids=["forward", "back", "back in base mode"]
)
LATE = 5.0  # seconds; of a busy machine, and much less than a step

APP = """
import asyncio
started = time.time()

@server.on("message")
async def said(server, frame):
    if frame.data == "clock":
        return server.push(frame.fd, str(round(time.time() - started)))
    if frame.data == "block":
        report("blocked")
        await asyncio.sleep(600)
    before = time.monotonic()
    server.after(0.5, lambda: server.push(frame.fd, str(time.monotonic() - before)))

@server.on("request")
def page(request, response):
    response.end("hello")
"""


@STEPS
@in_loop(60)
async def test_f18_limits_come_in_time_when_the_clock_is_set(mode, step, tmp_path):
    """Of a head that does not come, of a peer that does not answer pings, of a timer: neither early nor late."""
    faults = Faults(tmp_path)
    limits = {"header_timeout": 1.0, "ping_interval": 0.5, "pong_timeout": 0.5}
    with Serving(APP, env=faults.env, **limits, **mode) as server:
        async with client(server) as ws:
            with Raw(server) as slow, Raw(server) as deaf:
                start = time.monotonic()
                slow.send(b"GET / HTTP/1.1\r\n")
                deaf.upgrade("/")
                await ws.send("timer")
                faults.only(step=step)
                assert 0.4 < float(await ws.recv()) < 0.5 + LATE
                assert b" 408 " in await asyncio.to_thread(slow.until, b"\r\n")
                assert 0.9 < time.monotonic() - start < 1.0 + LATE
                await asyncio.to_thread(deaf.rest)  # pings that it does not answer, and the end
                assert 0.9 < time.monotonic() - start < 1.0 + LATE
            await ws.send("clock")
            assert abs(int(await ws.recv()) - step) < 60, "the clock was not set"
            await ws.ping()
        assert server.stop() == 0


@STEPS
@in_loop(60)
async def test_f18_a_drain_ends_in_time_when_the_clock_is_set(mode, step, tmp_path):
    faults = Faults(tmp_path)
    with Serving(APP, env=faults.env, graceful_timeout=1.5, **mode) as server:
        with Raw(server) as raw:
            raw.upgrade("/")
            raw.send(frame(TEXT, b"block"))
            await logged(server, "report blocked")
            start = time.monotonic()
            server.signal(signal.SIGTERM)
            # its limit is set before it sends anybody away
            assert (await asyncio.to_thread(raw.close_frame))[0] == 1001
            faults.only(step=step)
            await asyncio.to_thread(raw.rest)
            assert time.monotonic() - start > 1.0, "its client was sent away before its time"
            assert await asyncio.to_thread(server.ended) == 0
            assert 1.0 < time.monotonic() - start < 2.5 + LATE
        assert drained(server)["accepted"] == 1
