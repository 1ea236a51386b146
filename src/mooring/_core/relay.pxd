"""The gateway's half of the seam: which worker gets an event, and what happens when it ends. Theory in relay.pyx."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from mooring._core.asking cimport Asking
from mooring._core.contract cimport GatewayContract
from mooring._core.http_exchange cimport Sink
from mooring._core.hub cimport Hub
from mooring._core.ledger cimport Backlog, Books
from mooring._core.order cimport Order
from mooring._core.owned cimport OwnedWork
from mooring._core.parking cimport Parking
from mooring._core.registry cimport Connection
from mooring._core.turns cimport Turns
from mooring._core.websocket cimport WebSockets
from mooring._core.wire cimport Notice, Record
from mooring._core.worker_end cimport Receiver, WorkerEnd


cdef class Relay(Sink):
    cdef readonly WebSockets connections
    cdef readonly Hub hub
    cdef readonly Books books
    cdef readonly Backlog limbo      # that of the books: events for which there is no worker, in order
    cdef readonly Turns turns
    cdef Parking parking
    cdef readonly Asking asking
    cdef OwnedWork owned
    cdef public Receiver commands
    cdef public Order publish_order  # of publishes, among several gateways; None where there is one
    cdef public GatewayContract gateway
    cdef public object policy        # policy(list of worker ends, fd) -> worker end
    cdef public bint by_key          # the policy gives a key the same worker, whoever else is there
    cdef public bint by_user         # the policy looks at the user a connection is bound to
    cdef public object redeliver     # of each listener: whether what had started is handled again
    cdef readonly list worker_ends   # index -> WorkerEnd or None
    cdef uint32_t max_messages, max_bytes
    cdef readonly dict sessions      # fd -> {key: msgpack bytes}, for connections that have any
    cdef public uint32_t grace       # milliseconds a worker that retires has for what its connections own
    cdef int wanted                  # `wants` of the worker that greeted last
    cdef readonly uint64_t bad_records            # that made no sense and were ignored
    cdef readonly uint64_t missed    # connections that missed something while this process stood still

    cdef WorkerEnd worker_end_of(self, Connection* c)
    cdef int bind(self, Connection* c, WorkerEnd worker_end) except -1
    cdef int bring_session(self, uint64_t fd, WorkerEnd worker_end) except -1
    cdef int unbind(self, Connection* c) except -1
    # 1: there is no memory, and nothing has happened
    cdef int hand(self, WorkerEnd worker_end, Record* record, const uint8_t* data) except -1
    cdef int _queue(self, WorkerEnd worker_end, Notice event) except -1
    # 1: there was no such ticket
    cdef int settle(self, WorkerEnd worker_end, uint32_t number, int how) except -1
    cdef int let_go(self, WorkerEnd worker_end) except -1
    cdef int _tell(self, Connection* c, int kind, uint32_t extra, bytes payload) except -1
    cdef int lost(self, WorkerEnd worker_end, str why) except -1
    cdef int _take_out(self, WorkerEnd worker_end) except -1
    cdef int _started(self, WorkerEnd worker_end, Notice event, list doubtful) except -1
    cdef int _report(self, WorkerEnd worker_end, Notice event, bint quarantined) except -1
    cdef bint _is_given_up(self, uint64_t fd, dict closed) except -1
    cdef int _set_limit(self) except -1
    cdef int _let_in(self) except -1
    cdef int _end_limbo(self) except -1
