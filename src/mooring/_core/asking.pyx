"""Workers that wait until a WebSocket has taken what was pushed to it.

Any worker may, not only the one that serves the connection; each is answered as often as it has asked, in that order.
"""

from libc.stdint cimport uint64_t

from mooring._core.buffer cimport buffer_size
from mooring._core.websocket cimport WebSockets
from mooring._core.port cimport Port
from mooring._core.registry cimport ASKED, OPEN, Connection
from mooring._core.wire cimport EV_GONE, EV_ROOM


cdef class Asking:
    """Those of one gateway."""

    def __cinit__(self, connections: WebSockets) -> None:
        self.connections = connections
        self.ports = {}

    cdef int ask(self, Port port, uint64_t fd) except -1:
        """The answer, ROOM or GONE, is at once, or when so much is out or the connection gone."""
        cdef Connection* c = self.connections.find(fd)
        if c == NULL or c.phase != OPEN:
            return port.say(EV_GONE, 0, b"", fd)
        if buffer_size(&c.out) <= c.profile.high_water:
            return port.say(EV_ROOM, 0, b"", fd)
        self.ports.setdefault(fd, []).append(port)
        c.flags |= ASKED
        return 0

    cdef int answer(self, uint64_t fd, int kind) except -1:
        """All that have asked about this connection."""
        cdef Port port
        for port in self.ports.pop(fd, ()):
            if port.usable:
                port.say(kind, 0, b"", fd)
        return 0
