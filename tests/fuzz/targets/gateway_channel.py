"""What a gateway reads from a worker, while it has clients: a stream of records that may be nonsense, in any pieces."""

import socket
from collections.abc import Iterator
from contextlib import suppress

import msgspec

from fuzz.harness import pieces
from fuzz.targets.handshake import FIELDS
from fuzz.world import Client, Front, Loop, new_server, nothing_is_left, records, short
from mooring._core.wire import VERSION, Call, Command

SERVER = new_server(stream_request_body=True, stream_body_above=16, max_connections=16, redeliver=True)
PID = 4242
FDS = [(1 << 57) | (101 << 22), (1 << 57) | (102 << 22) | 1, 7]
UPGRADE = b"GET /chat HTTP/1.1\r\n" + FIELDS + b"\r\n"
UPLOAD = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 40\r\n\r\n0123456789"
MESSAGE = b"\x81\x85\x00\x00\x00\x00hello"


def seeds() -> Iterator[bytes]:
    pack = msgspec.msgpack.encode
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    yield b"\1" + short(Command.ACK, ticket=0, extra=3)
    yield b"\1" + short(Command.SEND, 1, payload=b"hello") + short(Command.SEND, 9, payload=b"ping")
    yield b"\1" + short(Command.DISCONNECT, 0, 1000, b"bye") + short(Command.DROP, fd=1)
    yield b"\1" + short(Command.RESPOND, 1, payload=answer, fd=1, extra=1)
    yield b"\1" + short(Command.RESPOND, 4, payload=answer, fd=1, extra=1) + short(Command.WANT, fd=1, extra=1)
    yield b"\1" + short(Command.FILE, 2, 9, bytes(48) + b"/dev/zeroHTTP/1.1 200 OK\r\n\r\n", fd=1, extra=1)
    yield b"\1" + short(Command.SUBSCRIBE, payload=b"room") + short(Command.PUBLISH, 1, 4, b"roomhi", fd=2)
    left_out = b"room" + FDS[0].to_bytes(8, "little") + b"hi"
    yield b"\1" + short(Command.SUBSCRIBE, payload=b"room") + short(Command.PUBLISH, 1, 4, left_out, fd=2, extra=1)
    yield b"\1" + short(Command.BIND, payload=b"ann") + short(Command.DISCONNECT_USER, 0, 1000, b"annout", extra=3)
    yield b"\1" + short(Command.MISSED) + short(Command.MISSED, 1, payload=b"room") + short(Command.MISSED, 2)
    yield b"\1" + short(Command.PAUSE, 0, 1) + short(Command.PAUSE) + short(Command.UNSUBSCRIBE, payload=b"room")
    yield b"\1" + short(Command.WORK, payload=b"answer", extra=1) + short(Command.WORK, 1, extra=1)
    yield b"\1" + short(Command.WORK, payload=b"lost", extra=2) + short(Command.WORK, 3, payload=b"lost", extra=1)
    yield b"\1" + short(Command.WORK, payload=b"gone", fd=2, extra=3) + short(Command.WORK, 2, fd=2, extra=3)
    yield b"\1" + short(Command.SESSION, payload=pack(["key", 1])) + short(Command.SESSION, payload=pack(["key"]))
    yield b"\1" + short(Command.HANDSHAKE, 0, 101, pack(["chat", [["X", "y"]]])) + short(Command.HANDSHAKE, 0, 403)
    for call in Call:
        yield b"\1" + short(Command.CALL, 0, call, pack({}), ticket=1)
    yield b"\1" + short(Command.CALL, 0, Call.FIND, pack({"limit": 2, "order": "age"}), ticket=1)
    yield b"\0" + bytes([5, 0, 0, 0, 34, 1]) + bytes(10) + FDS[0].to_bytes(8, "little") + b"hello"


def hello(pid: int) -> bytes:
    head = bytes(4) + bytes([Command.HELLO, 0]) + VERSION.to_bytes(2, "little") + bytes(4)
    return head + pid.to_bytes(4, "little") + (pid << 32).to_bytes(8, "little")


def read(end: socket.socket) -> bytes:
    came = b""
    with suppress(BlockingIOError):
        while part := end.recv(1 << 16):
            came += part
    return came


def run(parts: list[bytes]) -> object:
    loop = Loop()
    front = Front(loop, SERVER.settings)
    worker_end, ours, answers = front.attach(0)
    worker_end.channel.feed(hello(PID))
    assert worker_end.usable
    clients = [Client(), Client()]
    loop.turn(1)
    for client, data in zip(clients, (UPGRADE + MESSAGE + MESSAGE, UPLOAD), strict=True):
        client.send(data)
        loop.turn(1)
    assert sorted(front.gateway.connections.table.connections()) == sorted(FDS[:2])
    for part in parts:
        worker_end.channel.feed(part)
    loop.turn(2)
    front.check()
    told = [client.receive() for client in clients]
    stats = front.gateway.counts()
    sessions = dict(front.gateway.relay.sessions)
    answered = len(read(answers))
    ours.close()
    answers.close()
    loop.turn()
    front.check()
    successor, ours, answers = front.attach(0)  # what the dead one had not started, it is given
    successor.channel.feed(hello(PID + 1))
    loop.turn(2)
    taken_over = len(read(ours))
    front.end(clients)
    ours.close()
    answers.close()
    loop.turn()
    loop.close()
    return told, stats, sessions, answered > 0, taken_over > 0, front.bad, front.broken


def one(data: bytes) -> None:
    stream = records(data, FDS)
    whole, cut = run([stream]), run(pieces(stream))
    assert whole == cut
    nothing_is_left()
