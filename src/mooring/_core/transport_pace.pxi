# Whether a peer takes what we send. Included by `transport.pyx`.
#
# What our queue gives to the kernel says little: the kernel keeps some megabytes for a peer, and then takes nothing
# until a third of them is free, which a slow network needs a minute for. So it is looked at what the peer's machine
# has: what was written, less what still lies in the kernel (SIOCOUTQ; on a Unix socket that is what the peer has not
# read, with what the kernel itself needs for it, so that the difference may even be negative). Only timers look, no
# message does.
#
# A peer that goes on taking, write_rate bytes per second and at least one, is there and may take its time, but not for
# ever: one that took a byte a second would keep a place, and what waits for it, as long as it likes.
#
# * While more waits than the kernel takes, that is asked every write_timeout (D_WRITE). If nothing lies in the kernel,
#   it was we who stood still.
# * What a peer is to answer, a ping or a close frame, stands behind all that was sent before. If some of that is still
#   on its way, the time for the answer is *watched*: at its end there is another one for who took enough of it.
# * So are times in which it would be a peer's turn, but for what it still takes: to ask again, to send more of a body,
#   to end the connection behind the last answer.

cdef enum:
    OWN = 256            # bytes: what is to be answered is taken, too, a ping or a close frame, with what TLS adds


cdef int64_t _in_kernel(Connection* c) noexcept:
    cdef int unread = 0
    return unread if ioctl(c.socket, SIOCOUTQ, &unread) == 0 else 0


cdef bint _took(Transport self, Connection* c, int64_t in_kernel, int64_t besides) noexcept:
    """Whether it has taken as much as it must since it is watched."""
    cdef int64_t least = <int64_t> (c.profile.write_rate * (self.reactor.now - c.taken_at) / 1000)
    return <int64_t> c.entry.bytes_sent - in_kernel - c.taken >= (least if least else 1) + besides


cdef bint is_behind(Connection* c) noexcept:
    """Whether the peer's machine does not have yet all that was sent to it."""
    return buffer_size(&c.out) > 0 or c.owed > 0 or c.file != NULL or _in_kernel(c) > 0


cdef int watch(Transport self, Connection* c, Deadline deadline, uint64_t ms) except -1:
    """A deadline for a peer that has something to take meanwhile."""
    self._arm(c, deadline, ms)
    c.taken = <int64_t> c.entry.bytes_sent - _in_kernel(c)
    c.taken_at = self.reactor.now
    return 0


cdef int watch_pace(Transport self, Connection* c) except -1:
    return watch(self, c, D_WRITE, c.profile.write_ms)


cdef bint keeps_pace(Transport self, Connection* c) noexcept:
    cdef int64_t in_kernel = _in_kernel(c)
    return in_kernel == 0 or _took(self, c, in_kernel, 0)


cdef bint takes_on(Transport self, Connection* c, Deadline deadline, uint64_t ms) except -1:
    """At the end of a deadline: whether there is another one, for who was watched and took enough. Of write_timeout, as
    long as it has not got everything; then of `ms`, for what it is waited for."""
    if not c.taken_at or not _took(self, c, _in_kernel(c), OWN):
        return False
    if is_behind(c):
        watch(self, c, deadline, c.profile.write_ms)
    else:
        self._arm(c, deadline, ms)
    return True


cdef bint is_served(Transport self, Connection* c, Deadline deadline, uint64_t ms) except -1:
    """The same for a peer whose turn it may not have been: it is watched from now on, if it has not got everything."""
    if c.taken_at or not is_behind(c):
        return takes_on(self, c, deadline, ms)
    watch(self, c, deadline, c.profile.write_ms)
    return True


cdef int end_by_reset(Connection* c) noexcept:
    """What it has not read shall not stay in the kernel either, when it is closed."""
    cdef int[2] at_once = [1, 0]
    return setsockopt(c.socket, SOL_SOCKET, SO_LINGER, at_once, sizeof(at_once))
