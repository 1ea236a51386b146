"""What waits for a worker, and how much of it there may be. Included by `relay.pyx`, whose text has the theory.

A connection that may not go on is in a list: `port.waiting` until its worker has room, `port.parts` until that has taken
what was sent to it, `unbound` until there is a worker. Whoever is woken asks again, and may have to wait again.
"""

cdef bint may_ask(Relay self, Connection* c) except -1:
    """Whether a request of it can be taken: by its worker, or to wait for one, or because it is refused in any case."""
    cdef Port port = None if self.limbo.count else self.port_of(c)
    if port is None:
        if (self.limbo.count < self.port_messages and self.limbo.size < self.port_bytes
                and self.books.kept < self.kept_limit or self.gateway.refuses_all):
            return True
        return wait_in(self, self.unbound, c.fd)
    if not port.full() or self.gateway.refuses_all:
        return True
    return wait_in(self, port.waiting, c.fd)


cdef bint may_send_part(Relay self, Connection* c) except -1:
    """Whether a part of a body can be given to its worker: one that stands still has asked for many before."""
    cdef Port port
    if c.port == NO_PORT:
        return True
    port = self.ports[c.port]
    if port.unsent() <= self.port_bytes:
        return True
    if not port.parts:
        self.connections.reactor.call_later(RETRY, partial(_wake_parts, self, port))
    return wait_in(self, port.parts, c.fd)


def _wake_parts(Relay self, Port port) -> None:
    if port.usable and port.unsent() > self.port_bytes:
        self.connections.reactor.call_later(RETRY, partial(_wake_parts, self, port))
        return
    waiting, port.parts = port.parts, []
    wake_these(self, waiting)


cdef bint wait_in(Relay self, list waiting, uint64_t fd) except -1:
    """Not now (False): it is woken when those in this list are. Those that have ended meanwhile do not pile up in it."""
    waiting.append(fd)
    if len(waiting) > 2 * self.connections.count + WOKEN_AT_ONCE:
        waiting[:] = [one for one in dict.fromkeys(waiting) if self.connections.find(one) != NULL]
    return False


cdef int wake_these(Relay self, list fds) except -1:
    cdef Connection* c
    for fd in fds:
        c = self.connections.find(fd)
        if c != NULL:
            self.connections.wake(c)
    return 0


cdef int wake_some(Relay self, Port port) except -1:
    """The first of those who wait, as many as probably find room, since who doesn't goes to the end of the line; the next
    ones when these have had their chance."""
    cdef uint64_t turn = self.connections.reactor.turns
    cdef Ledger ledger = port.ledger
    cdef uint64_t room = ledger.free
    cdef int count
    if ledger.in_flight_bytes:
        room = min(room, max(
            <uint64_t> 1, (self.port_bytes - ledger.in_flight_bytes) * ledger.in_flight // ledger.in_flight_bytes))
    if port.woken_in != turn:
        port.woken_in = turn
        port.woken = 0
    count = <int> min(room, <uint64_t> WOKEN_AT_ONCE) - <int> port.woken
    if count < 0:
        count = 0
    port.woken += count
    waiting = port.waiting[:count]
    del port.waiting[:count]
    wake_these(self, waiting)
    if port.waiting and not port.waking:
        port.waking = True
        self.connections.reactor.post(partial(_wake_more, self, port))
    return 0


def _wake_more(Relay self, Port port) -> None:
    port.waking = False
    if port.usable and port.waiting and not port.full():
        wake_some(self, port)


def wake_asking(Relay relay) -> None:
    """Those that wait with a request: the gateway answers it now, whatever it is."""
    cdef Connection* c
    for fd in [*relay.unbound, *[fd for port in relay.ports if port is not None for fd in (<Port> port).waiting]]:
        c = relay.connections.find(fd)
        if c != NULL and c.phase == HTTP:
            relay.connections.wake(c)


cdef int set_limit(Relay self) except -1:
    """So many workers are there now."""
    cdef size_t count = sum([1 for port in self.ports if port is not None and (<Port> port).usable and (<Port> port).serves])
    self.kept_limit = self.port_bytes * max(count, <size_t> 1)
    if 0 < self.connections.ceiling < self.kept_limit:
        self.kept_limit = self.connections.ceiling
    return let_in(self)


cdef int let_in(Relay self) except -1:
    """Those who waited because too much was kept in all are looked at again."""
    self.crowded = False
    for port in self.ports:
        if port is not None and (<Port> port).usable and (<Port> port).waiting:
            self._went_on(port)
    return 0


cdef bint is_abandoned(Relay self, Notice event) except -1:
    """Whether this event, which no worker was given yet, asks for an answer that nobody waits for any more."""
    if not is_asking(event.record.kind) or self.connections.find(event.record.fd) != NULL:
        return False
    self.books.drop("client left", event.record.kind)
    return True


cdef int leave_behind(Relay self, uint64_t fd) except -1:
    """A connection has ended, with a request that may still wait for a place. One walk for all that end in this turn."""
    if not self.books.waiting:
        return 0
    if not self.abandoned:
        self.connections.reactor.post(partial(_drop_abandoned, self))
    self.abandoned.add(fd)
    return 0


def _drop_abandoned(Relay self) -> None:
    fds, self.abandoned = self.abandoned, set()
    for events in [self.limbo, *[(<Ledger> ledger).backlog for ledger in self.books.ledgers]]:
        for event in events.take_unless(lambda event: event.fd not in fds or not is_asking(event.kind)):
            is_abandoned(self, event)
