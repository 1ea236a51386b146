"""What was given to workers and is not settled, and what became of the rest. No sockets, no loop, no clock.

An event that asks a worker for something takes a *ticket* of that worker's ledger, and gives it back when the worker
acknowledges it. While there is no ticket, or no worker, it waits in a backlog. The books of a gateway hold all its
ledgers, and these figures, of which at any time

    accepted = finished + uncertain + dropped + in flight

Counted are messages, requests, and work that connections own. In flight is what is with a worker or waits for one; it
is counted where it is, and not by a figure that could be wrong.

Before a worker calls a handler it marks the ticket in a page of shared memory, which survives SIGKILL, and again when
the handler is done (page.pyx). So when a worker has ended, its ledger can tell

    not marked         the handler had not started: the event goes to another worker, in order
    marked as started  the handler had started: whether it had an effect, nobody knows
    marked as done     finished: the acknowledgement had not left

With `redeliver` an event of a WebSocket that had started is handled again; how often is counted in `extra`. When
MAX_ATTEMPTS workers have ended over it, it is *quarantined*: dropped, and reported. Else it is *uncertain*, and
reported. Reports themselves are told again in any case. A request is not handled again: its client is told, and knows
better whether it may be.
"""

cimport cython
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc

from collections import deque
from operator import itemgetter

from mooring._core.buffer cimport buffer_append, buffer_free, buffer_size
from mooring._core.page cimport DONE, MARKS, NOT_STARTED, STARTED, Mark, Page
from mooring._core.wire cimport (
    ACK_ENDED, ACK_HANDLED, ATTEMPT_UNIT, MAX_ATTEMPTS, Notice, Record, is_counted, is_repeatable, is_report, kind_of,
    new_notice,
)

GIVEN_UP = ("", "handler failed", "disconnected")     # reasons to drop, by what an acknowledgement says


@cython.final
cdef class Books:
    """Those of one gateway. Each worker may have so many events and bytes in flight."""

    def __cinit__(self, tickets: int = MARKS, ledger_bytes: int = 1 << 62) -> None:
        self.tickets = tickets
        self.ledger_bytes = self.limit = ledger_bytes
        self.dropped = {}
        self.limbo = Backlog(self)
        self.ledgers = []

    def open(self, tickets: int, page: Page = None) -> Ledger:
        """The ledger of a worker that may be given so many events. ValueError for more than a page has marks."""
        if not 0 < tickets <= MARKS:
            raise ValueError(f"a worker can have 1 to {MARKS} messages in flight, not {tickets}")
        ledger = Ledger(self, tickets, page)
        self.ledgers.append(ledger)
        return ledger

    def close(self, ledger: Ledger) -> None:
        """Its worker has ended, and what it had is taken back."""
        if ledger in self.ledgers:
            self.ledgers.remove(ledger)

    cpdef int accept(self) except -1:
        """A message or a request was taken, or work has begun: from now on it is in flight."""
        self.accepted += 1
        return 0

    cpdef int drop(self, str reason, int kind) except -1:
        """An event of this kind is in flight no more, and will not be handled."""
        if is_counted(kind):
            self._drop(reason)
        return 0

    def _drop(self, reason: str) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + 1

    def begin_work(self, ledger: Ledger) -> None:
        self.accepted += 1
        ledger.works += 1

    cpdef int end_work(self, Ledger ledger, str dropped) except -1:
        """It has ended; `dropped`: why it was cut, empty if it was not."""
        ledger.works -= 1
        if dropped:
            self._drop(dropped)
        else:
            self.finished += 1
        return 0

    def lose_work(self, ledger: Ledger) -> None:
        """Its worker has ended, and nobody knows how far it has come."""
        ledger.works -= 1
        self.uncertain += 1

    cpdef Verdict judge(self, Notice event, bint redeliver) except *:
        """What becomes of an event that was taken back and whose handler had started. Counts it, and the attempt."""
        cdef int kind = event.record.kind
        cdef bint again = is_report(kind) or (is_repeatable(kind) and redeliver)
        event.record.extra += ATTEMPT_UNIT
        if again and event.record.extra < MAX_ATTEMPTS * ATTEMPT_UNIT:
            self.repeated += 1
            return REPEAT
        if is_report(kind):
            self.reports_lost += 1       # the message itself is counted already
            return UNREPORTED
        if again:
            self.drop("quarantined", kind)
            return QUARANTINE
        self.uncertain += is_counted(kind)
        return DOUBT

    def redeliver(self, event: Notice) -> None:
        """An event that was taken back waits for another worker; its handler had not started."""
        self.redelivered += 1
        self.limbo.add(event)

    @property
    def spawned(self) -> int:
        """Pieces of work that connections own."""
        return sum([(<Ledger> ledger).works for ledger in self.ledgers])

    @property
    def waiting(self) -> int:
        """Events of any kind that no worker was given yet."""
        return self.limbo.count + sum([(<Ledger> ledger).backlog.count for ledger in self.ledgers])

    @property
    def in_flight(self) -> int:
        """Counted where they are."""
        cdef Ledger ledger
        cdef uint32_t i
        count = self.limbo.counted() + self.spawned
        for ledger in self.ledgers:
            count += ledger.backlog.counted()
            for i in range(ledger.size):
                count += ledger.tickets[i].used and is_counted(ledger.tickets[i].record.kind)
        return count

    def idle(self) -> bool:
        """Whether no event of any kind is with a worker or on its way to one, and no work runs."""
        return not self.waiting and not self.spawned and not any([(<Ledger> one).in_flight for one in self.ledgers])

    def oldest(self, now: int) -> int:
        """Milliseconds for which the event has been with its worker that is there longest; 0: there is none."""
        cdef Ledger ledger
        cdef uint32_t i
        cdef uint64_t since = now
        for ledger in self.ledgers:
            for i in range(ledger.size):
                if ledger.tickets[i].used and ledger.tickets[i].since < since:
                    since = ledger.tickets[i].since
        return now - since


