"""A sink for clients that ask for pages and get each in one piece: each whole request is handed to Python.

What the gateway's relay does for an application is not needed by whoever answers at once: see mooring.monitor.endpoint.
"""

from mooring._core.websocket cimport WebSockets
from mooring._core.http_exchange cimport Sink
from mooring._core.registry cimport Connection


cdef class Answering(Sink):
    """`on_page(fd, request)` and, for what is no request, `on_bad(fd, error)` answer by `connections.answer()`."""

    cdef object on_page
    cdef object on_bad

    def __cinit__(self, connections: WebSockets, on_page: object, on_bad: object) -> None:
        self.on_page = on_page
        self.on_bad = on_bad
        connections.sink = self

    cdef int on_request(self, Connection* connection, object request) except -1:
        self.on_page(connection.fd, request)
        return 0

    cdef int on_bad_request(self, Connection* connection, object error) except -1:
        self.on_bad(connection.fd, error)
        return 0
