"""The memory that a worker and a gateway share: what of a worker survives its death. Theory in page.pyx."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from mooring._core.buffer cimport Buffer

cdef enum:
    MARKS = 4096                     # tickets of a ledger at most
    JOURNAL_BYTES = 131072


cdef enum Mark:
    NOT_STARTED = 0
    STARTED = 1
    DONE = 2


cdef struct Shared:
    uint8_t marks[MARKS]
    uint64_t beat                    # monotonic milliseconds: when the worker's loop last turned; 0: not yet
    # the journal: `size` bytes of the worker's stream of commands, from position `start` of that stream on
    uint64_t start
    uint64_t size
    uint64_t applied                 # by the gateway: so many bytes of that stream are applied
    uint32_t offered[MARKS]          # by the gateway: monotonic milliseconds when the event on that ticket was given
    uint8_t journal[JOURNAL_BYTES]


cdef class Page:
    cdef Shared* shared
    # the worker's own, of which `shared` has copies: what is read there may have been written by anybody
    cdef uint64_t start
    cdef uint64_t size

    cdef int mark(self, uint32_t ticket, Mark mark) noexcept
    cdef Mark mark_of(self, uint32_t ticket) noexcept
    cdef bint keep(self, uint64_t sent, const Buffer* output, size_t most) noexcept
    cdef int offer(self, uint32_t ticket, uint64_t now) noexcept
    cdef uint64_t waited(self, uint32_t ticket, uint64_t now) noexcept
    cdef uint64_t last_beat(self) noexcept
    cdef uint64_t applied(self) noexcept
    cdef int note_applied(self, uint64_t bytes) noexcept
    cdef bytes rest(self, uint64_t received)
