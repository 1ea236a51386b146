"""The ledger, without sockets: what becomes of tickets, and that the books balance under every order of events."""

import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mooring._core.ledger import Books, Ledger, Verdict
from mooring._core.page import PAGE_BYTES, Page
from mooring._core.wire import MAX_ATTEMPTS, Ack, Event, Notice

STARTED, DONE = b"\1", b"\2"  # in a page, a byte for each ticket
COUNTED = (Event.MESSAGE, Event.REQUEST)
TICKETS = 4


class Shared:
    """A page, and what the worker at its other end writes into it."""

    def __init__(self) -> None:
        self._file = os.memfd_create("page")
        os.ftruncate(self._file, PAGE_BYTES)
        self.page = Page(os.dup(self._file))

    def mark(self, ticket: int, mark: bytes) -> None:
        os.pwrite(self._file, mark, ticket)

    def close(self) -> None:
        os.close(self._file)


@pytest.fixture
def shared() -> Iterator[Shared]:
    one = Shared()
    yield one
    one.close()


def message(fd: int = 1, payload: bytes = b"hello") -> Notice:
    return Notice(Event.MESSAGE, fd, payload)


def given(books: Books, ledger: Ledger, *events: Notice, now: int = 0) -> None:
    for event in events:
        if event.kind in COUNTED:
            books.accept()
        assert ledger.give_event(event, now)


def balance(books: Books) -> tuple[int, ...]:
    return books.accepted, books.finished, books.uncertain, sum(books.dropped.values()), books.in_flight


def test_a_ticket_comes_back_once():
    books = Books()
    ledger = books.open(2)
    given(books, ledger, message(), message(2))
    assert (ledger.free, ledger.in_flight, ledger.in_flight_bytes, books.kept) == (0, 2, 10, 10)
    assert ledger.settle(1, Ack.HANDLED, 0)
    assert not ledger.settle(1, Ack.HANDLED, 0), "it was given back"
    assert not ledger.settle(2, Ack.HANDLED, 0), "there is none of that number"
    assert not ledger.settle(0, 3, 0), "nothing ends so"
    assert (ledger.free, ledger.in_flight, ledger.in_flight_bytes, books.kept) == (1, 1, 5, 5)
    assert balance(books) == (2, 1, 0, 0, 1)


def test_tickets_go_round():
    """So that acknowledgements come in ranges."""
    books = Books()
    ledger = books.open(3)
    numbers = []
    for _ in range(7):
        event = message()
        given(books, ledger, event)
        numbers.append(event.ticket)
        ledger.settle(event.ticket, Ack.HANDLED, 0)
    assert numbers == [0, 1, 2, 0, 1, 2, 0]


@pytest.mark.parametrize(("how", "reason"), [(Ack.FAILED, "handler failed"), (Ack.ENDED, "disconnected")])
def test_what_a_worker_gives_back_is_dropped(how: Ack, reason: str):
    books = Books()
    ledger = books.open(2)
    given(books, ledger, message(), Notice(Event.CLOSE, 1))
    assert ledger.settle(0, how, 0)
    assert ledger.settle(1, how, 0)
    assert books.dropped == {reason: 1}, "a close is not counted"
    assert balance(books) == (1, 0, 0, 1, 0)


def test_what_is_taken_back(shared: Shared):
    books = Books()
    ledger = books.open(4, shared.page)
    events = [message(fd, bytes([fd]) * fd) for fd in (1, 2, 3, 4)]
    given(books, ledger, *events)
    ledger.backlog.add(message(5))
    shared.mark(1, STARTED)
    shared.mark(2, DONE)
    done: list[int] = []
    taken = ledger.take_back(False, done)
    assert [(event.fd, event.payload, started) for event, started in taken] == [
        (1, b"\1", False),
        (2, b"\2\2", True),
        (4, b"\4\4\4\4", False),
        (5, b"hello", False),
    ]
    assert done == [2]
    assert ledger.settle(2, Ack.HANDLED, 0)
    assert (ledger.in_flight, ledger.in_flight_bytes, books.kept) == (0, 0, 0)


def test_what_is_done_is_not_if_what_it_sent_was_lost(shared: Shared):
    books = Books()
    ledger = books.open(1, shared.page)
    given(books, ledger, message())
    shared.mark(0, DONE)
    done: list[int] = []
    ((_, started),) = ledger.take_back(True, done)
    assert started
    assert not done


def test_a_mark_of_an_earlier_event_is_none_of_the_next(shared: Shared):
    books = Books()
    ledger = books.open(1, shared.page)
    given(books, ledger, message())
    shared.mark(0, STARTED)
    ledger.settle(0, Ack.HANDLED, 0)
    given(books, ledger, message(2))
    ((event, started),) = ledger.take_back(False, [])
    assert (event.fd, started) == (2, False)


