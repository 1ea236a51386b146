"""Connections that may not go on, until they may. Theory in parking.pyx."""

from libc.stdint cimport uint64_t

from mooring._core.ledger cimport Books
from mooring._core.websocket cimport WebSockets
from mooring._core.wire cimport Notice
from mooring._core.worker_end cimport WorkerEnd


cdef class Parking:
    cdef WebSockets connections
    cdef Books books
    cdef list worker_ends            # of the relay
    cdef list unbound                # fds of connections that hold, because there is no worker
    cdef set abandoned               # fds of connections that have ended and may have asked for something that waits

    cdef bint park(self, list waiting, uint64_t fd) except -1
    cdef bint park_unless_room(self, WorkerEnd worker_end, uint64_t fd) except -1
    cdef bint takes_part(self, WorkerEnd worker_end, uint64_t fd) except -1
    cdef int wake(self, list fds) except -1
    cdef int wake_unbound(self) except -1
    cdef int wake_waiting(self, WorkerEnd worker_end) except -1
    cdef int _wake_some(self, WorkerEnd worker_end) except -1
    cdef bint is_abandoned(self, Notice event) except -1
    cdef int leave_behind(self, uint64_t fd) except -1
