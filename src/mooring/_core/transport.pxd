"""Client sockets of a gateway: their readiness, deadlines and out-queues. Theory in transport.pyx."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from mooring._core.buffer cimport buffer_size
from mooring._core.counters cimport Counters
from mooring._core.registry cimport (
    BUSY, D_NONE, DEFERRED, END_WHEN_WRITTEN, HELD, HTTP, LINGER, WANTED, Connection, Deadline, Registry,
)


cdef enum:
    LINGER_MS = 2000


cdef inline bint reads(const Connection* c) noexcept:
    """Whether what its peer sends can be acted on now."""
    if c.phase == LINGER:
        return True
    return not (c.flags & (HELD | END_WHEN_WRITTEN | DEFERRED) or c.phase == HTTP and c.flags & (BUSY | WANTED) == BUSY)


cdef class Transport(Registry):
    cdef list prefaces               # by the index of the listener: gateway.preface.ProxyPreface, or None
    cdef list waiting                # fds that wait for a token
    # to do before the reactor sleeps
    cdef Connection* dirty_first
    cdef Connection* dirty_last
    cdef uint32_t flushed            # connections that the last flush has looked at
    cdef list woken
    cdef list deferred               # fds that go on in the next turn
    cdef readonly size_t queued      # bytes in all out-queues together
    cdef readonly size_t gathered    # bytes of all unfinished messages and bodies
    cdef size_t ceiling              # more of both end who has most; 0: any number
    cdef bint relieving              # that is being done
    cdef public int kept_from        # descriptors from this number on are nobody's whom we serve; 0: there are none
    cdef Counters counters

    cdef int on_connected(self, Connection* c) except -1
    cdef int on_raw(self, Connection* c, uint8_t* buffer, size_t got) except -1
    cdef int on_adopted(self, Connection* c) except -1
    cdef int on_bytes(self, Connection* c, uint8_t* buffer, size_t got) except -1
    cdef bint may_read(self, Connection* c) except -1
    cdef bint listens(self, Connection* c) except -1
    cdef int on_end(self, Connection* c) except -1
    cdef int on_peer_ended(self, Connection* c) except -1
    cdef int on_wake(self, Connection* c) except -1
    cdef int on_deadline(self, Connection* c, Deadline deadline) except -1
    cdef int on_slow(self, Connection* c, bytes why) except -1
    cdef int on_greedy(self, Connection* c) except -1
    cdef int on_partial(self, Connection* c, size_t sent) except -1
    cdef int on_room(self, Connection* c) except -1
    cdef int on_relieved(self, Connection* c) except -1
    cdef int on_gone(self, Connection* c, int code, bytes reason) except -1
    cdef int on_crowd(self, Connection* c) except -1
    cdef int on_fault(self, Connection* c) except -1

    # `listener`: index of its profile
    cdef int adopt(self, int socket, int family, const uint8_t* address, int remote_port, int server_port,
                   int listener) except -1
    # Whether it may speak for others, where a listener wants a header of a proxy.
    cdef bint admits(self, int listener, int family, const uint8_t* address) except -1
    # Whether a message may come now; if not, it is woken in time.
    cdef bint take_token(self, Connection* c) except -1
    cdef int wake(self, Connection* c) except -1
    # There is more to do for it than fits into this turn.
    cdef int defer(self, Connection* c) except -1
    # Queues bytes; 1 when they were taken, 0 when the connection takes none any more.
    cdef int write(self, Connection* c, const uint8_t* head, size_t head_size,
                   const uint8_t* data, size_t size) except -1

    cdef int _gone(self, Connection* c, int code, bytes reason) except -1
    cdef int _lost(self, Connection* c, bytes reason) except -1
    cdef int _interest(self, Connection* c) except -1
    cdef int _arm(self, Connection* c, Deadline deadline, uint64_t ms) except -1
    cdef int _ready(self, Connection* c, uint32_t events) except -1
    cdef int _receive(self, Connection* c) except -1
    cdef int _mark(self, Connection* c) except -1
    # So much of what it sent is kept now; this may end it.
    cdef int gather(self, Connection* c, size_t size) except -1
    cdef int _doom(self, Connection* c, int code, bytes reason) except -1
    cdef int _offer(self, Connection* c) except -1
    cdef int _send_some(self, Connection* c) except -1
    cdef int _outlasts(self, Connection* c) except -1
    cdef int _above(self, Connection* c) except -1
    cdef int _below(self, Connection* c) except -1
    cdef int _written(self, Connection* c) except -1
    # The last bytes are queued, and nothing is waited for but that they leave.
    cdef int _await_end(self, Connection* c) except -1

    # Arms a deadline, and notes what the peer has taken so far.
    cdef int watch(self, Connection* c, Deadline deadline, uint64_t ms) except -1
    # From now on it must read fast enough; D_WRITE asks whether it did.
    cdef int watch_pace(self, Connection* c) except -1
    # At the end of a deadline: whether there is another one, for who was watched and took enough of what stands before
    # its turn. Of write_timeout, as long as it has not got everything; then of `ms`, for what it is waited for.
    cdef bint takes_on(self, Connection* c, Deadline deadline, uint64_t ms) except -1
    # The same for a peer whose turn it may not have been: it is watched from now on, if it has not got everything.
    cdef bint is_served(self, Connection* c, Deadline deadline, uint64_t ms) except -1
    cdef int _end_for_fault(self, Connection* c) except -1
    cdef int _read_preface(self, Connection* c, uint8_t* buffer, size_t got) except -1
    cdef int _refuse_preface(self, Connection* c, str why) except -1
    cdef int _relieve(self) except -1


# The last words of a connection that ends for an error of ours.
cdef bint say_at_once(Connection* c, bytes words) noexcept


# Nothing is waited for.
cdef inline void disarm(Transport transport, Connection* c) noexcept:
    c.deadline = D_NONE
    transport.reactor.disarm(&c.timer)


# What waits for it has changed.
cdef inline void count_out(Transport transport, Connection* c) noexcept:
    cdef size_t size = buffer_size(&c.out)
    transport.queued += size - c.counted
    c.counted = size
    if size > c.most_queued:
        c.most_queued = size
