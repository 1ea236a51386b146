"""A whole server in one process, and clients that may do anything: send in any pieces, stop half-way, leave, come back.

The input is a list of steps of two bytes, whom and what, and for sending a length and as many bytes.
"""

import asyncio
from collections.abc import Iterator
from typing import Any

from fuzz.targets.handshake import FIELDS, OFFERS
from fuzz.targets.worker_channel import Watched
from fuzz.world import Client, Front, Loop, new_server, nothing_is_left
from mooring.link.local import open_local

SERVER = new_server(
    websocket_compression=True,
    server_context_takeover=True,
    client_context_takeover=True,
    max_message_size=300,
    max_fragments=4,
    body_limit=200,
    stream_request_body=True,
    stream_body_above=50,
    in_flight_messages=2,
    subprotocols=("chat",),
    allowed_hosts=("a", "example.org"),
)
UPGRADE = b"GET /chat HTTP/1.1\r\n" + FIELDS + b"\r\n"
DEFLATED = b"GET /chat HTTP/1.1\r\n" + FIELDS + b"Sec-WebSocket-Extensions: " + OFFERS[0] + b"\r\n\r\n"
KEY = b"\0\0\0\0"
SEND, LEAVE, END, TURN, PUSH = range(5)
CLIENTS = 3


def send(data: bytes, client: int = 0) -> bytes:
    return bytes([client, SEND, len(data)]) + data


def seeds() -> Iterator[bytes]:
    text = b"\x81\x85" + KEY + b"hello"
    bye = b"\x88\x85" + KEY + b"\x03\xe8bye"
    fragments = b"\x01\x82" + KEY + b"ab\x89\x80" + KEY + b"\x80\x81" + KEY + b"c"
    leave, end, turn, push = (bytes([0, what]) for what in (LEAVE, END, TURN, PUSH))
    yield send(UPGRADE) + send(text) + send(UPGRADE, 1) + send(text[:3], 1) + end
    yield send(DEFLATED) + send(b"\xc1\x8d" + KEY + b"\xcaH\xcd\xc9\xc9W\xc8@\x27\x00\x00\x00\x00")
    yield send(UPGRADE) + send(fragments + bye)
    yield send(UPGRADE) + send(fragments + text * 8) + push + turn + leave
    yield send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 3) + turn + leave
    yield send(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 90\r\n\r\nstart") + turn + leave
    chunked = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    yield send(chunked + b"3\r\nabc\r\n0\r\n\r\n") + end + push
    yield send(chunked + b"3c\r\n" + b"x" * 60 + b"\r\n") + turn + send(b"0\r\n\r\n" + UPGRADE)
    yield send(UPGRADE + text * 4 + bye) + send(b"GET / HTTP/1.0\r\n\r\n", 1) + push + turn


async def play(data: bytes, loop: Loop, front: Front, worker: Watched) -> list[Client]:
    local = open_local(front.gateway.relay, worker.inlet, gateway=1, worker=0, generation=1)
    worker.outbox.connect(local)
    local.hello()
    clients = [Client() for _ in range(CLIENTS)]
    gone: list[Client] = []
    at = 0
    while at + 2 <= len(data):
        which, what = data[at] % CLIENTS, data[at + 1] % 5
        at += 2
        client = clients[which]
        if what == SEND:
            size = data[at] if at < len(data) else 0
            client.send(data[at + 1 : at + 1 + size])
            at += 1 + size
        elif what == LEAVE:
            client.close()
            gone.append(client)
            clients[which] = Client()
        elif what == END:
            client.end()
        elif what == PUSH:
            for fd in front.gateway.connections.table.connections():
                SERVER.push(fd, "pushed" * which)
        await asyncio.sleep(0)
        loop.turn(1)
        front.check()
    for _ in range(6):
        await asyncio.sleep(0)
        loop.turn(1)
    for client in clients:
        client.receive()
    assert not worker.told, worker.told  # our own gateway never tells nonsense
    assert not front.bad
    return clients


def one(data: bytes) -> None:
    loop = Loop()
    front = Front(loop, SERVER.settings)
    worker = Watched(SERVER)
    SERVER._begin(worker, SERVER.settings)
    clients: list[Any] = loop.run(play(data[:1500], loop, front, worker))

    async def end() -> None:
        front.end(clients)
        for _ in range(4):
            await asyncio.sleep(0)
            loop.turn(1)
        front.check()
        assert front.gateway.counts()["in_flight"] == 0

    loop.run(end())
    loop.close()
    nothing_is_left()
