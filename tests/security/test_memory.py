"""What waits for all clients together is bounded: whoever lets most wait is ended, and nobody else notices."""

import contextlib

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from support.serving import LIMIT, Serving, eventually

APP = """
PART = "x" * 100_000

@server.on("message")
def said(server, frame):
    if frame.data.startswith("fill "):
        for number in range(int(frame.data[5:])):
            server.push(frame.fd, f"{number:04}" + PART)
    else:
        server.push(frame.fd, str(server.stats()[frame.data]))
"""
MIB = 1 << 20
GENEROUS = {"write_limit": 256 * MIB, "write_high_water": 128 * MIB, "buffer_limit": 24 * MIB, "worker_num": 1}


def test_the_longest_queue_gives_way_when_all_together_are_too_long():
    # what no kernel buffer takes: 40 MB for one, 15 MB for the other
    options = {"compression": None, "ping_interval": None, "open_timeout": LIMIT, "max_queue": 1, "max_size": None}
    with Serving(APP, **GENEROUS) as server:
        with (
            connect(server.url, **options) as modest,
            connect(server.url, **options) as greedy,
            connect(server.url, **options) as other,
        ):

            def ask(counter: str) -> int:
                other.send(counter)
                return int(other.recv(LIMIT))

            modest.send("fill 150")
            assert ask("ended_for_memory") == 0
            greedy.send("fill 400")
            assert eventually(lambda: ask("ended_for_memory") == 1)
            got = []
            with contextlib.suppress(ConnectionClosed):
                got.extend(greedy)
            assert [message[:4] for message in got] == [f"{number:04}" for number in range(len(got))]
            assert len(got) < 400
            assert greedy.close_code == 1008
            assert "memory" in greedy.close_reason
            assert [modest.recv(LIMIT)[:4] for _ in range(150)] == [f"{number:04}" for number in range(150)]
            assert eventually(lambda: ask("bytes_queued") < 1000)
