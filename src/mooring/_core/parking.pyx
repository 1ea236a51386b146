"""Connections that may not go on, until they may.

A connection that has to wait is in a list: `worker_end.waiting` until its worker has room, `worker_end.parts` until
that has taken what was sent to it, `unbound` until there is a worker. Whoever is woken asks again, and may have to
wait again.
"""

from libc.stdint cimport uint64_t

from functools import partial

from mooring._core.ledger cimport Books, Ledger
from mooring._core.registry cimport HTTP, Connection
from mooring._core.websocket cimport WebSockets
from mooring._core.wire cimport Notice, is_asking
from mooring._core.worker_end cimport WorkerEnd

cdef double RETRY = 0.05             # seconds, after there was no room
cdef int WOKEN_AT_ONCE = 256         # of a crowd, in one turn


cdef class Parking:
    """That of one gateway."""

    def __cinit__(self, connections: WebSockets, books: Books, worker_ends: list[WorkerEnd | None]) -> None:
        self.connections = connections
        self.books = books
        self.worker_ends = worker_ends
        self.unbound = []
        self.abandoned = set()

    cdef bint park(self, list waiting, uint64_t fd) except -1:
        """Not now (False): it is woken when those in this list are. Those that have ended meanwhile do not pile up."""
        waiting.append(fd)
        if len(waiting) > 2 * self.connections.count + WOKEN_AT_ONCE:
            waiting[:] = [one for one in dict.fromkeys(waiting) if self.connections.find(one) != NULL]
        return False

    cdef bint park_unless_room(self, WorkerEnd worker_end, uint64_t fd) except -1:
        """Whether that worker (None: there is none) has room for a message or request of this connection."""
        if worker_end is None:
            return self.park(self.unbound, fd)
        return True if not worker_end.ledger.full() else self.park(worker_end.waiting, fd)

    cdef bint takes_part(self, WorkerEnd worker_end, uint64_t fd) except -1:
        """Whether a part of a body can be given to that worker: one that stands still has asked for many before."""
        if worker_end.unsent() <= self.books.ledger_bytes:
            return True
        if not worker_end.parts:
            self.connections.reactor.call_later(RETRY, partial(self._wake_parts, worker_end))
        return self.park(worker_end.parts, fd)

    def _wake_parts(self, worker_end: WorkerEnd) -> None:
        if worker_end.usable and worker_end.unsent() > self.books.ledger_bytes:
            self.connections.reactor.call_later(RETRY, partial(self._wake_parts, worker_end))
            return
        waiting, worker_end.parts = worker_end.parts, []
        self.wake(waiting)

    cdef int wake(self, list fds) except -1:
        cdef Connection* c
        for fd in fds:
            c = self.connections.find(fd)
            if c != NULL:
                self.connections.wake(c)
        return 0

    cdef int wake_unbound(self) except -1:
        """There is a worker now."""
        waiting, self.unbound = self.unbound, []
        return self.wake(waiting)

    cdef int wake_waiting(self, WorkerEnd worker_end) except -1:
        """A ticket of this worker came back. Not at the first free one: a crowd woken for one place would only queue
        again. But not never either, when what is left in flight stays there for long."""
        cdef Ledger ledger = worker_end.ledger
        if not worker_end.waiting or ledger.full():
            return 0
        if (ledger.free >= ledger.size // 4
                and ledger.in_flight_bytes <= self.books.ledger_bytes - self.books.ledger_bytes // 4):
            self._wake_some(worker_end)
        elif not worker_end.waking:
            worker_end.waking = True
            self.connections.reactor.call_later(RETRY, partial(self._wake_more, worker_end))
        return 0

    cdef int _wake_some(self, WorkerEnd worker_end) except -1:
        """The first of those who wait, as many as probably find room, since who doesn't goes to the end of the line.
        The next ones follow when these have had their chance."""
        cdef uint64_t turn = self.connections.reactor.turns
        cdef Ledger ledger = worker_end.ledger
        cdef uint64_t room = ledger.free
        cdef int count
        if ledger.in_flight_bytes:
            room = min(room, max(
                <uint64_t> 1,
                (self.books.ledger_bytes - ledger.in_flight_bytes) * ledger.in_flight // ledger.in_flight_bytes))
        if worker_end.woken_in != turn:
            worker_end.woken_in = turn
            worker_end.woken = 0
        count = <int> min(room, <uint64_t> WOKEN_AT_ONCE) - <int> worker_end.woken
        if count < 0:
            count = 0
        worker_end.woken += count
        waiting = worker_end.waiting[:count]
        del worker_end.waiting[:count]
        self.wake(waiting)
        if worker_end.waiting and not worker_end.waking:
            worker_end.waking = True
            self.connections.reactor.post(partial(self._wake_more, worker_end))
        return 0

    def _wake_more(self, worker_end: WorkerEnd) -> None:
        worker_end.waking = False
        if worker_end.usable and worker_end.waiting and not worker_end.ledger.full():
            self._wake_some(worker_end)

    def wake_asking(self) -> None:
        """Those that wait with a request: the gateway answers it now, whatever it is."""
        cdef Connection* c
        waiting = [fd for one in self.worker_ends if one is not None for fd in (<WorkerEnd> one).waiting]
        for fd in [*self.unbound, *waiting]:
            c = self.connections.find(fd)
            if c != NULL and c.phase == HTTP:
                self.connections.wake(c)

    # ------------------------------------------------------------------ requests that nobody waits for any more

    cdef bint is_abandoned(self, Notice event) except -1:
        """Whether this event, which no worker was given yet, asks for an answer and its client has left."""
        if not is_asking(event.record.kind) or self.connections.find(event.record.fd) != NULL:
            return False
        self.books.drop("client left", event.record.kind)
        return True

    cdef int leave_behind(self, uint64_t fd) except -1:
        """A connection has ended, with a request that may still wait for a place. One walk for all that end in this
        turn."""
        if not self.books.waiting:
            return 0
        if not self.abandoned:
            self.connections.reactor.post(self._drop_abandoned)
        self.abandoned.add(fd)
        return 0

    def _drop_abandoned(self) -> None:
        fds, self.abandoned = self.abandoned, set()
        for events in [self.books.limbo, *[(<Ledger> ledger).backlog for ledger in self.books.ledgers]]:
            for event in events.take_unless(lambda event: event.fd not in fds or not is_asking(event.kind)):
                self.is_abandoned(event)
