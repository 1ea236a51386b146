"""Who is let in, by address. Theory in admission.pyx."""

from libc.stdint cimport uint8_t, uint64_t

cdef enum Welcome:
    WELCOME = 0
    CROWDED = 1      # its address has as many connections as it may
    HASTY = 2        # ... as many of which no request is answered yet


cdef struct Bucket:
    float tokens                     # as of `at`, in ms; 0: it was never taken from
    uint64_t at


# Takes one of the tokens, of which there are `burst` at first and `rate` more a second; 0 when there was one, else how
# many seconds there is none.
cdef inline double bucket_take(Bucket* bucket, double rate, double burst, uint64_t now) noexcept nogil:
    cdef double tokens = burst
    if bucket.at:
        tokens = bucket.tokens + (now - bucket.at) * rate / 1000
        if tokens > burst:
            tokens = burst
    bucket.at = now
    bucket.tokens = tokens - 1 if tokens >= 1 else tokens
    return 0 if tokens >= 1 else (1 - tokens) / rate


cdef class Admission:
    cdef int limit                   # connections of one address; 0: any number
    cdef int fresh_limit             # ... of which no request is answered yet
    cdef dict addresses              # address (of IPv6 the first half) -> how many connections
    cdef dict fresh                  # address -> how many of those

    # Whether one more connection of this address may be taken.
    cdef Welcome welcome(self, int family, const uint8_t* address) except *
    # It is taken; False: its address is not counted.
    cdef bint enter(self, int family, const uint8_t* address) except -1
    # A request of it was answered, or it has ended: once for each that came.
    cdef int settle(self, int family, const uint8_t* address) except -1
    cdef int release(self, int family, const uint8_t* address) except -1
