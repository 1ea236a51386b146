"""Workers that wait until a WebSocket has taken what was pushed to it. Words in asking.pyx."""

from libc.stdint cimport uint64_t

from mooring._core.websocket cimport WebSockets
from mooring._core.worker_end cimport WorkerEnd


cdef class Asking:
    cdef WebSockets connections
    cdef dict worker_ends            # fd -> those that have asked for ROOM and were not answered

    cdef int ask(self, WorkerEnd worker_end, uint64_t fd) except -1
    cdef int answer(self, uint64_t fd, int kind) except -1
