"""F23: a reload keeps the listening socket."""

import contextlib
import os
import signal
from pathlib import Path

import pytest

from e2e.peers import Newcomers, in_loop, logged
from support.serving import Serving

PLAIN = """
@server.on("request")
def page(request, response):
    time.sleep(0.01)  # so that some always wait to be accepted
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
    links = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            links.add(os.readlink(f"/proc/{pid}/fd/{name}"))
    return links & found


@pytest.mark.parametrize(
    "mode",
    [{"worker_num": 2, "gateway_num": 1}, {"worker_num": 2, "gateway_num": 2}, {"mode": "base", "worker_num": 3}],
    ids=["process-1", "process-2", "base-3"],
)
@in_loop(200)
async def test_f23_a_reload_keeps_the_listening_socket(mode):
    """The same one, of the same inode, in every process: nobody who connects meanwhile is refused or lost.

    In base mode the processes that accept are replaced, with the connections they have.
    """
    with Serving(PLAIN, **mode) as server:
        before = listening(server.pid, server.port)
        assert len(before) == 1
        async with Newcomers(server.port, 32) as clients:
            for _ in range(4):
                old, mark = server.pids(), server.mark()
                server.signal(signal.SIGHUP)
                await logged(server, "reload: done", since=mark, limit=60)
                assert [listening(pid, server.port) for pid in server.titles()].count(before) >= 2
                assert set().union(*[listening(pid, server.port) for pid in server.titles()]) == before
                await clients.more(20)
                if mode.get("mode") == "base":
                    assert not set(old) & set(server.pids())
        assert len(clients.answers) > 50
        assert server.stop() == 0
