"""What the dispatcher does with tasks and messages: whom it gives them to, what it keeps, and what is lost."""

import socket
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from mooring._core.channel import BadRecord
from mooring._core.reactor import Reactor
from mooring._core.records import MailContract, RecordChannel
from mooring._core.wire import Fate, Mail, Notice, TaskFlag
from mooring.dispatcher.dispatcher import HELD_MESSAGES, SMALL, Dispatcher

MEMORY = 1 << 16  # less than a socket holds


class Process(MailContract):
    """A worker, or a task worker, at the other end of its link."""

    def __init__(self, server: "Server", number: int, *, takes: bool) -> None:
        self.heard: list[tuple[Any, ...]] = []
        self._server = server
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setblocking(False)
        self._channel = RecordChannel(server.reactor, ours.detach(), self)
        server.dispatcher.attach(theirs.detach(), worker=number, generation=1)
        self.send(Notice(Mail.HELLO, 1000 + number, opcode=takes))

    def send(self, *notices: Notice) -> None:
        for notice in notices:
            self._channel.send(notice)
        self._server.turn()

    def task(self, number: int, payload: bytes = b"\xc0", flags: int = 0) -> None:
        self.send(Notice(Mail.TASK, number, payload, opcode=flags))

    def result(self, number: int, payload: bytes = b"\xc0", fate: int = Fate.DONE) -> None:
        self.send(Notice(Mail.RESULT, number, payload, opcode=fate))

    def end(self) -> None:
        self._channel.close()
        self._server.turn()

    def take(self) -> list[tuple[Any, ...]]:
        """What has come since: the kind, the number and the rest of each."""
        heard, self.heard = self.heard, []
        return heard

    def on_record(self, channel: RecordChannel, notice: Notice) -> None:
        self.heard.append((Mail(notice.kind), notice.number, notice.payload, notice.opcode, notice.arg))

    def on_lost(self, channel: RecordChannel, why: str) -> None:
        pass


class Server:
    """A dispatcher, and those who have a link to it."""

    def __init__(self) -> None:
        self.reactor = Reactor()
        self.retired: list[int] = []
        self.broken: list[tuple[int, str]] = []
        self.dispatcher = Dispatcher(
            self.reactor,
            lambda peer: self.retired.append(peer.worker),
            lambda peer, why: self.broken.append((peer.worker, why)),
            MEMORY,
        )
        self.processes: list[Process] = []

    def process(self, number: int, *, takes: bool = False) -> Process:
        made = Process(self, number, takes=takes)
        self.processes.append(made)
        return made

    def turn(self) -> None:
        for _ in range(20):
            self.reactor.poll(0)

    def counted(self, *names: str) -> tuple[int, ...]:
        stats = self.dispatcher.stats()
        whole = ("done", "failed", "lost", "cancelled", "queued", "running")
        assert stats["tasks_accepted"] == sum(stats[f"tasks_{name}"] for name in whole), "the books balance"
        return tuple(stats[name] for name in names)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    for process in made.processes:
        process.end()


def why(payload: bytes) -> str:
    text: str = msgspec.msgpack.decode(payload)[-1]
    return text


def test_a_task_goes_to_who_is_free_and_its_result_back_under_the_number_of_who_waits(server: Server):
    worker, bench = server.process(0), server.process(5, takes=True)
    worker.task(77, b"\x01")
    [(kind, number, payload, _, source)] = bench.take()
    assert (kind, payload, source) == (Mail.TASK, b"\x01", 0)
    bench.send(Notice(Mail.PROGRESS, number, b"\x02"))
    assert worker.take() == [(Mail.PROGRESS, 77, b"\x02", 0, 0)]
    bench.result(number, b"\x03")
    assert worker.take() == [(Mail.RESULT, 77, b"\x03", Fate.DONE, 0)]
    assert server.counted("tasks_done", "dispatcher_bytes") == (1, 0)


