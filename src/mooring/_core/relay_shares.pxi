"""An even share of the connections for a worker that is new. Included by `relay.pyx`.

While a worker is away, those of its connections that speak go to the others, and would stay there for good. So when one
is there, at its start or as the successor of one that has ended or was replaced, connections of the others are marked
(MOVES): each is looked at when it speaks next, and changes hands as at a reload, when nothing of it is in flight, its
session ahead of it. Where keys decide all are looked at, and those move whose key is the new worker's; else as many as
make the shares even, taken evenly from the busy and the quiet ones.
"""

cdef int give_share(Relay self, Port newcomer) except -1:
    cdef uint32_t slot
    cdef Connection* c
    cdef Port port
    cdef uint64_t total = 0, count = 0, share
    for other in self.ports:
        port = other
        if port is not None and port.usable and port.serves and not port.retiring:
            total += port.bound
            count += 1
    if count < 2 or total == 0:
        return 0
    share = total // count
    for other in self.ports:
        if other is not None:
            port = other
            # a fraction of them: (bound - share) out of bound
            port.spared = port.bound // 2
    for slot in range(self.connections.used):
        c = self.connections.slots[slot]
        if c == NULL or c.port == NO_PORT:
            continue
        port = self.ports[c.port]
        if port is newcomer or port.retiring:
            continue
        if self.by_key:
            c.flags |= MOVES
        elif port.bound > share:
            port.spared += port.bound - share
            if port.spared >= port.bound:
                port.spared -= port.bound
                c.flags |= MOVES
    return 0


cdef bint has_more(Relay self, Port port) except -1:
    """Whether it has more connections than another worker, so that one of them could go there."""
    cdef Port other
    for one in self.ports:
        other = one
        if (other is not None and other.usable and other.serves and not other.retiring
                and other.bound + 1 < port.bound):
            return True
    return False
