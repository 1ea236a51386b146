"""A gateway with workers that a test plays itself, and clients; no process, no handler."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from frames import frame
from fuzz.targets.gateway_channel import UPGRADE, hello, read
from fuzz.world import Client, Front, Loop, new_server
from mooring._core.wire import Command, Event

HEAD = struct.Struct("=IBBHIIQ")
NO_TICKET = 0xFFFFFFFF
KEY = b"abcd"


class Told(NamedTuple):
    """A record that a worker got."""

    kind: Event
    fd: int
    ticket: int
    extra: int
    payload: bytes


class Player:
    """A worker of `front`, of which the test says what it does."""

    def __init__(self, front: Front, worker: int, pid: int) -> None:
        self.worker_end, self._ours, self._answers = front.attach(worker)
        self.pid = pid
        self.worker_end.channel.feed(hello(pid))

    def tell(
        self, kind: Command, fd: int = 0, payload: bytes = b"", *, opcode: int = 0, arg: int = 0, **more: int
    ) -> None:
        head = HEAD.pack(len(payload), kind, opcode, arg, more.get("ticket", 0), more.get("extra", 0), fd)
        self.worker_end.channel.feed(head + payload)

    def heard(self) -> list[Told]:
        """What came since the last time."""
        data, found = read(self._ours), []
        while data:
            size, kind, _, _, ticket, extra, fd = HEAD.unpack_from(data)
            found.append(Told(Event(kind), fd, ticket, extra, data[HEAD.size : HEAD.size + size]))
            data = data[HEAD.size + size :]
        return found

    def messages(self) -> list[Told]:
        return [one for one in self.heard() if one.kind == Event.MESSAGE]

    def settle(self, *told: Told) -> None:
        for one in told:
            if one.ticket != NO_TICKET:
                self.tell(Command.ACK, ticket=one.ticket, extra=1)

    def end(self) -> None:
        """Its process is gone."""
        self._ours.close()
        self._answers.close()


class Bench:
    """`settings` are those of a server."""

    def __init__(self, **settings: Any) -> None:
        self.loop = Loop()
        self.front = Front(self.loop, new_server(**{"max_connections": 16, **settings}).settings)
        self.relay = self.front.gateway.relay
        self.players: list[Player] = []
        self.clients: dict[int, Client] = {}

    @property
    def bad(self) -> list[str]:
        return self.front.bad

    def worker(self) -> Player:
        number = len(self.players)
        self.players.append(Player(self.front, number, 4000 + number))
        self.turn()
        return self.players[-1]

    def client(self) -> int:
        """The fd of a WebSocket that is open."""
        client = Client()
        self.turn()
        client.send(UPGRADE)
        self.turn()
        (fd,) = set(self.front.gateway.connections.table.connections()) - set(self.clients)
        self.clients[fd] = client
        return fd

    def say(self, fd: int, text: str) -> None:
        self.clients[fd].send(frame(1, text.encode(), key=KEY))

    def finish(self, worker: Player) -> None:
        """Settles all that the worker was given, until nothing comes any more."""
        while told := worker.heard():
            worker.settle(*told)
            self.turn()

    def turn(self, times: int = 4) -> None:
        self.loop.turn(times)

    def close(self) -> None:
        self.front.end(list(self.clients.values()))
        for player in self.players:
            player.end()
        self.loop.turn()
        self.front.check()
        self.loop.close()


@contextmanager
def bench(**settings: Any) -> Iterator[Bench]:
    one = Bench(**settings)
    try:
        yield one
    finally:
        one.close()