def test_tasks_wait_in_order_and_each_task_worker_has_one(server: Server):
    worker = server.process(0)
    for number in range(1, 6):
        worker.task(number, bytes([number]))
    assert server.counted("tasks_queued", "tasks_running", "dispatcher_bytes") == (5, 0, 5)
    benches = [server.process(number, takes=True) for number in (5, 6)]
    assert [[one[2] for one in bench.take()] for bench in benches] == [[b"\1"], [b"\2"]]
    benches[1].result(2)
    assert [one[2] for one in benches[1].take()] == [b"\3"]
    assert server.counted("tasks_queued", "tasks_running") == (2, 2)


def test_what_is_traced_says_so_and_nothing_else_of_its_flags_goes_on(server: Server):
    worker, bench = server.process(0), server.process(5, takes=True)
    worker.task(1, flags=TaskFlag.TRACED | TaskFlag.UNAWAITED)
    assert [one[3] for one in bench.take()] == [TaskFlag.TRACED]


def test_one_that_is_taken_back_before_it_begins_never_does(server: Server):
    worker = server.process(0)
    worker.task(1)
    worker.send(Notice(Mail.CANCEL, 1))
    worker.send(Notice(Mail.CANCEL, 1), Notice(Mail.CANCEL, 9))  # there is no such one
    bench = server.process(5, takes=True)
    assert bench.take() == []
    assert server.counted("tasks_cancelled", "dispatcher_bytes") == (1, 0)


def test_one_that_has_begun_goes_on_for_nobody(server: Server):
    worker, bench = server.process(0), server.process(5, takes=True)
    worker.task(1)
    worker.send(Notice(Mail.CANCEL, 1))
    bench.send(Notice(Mail.PROGRESS, 1, b"\x01"))
    bench.result(1)
    assert worker.take() == []
    assert server.counted("tasks_done", "task_results_unread") == (1, 1)


def test_a_task_whose_worker_has_gone_is_not_begun_unless_nobody_was_to_wait_for_it(server: Server):
    worker = server.process(0)
    worker.task(1, b"\x01")
    worker.task(2, b"\x02", TaskFlag.UNAWAITED)
    worker.end()
    bench = server.process(5, takes=True)
    assert [one[2] for one in bench.take()] == [b"\x02"]
    bench.result(1)
    assert server.counted("tasks_cancelled", "tasks_done", "task_results_unread") == (1, 1, 1)


def test_the_task_that_a_task_worker_was_at_is_lost_with_it_and_nothing_else(server: Server):
    worker, bench = server.process(0), server.process(5, takes=True)
    worker.task(1)
    worker.task(2, b"\x02")
    bench.end()
    [(kind, number, payload, fate, _)] = worker.take()
    assert (kind, number, fate) == (Mail.RESULT, 1, Fate.LOST)
    assert why(payload).startswith("task worker 5 (pid 1005) ended while it was at this task")
    assert [one[2] for one in server.process(5, takes=True).take()] == [b"\x02"]
    assert server.counted("tasks_lost", "tasks_running") == (1, 1)


def test_a_task_worker_that_says_that_it_departs_gets_no_further_task(server: Server):
    worker, bench = server.process(0), server.process(5, takes=True)
    bench.send(Notice(Mail.DEPART, 0))
    worker.task(1)
    assert bench.take() == []
    assert server.counted("tasks_queued") == (1,)


@pytest.mark.parametrize(
    "nonsense",
    [
        Notice(Mail.RESULT, 9, b"\xc0", opcode=Fate.DONE),  # it has no such task
        Notice(Mail.RESULT, 1, b"\xc0", opcode=Fate.REFUSED),  # that is the dispatcher's to say
        Notice(Mail.HELLO, 5),  # for the second time
        Notice(Mail.FULL, 0),  # to a worker
    ],
    ids=["result", "fate", "hello", "direction"],
)
def test_nonsense_has_no_effect_and_is_counted(server: Server, nonsense: Notice):
    worker, bench = server.process(0), server.process(5, takes=True)
    worker.task(1)
    bench.send(nonsense)
    assert worker.take() == []
    assert server.counted("bad_records", "tasks_running") == (1, 1)
    bench.result(1)
    assert [one[3] for one in worker.take()] == [Fate.DONE], "it can go on"


