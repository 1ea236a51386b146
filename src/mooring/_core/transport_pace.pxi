"""How fast a peer has to read. Included by `transport.pyx`.

A download that goes on may go on for long, but not for ever: a peer that takes a byte a second would keep a place, and
what waits for it, as long as it likes. So while more waits than the kernel takes, it is looked at every write_timeout
what the peer has taken since: what is written, less what lies in the kernel. It has to be write_rate bytes per second,
and at least one. Only a peer for whom something lies there is slow: if nothing does, it was we who stood still.

WebSockets are not allowed that much, since others write to them: see `_above`.
"""

cdef uint64_t _taken(Connection* c) noexcept:
    """Bytes that the peer's machine has."""
    cdef int unread = 0
    if ioctl(c.socket, SIOCOUTQ, &unread) < 0 or unread < 0 or <uint64_t> unread > c.entry.bytes_sent:
        return c.entry.bytes_sent
    return c.entry.bytes_sent - <uint64_t> unread


cdef int watch_pace(Transport self, Connection* c) except -1:
    c.taken = _taken(c)
    c.taken_at = self.reactor.now
    return self._arm(c, D_WRITE, c.profile.write_ms)


cdef bint keeps_pace(Transport self, Connection* c) noexcept:
    cdef uint64_t taken = _taken(c)
    cdef uint64_t least = c.profile.write_rate * (self.reactor.now - c.taken_at) / 1000
    return taken == c.entry.bytes_sent or taken >= c.taken + (least if least else 1)


cdef int end_by_reset(Connection* c) noexcept:
    """What it has not read shall not stay in the kernel either, when it is closed."""
    cdef int[2] at_once = [1, 0]
    return setsockopt(c.socket, SOL_SOCKET, SO_LINGER, at_once, sizeof(at_once))
