"""Who waits until a WebSocket has taken what was pushed to it: workers, and the gateway itself.

Any worker may, not only the one that serves the connection; each is answered as often as it has asked, in that order.
"""

from libc.stdint cimport uint64_t

from mooring._core.buffer cimport buffer_size
from mooring._core.registry cimport ASKED, OPEN, Connection
from mooring._core.websocket cimport WebSockets
from mooring._core.wire cimport EV_GONE, EV_ROOM
from mooring._core.worker_end cimport WorkerEnd


cdef class Asking:
    """Those of one gateway."""

    def __cinit__(self, connections: WebSockets) -> None:
        self.connections = connections
        self.waiting = {}

    cdef int ask(self, WorkerEnd worker_end, uint64_t fd) except -1:
        """The answer, ROOM or GONE, is at once, or when so much is out or the connection gone."""
        cdef Connection* c = self.connections.find(fd)
        if c == NULL or c.phase != OPEN:
            return worker_end.say(EV_GONE, 0, b"", fd)
        if buffer_size(&c.out) <= c.profile.high_water:
            return worker_end.say(EV_ROOM, 0, b"", fd)
        self.wait(c, worker_end)
        return 0

    def when_room(self, fd: int, function: object) -> None:
        """Calls it when the WebSocket has taken most of what was sent, with True, or has gone, with False; not now."""
        cdef Connection* c = self.connections.find(fd)
        if c == NULL or c.phase != OPEN:
            raise ValueError(f"{fd} is no open WebSocket")
        self.wait(c, function)

    cdef int wait(self, Connection* c, object waiter) except -1:
        self.waiting.setdefault(c.fd, []).append(waiter)
        c.flags |= ASKED
        return 0

    cdef int answer(self, uint64_t fd, int kind) except -1:
        """All that have asked about this connection."""
        for waiter in self.waiting.pop(fd, ()):
            if not isinstance(waiter, WorkerEnd):
                waiter(kind == EV_ROOM)
            elif (<WorkerEnd> waiter).usable:
                (<WorkerEnd> waiter).say(kind, 0, b"", fd)
        return 0
