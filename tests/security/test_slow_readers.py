"""C12: clients that read an answer byte by byte. It goes on, but at less than `write_min_rate`: that ends it."""

import contextlib
import threading
import time
from collections.abc import Iterator

import pytest

from contract.clients import Raw, get
from security.conftest import MODES
from security.watch import MIB, becomes_idle, gateway_of, in_threads, watched
from support.serving import Serving, eventually

SIZE = 8 * MIB
RATE = 100_000  # bytes/s
APP = """
BODY = b"x" * (8 << 20)
with open("large", "wb") as file:
    file.write(BODY)

@server.on("message")
def said(server, frame):
    server.push(frame.fd, frame.data, frame.opcode)

@server.on("disconnect")
def left(server, fd, reason):
    report("disconnect", reason)

@server.on("request")
async def asked(request, response):
    if request.path == "/stats":
        return response.end(json.dumps(server.stats()))
    if request.path == "/close":
        response.header("Connection", "close")
    if request.path == "/file":
        return response.send_file(os.path.abspath("large"))
    if request.path == "/parts":
        for at in range(0, len(BODY), 40_000):
            await response.write(BODY[at : at + 40_000])
        return response.end()
    response.end(BODY)
"""


@pytest.fixture(scope="module", params=MODES)
def server(request: pytest.FixtureRequest) -> Iterator[Serving]:
    limits = {"write_limit": 64 * MIB, "write_timeout": 1, "write_min_rate": RATE, "static_file_limit": MIB}
    with Serving(APP, **limits, **MODES[request.param]) as running:
        yield running
        assert running.stop() == 0
        assert "(adds up)" in running.lines[-2]


def stats(server: Serving) -> dict[str, int]:
    with Raw(server, get("/stats")) as raw:
        return raw.answer().json()


def read(raw: Raw, rate: float) -> int:
    """Reads at so many bytes per second; how many came before the end, or before this was enough."""
    got, start, clock = 0, time.monotonic(), threading.Event()
    with contextlib.suppress(ConnectionResetError):
        while got < SIZE and time.monotonic() - start < 40:
            part = raw.socket.recv(max(1, int(rate / 20)))
            if not part:
                break
            got += len(part)
            clock.wait(start + got / rate - time.monotonic())
    return got


@pytest.mark.parametrize("path", ["/whole", "/close", "/parts", "/file"])
def test_c12_answers_that_are_read_too_slowly(server: Serving, path: str):
    """At a fifth of the rate it is ended for that, by name; at forty times the rate it comes to its end."""
    before = stats(server)["slow_consumers"]
    mark = server.mark()
    started = time.monotonic()
    lasted: list[float] = []

    def slow(_: int) -> None:
        with Raw(server, get(path), receive_buffer=4096) as raw:
            got = read(raw, RATE / 5)
            lasted.append(time.monotonic() - started)
            assert got < SIZE

    def legal(_: int) -> None:
        with Raw(server, get(path), receive_buffer=65536) as raw:
            assert read(raw, 40 * RATE) >= SIZE

    with watched(server, grows=64 * MIB):
        in_threads(2, lambda number: (slow, legal)[number](number))
    assert lasted[0] < 20
    counts = stats(server)
    assert counts["slow_consumers"] == before + 1
    assert counts["timed_out"] >= 1
    why = f"slow consumer: it took less than {RATE} bytes per second"
    server.wait_log(rf" INFO .*connection \d+ ended: {why}", since=mark)
    eventually(lambda: f"{why}" in server.reports("disconnect", mark))
    becomes_idle(gateway_of(server))


def test_c12_one_byte_a_second(server: Serving):
    before, clock = stats(server)["slow_consumers"], threading.Event()
    with Raw(server, get("/whole"), receive_buffer=4096) as raw:
        for _ in range(40):
            assert len(raw.socket.recv(1)) == 1
            clock.wait(1)
            if stats(server)["slow_consumers"] > before:
                break
    assert stats(server)["slow_consumers"] == before + 1


def test_who_waits_for_us_is_not_slow(server: Serving):
    """A client that has read all there is, and waits for more for longer than the time limit."""
    app = """
    import asyncio

    @server.on("message")
    def said(server, frame): ...

    @server.on("request")
    async def asked(request, response):
        for _ in range(3):
            await response.write(b"x" * 300_000)
            await asyncio.sleep(0.7)
        response.end(b"end")
    """
    limits = {"write_limit": MIB, "write_timeout": 0.3, "write_min_rate": 1 << 30}
    with Serving(app, **limits) as patient, Raw(patient, get("/"), receive_buffer=1 << 20) as raw:
        assert raw.answer().body == b"x" * 900_000 + b"end"
        assert patient.stop() == 0
