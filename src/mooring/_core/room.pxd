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
    # Whether all others that are there have said at a later time than `since` that they have none.
    cdef bint confirmed(self, int number, uint64_t since, uint64_t now) noexcept
    cdef int say(self, int number, uint32_t room, uint64_t now) noexcept
