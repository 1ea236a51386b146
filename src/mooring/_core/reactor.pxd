"""The epoll loop of one process. Theory in reactor.pyx."""

cimport cython
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from mooring._core.timer cimport Timer, Wheel

cdef extern from "sys/epoll.h" nogil:
    ctypedef union epoll_data_t:
        uint64_t u64
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    enum:
        EPOLLIN
        EPOLLOUT
        EPOLLRDHUP
        EPOLLHUP
        EPOLLERR
        EPOLLEXCLUSIVE

cdef enum:
    BATCH = 256              # events taken in one turn
    LONG_TURN_MS = 5         # a turn that is older gives nobody more than a share
    RECEIVE_BYTES = 262144   # the shared receive buffer
    MAX_SOURCES = 4096       # a source's number has 16 bits in an event, a token 48


cdef inline uint64_t token_of(uint64_t data) noexcept nogil:
    """The lower 48 bits. By shifts: Cython takes a mask of that size for an integer of Python."""
    return (data << 16) >> 16


cdef class Source:
    cdef Reactor reactor
    cdef readonly int number         # -1 while no reactor has it
    cdef bint dirty                  # in the reactor's list of those that flush() before it sleeps

    cdef int on_ready(self, uint64_t token, uint32_t events) except -1
    cdef int on_timer(self, uint64_t token) except -1
    cdef int flush(self) except -1


@cython.final
cdef class Reactor:
    cdef int epoll
    cdef int waker
    # sources[number] is None where a number is free; numbers given back in this turn wait in `retired`, so that an
    # event already fetched cannot reach a newcomer
    cdef list sources
    cdef list retired
    cdef list dirty
    cdef Wheel wheel
    cdef epoll_event events[BATCH]
    cdef uint8_t* receive_buffer     # shared by all connections, valid during on_ready
    cdef readonly uint64_t now       # monotonic milliseconds, read once a turn, or by read_clock()
    cdef readonly uint64_t turns
    cdef list posted
    cdef list calls                  # heap of [due ms, order, callable]
    cdef uint64_t order
    cdef bint running
    cdef readonly bint sleeping      # in epoll_wait, without the interpreter's lock
    cdef object came_back            # a forked child of this process has no loop: what is called if it comes back to it
    cdef bint hurry                  # the flush before the sleep gave a guest loop something to do
    cdef dict callbacks              # fd -> callable, of add_reader
    cdef list foreign                # (fd, events) of the last poll, for a guest loop
    cdef public object on_error

    cdef int read_clock(self) noexcept
    cdef bint is_long(self) noexcept
    cdef int add(self, Source source) except -1
    cdef int remove(self, Source source) except -1
    cdef int watch(self, Source source, int fd, uint64_t token, uint32_t events) except -1
    cdef int change(self, Source source, int fd, uint64_t token, uint32_t events) except -1
    cdef int forget(self, int fd) noexcept
    cdef inline void arm(self, Source source, Timer* timer, uint64_t due_ms) noexcept:
        timer.token = (<uint64_t> source.number << 48) | token_of(timer.token)
        self.wheel.arm(timer, due_ms)
    cdef inline void disarm(self, Timer* timer) noexcept:
        self.wheel.cancel(timer)
    cdef inline int mark_dirty(self, Source source) except -1:
        if not source.dirty:
            source.dirty = True
            self.dirty.append(source)
            if self.sleeping:        # another thread's doing: this one would flush before it sleeps
                self.wake()
        return 0
    cdef int wake(self) except -1
    cpdef int flush(self) except -1
    cpdef list poll(self, double timeout)
    cdef int _error(self, str doing) except -1
    cdef int _control(self, int op, int fd, uint64_t data, uint32_t events) except -1
    cdef int _timeout(self, double timeout) except -2
    cdef int _drain_waker(self) except -1
    cdef int _end_deadlines(self, Timer* timer) except -1

cdef uint64_t monotonic_ms() noexcept nogil
cdef uint64_t monotonic_us() noexcept nogil
