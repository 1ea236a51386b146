"""How much of what workers publish is copied in one turn of the loop.

A record of a few bytes may be a copy for each of very many subscribers, and a worker can hand over thousands of them at
once. Unrelated clients wait as long as they are copied, and nobody gets the first before the turn ends. A turn copies
for TURN_MS, or for as long as handing out what was copied takes, if that is longer: else most of the time would go into
system calls for a few bytes. A worker's channel whose publish is over that is read on in the next turn, as a whole, so
that what one worker sends keeps its order. Those that wait take turns.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint64_t

from mooring._core.websocket cimport WebSockets
from mooring._core.order cimport Publisher
from mooring._core.reactor cimport Reactor, monotonic_ms

cdef enum:
    TURN_MS = 8
    LOOK_COPIES = 4096       # between two looks at the clock
    COPY_BYTES = 1024        # so many more count as one copy more
    FLUSHED_IN_MS = 150      # connections that a flush writes to in a millisecond, about


cdef class Turns:
    """Those of one gateway."""

    def __cinit__(self, connections: WebSockets) -> None:
        self.connections = connections
        self.paused = []

    cdef bint may_copy(self, Publisher worker) except -1:
        """Whether a publish of this worker may be copied now. If not, it goes on when it is this worker's turn."""
        if not self.paused or self.resuming is worker:
            if not self._is_spent():
                return True
        if worker not in self.paused:
            self.paused.append(worker)
            self._post()
        return False

    cdef int note_copies(self, size_t size, uint64_t copies) noexcept:
        """A publish of so many bytes was copied so often."""
        self.copies += (1 + size // COPY_BYTES) * (1 + copies)
        return 0

    cdef bint _is_spent(self) noexcept:
        """Whether no more publishes are copied in this turn."""
        cdef Reactor reactor = self.connections.reactor
        if self.spent_in == reactor.turns and not self.unlimited:
            return True
        if self.copies >= LOOK_COPIES:
            self.copies = 0
            if monotonic_ms() - reactor.now > TURN_MS + self.connections.flushed / FLUSHED_IN_MS and not self.unlimited:
                self.spent_in = reactor.turns
                return True
        return False

    def _post(self) -> None:
        if self.paused and not self.posted:
            self.posted = True
            self.connections.reactor.post(self.resume)

    def resume(self) -> None:
        """Those go on whose publishes were too many for the turn before."""
        cdef Publisher worker
        self.posted = False
        try:
            while self.paused and not self._is_spent():
                worker = self.paused.pop(0)
                self.resuming = worker
                try:
                    worker.go_on()
                finally:
                    self.resuming = None
        finally:
            self._post()
