"""Long answers on whole servers: little memory, whoever reads how slowly; streams over a reload and a stop."""

import re
import signal
import socket
from pathlib import Path

import pytest

from support.serving import LIMIT, Serving

APP = """
import asyncio

@server.on("message")
def message(server, frame): ...

@server.on("request")
async def page(request, response):
    if request.path == "/much":
        for _ in range(int(request.query.get("parts", 6400))):
            await response.write(bytes(65536))
    elif request.path == "/events":
        stream = response.event_stream()
        await stream.send(str(os.getpid()))
        try:
            await asyncio.Event().wait()
        finally:
            report("stream ended")
    else:
        response.end("hello")
"""


def resident(pid: int) -> int:
    """Bytes."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


def ask(server: Serving, path: str, receive_buffer: int = 0) -> socket.socket:
    client = socket.socket()
    client.settimeout(LIMIT)
    if receive_buffer:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.connect(("127.0.0.1", server.port))
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    return client


@pytest.fixture(params=["base", "process"])
def server(request: pytest.FixtureRequest) -> Serving:
    return Serving(APP, mode=request.param, worker_num=1, write_timeout=60, graceful_timeout=10)


def test_slow_clients_cost_little_memory(server: Serving) -> None:
    """20 clients that read nothing of 400 MiB each, of which the kernel takes some."""
    with server:
        with ask(server, "/") as client:
            assert client.recv(100)
        before = {pid: resident(pid) for pid in [server.pid, *server.pids()]}
        clients = [ask(server, "/much", 65536) for _ in range(20)]
        for client in clients:
            assert client.recv(1000)
        for _ in range(50):
            with ask(server, "/") as client:
                assert client.recv(100)
        grown = {pid: resident(pid) - size for pid, size in before.items()}
        assert max(grown.values()) < 20 << 20, grown
        for client in clients:
            client.close()
        with ask(server, "/") as client:
            assert client.recv(100)
        assert server.stop() == 0


def first_event(client: socket.socket) -> int:
    received = b""
    while not (found := re.search(rb"data: (\d+)\n\n\r\n", received)):
        received += client.recv(4096)
    return int(found[1])


def test_a_stop_ends_streams(server: Serving) -> None:
    with server, ask(server, "/events") as client:
        first_event(client)
        server.signal(signal.SIGTERM)
        rest = b""
        while got := client.recv(4096):
            rest += got
        assert rest == b"0\r\n\r\n", "the stream is complete"
        assert server.ended(8) == 0, "no handler was waited for"
        assert server.reports("stream") == ["ended"]
        assert "(adds up)" in server.lines[-2]


def test_a_reload_ends_streams_and_no_download() -> None:
    with Serving(APP, mode="process", worker_num=1, write_timeout=60) as server:
        worker = server.pid_of("worker 0")
        with ask(server, "/events") as client, ask(server, "/much?parts=320", 65536) as download:
            assert first_event(client) == worker
            assert download.recv(1000)
            server.signal(signal.SIGHUP)
            assert client.recv(4096) == b"0\r\n\r\n"
            assert client.recv(4096) == b""
            with ask(server, "/events") as again:  # what an EventSource does
                assert first_event(again) != worker
            rest = bytearray()
            while not rest.endswith(b"\r\n0\r\n\r\n"):
                got = download.recv(1 << 20)
                assert got
                rest += got
            assert len(rest) > 320 * 65536
        assert server.stop() == 0
        assert "(adds up)" in server.lines[-2]
