"""What waits for all clients together is bounded: whoever lets most wait is ended, and nobody else notices."""

import contextlib
import socket
import struct

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from support.serving import LIMIT, Serving, eventually

APP = """
PART = "x" * 100_000

@server.on("message")
def said(server, frame):
    if len(frame.data) == 1_000_000:
        return
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


def half_a_message(port: int, size: int) -> socket.socket:
    """A client that says it sends a message of 1 MB, and sends `size` bytes of it."""
    client = socket.create_connection(("127.0.0.1", port), LIMIT)
    client.sendall(
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MTIzNDU2Nzg5MDEyMzQ1Ng==\r\n\r\n"
    )
    while not client.recv(4096, socket.MSG_PEEK).endswith(b"\r\n\r\n"):
        pass
    client.recv(4096)
    client.sendall(b"\x82\xff" + struct.pack("!Q", 1_000_000) + bytes(4) + bytes(size))
    return client


def half_a_body(port: int, size: int) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), LIMIT)
    client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + bytes(size))
    return client


@pytest.mark.parametrize("mode", ["base", "process"])
@pytest.mark.parametrize("begin", [half_a_message, half_a_body])
def test_who_has_begun_to_send_most_gives_way_when_memory_is_full(mode, begin):
    with (
        Serving(APP, mode=mode, buffer_limit=4 * MIB, worker_num=1) as server,
        connect(server.url, compression=None, open_timeout=LIMIT) as other,
        contextlib.ExitStack() as clients,
    ):

        def ask(counter: str) -> int:
            other.send(counter)
            return int(other.recv(LIMIT))

        greedy = clients.enter_context(begin(server.port, 900_000))
        assert eventually(lambda: ask("bytes_gathered") >= 900_000)
        modest = [clients.enter_context(begin(server.port, 500_000)) for _ in range(6)]
        assert eventually(lambda: ask("bytes_gathered") >= 3_900_000)
        assert ask("ended_for_memory") == 0
        modest.append(clients.enter_context(begin(server.port, 500_000)))
        assert eventually(lambda: ask("ended_for_memory") == 1)
        told = b""
        while part := greedy.recv(4096):
            told += part
        assert b"memory is full" in told
        assert told.startswith(b"\x88" if begin is half_a_message else b"HTTP/1.1 503 ")
        if begin is half_a_message:
            assert told[2:4] == (1013).to_bytes(2, "big")
        # what was kept for it is free, and the others go on to the end
        assert eventually(lambda: ask("bytes_gathered") in range(3_500_000, 3_600_000))
        for left in reversed(range(len(modest))):
            modest[left].sendall(bytes(500_000))
            assert eventually(lambda: ask("bytes_gathered") <= left * 510_000)  # noqa: B023 - used at once
        assert ask("ended_for_memory") == 1
