"""WebSocket on a gateway's connections. Theory in websocket.pyx."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint64_t

from mooring._core.deflate cimport Deflate
from mooring._core.http_exchange cimport HttpExchanges
from mooring._core.registry cimport By, Connection, Why
from mooring._core.ws cimport FrameEvent


cdef class WebSockets(HttpExchanges):
    cdef uint64_t ping_key           # hides our clock in the payload of pings
    cdef dict deflates               # terms -> Deflate that connections share, fd -> one of its own

    cdef int send(self, Connection* c, int opcode, const uint8_t* data, size_t size) except -1
    cdef bytes deflated(self, Connection* c, const uint8_t* data, size_t size)
    cdef int close(self, Connection* c, int code, bytes reason, By by) except -1
    cdef int dismiss(self, Connection* c, int code, bytes reason, bint failed) except -1
    cdef int drop(self, Connection* c) except -1

    cdef bytes _inflated(self, Connection* c, const FrameEvent* event)
    cdef Deflate _agree(self, Connection* c, tuple terms)
    cdef size_t _feed(self, Connection* c, uint8_t* data, size_t size) except? 0
    cdef size_t _decode(self, Connection* c, uint8_t* data, size_t size) except? 0
    cdef int _control(self, Connection* c, const FrameEvent* event) except -1
    cdef bint _is_flooded(self, Connection* c) noexcept
    cdef int _take_close(self, Connection* c, const FrameEvent* event) except -1
    cdef int _end_when_written(self, Connection* c) except -1
    cdef int _await_close(self, Connection* c, bint behind) except -1
    cdef bint _may_ask(self, Connection* c) noexcept
    cdef bint _is_dead(self, Connection* c) noexcept
    cdef int _await_silence(self, Connection* c) except -1
    cdef int _ping(self, Connection* c) except -1
    cdef uint64_t _patience(self, Connection* c) noexcept
    cdef bint _is_on_its_way(self, Connection* c) except -1
    cdef int _pong(self, Connection* c, const FrameEvent* event) except -1
    cdef int _let_go(self, Connection* c) except -1
    cdef int _fail(self, Connection* c, int code, Why why, bytes reason) except -1