@cython.final
cdef class Backlog:
    """Events that have no ticket, in order."""

    def __cinit__(self, books: Books) -> None:
        self.books = books
        self.events = deque()

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> object:
        return iter(self.events)

    def counted(self) -> int:
        """How many of them are counted in flight."""
        return sum([1 for event in self.events if is_counted((<Notice> event).record.kind)])

    def first(self) -> Notice:
        return self.events[0]

    cdef int _count(self, Notice event, int sign) except -1:
        cdef size_t size = len(event.payload)
        self.count += sign
        self.size += sign * size
        self.books.kept += sign * size
        return 0

    cpdef int add(self, Notice event) except -1:
        self.events.append(event)
        return self._count(event, 1)

    cpdef int add_first(self, Notice event) except -1:
        self.events.appendleft(event)
        return self._count(event, 1)

    cpdef Notice take(self):
        """The first one."""
        cdef Notice event = self.events.popleft()
        self._count(event, -1)
        return event

    def take_all(self) -> list[Notice]:
        return self.take_unless(lambda _event: False)

    def take_unless(self, stays: object) -> list[Notice]:
        """Those for whom `stays(event)` is false; the others stay in order."""
        kept, taken = [], []
        for event in self.events:
            (kept if stays(event) else taken).append(event)
        if taken:
            self.events = deque(kept)
            for event in taken:
                self._count(event, -1)
        return taken


