"""Work that connections own, as the gateway knows it. Theory in owned.pyx."""

from libc.stdint cimport uint64_t

from mooring._core.websocket cimport WebSockets
from mooring._core.ledger cimport Books
from mooring._core.port cimport Port
from mooring._core.registry cimport Connection
from mooring._core.wire cimport Record


cdef class OwnedWork:
    cdef WebSockets connections
    cdef Books books
    cdef list ports                  # of the relay
    cdef readonly dict works         # fd -> {(port, number): name}

    cdef int note(self, Port port, const Record* record, bytes name) except -1
    cdef int note_owner(self, Connection* c) except -1
    cdef int cancel(self, uint64_t fd, bytes name, Port asks) except -1
    cdef int lose(self, Port port, list doubtful) except -1