def test_they_are_taken_back_in_the_order_given(shared: Shared):
    books = Books()
    ledger = books.open(3, shared.page)
    given(books, ledger, message(1), message(2), message(3))
    ledger.settle(0, Ack.HANDLED, 0)
    given(books, ledger, message(4))  # on the first ticket
    assert [event.fd for event, _ in ledger.take_back(False, [])] == [2, 3, 4]


@pytest.mark.parametrize(
    ("kind", "redeliver", "verdicts"),
    [
        (Event.MESSAGE, False, [Verdict.DOUBT]),
        (Event.REQUEST, True, [Verdict.DOUBT]),
        (Event.HANDSHAKE, True, [Verdict.DOUBT]),
        *[
            (kind, True, [Verdict.REPEAT] * (MAX_ATTEMPTS - 1) + [Verdict.QUARANTINE])
            for kind in (Event.OPEN, Event.MESSAGE, Event.CLOSE, Event.DISCONNECT)
        ],
        *[
            (kind, again, [Verdict.REPEAT] * (MAX_ATTEMPTS - 1) + [Verdict.UNREPORTED])
            for kind in (Event.UNCERTAIN, Event.QUARANTINED)
            for again in (False, True)
        ],
    ],
)
def test_verdicts(kind: Event, redeliver: bool, verdicts: list[Verdict]):
    books = Books()
    event = Notice(kind, 1, extra=7)
    if kind in COUNTED:
        books.accept()
    assert [books.judge(event, redeliver) for _ in verdicts] == verdicts
    assert event.listener == 7
    assert books.repeated == len(verdicts) - 1
    assert books.uncertain == (verdicts[-1] == Verdict.DOUBT and kind in COUNTED)
    assert books.dropped == ({"quarantined": 1} if verdicts[-1] == Verdict.QUARANTINE and kind in COUNTED else {})
    assert books.reports_lost == (verdicts[-1] == Verdict.UNREPORTED)


def test_times():
    books = Books()
    ledger = books.open(4)
    assert (ledger.silent(50), books.oldest(50)) == (0, 0)
    given(books, ledger, message(1), now=100)
    given(books, ledger, Notice(Event.OPEN, 2), now=300)
    assert (ledger.silent(400), books.oldest(400)) == (300, 300)
    assert ledger.take_overdue(150, 400) == [(Event.MESSAGE, 1, 300)]
    assert ledger.take_overdue(150, 400) == [], "each is told once"
    assert books.overdue == 1
    ledger.settle(0, Ack.HANDLED, 450)
    assert (ledger.silent(500), books.oldest(500)) == (50, 200)


@pytest.mark.parametrize("tickets", [0, -1, 4097])
def test_a_ledger_has_as_many_tickets_as_a_page_has_marks(tickets: int):
    with pytest.raises(ValueError, match="1 to 4096"):
        Books().open(tickets)


def test_work_is_counted():
    books = Books()
    ledger = books.open(1)
    for _ in range(3):
        books.begin_work(ledger)
    assert (books.spawned, books.idle()) == (3, False)
    books.end_work(ledger, "")
    books.end_work(ledger, "cut")
    books.lose_work(ledger)
    assert balance(books) == (3, 1, 1, 1, 0)
    assert books.idle()


KINDS = st.sampled_from([Event.MESSAGE, Event.REQUEST, Event.OPEN, Event.CLOSE, Event.HANDSHAKE])


