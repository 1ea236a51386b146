"""What the supervisor can read of a process, whatever state that is in. Theory in pulse.pyx."""

from libc.stdint cimport uint32_t, uint64_t


cdef struct PulseData:
    uint64_t beat                    # monotonic milliseconds of the last turn of the loop that was looked at
    uint64_t begun                   # events whose handler has begun
    uint64_t fd                      # of the last one
    uint32_t kind                    # likewise
    uint32_t reserved


cdef class Pulse:
    cdef object memory               # the mmap; None when it is nobody's but this process's
    cdef PulseData own
    cdef PulseData* data
