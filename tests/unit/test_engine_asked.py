"""The engine's process with an engine that answers later, and not always: a broker, played by the test."""

import socket
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from mooring._core.reactor import Reactor
from mooring._core.records import MailContract, RecordChannel
from mooring._core.wire import VERSION, Mail, Notice
from mooring.engine.contract import Answer, Listener, PublishOutcome, Refused, Uncertain
from mooring.engine.history import Kept, Since
from mooring.engine.letters import Append, Appended, Ask, Form, Found, Judged, Published
from mooring.engine.service import AGAIN, EngineService
from mooring.types import Position, Verdict

LETTERS: dict[Mail, Any] = {
    Mail.APPENDED: Appended,
    Mail.PAST: Found,
    Mail.FOLLOWED: Found,
    Mail.PUBLISHED: Published,
    Mail.JUDGED: Judged,
}
encode, decode = msgspec.msgpack.encode, msgspec.msgpack.decode


class Broker:
    """It notes what it is asked; the test answers."""

    def __init__(self) -> None:
        self.listener: Any = None
        self.appends: list[tuple[Append, Callable[[PublishOutcome], None]]] = []
        self.follows: list[tuple[str, Position | None, Answer]] = []
        self.questions: list[tuple[str, Position | None, int, Answer]] = []
        self.unfollowed: list[str] = []

    def start(self, listener: Listener) -> None:
        self.listener = listener

    async def close(self) -> None: ...

    def publish(self, append: Append, answer: Callable[[PublishOutcome], None]) -> None:
        self.appends.append((append, answer))

    def follow(self, topic: str, position: Position | None, most_bytes: int, answer: Answer) -> None:
        self.follows.append((topic, position, answer))

    def unfollow(self, topic: str) -> None:
        self.unfollowed.append(topic)

    def since(self, topic: str, position: Position | None, most: int, most_bytes: int, answer: Answer) -> None:
        self.questions.append((topic, position, most, answer))

    def stats(self) -> dict[str, int]:
        return {"engine_connections": 3}


class Process(MailContract):
    """A worker, or a gateway (without a number)."""

    def __init__(self, world: "World", worker: int | None) -> None:
        self._world = world
        self._heard: list[tuple[Mail, int, Any]] = []
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setblocking(False)
        self.channel = RecordChannel(world.reactor, ours.detach(), self)
        world.service.attach(theirs.detach(), worker=worker, generation=1)
        self.send(Mail.ENGINE_HELLO, 1, b"", VERSION)

    def send(self, mail: Mail, number: int, payload: bytes, arg: int = 0) -> None:
        self.channel.send(Notice(mail, number, payload, arg=arg))
        self._world.turn()

    def heard(self) -> list[tuple[Mail, int, Any]]:
        self._world.turn()
        heard, self._heard = self._heard, []
        return heard

    def follow(self, number: int, *asked: Any) -> None:
        self.send(Mail.FOLLOW, number, encode(Ask(*asked)))

    def on_record(self, channel: RecordChannel, notice: Notice) -> None:
        mail = Mail(notice.kind)
        self._heard.append((mail, notice.number, decode(notice.payload, type=LETTERS[mail])))

    def on_lost(self, channel: RecordChannel, why: str) -> None: ...


class World:
    def __init__(self) -> None:
        self.reactor = Reactor()
        self.broker = Broker()
        self.service = EngineService(self.reactor, self.broker, lambda _peer, _why: None)
        self.later: list[tuple[float, Callable[[], object]]] = []
        self.service._call_later = lambda *when_and_what: self.later.append(when_and_what)
        self.service.start()
        self.processes: list[Process] = []

    def pass_by(self) -> list[float]:
        """All that is to be done later is done; after how long each."""
        later, self.later = self.later, []
        for _, action in later:
            action()
        return [seconds for seconds, _ in later]

    def process(self, worker: int | None = None) -> Process:
        self.processes.append(Process(self, worker))
        return self.processes[-1]

    def turn(self) -> None:
        for _ in range(6):
            self.reactor.poll(0)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    for process in made.processes:
        process.channel.close()
    made.turn()
    assert (made.service._channels, made.service._followers, +made.service._asking) == ({}, {}, {})


def since(offset: int, *texts: bytes, verdict: Verdict = Verdict.RECOVERED, end: int | None = None) -> Since:
    kept = [Kept(offset + n, Form.BARE, 1, text, 0.0) for n, text in enumerate(texts, 1)]
    return Since(verdict, Position("e", offset), kept, Position("e", offset + len(kept) if end is None else end))