class Balance(RuleBasedStateMachine):
    """A gateway with up to three workers, in any order of events; beside it what should be counted, by other means."""

    def __init__(self) -> None:
        super().__init__()
        self.books = Books()
        self.workers: list[tuple[Ledger, Shared, dict[int, int]]] = []  # and kinds, by ticket
        self.fates = {"finished": 0, "uncertain": 0, "dropped": 0}
        self.accepted = 0

    def worker(self, data: Any) -> tuple[Ledger, Shared, dict[int, int]]:
        return self.workers[data.draw(st.integers(0, len(self.workers) - 1))]

    def ends(self, kind: int, how: str) -> None:
        self.fates[how] += kind in COUNTED

    @precondition(lambda self: len(self.workers) < 3)
    @rule()
    def a_worker_comes(self) -> None:
        shared = Shared()
        self.workers.append((self.books.open(TICKETS, shared.page), shared, {}))

    @rule(kind=KINDS, size=st.integers(0, 20), data=st.data())
    def an_event_comes(self, kind: Event, size: int, data: Any) -> None:
        self.accepted += kind in COUNTED
        if kind in COUNTED:
            self.books.accept()
        event = Notice(kind, 1, bytes(size))
        if not self.workers or data.draw(st.booleans()):
            self.books.limbo.add(event)
        else:
            self.give(*self.worker(data), event)

    def give(self, ledger: Ledger, _shared: Shared, kinds: dict[int, int], event: Notice) -> None:
        if ledger.free == 0 or ledger.backlog.count:
            ledger.backlog.add(event)
        else:
            assert ledger.give_event(event, 0)
            assert event.ticket not in kinds
            kinds[event.ticket] = event.kind

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), how=st.sampled_from(list(Ack)))
    def a_ticket_comes_back(self, data: Any, how: Ack) -> None:
        ledger, _, kinds = self.worker(data)
        number = data.draw(st.integers(0, TICKETS))
        assert ledger.settle(number, how, 0) == (number in kinds)
        if number in kinds:
            self.ends(kinds.pop(number), "finished" if how == Ack.HANDLED else "dropped")
        while ledger.backlog.count and ledger.free:
            event = ledger.backlog.take()
            assert ledger.give_event(event, 0)
            kinds[event.ticket] = event.kind

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), mark=st.sampled_from([STARTED, DONE, b"\7"]))
    def a_handler_gets_on(self, data: Any, mark: bytes) -> None:
        _, shared, _ = self.worker(data)
        shared.mark(data.draw(st.integers(0, TICKETS - 1)), mark)

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), torn=st.booleans(), redeliver=st.booleans(), leaves=st.booleans())
    def a_worker_ends(self, data: Any, torn: bool, redeliver: bool, leaves: bool) -> None:
        place = data.draw(st.integers(0, len(self.workers) - 1))
        ledger, shared, kinds = self.workers.pop(place)
        done: list[int] = []
        for event, started in ledger.take_back(torn, done):
            if not started and leaves:
                self.books.drop("client left", event.kind)
                self.ends(event.kind, "dropped")
            elif not started:
                self.books.redeliver(event)
            else:
                self.judge(event, redeliver)
        for _ in range(ledger.works):
            self.books.lose_work(ledger)
            self.fates["uncertain"] += 1
        for number in done:
            assert ledger.settle(number, Ack.HANDLED, 0)
            self.ends(kinds[number], "finished")
        self.books.close(ledger)
        shared.close()

    def judge(self, event: Notice, redeliver: bool) -> None:
        verdict = self.books.judge(event, redeliver)
        if verdict == Verdict.REPEAT:
            self.books.limbo.add(event)
        elif verdict == Verdict.DOUBT:
            self.ends(event.kind, "uncertain")
        else:
            self.ends(event.kind, "dropped")
        if verdict in (Verdict.DOUBT, Verdict.QUARANTINE):
            about = Event.UNCERTAIN if verdict == Verdict.DOUBT else Event.QUARANTINED
            self.books.limbo.add(Notice(about, event.fd, event.payload, arg=event.kind))

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def what_waits_is_handed_out(self, data: Any) -> None:
        while self.books.limbo.count:
            self.give(*self.worker(data), self.books.limbo.take())

    @rule()
    def what_waits_is_given_up(self) -> None:
        for event in self.books.limbo.take_unless(lambda event: event.kind != Event.REQUEST):
            self.books.drop("degraded", event.kind)
            self.ends(event.kind, "dropped")

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), end=st.sampled_from(["begins", "ends", "is cut"]))
    def work(self, data: Any, end: str) -> None:
        ledger, _, _ = self.worker(data)
        if end == "begins":
            self.books.begin_work(ledger)
            self.accepted += 1
        elif ledger.works:
            self.books.end_work(ledger, "cut" if end == "is cut" else "")
            self.fates["dropped" if end == "is cut" else "finished"] += 1

    @invariant()
    def the_books_balance(self) -> None:
        books = self.books
        assert books.accepted == self.accepted
        assert (books.finished, books.uncertain, sum(books.dropped.values())) == tuple(self.fates.values())
        assert books.accepted == books.finished + books.uncertain + sum(books.dropped.values()) + books.in_flight

    @invariant()
    def every_byte_and_ticket_is_somewhere(self) -> None:
        backlogs = [self.books.limbo, *[ledger.backlog for ledger, _, _ in self.workers]]
        waiting = sum(len(event.payload) for backlog in backlogs for event in backlog)
        assert self.books.kept == waiting + sum(ledger.in_flight_bytes for ledger, _, _ in self.workers)
        assert self.books.waiting == sum(map(len, backlogs))
        for ledger, _, kinds in self.workers:
            assert ledger.in_flight == len(kinds) == TICKETS - ledger.free

    def teardown(self) -> None:
        for _, shared, _ in self.workers:
            shared.close()


Balance.TestCase.settings = settings(max_examples=100, stateful_step_count=60)
TestBalance = Balance.TestCase
