# How a connection ends for an error of ours. Included by `transport.pyx`.

cdef bytes FAULT = b"an error of the server"


cdef int end_for_fault(Transport self, Connection* c) except -1:
    """An exception, or no memory, in the middle of something: what it would have said next may be lost, so it ends.
    Everybody else goes on. What is done here needs no memory but what Python takes for the log."""
    try:
        self.reactor._error("serving a connection")
    except MemoryError:
        pass
    if c.phase == DEAD:
        return 0
    self.counters.faults += 1
    blame(c, W_SERVER_ERROR)
    return self._gone(c, self.on_fault(c), FAULT)


cdef bint say_at_once(Connection* c, bytes words) noexcept:
    """Last words, past the queue, which could need memory; False if they would be in the middle of others."""
    if buffer_size(&c.out) or c.tls != NULL:
        return False
    c_send(c.socket, <const char*> words, len(words), MSG_NOSIGNAL)
    return True
