"""What a server runs out of, or fails at, ends connections, too: each of these causes stands in the close record."""

import contextlib
import os
import signal
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from contract.clients import BINARY, CLOSE, TEXT, Raw, close_frame, get, halted, handshake, only_gateway, websocket
from contract.closing import APP, logged, the_record, told
from contract.modes import only
from frames import frame
from security.watch import gateway_of
from support.faults import Faults
from support.serving import Serving, eventually

MIB = 1 << 20
RECORDS = {"close_records": "log", "log_format": "json"}
LIMITS = {"header_timeout": 60, "keepalive_timeout": 60, "ping_interval": 0, **RECORDS}


def seen(record: dict[str, Any]) -> tuple[Any, ...]:
    return record["cause"], record["code"], record["phase"], record["protocol"]


# ---------------------------------------------------------------------------------------------- limits


@only("base", "process")
def test_who_is_idle_gives_way_on_a_server_that_is_nearly_full(mode: dict[str, Any]):
    with Serving(APP, max_connections=20, **LIMITS, **mode) as server, contextlib.ExitStack() as stack:
        idle = [stack.enter_context(Raw(server, get(f"/{number}"))) for number in range(16)]
        for raw in idle:
            assert raw.answer().status == 200
        mark = server.mark()
        for _ in range(2):
            stack.enter_context(Raw(server)).upgrade("/room")
        assert idle[0].rest() == b""
        record = the_record(server, mark)
        assert seen(record) == ("server_full", None, "idle", "http")
        assert (record["path"], record["reason"]) == ("/0", "idle, and the server is nearly full")
        assert server.stop() == 0


def begin(raw: Raw, size: int) -> None:
    """It says that it sends a message of a MB, and sends `size` bytes of it."""
    raw.send(b"\x82\xff" + struct.pack("!Q", 1_000_000) + bytes(4) + bytes(size))


def half_a_message(server: Serving, path: str, size: int) -> Raw:
    raw = Raw(server)
    assert raw.upgrade(path).status == 101
    raw.text()
    begin(raw, size)
    return raw


def half_a_body(server: Serving, path: str, size: int) -> Raw:
    return Raw(server, get(path, "Content-Length: 1000000", method="POST", body=bytes(size)))


@only("base", "process")
@pytest.mark.parametrize(
    ("half", "told_to_it", "ended"),
    [
        (half_a_message, b"\x88", ("memory_full", 1013, "open", "websocket")),
        (half_a_body, b"HTTP/1.1 503 ", ("memory_full", 503, "request", "http")),
    ],
)
def test_who_sends_most_gives_way_when_memory_is_full(
    mode: dict[str, Any], half: Callable[..., Raw], told_to_it: bytes, ended: tuple[Any, ...]
):
    with Serving(APP, buffer_limit=4 * MIB, **LIMITS, **mode) as server, contextlib.ExitStack() as stack:
        with Raw(server) as asker:

            def gathered() -> int:
                asker.send(get("/?do=server.stats()['bytes_gathered']"))
                return int(asker.answer().json()[1])

            greedy = stack.enter_context(half(server, "/greedy", 900_000))
            eventually(lambda: gathered() >= 900_000)
            for _ in range(6):
                stack.enter_context(half(server, "/modest", 500_000))
            eventually(lambda: gathered() >= 3_900_000)
            mark = server.mark()
            stack.enter_context(half(server, "/modest", 500_000))
            assert greedy.rest().startswith(told_to_it)
            record = the_record(server, mark)
        assert seen(record) == ended
        assert "memory is full" in record["reason"]
        assert server.stop() == 0


@only("base", "process")
def test_who_does_not_read_gives_way_when_memory_is_full(mode: dict[str, Any]):
    """He is no slow consumer by himself: his own limits are far."""
    limits = {**LIMITS, "write_limit": 64 * MIB, "write_high_water": 32 * MIB, "buffer_limit": 4 * MIB}
    with Serving(APP, close_timeout=0.3, **limits, **mode) as server, websocket(server, "/") as (raw, _):
        mark = server.mark()
        raw.send(frame(TEXT, b"flood(frame.fd)"))
        record = the_record(server, mark)
        assert seen(record) == ("memory_full", 1008, "open", "websocket")
        assert record["most_queued"] > MIB
        assert server.stop() == 0


@only("base", "process")
def test_too_many_of_an_address_that_a_proxy_has_told(mode: dict[str, Any]):
    proxied = {"proxy_protocol": "any", "proxy_protocol_from": ["127.0.0.0/8"], "max_connections_per_address": 1}
    header = b"PROXY TCP4 192.0.2.7 198.51.100.1 4660 443\r\n"
    with Serving(APP, **proxied, **LIMITS, **mode) as server, Raw(server, header + get("/")) as first:
        assert first.answer().status == 200
        mark = server.mark()
        with Raw(server, header + get("/")) as raw:
            assert raw.answer().status == 429
            record = the_record(server, mark)
        assert seen(record) == ("too_many_connections", 429, "request", "http")
        assert record["remote_ip"] == "192.0.2.7"
        assert server.stop() == 0


# ---------------------------------------------------------------------------------------------- failures

HOPELESS = {"restart_free": 0, "restart_backoff_max": 1.5, "restart_window": 0.5, "degraded_after": 3}


