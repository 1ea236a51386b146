"""The worker's half of the seam, upwards: events to handlers. Theory in inlet.pyx."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from mooring._core.channel cimport Channel
from mooring._core.latency cimport Latencies
from mooring._core.outlet cimport Outbox, Outlet
from mooring._core.page cimport Page
from mooring._core.pulse cimport Pulse
from mooring._core.steps cimport Steps
from mooring._core.wire cimport Record


cdef class Waiting:
    pass


cdef class _Call


cdef class Inlet:
    cdef object server
    cdef tuple on_message            # the application's handler, by the index of the listener
    cdef object worker               # cold(), failed(), note(): see mooring.worker
    cdef readonly Steps steps        # of handlers that are coroutines
    cdef Outbox outbox               # what its handlers say, and have decided
    cdef public object context       # copied for each call of a handler
    # fd -> events that wait, for connections whose handler is suspended
    cdef dict lanes
    cdef public object on_idle       # a function, called when the last of them goes; None: nobody waits for that
    cdef list channels               # the outlets that are channels
    cdef readonly uint64_t handled
    cdef Latencies handling, queueing        # how long handlers, and events before them, take; None: nobody asks
    cdef public int wants            # what the application has handlers for: Wants, see mooring._core.wire
    cdef Pulse pulse
    cdef object waiting              # a Waiting
    cdef public size_t output_limit  # bytes that may wait on the way to a gateway; see inlet_standstill.pxi
    # messages and requests until worker.limit_reached() is called; 0: never
    cdef uint64_t until_limit
    # this process was forked off the worker inside of a handler: worker.leave_child(error) ends it when that is over
    cdef bint child
    cdef public set kept_waiting     # connections of events that are begun, while a blocked loop catches up; None: it has

    cdef int send_all(self) except -1
    cdef int deliver(self, Outlet outlet, const Record* record, const uint8_t* payload) except -1
    cdef int _deliver(self, Outlet outlet, const Record* record, const uint8_t* payload) except -1
    cdef int _queue(self, Outlet outlet, const Record* record, object data) except -1
    cdef int _failed(self, Outlet outlet, const Record* record, object error, object context,
                     uint64_t began) except -1
    cdef int _wait(self, Outlet outlet, const Record* record, object running, object context,
                   uint64_t began) except -1
    cdef int _start(self, Outlet outlet, const Record* record, object data, uint64_t queued) except -1
    cdef int _note_wait(self, int kind, uint64_t waited, uint64_t queued, uint64_t began) noexcept
    cdef int _count_down(self, int kind) except -1
    cdef int _done(self, _Call call, object task) except -1


cdef class _Call:
    cdef Inlet inlet
    cdef Outlet outlet
    cdef Record record
    cdef object what
    cdef uint64_t since              # microseconds, if times are measured: when it began to wait, or its handler began


cdef class ChannelOutlet(Outlet):
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
    # when the gateway is behind: see inlet_standstill.pxi
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


cdef class WorkerChannel(Channel):
    cdef ChannelOutlet outlet
    cdef Inlet inlet
