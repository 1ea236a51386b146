"""Workers, gateways and the engine together, in random orders of everything that can happen to them.

Real are the engine's process, the links, the topics of a gateway and the desk of a worker, over sockets. Nothing moves
by itself: each direction of each channel is read when the order says so, and so are the queues that stand for the
channels between workers and gateways. Connections are a list of what they were sent.

The rule: what a subscriber hears in one stay in a topic has offsets without a gap, none twice and none out of order, or
it was said by name that there is one; nothing has two offsets, and no offset two contents; everybody who waits gets an
answer.
"""

import asyncio
import random
import socket
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any
from unittest.mock import patch

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mooring._core.reactor import Reactor
from mooring._core.records import RecordChannel
from mooring._core.wire import Command, Notice
from mooring.app.topics import TopicRules
from mooring.engine import service
from mooring.engine.local import LocalEngine
from mooring.engine.memory import PUBLICATION_BYTES, MemoryEngine
from mooring.engine.service import EngineService
from mooring.errors import PublishRefused, PublishUncertain, StateError
from mooring.gateway.topics import Topics
from mooring.link.engine import EngineLink
from mooring.types import Position, Verdict
from mooring.worker.topics import TopicDesk

TOPICS = ["a", "b"]
CLIENTS = 4
TTL = 5.0
PROFILE = settings(max_examples=100)
STORMS = 400
PART = 5  # bytes of publications that a client gets at once
UNSENT = 600  # bytes that may wait for a gateway
BOTH, WORKER, GATEWAY = range(3)  # the processes: the first has a worker and a gateway, as in base mode
BROKEN = "'"  # behind the name of a line of offsets that has lost its end
Place = tuple[str, str, int]  # topic, epoch, offset


class Stay:
    """Of one client in one topic: what it was sent, and what its worker was told of where that begins."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.entered = False  # else it catches up
        self.heard: list[tuple[str | None, Position]] = []  # of a publication None, else the verdict that it is told
        self.told: tuple[int, str, int] | None = None

    def check(self, boundaries: dict[tuple[str, str], int]) -> None:
        """See World for `boundaries`."""
        publications = [position for verdict, position in self.heard if verdict is None]
        assert len(set(publications)) == len(publications), f"something comes twice: {self.heard}"
        begins = None if self.told is None else Position(*self.told[1:])
        before = begins if self.told is not None and self.told[0] == Verdict.RECOVERED else None
        for verdict, one in self.heard:
            if verdict is None and before is not None and not self._follows(before, one, boundaries):
                # its verdict may have come behind a first part
                assert begins is not None, f"a gap of which nothing was said: {self.heard}"
                assert self.told is not None
                assert self.told[0] != Verdict.RECOVERED, f"it was told that it has missed nothing: {self}"
                assert self._follows(begins, one, boundaries), f"not where it was told: {self}"
                begins = None
            before = one

    def _follows(self, before: Position, one: Position, boundaries: dict[tuple[str, str], int]) -> bool:
        is_same = one.epoch.startswith(before.epoch) and all(
            boundaries[self.topic, one.epoch[:end]] >= before.offset
            for end in range(len(before.epoch) + 1, len(one.epoch) + 1)
        )
        return is_same and one.offset == before.offset + 1

    def __repr__(self) -> str:
        return f"{self.told}, {self.heard}"


class Client:
    """One that may have a connection; what it has read outlives that."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.wants: set[str] = set()
        self.stays: dict[str, Stay] = {}
        self.read: dict[str, list[Position]] = {topic: [] for topic in TOPICS}