@only("process", "process-2")
def test_no_worker_serves(mode: dict[str, Any]):
    """Who waits is told so; the successor hears of them."""
    app = "if os.path.exists('broken'):\n    os._exit(7)\n" + APP
    with Serving(app, degraded_hold_time=0.5, **HOPELESS, **LIMITS, **mode) as server, contextlib.ExitStack() as stack:
        raw, fd = stack.enter_context(websocket(server, "/room"))
        broken = server.script.with_name("broken")
        broken.touch()
        mark = server.mark()
        for number in range(2):
            os.kill(server.pid_of(f"worker {number}"), signal.SIGKILL)
        server.wait_log("all workers end again and again", since=mark)
        raw.send(frame(TEXT, b"None"))
        assert raw.close_frame() == (1013, "try again later: no worker serves")
        for request in (get("/page"), handshake("/other")):
            with Raw(server, request) as refused:
                assert refused.answer().status == 503
                assert refused.rest() == b""
        server.wait_log('"logger":"mooring.closed"', since=mark, count=3)
        broken.unlink()
        server.wait_log("^report ended", since=mark, count=3)
        records = {record["path"]: record for record in logged(server, mark)}
        assert {record["path"]: record for record in told(server, mark)} == records
        assert seen(records["/room"]) == ("no_worker", 1013, "open", "websocket")
        assert records["/room"]["fd"] == fd
        for path in ("/page", "/other"):
            assert seen(records[path]) == ("no_worker", 503, "handling", "http")
        assert server.stop() == 0


@only("base-2", "process-2")
def test_who_has_missed_something_while_its_gateway_stood_still(mode: dict[str, Any]):
    limits = {**LIMITS, "write_limit": 64 * MIB, "gateway_bytes": MIB}
    with Serving(APP, **limits, **mode) as server, contextlib.ExitStack() as stack:
        clients = []
        for number in range(2):
            with only_gateway(server, mode, number):
                clients.append(stack.enter_context(websocket(server, f"/{number}")))
        (pushes, _), (misses, fd) = clients
        mark = server.mark()
        with halted(server.pid_of("gateway 1" if mode["mode"] == "process" else "server 1")):
            pushes.send(frame(TEXT, f"flood({fd}), server.push(frame.fd, 'said')".encode()))
            assert pushes.text() == "said"
        opcode, payload = BINARY, b""
        while opcode != CLOSE:
            opcode, payload = misses.frame()
        assert payload[:2] == (1013).to_bytes(2, "big")
        record = the_record(server, mark)
        assert seen(record) == ("standstill", 1013, "open", "websocket")
        assert (record["fd"], record["gateway"], record["path"]) == (fd, 1, "/1")
        assert server.stop() == 0


def test_a_file_that_becomes_shorter(mode: dict[str, Any], tmp_path: Path):
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(64 * MIB)
    with Serving(APP, **LIMITS, **mode) as server:
        mark = server.mark()
        with Raw(server, get(f"/large?file={large}"), receive_buffer=65536) as raw:
            raw.until(b"\r\n\r\n")
            os.truncate(large, MIB)
            raw.rest()
            record = the_record(server, mark)
        assert seen(record) == ("file_broken", None, "handling", "http")
        assert (record["path"], record["reason"]) == ("/large", "a file could not be sent to its end")
        assert server.stop() == 0


@contextlib.contextmanager
def short_of_memory(mode: dict[str, Any], tmp_path: Path) -> Iterator[tuple[Raw, Callable[[], dict[str, Any]]]]:
    """A WebSocket whose gateway gets no memory the next time that it asks; and what gives the record of its end."""
    faults = Faults(tmp_path)
    with Serving(APP, env=faults.env, **LIMITS, **mode) as server, websocket(server, "/room") as (raw, _):
        faults.only(pid=gateway_of(server))
        mark = server.mark()
        faults.set("allocate", every=1, times=1)
        yield raw, lambda: the_record(server, mark)
        assert faults.hits("allocate") == 1
        assert server.stop() == 0


@only("base", "process")
def test_there_is_no_memory_for_what_a_client_is_sent(mode: dict[str, Any], tmp_path: Path):
    with short_of_memory(mode, tmp_path) as (raw, record_of):
        raw.send(frame(TEXT, b"server.push(frame.fd, bytes(30_000))"))
        assert raw.rest() == b""
        record = record_of()
        assert seen(record) == ("out_of_memory", 1006, "open", "websocket")
        assert record["reason"] == "no memory for the out-queue"


@only("base", "process")
def test_there_is_no_memory_for_what_a_client_sends(mode: dict[str, Any], tmp_path: Path):
    with short_of_memory(mode, tmp_path) as (raw, record_of):
        begin(raw, 100_000)
        assert raw.close_frame() == (1011, "out of memory")
        raw.send(close_frame(1011))
        assert seen(record_of()) == ("out_of_memory", 1011, "open", "websocket")


@only("base", "process")
def test_an_error_of_the_server(mode: dict[str, Any], tmp_path: Path):
    """What Python has no memory for while a request is read."""
    faults = Faults(tmp_path)
    with Serving(APP, env=faults.env, **LIMITS, **mode) as server:
        faults.only(pid=gateway_of(server), everywhere=1)
        for _ in range(20):  # it may meet something else, which then fails by itself
            mark = server.mark()
            with Raw(server, get("/first")) as raw:
                assert raw.answer().status == 200
                faults.set("allocate", every=1, times=1)
                raw.send(get("/", "Content-Length: 5000", method="POST", body=bytes(5000)))
                status = raw.answer().status
                faults.stop()
            record = the_record(server, mark)
            if record["cause"] == "server_error":
                break
        assert status == 500
        assert seen(record) == ("server_error", 500, "idle", "http")
        assert (record["path"], record["reason"]) == ("/first", "an error of the server")
        server.wait_log("serving a connection failed: MemoryError", since=mark)
        assert server.stop() == 0
