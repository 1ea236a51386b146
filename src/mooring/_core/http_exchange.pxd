"""HTTP on a gateway's connections. Theory in http_exchange.pyx."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t

from mooring._core.files cimport FileClaim, FileSender
from mooring._core.http cimport HttpCodec
from mooring._core.http_request cimport ParsedRequest
from mooring._core.registry cimport Connection, Deadline


cdef class Sink:
    # May a message of this connection be taken now? If not, the sink calls wake() later.
    cdef bint ready(self, Connection* connection) except -1
    # The same of a request, before it is read and when it is complete.
    cdef bint takes(self, Connection* connection) except -1
    # The same of a part of a body that the worker has asked for.
    cdef bint takes_part(self, Connection* connection) except -1
    cdef int on_message(self, Connection* connection, int opcode, const uint8_t* data, size_t size) except -1
    cdef int on_request(self, Connection* connection, object request) except -1
    # A worker is to be told, with an event that takes no ticket
    cdef int on_note(self, Connection* connection, int kind, bytes payload) except -1
    cdef int on_bad_request(self, Connection* connection, object error) except -1
    cdef int on_gone(self, Connection* connection, int code, bytes reason) except -1


cdef class HttpExchanges(FileSender):
    cdef public Sink sink
    cdef public object on_cut        # called with (fd, why) for one that reads too slowly; None: nobody is told
    cdef list blank_codecs           # an HttpCodec by listener, to make others of
    cdef dict codecs                 # fd -> HttpCodec, while a request is coming in
    cdef dict parked                 # fd -> ParsedRequest, complete, while no worker can take it

    # The worker asks for the next part of the body; the sink gets it.
    cdef int want(self, Connection* c, uint32_t number) except -1
    cdef int respond(self, Connection* c, uint32_t number, int flags, const uint8_t* data, size_t size) except -1
    # The head of the answer and, behind it, a part of a file; what the worker is to be told (FileNote).
    cdef int respond_file(self, Connection* c, uint32_t number, int flags, const FileClaim* claim, bytes path,
                          const uint8_t* head, size_t size) except -1
    cdef int _late(self, Connection* c) noexcept
    cdef bint _goes_on(self, Connection* c, Deadline deadline) except -1
    cdef int _judge_pace(self, Connection* c) except -1
    cdef int _slow(self, Connection* c) except -1
    cdef int end_http(self, Connection* c) except -1
    cdef int _complete(self, Connection* c, bint closes) except -1
    cdef int _answered(self, Connection* c) except -1
    # requests in
    cdef int _next_request(self, Connection* c) except -1
    cdef bint _may_begin(self, Connection* c) except -1
    cdef int _await_rest(self, Connection* c, HttpCodec codec) except -1
    cdef int _hand_over(self, Connection* c, HttpCodec codec, ParsedRequest request) except -1
    cdef int _say_continue(self, Connection* c) except -1
    cdef int _count_kept(self, Connection* c) except -1
    cdef int _await_body(self, Connection* c) except -1
    cdef int _body_came(self, Connection* c, size_t size) except -1
    cdef int _next_part(self, Connection* c) except -1
    cdef int _body_failed(self, Connection* c, object error) except -1