class Gateway:
    """Relay, Hub, worker's end and log of a gateway's Topics: who is in which topic, and what is said to whom."""

    def __init__(self, world: "World", link: EngineLink) -> None:
        self.world = world
        self.clients: dict[int, Client] = {}
        self.commands: deque[tuple[int, Notice]] = deque()
        self.is_full = False  # clients have so much waiting
        self.waiting: list[tuple[int, Callable[[bool], None]]] = []
        self.hub = self
        self.asking = self
        self.on_left: Callable[[bytes], None] = lambda _name: None
        counters: dict[str, int] = defaultdict(int)
        self.topics = link.follower = Topics(self, link, self, counters, self._refused)  # type: ignore[arg-type]

    def _refused(self, fd: int, topic: bytes) -> None:
        raise AssertionError("nobody is in too many topics")

    # ---- as a Relay and its Hub

    def when_room(self, fd: int, function: Callable[[bool], None]) -> None:
        assert fd in self.clients
        self.waiting.append((fd, function))

    def room(self) -> None:
        """Those of which something waits have taken it, or are gone."""
        waiting, self.waiting = self.waiting, []
        for fd, function in waiting:
            function(fd in self.clients)

    def can_enter(self, fd: int, name: bytes) -> bool | None:
        return True if fd in self.clients else None

    def send(self, fd: int, missed: Iterable[tuple[int, int, bytes]]) -> bool | None:
        client = self.clients.get(fd)
        if client is None:
            return None
        for _, _, data in missed:
            self._hear(client, data)
        return not self.is_full

    def enter(self, fd: int, name: bytes) -> bool:
        client = self.clients.get(fd)
        if client is not None:
            self._stay(client, name.decode()).entered = True
        return client is not None

    def leave(self, fd: int, name: bytes) -> None:
        stay = self.clients[fd].stays.pop(name.decode(), None) if fd in self.clients else None
        if stay is not None and stay.entered and not self.has(name):
            self.on_left(name)

    def gone(self, fd: int) -> None:
        """A connection has closed."""
        for topic in list(self.clients[fd].stays):
            self.leave(fd, topic.encode())
        del self.clients[fd]
        self.room()

    def spread(self, name: bytes, opcode: int, data: bytes, excluded: bytes) -> bool:
        for client in self.clients.values():
            stay = client.stays.get(name.decode())
            if stay is not None and stay.entered:
                self._hear(client, data)
        return self.has(name)

    def has(self, name: bytes) -> bool:
        stays = (client.stays.get(name.decode()) for client in self.clients.values())
        return any(stay is not None and stay.entered for stay in stays)

    def _stay(self, client: Client, topic: str) -> Stay:
        if topic not in client.stays:
            client.stays[topic] = Stay(topic)
            self.world.stays.append(client.stays[topic])
        return client.stays[topic]

    def _hear(self, client: Client, data: bytes) -> None:
        told = msgspec.json.decode(data)
        topic, position = told["topic"], Position(told["epoch"], told["offset"])
        if "data" in told:
            self.world.is_at((topic, *position), told["data"])
            client.read[topic].append(position)
        self._stay(client, topic).heard.append((told.get("verdict"), position))

    # ---- as the end of a worker, and as a log

    def say(self, what: int, *more: Any) -> None:
        if isinstance(more[0], str):
            return
        question, answer, fd = more
        if answer:
            stay = self.clients[fd].stays[self.world.questions[fd, question]]
            assert stay.entered
            stay.told = msgspec.msgpack.decode(answer, type=tuple[int, str, int])
        self.world.notices.append((fd, question, answer))


class Ways:
    """The Outbox of a worker."""

    def __init__(self, world: "World") -> None:
        self._world = world

    def follow(self, fd: int, number: int, payload: bytes, *, leave: bool = False) -> bool:
        gateway = self.find(fd)
        if gateway is None:
            return False
        self._world.questions[fd, number] = msgspec.msgpack.decode(payload)[0]
        gateway.commands.append((fd, Notice(Command.FOLLOW, fd, payload, opcode=leave, extra=number)))
        return True

    def find(self, fd: int) -> Gateway | None:
        return next((gateway for gateway in self._world.gateways if fd in gateway.clients), None)


class Link(EngineLink):
    """In which nothing may be wrong."""

    def on_bad(self, channel: RecordChannel, problem: Exception) -> None:
        raise problem


