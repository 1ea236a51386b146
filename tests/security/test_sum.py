"""All limits of a small server at once: its memory is what the manual says it is at most, and others are served."""

import contextlib
import re
from pathlib import Path

import pytest
from websockets.sync.client import connect

from e2e.peers import memory
from security.test_memory import half_a_body, half_a_message
from security.watch import watched
from support.serving import LIMIT, ROOT, Serving, eventually

MIB = 1 << 20
APP = """
import asyncio

@server.on("message")
async def said(server, frame):
    word, _, rest = str(frame.data).partition(" ")
    if word == "join":
        session = server.session(frame.fd)
        for number in range(100):
            server.subscribe(frame.fd, f"{rest} {number} ".ljust(200, "x"))
        for number in range(16):
            session[f"{number}"] = "x" * 200
    elif word == "fill":
        for number in range(40):
            server.push(frame.fd, "x" * 100_000)
            await asyncio.sleep(0)
    server.push(frame.fd, frame.data)

@server.on("request")
async def asked(request, response):
    report("begun")
    while not os.path.exists("go"):
        await asyncio.sleep(0.01)
    response.end("done")
"""
SETTINGS = {
    "worker_num": 1,
    "max_connections": 64,
    "buffer_limit": 8 * MIB,
    "worker_bytes": 1 * MIB,
    "max_message_size": MIB,
    "body_limit": MIB,
    "header_limit": 16384,
    "session_limit": 4096,
    "write_limit": 2 * MIB,
    "write_timeout": 60,
}


def stated(**more: object) -> int:
    """What docs/memory.md says."""
    text = (ROOT / "docs" / "memory.md").read_text()
    [code] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict = {}
    exec(code, names)
    return int(names["at_most"](SETTINGS, **more))


@pytest.mark.parametrize("mode", ["process", "base"])
def test_all_limits_at_once(mode):
    options = {"compression": None, "proxy": None, "ping_interval": None, "open_timeout": LIMIT, "max_size": None}
    options["close_timeout"] = 0.1  # of those that do not read
    bound = stated(topics=100, name=200, entries=16)
    assert 16 * MIB < bound < 48 * MIB
    if mode == "base":
        bound += 8 * MIB  # what the worker has of all that
    with (
        Serving(APP, mode=mode, **SETTINGS) as server,
        contextlib.ExitStack() as clients,
    ):
        gateway = next((pid for pid, title in server.titles().items() if title == "mooring: gateway 0"), server.pid)
        before = memory(gateway)
        with watched(server, bound):
            for number in range(20):
                one = clients.enter_context(connect(server.url, **options))
                one.send(f"join {number}")
                assert one.recv(LIMIT) == f"join {number}"
            for begin in (half_a_message, half_a_body):
                for _ in range(8):
                    clients.enter_context(begin(server.port, 900_000))
            for _ in range(8):
                one = clients.enter_context(connect(server.url, max_queue=1, **options))
                one.send("fill")
            for _ in range(6):
                asking = clients.enter_context(half_a_body(server.port, 900_000))
                asking.setblocking(False)
                with contextlib.suppress(OSError):
                    asking.send(bytes(100_000))
            assert eventually(lambda: memory(gateway, "VmHWM") - before > bound // 4)
            Path(server.script).with_name("go").touch()
