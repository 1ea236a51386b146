"""What is spoken on a gateway's connections: HTTP, the upgrade, WebSocket. Theory in connection.pyx."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from mooring._core.deflate cimport Deflate
from mooring._core.secure cimport SecureTransport
from mooring._core.transport cimport By, Connection
from mooring._core.ws cimport FrameEvent


cdef class Sink:
    # May a message of this connection be taken now? If not, the sink calls wake() later.
    cdef bint ready(self, Connection* connection) except -1
    cdef int on_message(self, Connection* connection, int opcode, const uint8_t* data, size_t size) except -1
    cdef int on_request(self, Connection* connection, object request) except -1
    # The worker that handles its request is to be told: EV_ROOM, EV_GONE
    cdef int on_part(self, Connection* connection, bytes part) except -1
    cdef int on_note(self, Connection* connection, int kind) except -1
    cdef int on_bad_request(self, Connection* connection, object error) except -1
    cdef int on_gone(self, Connection* connection, int code, bytes reason) except -1


cdef class Connections(SecureTransport):
    cdef public Sink sink
    cdef uint64_t ping_key           # hides our clock in the payload of pings
    cdef list http_options           # by listener
    cdef dict codecs                 # fd -> HttpCodec, while a request is coming in
    cdef dict deflates               # terms -> Deflate that connections share, fd -> one of its own

    cdef int send(self, Connection* c, int opcode, const uint8_t* data, size_t size) except -1
    cdef bytes deflated(self, Connection* c, const uint8_t* data, size_t size)
    cdef int close(self, Connection* c, int code, bytes reason, By by) except -1
    cdef int drop(self, Connection* c) except -1
    # The worker asks for the next part of the body; the sink gets it.
    cdef int want(self, Connection* c, uint32_t number) except -1
    cdef int respond(self, Connection* c, uint32_t number, int flags, const uint8_t* data, size_t size) except -1

    cdef bytes _inflated(self, Connection* c, const FrameEvent* event)
    cdef Deflate _agree(self, Connection* c, tuple terms)
    cdef size_t _feed(self, Connection* c, uint8_t* data, size_t size) except? 0
    cdef bint _is_control(self, Connection* c, uint8_t first) noexcept
    cdef int _control(self, Connection* c, const FrameEvent* event) except -1
    cdef bint _is_dead(self, Connection* c) noexcept
    cdef int _await_silence(self, Connection* c) except -1
    cdef int _ping(self, Connection* c) except -1
    cdef int _pong(self, Connection* c, const FrameEvent* event) except -1
    cdef int _answered(self, Connection* c) except -1
    cdef int _let_go(self, Connection* c) except -1
    cdef int _fail(self, Connection* c, int code, bytes reason) except -1
