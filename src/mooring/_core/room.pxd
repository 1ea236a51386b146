"""How many clients each gateway can still take, for the others to see. Theory in room.pyx."""

from libc.stdint cimport uint32_t, uint64_t


cdef struct Place:
    uint64_t said                    # when, in monotonic milliseconds
    uint32_t room                    # connections that it can still take
    uint32_t unused


cdef class Rooms:
    cdef object memory               # the mmap
    cdef Place* places

    # Whether a gateway but this one has room.
    cdef bint elsewhere(self, int number, uint64_t now) noexcept
    cdef int say(self, int number, uint32_t room, uint64_t now) noexcept
