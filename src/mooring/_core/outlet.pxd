"""The worker's half of the seam, downwards: commands to gateways. Theory in outlet.pyx."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from mooring._core.table cimport Table
from mooring._core.wire cimport Record


cdef class Outlet:
    cdef object __weakref__
    cdef readonly int gateway
    cdef readonly Table table
    cdef public bint left            # it has said that nothing more will come
    cdef Outbox outbox               # it is in this one

    cdef int command(self, Record* record, const uint8_t* payload) except -1
    # waits until there is room for more commands
    cdef int make_room(self) except -1
    # around a handler: its ticket is marked as started, and given back
    cdef int begin(self, uint32_t ticket) noexcept
    cdef int finish(self, uint32_t ticket) except -1


cdef class Outbox:
    cdef list outlets                # by number of the gateway; None where there is none
    cdef uint32_t pid
    cdef uint32_t published          # the number of the last publish of this process: see order.pyx

    cdef uint64_t stamp(self) noexcept
    cdef Outlet outlet_of(self, uint64_t fd)
    cdef int _publish(self, bytes name, object data, int opcode) except -1
    cdef bint _tell_open(self, Record* record, bytes payload) except -1
    cpdef bint push(self, object fd, object data, int opcode=*)
    cpdef bint disconnect_client(self, object fd, object code, str reason)
