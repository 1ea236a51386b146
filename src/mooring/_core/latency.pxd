"""How long things took, counted in buckets. Theory in latency.pyx."""

from libc.stdint cimport uint64_t

from mooring._core.wire cimport EV_END

cdef enum:
    BOUNDS = 17                      # and one bucket for what is longer than the last


cdef class Latencies:
    cdef uint64_t counts[EV_END][BOUNDS + 1]
    cdef uint64_t sums[EV_END]       # microseconds

    cdef int add(self, int kind, uint64_t microseconds) noexcept
