"""A timing wheel for many coarse deadlines. Theory in timer.pyx."""

from libc.stdint cimport uint64_t

cdef enum:
    TICK_MS = 32
    BUCKETS = 1024           # one round of the wheel: 32 s


cdef struct Timer:
    # linked into exactly one bucket while next is not NULL; due is a tick number
    Timer* next
    Timer* previous
    uint64_t due
    uint64_t token


cdef class Wheel:
    cdef Timer buckets[BUCKETS]      # list heads, circular
    cdef uint64_t tick               # all ticks up to and including this one are done
    cdef uint64_t soonest            # no bucket before this tick holds anything; may be too early, never too late
    cdef readonly Py_ssize_t armed

    cdef void start(self, uint64_t now_ms) noexcept
    cdef void arm(self, Timer* timer, uint64_t due_ms) noexcept
    cdef void cancel(self, Timer* timer) noexcept
    # The next timer that is due, unlinked, or NULL. Call until NULL.
    cdef Timer* pop(self, uint64_t now_ms) noexcept
    # Milliseconds until a bucket may hold something due; -1 when nothing is armed.
    cdef int wait_ms(self, uint64_t now_ms) noexcept