@cython.final
cdef class Ledger:
    """What one worker was given. Made by Books.open()."""

    def __cinit__(self, books: Books, tickets: int, Page page) -> None:
        cdef uint32_t i
        self.books = books
        self.page = page
        self.backlog = Backlog(books)
        self.size = tickets
        self.tickets = <Ticket*> calloc(self.size, sizeof(Ticket))
        self.free_tickets = <uint32_t*> malloc(self.size * sizeof(uint32_t))
        if self.tickets == NULL or self.free_tickets == NULL:
            raise MemoryError("no memory for the ledger of a worker")
        for i in range(self.size):
            self.free_tickets[i] = i
        self.free = self.size

    def __dealloc__(self) -> None:
        cdef uint32_t i
        if self.tickets != NULL:
            for i in range(self.size):
                buffer_free(&self.tickets[i].payload)
        free(self.tickets)
        free(self.free_tickets)

    cdef bint full(self) noexcept:
        """No message can be given to its worker now."""
        if self.books.kept >= self.books.limit:
            self.books.crowded = True
            return True
        return self.free == 0 or self.in_flight_bytes >= self.books.ledger_bytes or self.backlog.count != 0

    cdef int give(self, Record* record, const uint8_t* data, uint64_t now) except -1:
        """Takes a ticket for an event, and writes its number into the record; there is a free one. 1: there is no
        memory, and nothing has happened."""
        cdef uint32_t number = self.free_tickets[self.free_head]
        cdef Ticket* ticket = &self.tickets[number]
        # in one process both end together, and nobody is left who could give it to another
        if self.page is not None and buffer_append(&ticket.payload, data, record.size) < 0:
            return 1
        record.ticket = number
        self.free_head = self.free_head + 1 if self.free_head + 1 < self.size else 0
        self.free -= 1
        self.books.order += 1
        ticket.record = record[0]
        ticket.order = self.books.order
        ticket.since = now
        ticket.used = True
        ticket.told = False
        if self.page is not None:
            self.page.offer(number, now)
        if self.in_flight == 0:
            self.heard = now
        self.in_flight += 1
        self.in_flight_bytes += record.size
        self.books.kept += record.size
        return 0

    def give_event(self, event: Notice, now: int) -> bool:
        """The same for an event that has waited. False: there is no memory."""
        return not self.give(&event.record, event.payload, now)

    cpdef bint settle(self, uint32_t number, int how, uint64_t now) except -1:
        """The handler of this ticket is done, or was not called (`how`: an Ack). False: there was no such ticket."""
        cdef Ticket* ticket
        cdef uint32_t place
        if number >= self.size or not self.tickets[number].used or not ACK_HANDLED <= how <= ACK_ENDED:
            return False
        ticket = &self.tickets[number]
        self._free(ticket)
        place = self.free_head + self.free
        self.free_tickets[place if place < self.size else place - self.size] = number
        self.free += 1
        self.heard = now
        if is_counted(ticket.record.kind):
            if how == ACK_HANDLED:
                self.books.finished += 1
            else:
                self.books._drop(GIVEN_UP[how])
        return True

    cdef int _free(self, Ticket* ticket) except -1:
        ticket.used = False
        buffer_free(&ticket.payload)
        self.in_flight -= 1
        self.in_flight_bytes -= ticket.record.size
        self.books.kept -= ticket.record.size
        return 0

    cdef Mark mark_of(self, uint32_t number, bint torn) noexcept:
        """How far the worker came with it; `torn`: what a handler that is done has sent may be lost."""
        cdef Mark mark = NOT_STARTED if self.page is None else self.page.mark_of(number)
        return STARTED if mark == DONE and torn else mark

    cpdef list take_back(self, bint torn, list done):
        """Its worker has ended, and all it had sent is done. The events that it had not finished, in the order in which
        they were given, behind each whether its handler had started; then those that had no ticket yet. Into `done`
        come the tickets that are to be settled: their acknowledgement had not left."""
        cdef uint32_t i
        cdef Ticket* ticket
        cdef Notice event
        cdef Record record
        taken = []
        for i in range(self.size):
            ticket = &self.tickets[i]
            if not ticket.used:
                continue
            if self.mark_of(i, torn) == DONE:
                done.append(i)
                continue
            record = ticket.record
            record.size = <uint32_t> buffer_size(&ticket.payload)
            event = new_notice(&record, ticket.payload.data + ticket.payload.start)
            taken.append((ticket.order, event, self.mark_of(i, torn) == STARTED))
            self._free(ticket)
        taken.sort(key=itemgetter(0))
        waited = [(event, False) for event in self.backlog.take_all()]
        return [(event, started) for _, event, started in taken] + waited

    def silent(self, now: int) -> int:
        """Milliseconds for which its worker has had something to do and has finished nothing."""
        return now - self.heard if self.in_flight else 0

    def take_overdue(self, limit: int, now: int) -> list[tuple[int, int, int]]:
        """Events that have been there for more than `limit` ms: kind, fd, ms; each is told once."""
        cdef Ticket* ticket
        cdef uint32_t i
        found = []
        for i in range(self.size):
            ticket = &self.tickets[i]
            if ticket.used and not ticket.told and now - ticket.since > <uint64_t> limit:
                ticket.told = True
                self.books.overdue += 1
                found.append((kind_of(&ticket.record), ticket.record.fd, now - ticket.since))
        return found
