"""Who waits because there is no worker: until one comes, or not any more (mooring.gateway.degraded says when).
Included by `relay.pyx`."""

cdef int end_limbo(Relay self) except -1:
    """Hands out what had no worker, in order, and lets the connections go on that waited for one."""
    cdef Connection* c
    cdef Port port
    cdef Notice event
    cdef uint64_t fd
    chosen: dict[int, Port] = {}
    while self.limbo.count:
        event = self.limbo.first()
        fd = event.record.fd
        c = self.connections.find(fd)
        if c != NULL:
            port = self.port_of(c)
        else:
            # gone, but its last events still go to one worker
            port = chosen.get(fd)
            if port is None:
                port = self._any_port(fd)
                chosen[fd] = port
                if port is not None:
                    self.bring_session(fd, port)
        if port is None:
            return 0
        self.limbo.take()
        if not is_abandoned(self, event):
            self._queue(port, event)
    waiting, self.unbound = self.unbound, []
    return wake_these(self, waiting)


def refuse_waiting(Relay relay, reason: str) -> list[int]:
    """Gives up the requests and handshakes that wait for a worker, `dropped` for that reason; their connections. Those
    that are not even read are looked at again, and refused then."""
    cdef Connection* c
    refused = []
    for event in relay.limbo.take_unless(lambda event: not is_asking(event.kind)):
        relay.books.drop(reason, event.kind)
        relay._forget(event)
        refused.append(event.fd)
    for fd in relay.unbound:
        c = relay.connections.find(fd)
        if c != NULL and c.phase == HTTP:
            relay.connections.wake(c)
    return refused


def holding(Relay relay) -> set[int]:
    """WebSockets with messages that wait because there is no worker."""
    cdef Connection* c
    found = set()
    for fd in [*relay.unbound, *[event.fd for event in relay.limbo if event.kind == EV_MESSAGE]]:
        c = relay.connections.find(fd)
        if c != NULL and c.phase == OPEN:
            found.add(fd)
    return found


cdef bint given_up(Relay self, uint64_t fd, dict gone) except -1:
    """Whether the application had closed that connection, by what it said or by an error, before its worker ended: then a
    message of it is dropped, as that worker would have done. `gone`: codes of those that have closed since."""
    cdef Connection* c = self.connections.find(fd)
    code = gone.get(fd, 0)
    if c != NULL and c.closed_by == BY_APPLICATION:
        code = c.close_code
    if code:
        self.books.drop(GIVEN_UP[ACK_FAILED if code == INTERNAL_ERROR else ACK_ENDED], EV_MESSAGE)
    return code != 0
