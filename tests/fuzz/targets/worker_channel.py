"""What a worker reads from a gateway: a stream of records that may be nonsense, in any pieces."""

import asyncio
import os
import socket
from collections.abc import Iterator
from typing import Any

import msgspec

import mooring
from fuzz.harness import pieces
from fuzz.world import Loop, Nobody, is_about_bytes, new_server, nothing_is_left, page, records, short
from mooring._core.channel_link import ChannelGatewayEnd
from mooring._core.table import Table
from mooring._core.wire import Command, Event
from mooring.app.request_record import RequestRecord, encode_request
from mooring.worker.worker import Worker

SERVER = new_server()
FDS = [1, 2, 3, (1 << 57) | (5 << 22)]
HEADERS = [("host", "a"), ("content-type", "text/plain")]


def request(*, streamed: bool = False, body: bytes = b"") -> bytes:
    return encode_request(
        RequestRecord("POST", "/a?b=c", 1, HEADERS, "127.0.0.1", 9, 80, "http", 0.0, 1, streamed), body
    )


def seeds() -> Iterator[bytes]:
    pack = msgspec.msgpack.encode
    lost = (3).to_bytes(2, "little") + b"why"
    yield b"\1" + short(Event.OPEN, payload=request()) + short(Event.MESSAGE, 1, payload=b"hello", ticket=1)
    yield b"\1" + short(Event.MESSAGE, 2, payload=b"\xff", ticket=2, extra=251) + short(Event.CLOSE, 2, 1000, b"bye")
    yield b"\1" + short(Event.REQUEST, 0, 1, request(body=b"body"), ticket=3, fd=1)
    parts = short(Event.BODY, payload=b"part", ticket=255, extra=1) + short(Event.BODY, ticket=255, extra=1)
    yield b"\1" + short(Event.REQUEST, 0, 1, request(streamed=True)) + parts
    yield b"\1" + short(Event.UNCERTAIN, 1, Event.MESSAGE, lost + b"text") + short(Event.DISCONNECT, 3, payload=b"x")
    yield b"\1" + short(Event.QUARANTINED, 1, Event.MESSAGE, lost) + short(Event.HANDSHAKE, 1, payload=request())
    yield b"\1" + short(Event.SESSION, payload=pack({"a": 1, "b": None}), ticket=255, extra=1)
    for kind in (Event.DEPART, Event.ROOM, Event.GONE, Event.END_STREAMS, Event.PEER_ENDED):
        yield b"\1" + short(kind, ticket=255, extra=1) + short(Event.FILE, payload=b"\2" + bytes(8), ticket=255)
    yield b"\0" + bytes([5, 0, 0, 0, 2, 1]) + bytes(18) + b"hello"


class Watched(Worker):
    """A worker that keeps what goes wrong, instead of logging it and ending itself."""

    def __init__(self, server: mooring.Server, number: int = 0) -> None:
        super().__init__(server, server._handlers, server.settings, number, 1, Nobody())
        self.refusals = Nobody()
        self.told: list[Any] = []

    def on_bad_record(self, whose: str, problem: Exception) -> None:
        assert is_about_bytes(problem), repr(problem)
        self.told.append(str(problem))

    def on_broken(self, whose: str, why: str) -> None:
        self.told.append(("broken", why))

    def failed(self, kind: int, fd: int, error: BaseException) -> str:
        """Nothing that our handlers do fails; what was wrong is the record."""
        if isinstance(error, asyncio.CancelledError) or "cancelled" in str(error):
            return ""  # by the end of the input
        assert is_about_bytes(error), repr(error)
        self.told.append((kind, fd, str(error)))
        return ""


def commands(stream: bytes) -> list[bytes]:
    """The records of a worker, without acknowledgements: how many there are of these is a matter of time."""
    found = []
    while stream:
        end = 24 + int.from_bytes(stream[:4], "little")
        if stream[4] != Command.ACK:
            found.append(stream[:end])
        stream = stream[end:]
    return found


def run(parts: list[bytes]) -> object:
    loop = Loop()
    gateway, channel = socket.socketpair()
    answers, reply = socket.socketpair()
    channel.setblocking(False)
    worker = Watched(SERVER)
    SERVER._begin(worker, SERVER.settings)
    file = os.memfd_create("table")
    gateway_end = ChannelGatewayEnd(0, Table(file, 4), worker.inlet, loop.reactor, channel.detach(), reply, page())

    async def feed() -> None:
        worker.outbox.connect(gateway_end)
        gateway_end.hello()
        for part in parts:
            gateway_end.channel.feed(part)
        for _ in range(4):
            await asyncio.sleep(0)

    try:
        loop.run(feed())
        loop.turn(1)
        gateway.setblocking(False)
        sent = gateway.recv(1 << 20)
        return worker.told, commands(sent)
    finally:
        gateway.close()
        answers.close()
        loop.turn(2)
        loop.close()
        gateway_end.close()
        os.close(file)


def one(data: bytes) -> None:
    stream = records(data, FDS)
    assert run([stream]) == run(pieces(stream))
    nothing_is_left()
