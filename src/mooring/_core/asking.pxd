"""Who waits until a WebSocket has taken what was pushed to it. Words in asking.pyx."""

from libc.stdint cimport uint64_t

from mooring._core.registry cimport Connection
from mooring._core.websocket cimport WebSockets
from mooring._core.worker_end cimport WorkerEnd


cdef class Asking:
    cdef WebSockets connections
    cdef dict waiting                # fd -> WorkerEnds, which are told, and functions of the gateway, which are called

    cdef int ask(self, WorkerEnd worker_end, uint64_t fd) except -1
    cdef int wait(self, Connection* c, object waiter) except -1
    cdef int answer(self, uint64_t fd, int kind) except -1
