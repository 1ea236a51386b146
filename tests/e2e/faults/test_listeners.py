"""Faults of listening sockets, by their numbers in the fault model: addresses that can't be had, and reloads."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from e2e.peers import fetch, in_loop, logged
from support.serving import Serving

PLAIN = """
@server.on("request")
def page(request, response):
    response.end(str(os.getpid()))

@server.on("message")
def said(server, frame): pass
"""


def listening(pid, port):
    """Inodes of the sockets that this process has and that listen on the port."""
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if words[3] == "0A" and int(words[1].split(":")[1], 16) == port:
            found.add(f"socket:[{words[9]}]")
    return {link for name in os.listdir(f"/proc/{pid}/fd") if (link := os.readlink(f"/proc/{pid}/fd/{name}")) in found}


@pytest.mark.parametrize("gateways", [1, 2])
@in_loop(60)
async def test_f23_a_reload_keeps_the_listening_socket(gateways):
    """The same one, of the same inode, in every process: nobody who connects meanwhile is refused or lost."""
    with Serving(PLAIN, worker_num=2, gateway_num=gateways) as server:
        stop = asyncio.Event()
        served = 0

        async def connect():
            nonlocal served
            while not stop.is_set():
                reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
                writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                answer = await asyncio.wait_for(reader.read(), 20)
                assert answer.startswith(b"HTTP/1.1 200 "), answer
                writer.close()
                served += 1

        before = listening(server.pid, server.port)
        assert len(before) == 1
        async with asyncio.TaskGroup() as group:
            for _ in range(6):
                group.create_task(connect())
            for _ in range(3):
                mark = server.mark()
                server.signal(signal.SIGHUP)
                await logged(server, "reload: done", since=mark)
                have = [listening(pid, server.port) for pid in server.titles()]
                assert set().union(*have) == before
            stop.set()
        assert served > 50
        assert server.stop() == 0


def test_f23_a_reload_keeps_the_listening_socket_in_base_mode():
    """There old processes end, with the connections they have; the socket stays."""
    with Serving(PLAIN, mode="base", worker_num=2) as server:
        before = listening(server.pid, server.port)
        assert len(before) == 1
        old = server.pids()
        mark = server.mark()
        server.signal(signal.SIGHUP)
        server.wait_log("reload: done", since=mark)
        assert not set(old) & set(server.pids())
        assert [listening(pid, server.port) for pid in server.titles()] == [before] * 3
        assert int(fetch(server)) in server.pids()
        assert server.stop() == 0