class World:
    """`keeps`: an engine that ends leaves its histories to the next one, as one with a broker does. `loses`: but not
    their ends, the last ones of each. `early`: the next one is there before all that the last one has sent is read."""

    def __init__(self, *, size: int, keeps: bool, loses: int = 0, early: bool = False) -> None:
        self.now = 1000.0
        self.size = size
        self.keeps, self.loses, self.early = keeps, loses, early
        self.boundaries: dict[tuple[str, str], int] = {}  # of a topic and epoch, how far it goes on with the one before
        self.reactor = Reactor()
        self.contents: dict[Place, str] = {}
        self.places: dict[str, Place] = {}
        self.stays: list[Stay] = []
        self.questions: dict[tuple[int, int], str] = {}  # of an fd and a number, the topic
        self.notices: deque[tuple[int, int, bytes]] = deque()
        self.published: list[tuple[int, str, str, Any]] = []  # by whom, the topic, what
        self.answers: list[asyncio.Task[Any]] = []
        self.ends = 0
        rules = TopicRules()
        rules.add("*", size, TTL if size < 100 else 0, positions=True)
        self.links = [Link(self.reactor) for _ in range(3)]
        self.gateways = [Gateway(self, self.links[number]) for number in (BOTH, GATEWAY)]
        self.desks = [TopicDesk(rules, Ways(self), self) for _ in range(2)]  # type: ignore[arg-type]
        for desk, number in zip(self.desks, (BOTH, WORKER), strict=True):
            desk.use(self.links[number])
        self.serial = CLIENTS
        self.clients = [Client(fd) for fd in range(1, CLIENTS + 1)]
        for client in self.clients:
            self.gateways[client.fd % 2].clients[client.fd] = client
        self.engine = MemoryEngine(lambda: self.now, 1 << 20)
        self.service: EngineService | None = None
        self.channels: list[list[RecordChannel]] = [[], [], []]  # of each process, all that it ever had
        self.begin()

    def say(self, _level: int, _message: str, *_values: object) -> None:
        """A publication that nobody awaits has failed."""

    def is_at(self, place: Place, data: str) -> None:
        assert self.contents.setdefault(place, data) == data, f"two contents of {place}"
        line = (place[0], place[1].rstrip(BROKEN), place[2])
        assert self.places.setdefault(data, line) == line, f"{data} has two offsets"

    # ------------------------------------------------------------------ what can happen

    def begin(self) -> None:
        """There is an engine."""
        if self.service is not None:
            return
        if not self.keeps:
            self.engine = MemoryEngine(lambda: self.now, 1 << 20)
        for topic, history in self.engine._topics.items() if self.loses and self.ends else ():
            for _ in range(min(self.loses, len(history))):
                self.engine.bytes -= PUBLICATION_BYTES + len(history._kept[history.top].data)
                history.size -= len(history._kept.pop(history.top).data)
                history.top -= 1
            history.break_line(history.epoch + BROKEN)
            self.boundaries[topic, history.epoch] = history.top
        self.service = EngineService(self.reactor, LocalEngine(self.engine, self.reactor.call_later), self._broken)
        self.service.start()
        for number, link in enumerate(self.links):
            if not self.early:
                self._read_out(number)
                assert not link.is_open
            ours, theirs = socket.socketpair()
            for end in (ours, theirs):
                end.setblocking(False)
            worker = number if number in (BOTH, WORKER) else None
            self.service.attach(theirs.detach(), worker=worker, generation=1)
            link.open(ours.detach())
            assert link._channel is not None
            self.channels[number].append(link._channel)

    def _broken(self, *what: object) -> None:
        raise AssertionError(what)

    def end(self, flushed: int) -> None:
        """It is killed: what it had not sent yet is lost; to the first `flushed` processes it has."""
        if self.service is None:
            return
        service, self.service = self.service, None
        assert service.stats()["bad_records"] == 0
        for number, channel in enumerate(service._channels.values()):
            if number < flushed:
                channel.flush_now()
            channel.close()
        self.ends += 1

    def _read_out(self, number: int) -> None:
        """Whatever the last one has sent is read, and its end."""
        for channel in self.channels[number]:
            while channel.open:
                channel.pump(0)

    def tell_engine(self, number: int) -> None:
        """What this process has sent is read."""
        self.links[number].flush()
        if self.service is not None:
            list(self.service._channels.values())[number].pump(0)

    def hear_engine(self, number: int) -> None:
        """It reads what it was sent."""
        if self.service is not None:
            list(self.service._channels.values())[number].flush_now()
        for channel in self.channels[number]:
            channel.pump(0)

    def command(self, which: int) -> None:
        """A gateway reads what a worker has said."""
        gateway = self.gateways[which]
        if gateway.commands:
            _, command = gateway.commands.popleft()
            gateway.topics.take(gateway, command)  # type: ignore[arg-type]

    def notice(self) -> None:
        """A worker reads what a gateway has said."""
        if self.notices:
            fd, question, answer = self.notices.popleft()
            self.desks[(fd // 2) % 2].on_followed(question, answer)

    def publish(self, worker: int, topic: int) -> None:
        data = f"{len(self.published)}"
        published = self.desks[worker].publish(TOPICS[topic], data, None, None)
        self.published.append((worker, TOPICS[topic], data, published))

    def follow(self, who: int, topic: int, since: int | None) -> None:
        """It comes from now on, or from what it has read last, or leaves; or begins again from before."""
        client, name = self.clients[who], TOPICS[topic]
        desk = self.desks[(client.fd // 2) % 2]
        if name in client.wants and not since:
            client.wants.discard(name)
            desk.unsubscribe(client.fd, name)
        elif since is None:
            client.wants.add(name)
            desk.subscribe(client.fd, name)
        else:
            client.wants.add(name)
            read = client.read[name]
            position = read[-1 - since] if since < len(read) else Position("", 0)
            self.answers.append(asyncio.ensure_future(desk.recover(client.fd, name, position)))

    def close(self, who: int) -> None:
        """Its connection ends, and it has another one, perhaps at the other gateway."""
        client = self.clients[who]
        self.gateways[client.fd % 2].gone(client.fd)
        self.serial += 1
        client.fd, client.wants, client.stays = self.serial, set(), {}
        self.gateways[client.fd % 2].clients[client.fd] = client

    def past(self, worker: int, topic: int, limit: int) -> None:
        self.answers.append(asyncio.ensure_future(self._past(worker, TOPICS[topic], limit)))

    async def _past(self, worker: int, topic: str, limit: int) -> None:
        try:
            past = await self.desks[worker].past(topic, None, limit, newest_first=False)
        except StateError:
            assert self.ends
            return
        offsets = [one.offset for one in past.publications]
        if offsets:
            assert offsets == list(range(offsets[0], offsets[0] + len(offsets)))
            assert offsets[-1] <= past.position.offset
            assert len(offsets) <= limit
        for one in past.publications:
            self.is_at((topic, past.position.epoch, one.offset), str(one.data))

    def full(self, which: int) -> None:
        """The clients of a gateway take nothing, or do again."""
        self.gateways[which].is_full ^= True

    def room(self, which: int) -> None:
        """They have taken something."""
        self.gateways[which].room()

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.engine.sweep()

    # ------------------------------------------------------------------ the end

    async def settle(self) -> None:
        """There is an engine, and everything is read."""
        self.begin()
        for _ in range(8 + len(self.published)):
            for which in range(2):
                self.gateways[which].is_full = False
                self.room(which)
                while self.gateways[which].commands:
                    self.command(which)
            for number in range(3):
                self.tell_engine(number)
            for number in range(3):
                self.hear_engine(number)
            while self.notices:
                self.notice()
            for _ in range(3):
                await asyncio.sleep(0)

    async def check(self) -> None:
        await self.settle()
        for number in range(2):
            self.publish(0, number)
        await self.settle()
        assert self.service is not None
        assert self.service.stats()["bad_records"] == 0
        assert all(task.done() for task in self.answers), "somebody is left without an answer"
        for task in self.answers:
            task.result()
        await self._check_published()
        for stay in self.stays:
            stay.check(self.boundaries)
            if self.keeps and not self.loses and self.size > len(self.published):
                assert all(verdict is None for verdict, _ in stay.heard), "a verdict, and nothing is lost"
                assert stay.told is None or stay.told[0] == Verdict.RECOVERED
        for client in self.clients:
            assert set(client.stays) == client.wants, "all are where they want to be"
            for topic, stay in client.stays.items():
                last = next(data for _, name, data, _ in reversed(self.published) if name == topic)
                assert stay.heard, "it hears nothing"
                assert self.contents[(topic, *stay.heard[-1][1])] == last, "it does not hear what is new"
        for gateway in self.gateways:
            assert gateway.topics._asked == {}
            assert all(not topic.coming and topic.queue is None for topic in gateway.topics._topics.values())
            assert {topic for topic in TOPICS if gateway.has(topic.encode())} <= set(gateway.topics._topics)

    async def leave(self) -> None:
        """All go, and then there is something new."""
        for who, client in enumerate(self.clients):
            for topic in sorted(client.wants):
                self.follow(who, TOPICS.index(topic), None)
        await self.settle()
        for number in range(2):
            self.publish(0, number)
        await self.settle()
        assert self.service is not None
        assert self.service._followers == {}
        assert [gateway.topics._topics for gateway in self.gateways] == [{}, {}]

    async def _check_published(self) -> None:
        refused, line = set(), {}
        for worker, topic, data, published in self.published:
            assert published._waiting is None, "somebody is left without an answer"
            try:
                position = await published
            except PublishRefused:
                assert self.ends
                refused.add(data)
            except PublishUncertain:
                assert self.ends
            else:
                self.is_at((topic, *position), data)
                before = line.get((worker, topic))
                if before is not None and before.epoch == position.epoch:
                    assert position.offset > before.offset, "one worker's publications keep their order"
                line[worker, topic] = position
        assert not refused & set(self.places), "what was refused was published"

    def over(self) -> None:
        self.end(0)
        for channels in self.channels:
            for channel in channels:
                channel.close()


#: What can happen, how often, and with which arguments.
ORDER: list[tuple[int, str, list[Sequence[Any]]]] = [
    (16, "publish", [range(2), (0, 0, 0, 0, 1)]),
    (14, "follow", [range(CLIENTS), (0, 0, 0, 0, 1), (None, 0, 0, 1, 3, 8, 20)]),
    (14, "command", [range(2)]),
    (22, "tell_engine", [range(3)]),
    (20, "hear_engine", [range(3)]),
    (4, "notice", []),
    (2, "close", [range(CLIENTS)]),
    (2, "past", [range(2), range(2), range(9)]),
    (2, "full", [range(2)]),
    (4, "room", [range(2)]),
    (4, "end", [range(4)]),
    (8, "begin", []),
    (1, "wait", [(1.0, TTL)]),
]
STEPS = st.lists(
    st.one_of(*(st.tuples(st.just(name), *map(st.sampled_from, choices)) for _, name, choices in ORDER)), max_size=80
)


def storm(seed: int) -> Iterator[tuple[Any, ...]]:
    """More than hypothesis makes, and like what happens."""
    chance = random.Random(seed)
    for _, name, choices in chance.choices(ORDER, [often for often, _, _ in ORDER], k=chance.choice([30, 100, 300])):
        yield name, *map(chance.choice, choices)


def run(steps: Iterable[tuple[Any, ...]], *, leave: bool = False, **how: Any) -> None:
    async def live() -> None:
        world = World(**how)
        try:
            for name, *arguments in steps:
                what: Callable[..., None] = getattr(world, name)
                what(*arguments)
                await asyncio.sleep(0)
            await world.check()
            if leave:
                await world.leave()
        finally:
            for task in world.answers:
                task.cancel()
            world.over()

    with patch.multiple(service, SLICE=PART, UNSENT_LIMIT=UNSENT):
        asyncio.run(live())


KINDS = pytest.mark.parametrize(
    "kind",
    [
        pytest.param({"size": 1000, "keeps": False}, id="all-kept-until-it-dies"),
        pytest.param({"size": 3, "keeps": False}, id="few-kept-until-it-dies"),
        pytest.param({"size": 1000, "keeps": True}, id="all-kept"),
        pytest.param({"size": 3, "keeps": True}, id="few-kept"),
        pytest.param({"size": 1000, "keeps": True, "loses": 2}, id="ends-lost"),
    ],
)


@KINDS
@PROFILE
@given(steps=STEPS)
def test_nothing_is_missing_double_or_out_of_order_or_it_is_said(kind: dict[str, Any], steps: list[tuple[Any, ...]]):
    run(steps, **kind)


@KINDS
def test_nor_is_it_in_a_storm(kind: dict[str, Any]):
    for seed in range(STORMS):
        run(storm(seed), **kind)


@KINDS
def test_nor_if_the_next_engine_is_there_before_the_end_of_the_last_is_read(kind: dict[str, Any]):
    for seed in range(STORMS):
        run(storm(seed), **kind, early=True)


def test_what_nobody_hears_is_followed_by_nobody():
    for seed in range(STORMS):
        run(storm(seed), size=1000, keeps=False, leave=True)
