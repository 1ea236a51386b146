"""Work that connections own, as the gateway knows it. Theory in owned.pyx."""

from libc.stdint cimport uint64_t

from mooring._core.ledger cimport Books
from mooring._core.registry cimport Connection
from mooring._core.websocket cimport WebSockets
from mooring._core.wire cimport Record
from mooring._core.worker_end cimport WorkerEnd


cdef class OwnedWork:
    cdef WebSockets connections
    cdef Books books
    cdef list worker_ends            # of the relay
    cdef readonly dict works         # fd -> {(worker_end, number): name}

    cdef int note(self, WorkerEnd worker_end, const Record* record, bytes name) except -1
    cdef int note_owner(self, Connection* c) except -1
    cdef int cancel(self, uint64_t fd, bytes name, WorkerEnd asks) except -1
    cdef int lose(self, WorkerEnd worker_end, list doubtful) except -1
