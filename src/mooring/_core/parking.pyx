"""Connections that may not go on, until they may.

A connection that has to wait is in a list: `port.waiting` until its worker has room, `port.parts` until that has taken
what was sent to it, `unbound` until there is a worker. Whoever is woken asks again, and may have to wait again.
"""

from libc.stdint cimport uint64_t

from functools import partial

from mooring._core.websocket cimport WebSockets
from mooring._core.ledger cimport Books, Ledger
from mooring._core.port cimport Port
from mooring._core.registry cimport HTTP, Connection
from mooring._core.wire cimport Notice, is_asking

cdef double RETRY = 0.05             # seconds, after there was no room
cdef int WOKEN_AT_ONCE = 256         # of a crowd, in one turn


cdef class Parking:
    """That of one gateway."""

    def __cinit__(self, connections: WebSockets, books: Books, ports: list[Port | None]) -> None:
        self.connections = connections
        self.books = books
        self.ports = ports
        self.unbound = []
        self.abandoned = set()

    cdef bint park(self, list waiting, uint64_t fd) except -1:
        """Not now (False): it is woken when those in this list are. Those that have ended meanwhile do not pile up."""
        waiting.append(fd)
        if len(waiting) > 2 * self.connections.count + WOKEN_AT_ONCE:
            waiting[:] = [one for one in dict.fromkeys(waiting) if self.connections.find(one) != NULL]
        return False

    cdef bint park_unless_room(self, Port port, uint64_t fd) except -1:
        """Whether that worker (None: there is none) has room for a message or request of this connection."""
        if port is None:
            return self.park(self.unbound, fd)
        return True if not port.ledger.full() else self.park(port.waiting, fd)

    cdef bint takes_part(self, Port port, uint64_t fd) except -1:
        """Whether a part of a body can be given to that worker: one that stands still has asked for many before."""
        if port.unsent() <= self.books.ledger_bytes:
            return True
        if not port.parts:
            self.connections.reactor.call_later(RETRY, partial(self._wake_parts, port))
        return self.park(port.parts, fd)

    def _wake_parts(self, port: Port) -> None:
        if port.usable and port.unsent() > self.books.ledger_bytes:
            self.connections.reactor.call_later(RETRY, partial(self._wake_parts, port))
            return
        waiting, port.parts = port.parts, []
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

    cdef int wake_waiting(self, Port port) except -1:
        """A ticket of this worker came back. Not at the first free one: a crowd woken for one place would only queue
        again. But not never either, when what is left in flight stays there for long."""
        cdef Ledger ledger = port.ledger
        if not port.waiting or ledger.full():
            return 0
        if (ledger.free >= ledger.size // 4
                and ledger.in_flight_bytes <= self.books.ledger_bytes - self.books.ledger_bytes // 4):
            self._wake_some(port)
        elif not port.waking:
            port.waking = True
            self.connections.reactor.call_later(RETRY, partial(self._wake_more, port))
        return 0

    cdef int _wake_some(self, Port port) except -1:
        """The first of those who wait, as many as probably find room, since who doesn't goes to the end of the line.
        The next ones follow when these have had their chance."""
        cdef uint64_t turn = self.connections.reactor.turns
        cdef Ledger ledger = port.ledger
        cdef uint64_t room = ledger.free
        cdef int count
        if ledger.in_flight_bytes:
            room = min(room, max(
                <uint64_t> 1,
                (self.books.ledger_bytes - ledger.in_flight_bytes) * ledger.in_flight // ledger.in_flight_bytes))
        if port.woken_in != turn:
            port.woken_in = turn
            port.woken = 0
        count = <int> min(room, <uint64_t> WOKEN_AT_ONCE) - <int> port.woken
        if count < 0:
            count = 0
        port.woken += count
        waiting = port.waiting[:count]
        del port.waiting[:count]
        self.wake(waiting)
        if port.waiting and not port.waking:
            port.waking = True
            self.connections.reactor.post(partial(self._wake_more, port))
        return 0

    def _wake_more(self, port: Port) -> None:
        port.waking = False
        if port.usable and port.waiting and not port.ledger.full():
            self._wake_some(port)

    def wake_asking(self) -> None:
        """Those that wait with a request: the gateway answers it now, whatever it is."""
        cdef Connection* c
        for fd in [*self.unbound, *[fd for port in self.ports if port is not None for fd in (<Port> port).waiting]]:
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
