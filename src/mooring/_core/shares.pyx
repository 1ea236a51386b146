"""An even share of the connections for a worker that is new.

While a worker is away, those of its connections that speak go to the others, and would stay there for good. So when one
is there, at its start or as the successor of one that has ended or was replaced, connections of the others are marked
(MOVES): each is looked at when it speaks next, and changes hands as at a reload, when nothing of it is in flight, its
session ahead of it. Where keys decide all are looked at, and those move whose key is the new worker's; else as many as
make the shares even, taken evenly from the busy and the quiet ones.
"""

from libc.stdint cimport uint32_t, uint64_t

from mooring._core.registry cimport MOVES, NO_WORKER_END, Connection
from mooring._core.websocket cimport WebSockets
from mooring._core.worker_end cimport WorkerEnd


cdef bint _takes(WorkerEnd worker_end) except -1:
    return worker_end is not None and worker_end.usable and worker_end.serves and not worker_end.retiring


cdef int give_share(WebSockets connections, list worker_ends, WorkerEnd newcomer, bint by_key) except -1:
    cdef uint32_t slot
    cdef Connection* c
    cdef WorkerEnd worker_end
    cdef uint64_t total = 0, count = 0, share
    for worker_end in worker_ends:
        if _takes(worker_end):
            total += worker_end.bound
            count += 1
    if count < 2 or total == 0:
        return 0
    share = total // count
    for worker_end in worker_ends:
        if worker_end is not None:
            worker_end.spared = worker_end.bound // 2  # a fraction of them: (bound - share) out of bound
    for slot in range(connections.used):
        c = connections.slots[slot]
        if c == NULL or c.worker_end == NO_WORKER_END:
            continue
        worker_end = worker_ends[c.worker_end]
        if worker_end is newcomer or worker_end.retiring:
            continue
        if by_key:
            c.flags |= MOVES
        elif worker_end.bound > share:
            worker_end.spared += worker_end.bound - share
            if worker_end.spared >= worker_end.bound:
                worker_end.spared -= worker_end.bound
                c.flags |= MOVES
    return 0


cdef bint has_more(list worker_ends, WorkerEnd worker_end) except -1:
    """Whether it has more connections than another worker, so that one of them could go there."""
    cdef WorkerEnd other
    for other in worker_ends:
        if _takes(other) and other.bound + 1 < worker_end.bound:
            return True
    return False
