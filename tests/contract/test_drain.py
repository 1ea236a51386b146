"""`await server.drain(fd)`: who pushes much goes as fast as the client reads, from whichever worker."""

from collections.abc import Iterator
from typing import Any

import pytest

from contract.clients import BINARY, TEXT, Raw, all_askers, get, unread, websocket
from frames import frame
from support.serving import Serving, eventually

PART = 50_000
PARTS = 200  # 10 MB: more than the kernel keeps for the two ends of a connection

APP = """
PART, PARTS = 50_000, 200

async def stream(server, fd, name):
    for number in range(PARTS):
        if not server.push(fd, bytes([number % 251]) * PART, Opcode.BINARY) or not await server.drain(fd):
            report(name, "gone")
            return
        if number == 0:
            report(name, "began")
    report(name, "done")

@server.on("open")
def opened(server, request):
    server.push(request.fd, json.dumps({"fd": request.fd}))

@server.on("message")
async def message(server, frame):
    if frame.data == "stream":
        await stream(server, frame.fd, "own")
    else:
        server.push(frame.fd, frame)

@server.on("request")
async def page(request, response):
    if request.path == "/eval":  # for Asker
        response.json({"value": request.fd, "worker": server.worker_id, "pid": server.worker_pid})
    elif request.path == "/stream":
        await stream(server, int(request.query["fd"]), f"worker {server.worker_id}")
        response.end("streamed")
    elif request.path == "/drain":
        response.json(await server.drain(int(request.query["fd"])))
    else:
        response.json(server.stats())
"""


@pytest.fixture(scope="module")
def patient(mode: dict[str, Any]) -> Iterator[Serving]:
    with Serving(APP, **mode, write_limit=262_144, write_timeout=60) as running:
        yield running
        assert running.stop() == 0
        assert "(adds up)" in running.lines[-2], "\n".join(running.lines[-10:])


def ask(server: Serving, path: str) -> Any:
    with Raw(server, get(path)) as raw:
        return raw.answer().json()


def all_parts(client: Raw) -> None:
    for number in range(PARTS):
        opcode, payload = client.frame()
        assert opcode == BINARY
        assert payload == bytes([number % 251]) * PART


def test_much_is_pushed_as_fast_as_the_client_reads(patient: Serving):
    with websocket(patient) as (client, _):
        since = patient.mark()
        client.send(frame(TEXT, b"stream"))
        unread(client)
        # the kernel takes what it can; then the handler waits, and what waits here stays below write_limit
        eventually(lambda: 65_536 <= ask(patient, "/stats")["bytes_queued"] <= 262_144)
        assert not patient.reports("own done", since)
        all_parts(client)
        patient.wait_log("report own done", since=since)
        client.send(frame(TEXT, b"and then"))
        assert client.text() == "and then"


def test_any_worker_can_wait(patient: Serving, mode: dict[str, Any]):
    with websocket(patient) as (client, fd), all_askers(patient, mode) as askers:
        for asker in askers:
            asker.raw.send(get(f"/stream?fd={fd}"))
            all_parts(client)
            assert asker.raw.answer().body == b"streamed"


def test_several_wait_for_one_client(patient: Serving, mode: dict[str, Any]):
    with websocket(patient) as (client, fd), all_askers(patient, mode) as askers:
        for asker in askers:
            asker.raw.send(get(f"/stream?fd={fd}"))
        sizes = [len(client.frame()[1]) for _ in range(PARTS * len(askers))]
        assert sizes == [PART] * len(sizes)
        for asker in askers:
            assert asker.raw.answer().body == b"streamed"


def test_who_waits_hears_that_the_client_has_left(patient: Serving, mode: dict[str, Any]):
    with all_askers(patient, mode) as askers:
        for asker in askers:
            since = patient.mark()
            with websocket(patient) as (client, fd):
                asker.raw.send(get(f"/stream?fd={fd}"))
                unread(client)
                eventually(lambda: ask(patient, "/stats")["bytes_queued"] >= 65_536)
            patient.wait_log(f"report worker {asker.worker} gone", since=since)
            assert asker.raw.answer().body == b"streamed"


def test_without_a_websocket_there_is_nothing_to_wait_for(patient: Serving):
    with websocket(patient) as (_, fd):
        assert ask(patient, f"/drain?fd={fd}") is True
        with Raw(patient, get(f"/drain?fd={fd}")) as raw:
            assert raw.answer().body == b"true"
    for other in (0, 1, 1 << 70, fd ^ 1):
        assert ask(patient, f"/drain?fd={other}") is False
    eventually(lambda: ask(patient, f"/drain?fd={fd}") is False)