def test_who_speaks_what_can_not_be_followed_is_told_of(server: Server):
    server.process(3).send(Notice(99, 0))
    assert [number for number, _ in server.broken] == [3]
    assert server.counted("bad_records") == (1,)


def test_a_task_that_is_handed_over_twice_is_one(server: Server):
    worker = server.process(0)
    worker.task(1)
    worker.task(1)
    assert server.counted("tasks_accepted", "bad_records") == (1, 1)
    [peer] = server.dispatcher._channels
    with pytest.raises(BadRecord, match="task 1 is handed over twice"):
        server.dispatcher.take(peer, Notice(Mail.TASK, 1, b""))


def test_when_memory_is_full_everybody_hears_and_tasks_are_refused(server: Server):
    worker, other = server.process(0), server.process(1)
    worker.task(1, bytes(MEMORY // 4 * 3))
    assert worker.take() == []
    other.task(1, bytes(MEMORY // 2))
    assert [one[0] for one in worker.take()] == [Mail.FULL]
    assert [(one[0], one[3]) for one in other.take()] == [(Mail.FULL, 0), (Mail.RESULT, Fate.REFUSED)]
    assert server.counted("tasks_refused", "dispatcher_full") == (1, 1)
    late = server.process(2)
    assert [(one[0], one[4]) for one in late.take()] == [(Mail.FULL, 1)]


def test_one_task_is_taken_however_large_it_is(server: Server):
    worker = server.process(0)
    worker.task(1, bytes(2 * MEMORY))
    assert server.counted("tasks_accepted", "tasks_refused") == (1, 0)


def test_a_result_for_a_worker_that_reads_nothing_is_dropped_and_a_small_one_is_not(server: Server):
    worker, bench = server.process(0), server.process(5, takes=True)
    worker.task(1)
    worker.task(2)
    bench.result(1, bytes(MEMORY))
    [(_, _, payload, fate, _)] = [one for one in worker.take() if one[0] == Mail.RESULT]
    assert fate == Fate.LOST
    assert why(payload).startswith(f"the result of {MEMORY} bytes was dropped")
    bench.result(2, bytes(SMALL))
    assert [one[3] for one in worker.take() if one[0] == Mail.RESULT] == [Fate.DONE]


def test_messages_wait_for_a_worker_that_is_being_started_and_come_in_order(server: Server):
    sender = server.process(0)
    for number in range(HELD_MESSAGES + 2):
        sender.send(Notice(Mail.MESSAGE, 0, str(number).encode(), arg=1))
    late = server.process(1)
    assert [(one[0], one[2], one[4]) for one in late.take()] == [
        (Mail.MESSAGE, str(number).encode(), 0) for number in range(HELD_MESSAGES)
    ]
    assert server.counted("pipe_messages", "pipe_messages_dropped") == (HELD_MESSAGES + 2, 2)
    assert server.dispatcher.stats()["dispatcher_bytes"] == 0


def test_a_worker_that_retires_has_what_it_handed_over_done_first(server: Server):
    worker, bench = server.process(0), server.process(5, takes=True)
    worker.task(1)
    server.dispatcher.retire(0, 2)  # another generation
    server.dispatcher.retire(0, 1)
    server.dispatcher.retire(0, 1)
    worker.task(2)  # later ones do not keep it
    assert server.retired == []
    bench.result(1)
    assert server.retired == [0]
    worker.end()
    assert server.retired == [0], "once"


def test_a_task_worker_that_retires_does_what_it_is_at_and_no_more(server: Server):
    worker, bench = server.process(0), server.process(5, takes=True)
    worker.task(1)
    worker.task(2)
    server.dispatcher.retire(5, 1)
    assert [one[2] for one in bench.take()] == [b"\xc0"]
    bench.result(1)
    assert bench.take() == []
    assert server.retired == [5]
    assert server.counted("tasks_queued") == (1,)
