"""A process's end of its link to the engine: who is told what, and what there is while there is no engine."""

import os
import socket
from collections.abc import Iterator
from typing import Any
from unittest.mock import Mock

import pytest

from mooring._core.reactor import Reactor
from mooring._core.records import MailContract, RecordChannel
from mooring._core.wire import FROM_ENGINE, VERSION, Mail, Notice
from mooring.link import engine as module
from mooring.link.engine import EngineLink

TOLD = [
    (Mail.APPENDED, "asker.on_appended"),
    (Mail.PAST, "asker.on_past"),
    (Mail.FOLLOWED, "follower.on_followed"),
    (Mail.PUBLISHED, "follower.on_published"),
    (Mail.JUDGED, "follower.on_judged"),
]


class Engine(MailContract):
    """The other end of one channel."""

    def __init__(self, reactor: Reactor) -> None:
        self.heard: list[Notice] = []
        self.lost = False
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setblocking(False)
        self.channel = RecordChannel(reactor, ours.detach(), self)
        self.theirs = theirs.detach()

    def on_record(self, channel: RecordChannel, notice: Notice) -> None:
        self.heard.append(notice)

    def on_lost(self, channel: RecordChannel, why: str) -> None:
        self.lost = True


class Process:
    """A process with a worker and a gateway, and the engines that it has met."""

    def __init__(self) -> None:
        self.reactor = Reactor()
        self.parts = Mock()
        self.link = EngineLink(self.reactor)
        self.link.asker, self.link.follower = self.parts.asker, self.parts.follower
        self.engines: list[Engine] = []

    def meet(self) -> Engine:
        made = Engine(self.reactor)
        self.engines.append(made)
        assert self.link.open(made.theirs) is self.link
        return made

    def turn(self) -> None:
        for _ in range(5):
            self.reactor.poll(0)

    def told(self, *only: str) -> list[tuple[Any, ...]]:
        """What its parts were called with since."""
        self.turn()
        calls = [(name, *arguments) for name, arguments, _ in self.parts.mock_calls]
        self.parts.reset_mock()
        return [call for call in calls if not only or call[0] in only]


@pytest.fixture
def process() -> Iterator[Process]:
    made = Process()
    yield made
    for engine in made.engines:
        engine.channel.close()
    made.turn()


def test_without_an_engine_nothing_is_sent_and_nothing_raised(process: Process):
    link = process.link
    assert not link.is_open
    assert not link.is_full
    assert link.send(Mail.APPEND, 1, b"x") is False
    link.flush()
    link.hang_up()
    link.abandon()
    assert process.told() == []


def test_it_says_who_it_is_before_its_gateway_asks_for_anything(process: Process):
    process.link.follower.on_engine.side_effect = lambda: process.link.send(Mail.FOLLOW, 1, b"it")
    engine = process.meet()
    assert process.link.is_open
    assert process.told() == [("follower.on_engine",)]
    hello, follow = engine.heard
    assert (hello.kind, hello.number, hello.arg) == (Mail.ENGINE_HELLO, os.getpid(), VERSION)
    assert (follow.kind, follow.number, follow.payload) == (Mail.FOLLOW, 1, b"it")


def test_what_is_sent_comes_in_order(process: Process):
    engine = process.meet()
    assert process.link.send(Mail.APPEND, 7, b"one")
    assert process.link.send(Mail.PAST, 8, b"two")
    process.link.flush()
    engine.channel.pump(0)
    assert [(one.kind, one.number, one.payload) for one in engine.heard[1:]] == [
        (Mail.APPEND, 7, b"one"),
        (Mail.PAST, 8, b"two"),
    ]


@pytest.mark.parametrize(("mail", "whose"), TOLD)
def test_who_is_told(process: Process, mail: Mail, whose: str):
    engine = process.meet()
    process.told()
    engine.channel.send(Notice(mail, 7, b"it"))
    assert process.told() == [(whose, 7, b"it")]


def test_every_kind_is_taken():
    assert {mail for mail, _ in TOLD} | {Mail.BEHIND} == set(FROM_ENGINE)


def test_a_gateway_that_is_behind_asks_again_as_if_there_were_a_new_engine(process: Process):
    engine = process.meet()
    process.told()
    engine.channel.send(Notice(Mail.BEHIND, 0))
    assert process.told() == [("follower.on_engine",)]
    assert process.link.is_open


def test_a_process_without_a_gateway_or_without_a_worker_ignores_what_concerns_the_other(process: Process):
    process.link.asker = process.link.follower = None
    engine = process.meet()
    for mail, _ in TOLD:
        engine.channel.send(Notice(mail, 7, b"it"))
    engine.channel.send(Notice(Mail.BEHIND, 0))
    engine.channel.close()
    assert process.told() == []
    assert not process.link.is_open


