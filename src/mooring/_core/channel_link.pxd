"""Both ends of a link between two processes. Words in channel_link.pyx."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from mooring._core.channel cimport Channel
from mooring._core.contract cimport Taker
from mooring._core.gateway_end cimport GatewayEnd
from mooring._core.page cimport Page
from mooring._core.wire cimport Record
from mooring._core.worker_end cimport WorkerEnd


cdef class ChannelWorkerEnd


cdef class GatewayChannel(Channel):
    cdef ChannelWorkerEnd worker_end

    cdef int note_applied(self) except -1


cdef class ChannelWorkerEnd(WorkerEnd):
    cdef readonly GatewayChannel channel
    cdef Page page                   # where the worker marks what it has started
    cdef object reply_socket
    cdef bytearray answers           # those that the reply socket had no room for
    cdef uint64_t answers_since      # milliseconds: when it last took some of them

    cdef bint send_answers(self) except -1


cdef class ChannelGatewayEnd(GatewayEnd):
    cdef readonly WorkerChannel channel
    cdef Page page
    cdef object reply_socket
    cdef bytearray unread            # of the answers, by the gateway
    cdef object one_call             # a lock: threads of the worker may ask at the same time
    cdef uint32_t calls
    cdef uint32_t answered           # the call that was answered last
    cdef public bint eager           # every command leaves at once: the loop of this process may not turn for long
    # acknowledgements not yet sent: `acked` tickets from `first_ack` on
    cdef uint32_t first_ack
    cdef uint32_t acked
    # when the gateway is behind
    cdef uint64_t taken              # bytes it had taken when that was looked at last
    cdef uint32_t looks              # since it took something
    cdef set missed                  # connections and topics it was told of; None: it does not stand still
    cdef uint32_t missed_names
    cdef uint64_t stamp              # of the last publish that was left out
    cdef uint8_t how_acked           # ACK_HANDLED, or why they were not

    cdef bint hand_over(self, double timeout) except -1
    cdef bint keep(self) except -1
    cdef bint all_keep(self) except -1
    cdef int _acknowledge(self, uint32_t ticket, int how) except -1
    cpdef send_acks(self)
    cdef int _wait_for_room(self) except -1
    cdef int _miss(self, const Record* command, const uint8_t* payload) except -1
    cdef int _takes_again(self) except -1


cdef class WorkerChannel(Channel):
    cdef ChannelGatewayEnd gateway_end
    cdef Taker inlet
