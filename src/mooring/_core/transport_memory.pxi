"""Memory for all connections together. Included by `transport.pyx`.

Two things are kept for a connection: what waits until its peer reads it (`out`), and the beginning of a message or a
body until the rest of it comes (`gathered`). Each has a limit of its own; the sum over all connections has one, too,
since ten thousand peers, each within its limit, are more than a machine has. Beyond it the one for whom most is kept is
told so and ended: it frees most, and a crowd of small peers can't push it out unless they need as much together.
"""

cdef int _relieve(Transport self) except -1:
    """Too much is kept for all together: for whom most is kept goes, until a tenth of the room is free."""
    cdef uint32_t slot
    cdef Connection* c
    if self.relieving:
        return 0
    found = []
    for slot in range(self.used):
        c = self.slots[slot]
        if c != NULL and c.phase <= CLOSING and c.counted + c.gathered:
            found.append((c.counted + c.gathered, c.fd))
    found.sort(reverse=True)
    self.relieving = True
    try:
        for _, fd in found:
            if self.queued + self.gathered <= self.ceiling - self.ceiling // 10:
                break
            c = self.find(fd)
            if c == NULL:
                continue
            self.counters.ended_for_memory += 1
            if c.gathered > c.counted:
                self.on_greedy(c)
            else:
                self.on_slow(c, b"slow consumer: the server's memory is full, and most of it waited for you")
            if self.find(fd) != NULL:
                self._count_out(c)
    finally:
        self.relieving = False
    return 0