@pytest.mark.parametrize(
    ("outcome", "letter"),
    [
        (Position("e", 4), Appended("e", 4)),
        (Refused("full"), Appended(refused="full")),
        (Uncertain("silence"), Appended(uncertain="silence")),
    ],
)
def test_a_publisher_is_told_what_became_of_it_when_that_is_known(world, outcome, letter):
    worker = world.process(0)
    worker.send(Mail.APPEND, 7, encode(Append("a", Form.BARE, 1, b"x", 10, 0.0)))
    assert worker.heard() == []
    [(append, answer)] = world.broker.appends
    assert (append.topic, append.data) == ("a", b"x")
    answer(outcome)
    assert worker.heard() == [(Mail.APPENDED, 7, letter)]


def test_what_the_engine_counts_is_counted(world):
    assert world.service.stats()["engine_connections"] == 3


def test_answers_to_those_who_are_gone_are_for_nobody(world):
    worker, gateway = world.process(0), world.process()
    worker.send(Mail.APPEND, 7, encode(Append("a", Form.BARE, 1, b"x", 10, 0.0)))
    worker.send(Mail.PAST, 8, encode(Ask("a")))
    gateway.follow(1, "a")
    for process in (worker, gateway):
        process.channel.close()
    world.turn()
    world.broker.appends[0][1](Position("e", 1))
    world.broker.questions[0][3](since(0))
    world.broker.follows[0][2](since(1))
    assert world.broker.unfollowed == ["a"]


def test_who_can_not_be_answered_yet_is_asked_for_again(world):
    gateway = world.process()
    gateway.follow(1, "a", "e", 2)
    for lap in range(1, 4):
        _, position, answer = world.broker.follows[-1]
        assert (len(world.broker.follows), position) == (lap, Position("e", 2))
        answer(Refused("Redis was not reached yet"))
        world.turn()
        assert len(world.broker.follows) == lap, "not at once"
        assert world.pass_by() == [AGAIN]
    world.broker.follows[-1][2](since(2, b"3"))
    [(mail, number, found)] = gateway.heard()
    assert (mail, number, found.publications) == (Mail.FOLLOWED, 1, ((3, 1, b"3"),))


def test_who_is_gone_is_not_asked_for_again(world):
    gateway = world.process()
    gateway.follow(1, "a")
    gateway.channel.close()
    world.turn()
    world.broker.follows[0][2](Refused("why"))
    assert world.pass_by() == [AGAIN]
    assert len(world.broker.follows) == 1


def test_a_question_without_an_answer_says_why(world):
    worker = world.process(0)
    worker.send(Mail.PAST, 8, encode(Ask("a", "e", 3, 10)))
    [(topic, position, most, answer)] = world.broker.questions
    assert (topic, position, most) == ("a", Position("e", 3), 10)
    answer(Refused("nobody is there"))
    [(mail, number, found)] = worker.heard()
    assert (mail, number, found.refused) == (Mail.PAST, 8, "nobody is there")


def test_a_topic_is_followed_as_long_as_anybody_does_or_will(world):
    one, other = world.process(), world.process()
    one.follow(1, "a")
    other.follow(1, "a")
    world.broker.follows[0][2](since(5))
    one.send(Mail.UNFOLLOW, 0, b"a")
    assert world.broker.unfollowed == [], "the other one's question is on its way"
    world.broker.follows[1][2](since(5))
    world.broker.listener.published("a", "e", Kept(6, Form.BARE, 1, b"six", 0.0), b"")
    assert [mail for mail, _, _ in one.heard()] == [Mail.FOLLOWED]
    assert [(mail, number) for mail, number, _ in other.heard()] == [(Mail.FOLLOWED, 1), (Mail.PUBLISHED, 6)]
    other.send(Mail.UNFOLLOW, 0, b"a")
    assert world.broker.unfollowed == ["a"]


def test_with_a_part_nobody_follows_yet(world):
    gateway = world.process()
    gateway.follow(1, "a", "e", 0)
    world.broker.follows[0][2](since(0, b"1", end=9))
    world.broker.listener.published("a", "e", Kept(10, Form.BARE, 1, b"ten", 0.0), b"")
    assert [mail for mail, _, _ in gateway.heard()] == [Mail.FOLLOWED]
    assert world.service.stats()["subscriptions_recovered"] == 0


def test_a_broken_line_is_told_to_those_who_follow_it(world):
    one, other = world.process(), world.process()
    one.follow(1, "a")
    other.follow(1, "b")
    for _, _, answer in world.broker.follows:
        answer(since(5))
    world.broker.listener.judged("a", Verdict.ROLLED_BACK, Position("f", 3))
    assert one.heard()[1:] == [(Mail.JUDGED, 0, Judged("a", Verdict.ROLLED_BACK, "f", 3))]
    assert len(other.heard()) == 1


def test_whether_the_server_is_there_can_be_seen(world):
    assert world.service.stats()["engine_connected"] == 0
    world.broker.listener.connected()
    assert world.service.stats()["engine_connected"] == 1
    world.broker.listener.disconnected("it is gone")
    assert world.service.stats()["engine_connected"] == 0
