"""permessage-deflate (RFC 7692), sans-IO. Theory in deflate.pyx."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t


cdef class Deflate:
    cdef readonly bint keeps                 # our window lives on from message to message (context takeover)
    cdef readonly bint peer_keeps            # ... and the peer's
    cdef readonly size_t threshold           # shorter messages go as they are
    cdef readonly size_t longest             # longer ones too; 0: no such limit
    cdef int bits, peer_bits, level, memory
    cdef size_t limit
    cdef double ratio
    cdef object engine
    cdef object compressor
    cdef object inflater

    cdef Deflate own(self)
    cdef bytes compress(self, const uint8_t* data, size_t size)
    cdef object inflate(self, const uint8_t* data, size_t size)
