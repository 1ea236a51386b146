"""How many clients each gateway can still take, for the others to see.

The gateways of a server accept from the same sockets. One that is full leaves new clients to those that have room, and
refuses them only when nobody has; so each says in one small memory file, which they share, how much room it has.

What a gateway says counts for STALE_MS: it says it again more often than that while its loop turns. So one that has
died, or that stands still, is soon no reason for others to leave clients waiting. One that is being started again has
room: when a gateway ends, the supervisor says so in its place (`expect`), and clients wait in the kernel's queue for
its successor instead of being refused by the others, for EXPECTED_MS.

That a gateway is full may be its last word, and the supervisor may not know yet: the clients of one that has died are
back at once. So nobody is refused before all that are full have said so again, which they do at each look.

Words are read one at a time, and none of them is used as an index or a length: whatever stands there, the worst is that
a client is refused too early, or waits too long.
"""

from cpython.buffer cimport PyBUF_WRITABLE, Py_buffer, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint32_t, uint64_t

import mmap
import os
import time

cdef extern from *:
    """
    #define room_load(p) __atomic_load_n(p, __ATOMIC_RELAXED)
    #define room_store(p, v) __atomic_store_n(p, v, __ATOMIC_RELAXED)
    """
    uint64_t room_load(uint64_t* where) noexcept nogil
    uint32_t room_load32 "room_load" (uint32_t* where) noexcept nogil
    void room_store(uint64_t* where, uint64_t value) noexcept nogil
    void room_store32 "room_store" (uint32_t* where, uint32_t value) noexcept nogil

cdef enum:
    PLACES = 256

ROOMS_BYTES = PLACES * sizeof(Place)
STALE_MS = 2000
EXPECTED_MS = 10000
cdef uint64_t _STALE_MS = STALE_MS


cdef class Rooms:
    """Maps the memory file, which stays the caller's and is all 0 at first."""

    def __cinit__(self, file: int) -> None:
        cdef Py_buffer view
        if os.fstat(file).st_size != ROOMS_BYTES:
            raise ValueError(f"rooms of {os.fstat(file).st_size} bytes: they have {ROOMS_BYTES}")
        self.memory = mmap.mmap(file, ROOMS_BYTES)
        PyObject_GetBuffer(self.memory, &view, PyBUF_WRITABLE)
        self.places = <Place*> view.buf
        PyBuffer_Release(&view)

    cdef int say(self, int number, uint32_t room, uint64_t now) noexcept:
        if 0 <= number < PLACES:
            room_store32(&self.places[number].room, room)
            room_store(&self.places[number].said, now)
        return 0

    cdef bint elsewhere(self, int number, uint64_t now) noexcept:
        cdef int other
        cdef uint64_t said
        for other in range(PLACES):
            if other != number and room_load32(&self.places[other].room):
                said = room_load(&self.places[other].said)
                if said and now < said + _STALE_MS:
                    return True
        return False

    cdef bint confirmed(self, int number, uint64_t since, uint64_t now) noexcept:
        cdef int other
        cdef uint64_t said
        for other in range(PLACES):
            if other != number:
                said = room_load(&self.places[other].said)
                if said and said <= since and now < said + _STALE_MS:
                    return False
        return not self.elsewhere(number, now)

    def expect(self, number: int) -> None:
        """Gateway `number` is going to be there, with all its room."""
        self.say(number, 1, <uint64_t> (time.monotonic() * 1000) + EXPECTED_MS - _STALE_MS)

    def has(self, number: int) -> bool:
        """Whether there is room but in that gateway."""
        return self.elsewhere(number, <uint64_t> (time.monotonic() * 1000))
