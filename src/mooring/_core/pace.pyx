"""Whether a peer takes what we send.

What our queue gives to the kernel says little: the kernel keeps some megabytes for a peer, and then takes nothing
until a third of them is free, which a slow network needs a minute for. So it is looked at what the peer's machine
has: what was written, less what still lies in the kernel (SIOCOUTQ; on a Unix socket that is what the peer has not
read, with what the kernel itself needs for it, so that the difference may even be negative). Only timers look, no
message does.

A peer that goes on taking, write_rate bytes per second and at least one, is there and may take its time, but not for
ever: one that took a byte a second would keep a place, and what waits for it, as long as it likes.

* While more waits than the kernel takes, that is asked every write_timeout (D_WRITE). If nothing lies in the kernel,
  it was we who stood still.
* What a peer is to answer, a ping or a close frame, stands behind all that was sent before. If some of that is still
  on its way, the time for the answer is *watched*: at its end there is another one for who took enough of it.
* So are times in which it would be a peer's turn, but for what it still takes: to ask again, to send more of a body,
  to end the connection behind the last answer.

These are functions of a connection and the time; transport.pyx arms deadlines by them.
"""

from libc.stdint cimport int64_t, uint64_t

from mooring._core.buffer cimport buffer_size
from mooring._core.registry cimport Connection

cdef extern from "sys/socket.h" nogil:
    int setsockopt(int fd, int level, int name, const void* value, unsigned int size)
    enum:
        SOL_SOCKET
        SO_LINGER

cdef extern from "sys/ioctl.h" nogil:
    int ioctl(int fd, unsigned long what, int* value)

cdef extern from "linux/sockios.h" nogil:
    enum:
        SIOCOUTQ

cdef enum:
    OWN = 256            # bytes: what is to be answered is taken, too, a ping or a close frame, with what TLS adds


cdef int64_t _in_kernel(const Connection* c) noexcept:
    cdef int unread = 0
    return unread if ioctl(c.socket, SIOCOUTQ, &unread) == 0 else 0


cdef bint _took(const Connection* c, uint64_t now, int64_t in_kernel, int64_t besides) noexcept:
    """Whether it has taken as much as it must since it is watched."""
    cdef int64_t least = <int64_t> (c.profile.write_rate * (now - c.taken_at) / 1000)
    return <int64_t> c.entry.bytes_sent - in_kernel - c.taken >= (least if least else 1) + besides


cdef bint is_behind(const Connection* c) noexcept:
    return buffer_size(&c.out) > 0 or c.owed > 0 or c.file != NULL or _in_kernel(c) > 0


cdef int note_taken(Connection* c, uint64_t now) noexcept:
    c.taken = <int64_t> c.entry.bytes_sent - _in_kernel(c)
    c.taken_at = now
    return 0


cdef bint keeps_pace(const Connection* c, uint64_t now) noexcept:
    cdef int64_t in_kernel = _in_kernel(c)
    return in_kernel == 0 or _took(c, now, in_kernel, 0)


cdef bint took_enough(const Connection* c, uint64_t now) noexcept:
    return c.taken_at != 0 and _took(c, now, _in_kernel(c), OWN)


cdef int end_by_reset(const Connection* c) noexcept:
    cdef int[2] at_once = [1, 0]
    return setsockopt(c.socket, SOL_SOCKET, SO_LINGER, at_once, sizeof(at_once))
