"""The HTTP codec, for who calls it per request. Theory in http.pyx."""

cimport cython
from libc.stdint cimport uint64_t

from mooring._core.http_request cimport Head, ParsedRequest


cdef enum State:
    HEAD
    LENGTH         # a body of which `_need` bytes are missing
    CHUNK_SIZE     # the line before a chunk
    CHUNK_DATA     # `_chunk` bytes of this one are missing
    CHUNK_END      # the CR LF behind a chunk
    TRAILERS
    BROKEN


@cython.final
cdef class HttpCodec:
    cdef Py_ssize_t line_limit, field_limit, head_limit, field_count_limit, body_limit, stream_above
    cdef bytearray _buffer     # bytes not consumed yet; a deletion at its front costs O(1) amortised
    cdef bytearray _body       # of a chunked request: what its chunks carried so far
    cdef State _state
    cdef Py_ssize_t _line      # where the line that is being scanned starts in the buffer
    cdef Py_ssize_t _scanned   # no line feed before this position of that line
    cdef Py_ssize_t _lines     # complete lines before it
    cdef Py_ssize_t _need
    cdef uint64_t _chunk
    cdef bint _skipped         # the empty line before this request was skipped
    cdef bint _expects         # the client waits for "100 Continue"
    cdef ParsedRequest _request
    cdef object _error
    cdef readonly bint streaming     # parts of a body are still to come, or to be taken
    cdef Py_ssize_t _taken           # bytes of chunks that next_part has given

    # A new one with the same limits.
    cdef HttpCodec another(self)
    cpdef Py_ssize_t buffered(self) noexcept
    cpdef Py_ssize_t gathered(self) noexcept
    cpdef bint is_idle(self) noexcept
    cdef bint is_in_body(self) noexcept
    cpdef receive(self, data)
    cpdef take_rest(self)
    cpdef next_event(self)
    cpdef next_part(self)

    cdef int _clear(self) except -1
    cdef int _break(self, error) except -1
    cdef object _advance(self)
    cdef ParsedRequest _begin_stream(self)
    cdef object _next_part(self)
    cdef ParsedRequest _finish(self, bytes body)
    cdef void _restart_scan(self) noexcept
    cdef Py_ssize_t _scan(self, Py_ssize_t first_limit, Py_ssize_t total_limit) except -2
    cdef bint _read_head(self) except -1
    cdef int _await_body(self, Head head) except -1
    cdef bint _read_chunks(self) except -1
    cdef int _take_chunks(self) except -1
