"""Whether a peer takes what we send. Theory in pace.pyx. Each asks the kernel."""

from libc.stdint cimport uint64_t

from mooring._core.registry cimport Connection


# Whether the peer's machine does not have yet all that was sent to it.
cdef bint is_behind(const Connection* c) noexcept
# From now on it is watched: what it has taken so far.
cdef int note_taken(Connection* c, uint64_t now) noexcept
# Whether it has taken what lies in the kernel, or enough of it since it is watched.
cdef bint keeps_pace(const Connection* c, uint64_t now) noexcept
# Whether it is watched, and has taken enough since then, with what it is to answer.
cdef bint took_enough(const Connection* c, uint64_t now) noexcept
# What it has not read shall not stay in the kernel either, when it is closed.
cdef int end_by_reset(const Connection* c) noexcept