def test_it_is_full_while_more_waits_than_is_allowed(process: Process, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "UNSENT_LIMIT", 1 << 22)
    engine = process.meet()
    for number in range(4):
        assert not process.link.is_full
        process.link.send(Mail.APPEND, number, bytes((1 << 20) + 1))
    assert process.link.is_full
    assert process.link.send(Mail.PAST, 9, b""), "it is for the asker to hold back"
    for _ in range(500):
        process.reactor.poll(0)
    assert not process.link.is_full
    assert [one.number for one in engine.heard[1:]] == [0, 1, 2, 3, 9]


def test_when_the_engine_ends_what_it_had_sent_is_told_first_and_then_its_end(process: Process):
    engine = process.meet()
    process.told()
    engine.channel.send(Notice(Mail.APPENDED, 7, b"it"))
    engine.channel.flush_now()
    engine.channel.close()
    appended, lost = process.told()
    assert appended == ("asker.on_appended", 7, b"it")
    assert (lost[0], isinstance(lost[1], str)) == ("asker.on_engine_lost", True)
    assert not process.link.is_open
    assert process.link.send(Mail.APPEND, 1, b"x") is False


def test_who_holds_the_other_end_open_does_not_keep_an_ended_engine_alive(process: Process):
    process.meet()
    process.link.hang_up()
    assert [call[0] for call in process.told("asker.on_engine_lost")] == ["asker.on_engine_lost"]
    assert not process.link.is_open


def test_behind_one_that_has_ended_comes_another(process: Process):
    process.meet().channel.close()
    process.told()
    second = process.meet()
    assert process.told() == [("follower.on_engine",)]
    assert process.link.send(Mail.APPEND, 1, b"x")
    process.turn()
    assert [one.kind for one in second.heard] == [Mail.ENGINE_HELLO, Mail.APPEND]


# A process whose handler blocks reads the end of the old channel and the supervisor's news of the new one in one turn,
# in any order.
def test_the_end_of_the_first_is_told_even_if_the_second_was_opened_before_it_was_read(process: Process):
    first = process.meet()
    process.link.send(Mail.APPEND, 1, b"x")
    process.told()
    first.channel.close()
    second = process.meet()
    assert "asker.on_engine_lost" in [call[0] for call in process.told()]
    assert process.link.is_open
    assert process.link.send(Mail.APPEND, 2, b"y")
    process.turn()
    assert [one.number for one in second.heard if one.kind == Mail.APPEND] == [2]


def test_a_second_ends_the_first_even_if_its_other_end_is_still_open(process: Process):
    first = process.meet()
    process.told()
    process.meet()
    assert [call[0] for call in process.told()] == ["asker.on_engine_lost", "follower.on_engine"]
    assert first.lost
    assert process.link.is_open


# By on_engine() a gateway asks from where it stands: what it is told of behind that it would be told twice.
def test_what_the_first_had_sent_is_told_before_the_second_is_there(process: Process):
    first = process.meet()
    process.told()
    first.channel.send(Notice(Mail.PUBLISHED, 5, b"it"))
    first.channel.flush_now()
    first.channel.close()
    process.meet()
    told = [call[0] for call in process.told("follower.on_published", "follower.on_engine")]
    assert told == ["follower.on_published", "follower.on_engine"]


@pytest.mark.parametrize("mail", [Mail.APPEND, Mail.HELLO, Mail.RESULT])
def test_a_record_that_is_not_for_it_has_no_effect_and_the_next_one_counts(
    process: Process, mail: Mail, caplog: pytest.LogCaptureFixture
):
    engine = process.meet()
    process.told()
    engine.channel.send(Notice(mail, 1, b""))
    engine.channel.send(Notice(Mail.APPENDED, 2, b"it"))
    assert process.told() == [("asker.on_appended", 2, b"it")]
    assert f"made no sense and was ignored: unknown kind {int(mail)}" in caplog.text


def test_a_record_that_its_taker_can_not_read_has_no_effect(process: Process, caplog: pytest.LogCaptureFixture):
    engine = process.meet()
    process.link.follower.on_published.side_effect = ValueError("not so")
    engine.channel.send(Notice(Mail.PUBLISHED, 1, b""))
    engine.channel.send(Notice(Mail.APPENDED, 2, b"it"))
    assert process.told("asker.on_appended") == [("asker.on_appended", 2, b"it")]
    assert "a record of the engine made no sense and was ignored: not so" in caplog.text


def test_a_stream_that_is_broken_is_logged(process: Process, caplog: pytest.LogCaptureFixture):
    engine = process.meet()
    engine.channel.send(Notice(99, 0))
    process.turn()
    assert "what comes from the engine means nothing any more" in caplog.text


def test_who_waits_for_an_engine_that_speaks_nonsense_is_told(process: Process):
    engine = process.meet()
    process.told()
    engine.channel.send(Notice(99, 0))
    assert "asker.on_engine_lost" in [call[0] for call in process.told()]


def test_a_forked_child_gives_the_descriptor_back_and_the_other_end_hears_nothing(process: Process):
    engine = process.meet()
    process.told()
    shared = os.dup(engine.theirs)  # as the parent has it
    process.link.abandon()
    assert not process.link.is_open
    assert process.link.send(Mail.APPEND, 1, b"x") is False
    assert process.told() == []
    assert not engine.lost
    os.close(shared)
