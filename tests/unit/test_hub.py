"""A list of a topic's subscribers in parts, while they come, leave and are published to."""

import itertools
import random
from collections.abc import Iterator

import pytest

from fuzz.targets.gateway_channel import PID, UPGRADE, hello
from fuzz.world import Client, Front, Loop, new_server, records, short
from mooring._core.hub import ALL_PLACES
from mooring._core.wire import Command

COUNT = 14


class Room:
    """A gateway whose clients are in no topic yet, and a worker that tells it what to do."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.front = Front(self.loop, new_server(max_connections=16).settings)
        self.worker_end, *self._ends = self.front.attach(0)
        self.worker_end.channel.feed(hello(PID))
        self.clients = [Client() for _ in range(COUNT)]
        self.loop.turn(2)
        for client in self.clients:
            client.send(UPGRADE)
        self.loop.turn(2)
        self.fds = sorted(self.front.gateway.connections.table.connections())
        assert len(self.fds) == COUNT
        self.hub = self.front.gateway.relay.hub

    def tell(self, kind: Command, *fds: int, payload: bytes = b"room", arg: int = 0, **more: int) -> None:
        for fd in fds:
            self.worker_end.channel.feed(records(b"\1" + short(kind, 1, arg, payload, **more), [fd]))

    def close(self) -> None:
        self.front.end(self.clients)
        for end in self._ends:
            end.close()
        self.loop.turn()
        self.loop.close()


@pytest.fixture
def room() -> Iterator[Room]:
    one = Room()
    yield one
    one.close()


def parts(room: Room, most: int) -> Iterator[list[int]]:
    before = ALL_PLACES
    while before:
        before, *part = memoryview(room.hub.subscribers(b"room", before, most)).cast("Q").tolist()
        assert len(part) <= most
        yield part


@pytest.mark.parametrize("most", [1, 3, COUNT - 1, COUNT, COUNT + 1, 32768])
def test_parts_are_the_whole(room: Room, most: int):
    assert list(parts(room, most)) == [[]]
    room.tell(Command.SUBSCRIBE, *room.fds)
    assert sorted(itertools.chain(*parts(room, most))) == room.fds
    assert room.hub.subscriber_count(b"room") == COUNT


@pytest.mark.parametrize("seed", range(40))
def test_nobody_who_stays_is_missed(room: Room, seed: int):
    """Others leave, come, and publish without some, between any two parts."""
    chance = random.Random(seed)
    stay = set(chance.sample(room.fds, 5))
    others = [fd for fd in room.fds if fd not in stay]
    everybody = chance.sample(room.fds, COUNT)
    inside = set(everybody[: chance.randint(6, COUNT)]) | stay
    room.tell(Command.SUBSCRIBE, *(fd for fd in everybody if fd in inside))
    listed: set[int] = set()
    ever = set(inside)
    for part in parts(room, chance.randint(1, 4)):
        listed.update(part)
        for fd in chance.sample(others, chance.randint(0, len(others))):
            room.tell(Command.UNSUBSCRIBE if fd in inside else Command.SUBSCRIBE, fd)
            inside ^= {fd}
            ever.add(fd)
        absent = b"".join(fd.to_bytes(8, "little") for fd in chance.sample(room.fds, 3))
        room.tell(Command.PUBLISH, PID << 32, payload=b"room" + absent + b"hello", arg=4, extra=3)
    assert stay <= listed <= ever
    assert room.front.bad == []
    assert room.hub.subscriber_count(b"room") == len(inside)


def test_a_name_that_nobody_is_in(room: Room):
    room.tell(Command.SUBSCRIBE, *room.fds)
    room.tell(Command.UNSUBSCRIBE, *room.fds)
    assert list(parts(room, 3)) == [[]]
    assert room.hub.subscriber_count(b"room") == 0
