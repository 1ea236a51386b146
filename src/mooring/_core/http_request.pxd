"""What the head of a request says. Theory in http_request.pyx."""

cimport cython
from libc.stdint cimport uint64_t


@cython.final
cdef class ParsedRequest:
    cdef readonly str method
    cdef readonly str target      # origin form ("/path?query"), or "*" for OPTIONS
    cdef readonly int minor       # HTTP/1.<minor>: 0 or 1
    cdef readonly list headers
    cdef readonly bytes body
    cdef readonly bint keep_alive
    cdef readonly bint upgrade    # the Upgrade field names `websocket`
    cdef readonly bint streamed   # the body follows in parts


@cython.final
cdef class Head:
    cdef ParsedRequest request
    cdef bint chunked             # the body comes in chunks
    cdef uint64_t length          # else the bytes that it has, as the client says
    cdef bint expects             # the client waits for "100 Continue" before it sends its body

    # As llhttp reports them; and of the fields that say something about the message, None: there is none.
    cdef bytes _target
    cdef list _pairs
    cdef str _host, _length, _coding, _expect
    cdef bint _closes, _keeps

    cdef int _judge_fields(self) except -1
    cdef int _note(self, str key, str value) except -1
    cdef int _delimit_body(self) except -1


# Of a complete head, with its empty line, in which `count` lines are fields. HttpError if it can't be served.
cdef Head read_head(bytes head, Py_ssize_t count)
