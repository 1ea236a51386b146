"""The worker's half of the seam, upwards: events to handlers. Theory in inlet.pyx."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from mooring._core.contract cimport Taker
from mooring._core.gateway_end cimport Outbox, GatewayEnd
from mooring._core.latency cimport Latencies
from mooring._core.pulse cimport Pulse
from mooring._core.steps cimport Steps
from mooring._core.wire cimport Record


cdef class _Call


cdef class Inlet(Taker):
    cdef object server
    cdef tuple on_message            # the application's handler, by the index of the listener
    cdef readonly Steps steps        # of handlers that are coroutines
    cdef Outbox outbox               # what its handlers say, and have decided
    cdef public object context       # copied for each call of a handler
    # fd -> events that wait, for connections whose handler is suspended
    cdef dict lanes
    cdef public object on_idle       # a function, called when the last of them goes; None: nobody waits for that
    cdef readonly uint64_t handled
    cdef Latencies handling, queueing        # how long handlers, and events before them, take; None: nobody asks
    cdef Pulse pulse
    # messages and requests until worker.limit_reached() is called; 0: never
    cdef uint64_t until_limit
    # this process was forked off the worker inside of a handler: worker.end_child(error) ends it when that is over
    cdef bint child
    cdef public set kept_waiting     # connections of events begun while a blocked loop catches up; None: it has

    cdef int _deliver(self, GatewayEnd gateway_end, const Record* record, const uint8_t* payload) except -1
    cdef int _queue(self, GatewayEnd gateway_end, const Record* record, object data) except -1
    cdef int _failed(self, GatewayEnd gateway_end, const Record* record, object error, object context,
                     uint64_t began) except -1
    cdef int _wait(self, GatewayEnd gateway_end, const Record* record, object running, object context,
                   uint64_t began) except -1
    cdef int _start(self, GatewayEnd gateway_end, const Record* record, object data, uint64_t queued) except -1
    cdef int _note_wait(self, int kind, uint64_t waited, uint64_t queued, uint64_t began) noexcept
    cdef int _count_down(self, int kind) except -1
    cdef int _done(self, _Call call, object task) except -1


cdef class _Call:
    cdef Inlet inlet
    cdef GatewayEnd gateway_end
    cdef Record record
    cdef object what
    cdef uint64_t since              # microseconds, if times are measured: when it began to wait, or its handler began
