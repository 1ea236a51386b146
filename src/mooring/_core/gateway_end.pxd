"""The worker's half of the seam, downwards: commands to gateways. Theory in gateway_end.pyx."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from mooring._core.table cimport Table
from mooring._core.wire cimport Record


cdef class GatewayEnd:
    cdef object __weakref__
    cdef readonly int gateway
    cdef readonly Table table
    cdef public bint departed        # it has said that nothing more will come
    cdef Outbox outbox               # it is in this one
    # What this worker has decided, and the gateway may not have done yet: connections that it closes, and whose they
    # are from now on (as Entry.user); up to which position of the stream of commands
    cdef set closing
    cdef dict users
    cdef uint64_t decided

    cdef int decide(self, uint64_t fd) except -1
    cdef bint is_open_question(self) except -1
    cdef int state_of(self, uint64_t fd) except -1
    cdef list of_user(self, uint64_t user)
    # how many bytes of commands were given so far; 0: all are applied. Whether so many are
    cdef uint64_t position(self) noexcept
    cdef bint is_applied(self, uint64_t position) noexcept

    cdef int command(self, Record* record, const uint8_t* payload) except -1
    # waits until there is room for more commands
    cdef int make_room(self) except -1
    # around a handler: its ticket is marked as started, and given back
    cdef int begin(self, uint32_t ticket) noexcept
    # milliseconds since the gateway has given the event on it; 0: at once, or who knows
    cdef uint64_t waited(self, uint32_t ticket, uint64_t now) noexcept
    cdef int settle(self, uint32_t ticket) except -1
    # instead of both: ACK_FAILED, ACK_ENDED
    cdef int give_back(self, uint32_t ticket, int why) except -1


cdef class Outbox:
    cdef list gateway_ends           # by number of the gateway; None where there is none
    cdef uint32_t pid
    cdef uint32_t published          # the number of the last publish of this process: see order.pyx
    # fd -> why and since when no message of it is handled any more, of connections served here, until `close`
    cdef dict ended
    cdef Py_ssize_t ended_limit

    cdef uint64_t stamp(self) noexcept
    cdef GatewayEnd gateway_end_of(self, uint64_t fd)
    cdef int why_ended(self, uint64_t fd) except -1
    cdef int end(self, uint64_t fd, int why) except -1
    cdef int _publish(self, bytes name, object data, object opcode, object exclude) except -1
    cdef bint _tell_open(self, Record* record, bytes payload) except -1
    cdef bint _tell_any(self, Record* record, bytes payload) except -1
    cdef bint _end_client(self, GatewayEnd gateway_end, Record* record, bytes payload, bint serves) except -1
    cpdef bint push(self, object fd, object data, object opcode=*)
    cpdef bint disconnect_client(self, object fd, object code, object reason)
    cdef bint _close(self, uint64_t number, int code, bytes reason, bint failed) except -1
