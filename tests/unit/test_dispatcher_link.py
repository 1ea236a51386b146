"""What the dispatcher says to a worker goes to whom it concerns; what makes no sense has no effect."""

import os
import socket
from collections.abc import Iterator
from typing import Any
from unittest.mock import Mock

import pytest

from mooring._core.reactor import Reactor
from mooring._core.records import MailContract, RecordChannel
from mooring._core.wire import TO_WORKER, Mail, Notice
from mooring.worker.dispatcher_link import DispatcherLink

TOLD = [
    (Mail.PROGRESS, "desk.on_progress"),
    (Mail.RESULT, "desk.on_result"),
    (Mail.STATS, "desk.on_stats"),
    (Mail.TASK, "bench.on_task"),
    (Mail.MESSAGE, "pipe.receive"),
]


class Dispatcher(MailContract):
    """The other end, and the worker whose link it is."""

    def __init__(self, *, task_worker: bool = True) -> None:
        self.reactor = Reactor()
        self.heard: list[Notice] = []
        self.worker = Mock()
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setblocking(False)
        self.channel = RecordChannel(self.reactor, ours.detach(), self)
        worker = self.worker
        bench = worker.bench if task_worker else None
        self.link = DispatcherLink(self.reactor, theirs.detach(), worker.desk, bench, worker.pipe, worker.host)
        self.worker.reset_mock()

    def say(self, *notices: Notice) -> list[Any]:
        """What the worker's parts were called with."""
        self.worker.reset_mock()
        for notice in notices:
            self.channel.send(notice)
        self.turn()
        return list(self.worker.mock_calls)

    def turn(self) -> None:
        for _ in range(5):
            self.reactor.poll(0)

    def on_record(self, channel: RecordChannel, notice: Notice) -> None:
        self.heard.append(notice)

    def on_lost(self, channel: RecordChannel, why: str) -> None:
        pass


@pytest.fixture
def dispatcher() -> Iterator[Dispatcher]:
    made = Dispatcher()
    yield made
    made.channel.close()
    made.turn()


@pytest.mark.parametrize(("mail", "whose"), TOLD)
def test_who_is_told(dispatcher: Dispatcher, mail: Mail, whose: str):
    (call,) = dispatcher.say(Notice(mail, 7, b"it", opcode=1, arg=3))
    assert call[0] == whose
    if whose == "pipe.receive":
        assert call.args == (3, b"it"), "from whom, and what"
    else:
        assert (call.args[-1].number, call.args[-1].payload) == (7, b"it")


def test_every_kind_is_taken():
    assert {mail for mail, _ in TOLD} | {Mail.DEPART, Mail.FULL} == set(TO_WORKER)


def test_when_the_dispatcher_is_full_tasks_and_messages_both_are(dispatcher: Dispatcher):
    for full in (True, False):
        dispatcher.say(Notice(Mail.FULL, 0, arg=full))
        assert (dispatcher.worker.desk.full, dispatcher.worker.pipe.full) == (full, full)


@pytest.mark.parametrize("task_worker", [False, True])
def test_it_says_who_it_is_and_whether_it_takes_tasks(task_worker: bool):
    dispatcher = Dispatcher(task_worker=task_worker)
    dispatcher.link.hello()
    dispatcher.turn()
    [hello] = dispatcher.heard
    assert (hello.kind, hello.number, hello.opcode) == (Mail.HELLO, os.getpid(), task_worker)
    dispatcher.channel.close()


def test_a_task_for_one_that_carries_none_out_makes_no_sense_and_the_next_record_counts():
    dispatcher = Dispatcher(task_worker=False)
    bad, stats = dispatcher.say(Notice(Mail.TASK, 1, b"it"), Notice(Mail.STATS, 0, b"it"))
    assert (bad[0], bad.args[0]) == ("host.on_bad_record", "the dispatcher")
    assert stats[0] == "desk.on_stats"
    dispatcher.channel.close()


def test_who_can_not_be_followed_is_told_of(dispatcher: Dispatcher):
    calls = dispatcher.say(Notice(99, 0))
    assert ("host.on_broken", "the dispatcher") in [(call[0], call.args[0]) for call in calls if call.args]


@pytest.mark.parametrize("departs", [False, True])
def test_its_end_is_told_and_logged_unless_it_has_said_that_it_ends(departs: bool, caplog: pytest.LogCaptureFixture):
    dispatcher = Dispatcher()
    dispatcher.say(*[Notice(Mail.DEPART, 0)] * departs)
    dispatcher.channel.close()
    dispatcher.turn()
    assert [call[0] for call in dispatcher.worker.mock_calls] == ["desk.on_lost"]
    assert ("the channel to the dispatcher has ended" in caplog.text) is not departs
