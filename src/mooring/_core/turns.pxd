"""How much of what workers publish is copied in one turn of the loop. Theory in turns.pyx."""

from libc.stddef cimport size_t
from libc.stdint cimport uint64_t

from mooring._core.websocket cimport WebSockets
from mooring._core.order cimport Publisher


cdef class Turns:
    cdef WebSockets connections
    cdef readonly list paused        # workers whose next publish waits for another turn
    cdef Publisher resuming
    cdef bint posted                 # resume() will be called
    cdef bint unlimited       # no turn ends now: a handler waits, see local.pyx
    cdef uint64_t spent_in           # the turn in which no more are copied
    cdef uint64_t copies             # since the clock was looked at

    cdef bint may_copy(self, Publisher worker) except -1
    cdef int note_copies(self, size_t size, uint64_t copies) noexcept
    cdef bint _is_spent(self) noexcept
