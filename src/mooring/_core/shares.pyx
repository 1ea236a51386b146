"""An even share of the connections for a worker that is new.

While a worker is away, those of its connections that speak go to the others, and would stay there for good. So when one
is there, at its start or as the successor of one that has ended or was replaced, connections of the others are marked
(MOVES): each is looked at when it speaks next, and changes hands as at a reload, when nothing of it is in flight, its
session ahead of it. Where keys decide all are looked at, and those move whose key is the new worker's; else as many as
make the shares even, taken evenly from the busy and the quiet ones.
"""

from libc.stdint cimport uint32_t, uint64_t

from mooring._core.websocket cimport WebSockets
from mooring._core.port cimport Port
from mooring._core.registry cimport MOVES, NO_PORT, Connection


cdef bint _takes(Port port) except -1:
    return port is not None and port.usable and port.serves and not port.retiring


cdef int give_share(WebSockets connections, list ports, Port newcomer, bint by_key) except -1:
    cdef uint32_t slot
    cdef Connection* c
    cdef Port port
    cdef uint64_t total = 0, count = 0, share
    for port in ports:
        if _takes(port):
            total += port.bound
            count += 1
    if count < 2 or total == 0:
        return 0
    share = total // count
    for port in ports:
        if port is not None:
            port.spared = port.bound // 2            # a fraction of them: (bound - share) out of bound
    for slot in range(connections.used):
        c = connections.slots[slot]
        if c == NULL or c.port == NO_PORT:
            continue
        port = ports[c.port]
        if port is newcomer or port.retiring:
            continue
        if by_key:
            c.flags |= MOVES
        elif port.bound > share:
            port.spared += port.bound - share
            if port.spared >= port.bound:
                port.spared -= port.bound
                c.flags |= MOVES
    return 0


cdef bint has_more(list ports, Port port) except -1:
    """Whether it has more connections than another worker, so that one of them could go there."""
    cdef Port other
    for other in ports:
        if _takes(other) and other.bound + 1 < port.bound:
            return True
    return False
