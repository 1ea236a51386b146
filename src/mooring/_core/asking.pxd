"""Workers that wait until a WebSocket has taken what was pushed to it. Words in asking.pyx."""

from libc.stdint cimport uint64_t

from mooring._core.websocket cimport WebSockets
from mooring._core.port cimport Port


cdef class Asking:
    cdef WebSockets connections
    cdef dict ports                  # fd -> those that have asked for ROOM and were not answered

    cdef int ask(self, Port port, uint64_t fd) except -1
    cdef int answer(self, uint64_t fd, int kind) except -1
