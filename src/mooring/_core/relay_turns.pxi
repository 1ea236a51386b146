# How much of what workers publish is copied in one turn of the loop. Included by `relay.pyx`.
#
# A record of a few bytes may be a copy for each of very many subscribers, and a worker can hand over thousands of them
# at once. Unrelated clients wait as long as they are copied, and nobody gets the first before the turn ends. So a turn
# copies for TURN_MS, or for as long as handing out what was copied takes, if that is longer: else most of the time
# would go into system calls for a few bytes. A worker's channel whose publish is over that is read on in the next turn,
# as a whole, so that what one worker sends keeps its order. Those that wait take turns.

cdef enum:
    TURN_MS = 8
    LOOK_COPIES = 4096       # between two looks at the clock
    COPY_BYTES = 1024        # so many more count as one copy more
    FLUSHED_IN_MS = 150      # connections that a flush writes to in a millisecond, about


cdef bint _spent(Relay self) noexcept:
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


cdef bint _may_copy(Relay self, Port port) except -1:
    """Whether a publish of this worker may be copied now. If not, it goes on when it is this worker's turn."""
    if not self.paused or self.resuming is port:
        if not _spent(self):
            return True
    if port not in self.paused:
        self.paused.append(port)
        if not self.posted:
            self.posted = True
            self.connections.reactor.post(self.resume_paused)
    return False


cdef int _resume_paused(Relay self) except -1:
    cdef Port port
    while self.paused and not _spent(self):
        port = self.paused.pop(0)
        self.resuming = port
        try:
            port.go_on()
        finally:
            self.resuming = None
    return 0
