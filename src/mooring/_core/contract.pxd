"""What the two halves of the seam ask of those they belong to. Words in contract.pyx."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t

from mooring._core.gateway_end cimport GatewayEnd
from mooring._core.wire cimport Record


cdef class GatewayContract:
    cdef object __weakref__
    cdef public dict counters


cdef class WorkerContract:
    cdef object __weakref__


cdef class GatewayWait:
    pass


cdef class Taker:
    cdef list channels               # to gateways in other processes
    cdef WorkerContract worker
    cdef public int wants            # what the application has handlers for: Wants, see mooring._core.wire
    cdef GatewayWait waiting
    cdef public size_t output_limit  # bytes that may wait on the way to a gateway; see channel_link.pyx

    cdef int deliver(self, GatewayEnd gateway_end, const Record* record, const uint8_t* payload) except -1
    cdef int send_all(self) except -1
