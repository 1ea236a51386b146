"""The epoll loop of one process.

Rules
-----
* The reactor knows *sources*: a source owns any number of descriptors and tells them apart by a 48-bit token of its
  own choosing. Ten thousand connections are one source, so an idle one needs no Python object.
* An event carries (source number, token). A source must put into the token whatever lets it tell a stale event from
  a fresh one, since a descriptor may be closed and its number given out again within one batch of events. For the
  same reason the number of a removed source is not given out before the batch is over.
* Level-triggered. A source that does not want to read must say so, or the loop spins.
* Output is queued while events are handled and flushed once, before the reactor sleeps: a source marks itself dirty
  and gets one `flush()`. Flushing may dirty other sources; it goes on until none is. Another thread can mark a source
  only while this one sleeps or runs Python code (the interpreter's lock is kept everywhere else), and wakes it then.
* An exception in a source is reported and ends nothing: it must not take the other connections with it.
* Time is read once a turn, from CLOCK_MONOTONIC. No deadline knows the wall clock.

One class serves every process. A gateway calls `run()`. A worker's asyncio is the guest: its selector calls `poll()`
and gets back the descriptors that are asyncio's own (see mooring.net.loop), so there is one epoll and no second loop.
"""

from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc

import heapq
import os

from mooring.journal import own_logger

log = own_logger("mooring.reactor")

cdef extern from "sys/epoll.h" nogil:
    int epoll_create1(int flags)
    int epoll_ctl(int epoll, int op, int fd, epoll_event* event)
    enum:
        EPOLL_CLOEXEC
        EPOLL_CTL_ADD
        EPOLL_CTL_MOD
        EPOLL_CTL_DEL

cdef extern from "calls.h" nogil:
    int mooring_epoll_wait(int epoll, epoll_event* events, int limit, int timeout)

cdef extern from "sys/eventfd.h" nogil:
    int eventfd(unsigned int start, int flags)
    enum:
        EFD_CLOEXEC
        EFD_NONBLOCK

cdef extern from "time.h" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    enum:
        CLOCK_MONOTONIC
    int clock_gettime(int clock, timespec* now)

cdef extern from "unistd.h" nogil:
    ssize_t read(int fd, void* data, size_t size)
    ssize_t write(int fd, const void* data, size_t size)
    int close(int fd)

cdef uint64_t FOREIGN = 0xFFFF       # source numbers of the reactor's own descriptors
cdef uint64_t WAKER = 0xFFFE


cdef uint64_t monotonic_us() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <uint64_t> now.tv_sec * 1000000 + <uint64_t> now.tv_nsec // 1000


cdef uint64_t monotonic_ms() noexcept nogil:
    return monotonic_us() // 1000


cdef class Source:
    """Something with descriptors. Subclasses override what they need."""

    def __cinit__(self) -> None:
        self.number = -1

    cdef int on_ready(self, uint64_t token, uint32_t events) except -1:
        return 0

    cdef int on_timer(self, uint64_t token) except -1:
        return 0

    cdef int flush(self) except -1:
        return 0


cdef class Reactor:
    """One epoll loop. OSError when the kernel gives no descriptor for it, MemoryError without memory.

    on_error: called with (what was done, exception) for an exception that a source did not handle; by default it is
    logged with its traceback.
    """

    def __cinit__(self) -> None:
        self.epoll = self.waker = -1
        self.receive_buffer = <uint8_t*> malloc(RECEIVE_BYTES)
        if self.receive_buffer == NULL:
            raise MemoryError("no memory for the receive buffer")
        self.epoll = epoll_create1(EPOLL_CLOEXEC)
        self.waker = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
        if self.epoll < 0 or self.waker < 0:
            raise OSError(errno, os.strerror(errno))
        self.sources = []
        self.retired = []
        self.dirty = []
        self.posted = []
        self.calls = []
        self.foreign = []
        self.callbacks = {}
        self.wheel = Wheel()
        self.now = monotonic_ms()
        self.wheel.start(self.now)
        self._control(EPOLL_CTL_ADD, self.waker, WAKER << 48, EPOLLIN)

    def __dealloc__(self) -> None:
        free(self.receive_buffer)
        if self.epoll >= 0:
            close(self.epoll)
        if self.waker >= 0:
            close(self.waker)

    # ------------------------------------------------------------------ sources

    cdef int add(self, Source source) except -1:
        cdef int number
        if source.number >= 0:
            raise RuntimeError("the source has a reactor already")
        for number in range(len(self.sources)):
            if self.sources[number] is None:
                self.sources[number] = source
                break
        else:
            number = len(self.sources)
            if number == MAX_SOURCES:
                raise RuntimeError(f"more than {MAX_SOURCES} sources in one reactor")
            self.sources.append(source)
        source.number = number
        source.reactor = self
        return 0

    cdef int remove(self, Source source) except -1:
        """Forgets a source; its descriptors must have been forgotten or closed before."""
        if source.number >= 0:
            self.sources[source.number] = False     # taken until the turn ends
            self.retired.append(source.number)
            source.number = -1
        return 0

    cdef int _control(self, int op, int fd, uint64_t data, uint32_t events) except -1:
        cdef epoll_event event
        event.events = events
        event.data.u64 = data
        if epoll_ctl(self.epoll, op, fd, &event) < 0:
            raise OSError(errno, f"epoll_ctl on descriptor {fd}: {os.strerror(errno)}")
        return 0

    cdef int read_clock(self) noexcept:
        """For a time that is compared with those of other processes: this turn may have begun a while ago."""
        self.now = monotonic_ms()
        return 0

    cdef bint is_long(self) noexcept:
        """Whether this turn has lasted so long already that others should not wait for more than they must."""
        return monotonic_ms() - self.now > LONG_TURN_MS

    cdef int watch(self, Source source, int fd, uint64_t token, uint32_t events) except -1:
        return self._control(EPOLL_CTL_ADD, fd, (<uint64_t> source.number << 48) | token, events)

    cdef int change(self, Source source, int fd, uint64_t token, uint32_t events) except -1:
        return self._control(EPOLL_CTL_MOD, fd, (<uint64_t> source.number << 48) | token, events)

    cdef int forget(self, int fd) noexcept:
        cdef epoll_event event
        return epoll_ctl(self.epoll, EPOLL_CTL_DEL, fd, &event)

    # ------------------------------------------------------------------ descriptors of a guest loop, callbacks

    def register(self, fd: int, events: int) -> None:
        """Watches a descriptor that is not a source's; poll() hands its events out."""
        self._control(EPOLL_CTL_ADD, fd, FOREIGN << 48 | <uint64_t> <uint32_t> fd, events)

    def modify(self, fd: int, events: int) -> None:
        self._control(EPOLL_CTL_MOD, fd, FOREIGN << 48 | <uint64_t> <uint32_t> fd, events)

    def unregister(self, fd: int) -> None:
        """A descriptor that was closed meanwhile is gone from epoll already: that is no error."""
        self.forget(fd)

    def add_reader(self, fd: int, callback: object) -> None:
        """`callback()` from run() whenever `fd` is readable."""
        self.register(fd, EPOLLIN)
        self.callbacks[fd] = callback

    def remove_reader(self, fd: int) -> None:
        if self.callbacks.pop(fd, None) is not None:
            self.forget(fd)

    def call_later(self, delay: float, callback: object) -> list:
        """Calls `callback()` from run() in `delay` seconds; returns a handle for cancel_call."""
        self.order += 1
        call = [monotonic_ms() + <uint64_t> (max(0.0, delay) * 1000), self.order, callback]
        heapq.heappush(self.calls, call)
        return call

    def cancel_call(self, call: list) -> None:
        call[2] = None

    def post(self, callback: object) -> None:
        """Calls `callback()` in the reactor's next turn; may be called from any thread and any signal handler."""
        self.posted.append(callback)
        self.wake()

    cdef int wake(self) except -1:
        """Ends the present sleep, or the next one, at once."""
        cdef uint64_t one = 1
        if self.waker < 0:
            return 0
        if write(self.waker, &one, sizeof(one)) < 0 and errno != EAGAIN:     # EAGAIN: it is awake already
            raise OSError(errno, f"eventfd: {os.strerror(errno)}")
        return 0

    # ------------------------------------------------------------------ the loop

    cdef int _error(self, str doing) except -1:
        import sys
        error = sys.exception() if hasattr(sys, "exception") else sys.exc_info()[1]
        if self.on_error is not None:
            self.on_error(doing, error)
        else:
            log.error("%s failed: %r", doing, error, exc_info=error)
        return 0

    cpdef int flush(self) except -1:
        """Flushes every dirty source, until none is dirty."""
        cdef Source source
        while self.dirty:
            pending = self.dirty
            self.dirty = []
            for source in pending:
                source.dirty = False
                try:
                    source.flush()
                except Exception:
                    self._error("writing")
        return 0

    cdef int _timeout(self, double timeout) except -2:
        """Milliseconds to sleep at most: the caller's wish, the wheel, the calls."""
        cdef int wait = -1 if timeout < 0 else <int> min(timeout * 1000 + 0.999, 1e9)
        cdef int wheel = self.wheel.wait_ms(self.now)
        cdef long long call
        if self.posted:
            return 0
        if wheel >= 0 and (wait < 0 or wheel < wait):
            wait = wheel
        if self.calls:
            call = <long long> <uint64_t> self.calls[0][0] - <long long> self.now
            if call < 0:
                call = 0
            if wait < 0 or call < wait:
                wait = <int> min(call, 1000000000)
        return wait

    cpdef list poll(self, double timeout):
        """One turn: flush, sleep at most `timeout` seconds (< 0: for ever), handle, flush.

        Returns [(fd, epoll events)] of the descriptors given to register().
        """
        cdef int count, wait, i
        cdef uint64_t data, number
        cdef uint32_t events
        cdef object source
        cdef Timer* timer
        if self.came_back is not None:
            self.came_back()
        self.foreign = []
        self.hurry = False
        self.flush()
        if timeout != 0 and not self.hurry:
            self.now = monotonic_ms()
            wait = self._timeout(timeout)
        else:
            wait = 0
        self.sleeping = True
        with nogil:
            count = mooring_epoll_wait(self.epoll, self.events, BATCH, wait)
        self.sleeping = False
        if count < 0:
            if errno != EINTR:
                raise OSError(errno, f"epoll_wait: {os.strerror(errno)}")
            PyErr_CheckSignals()
            count = 0
        self.turns += 1
        self.now = monotonic_ms()
        for i in range(count):
            data = self.events[i].data.u64
            events = self.events[i].events
            number = data >> 48
            if number == FOREIGN:
                self.foreign.append((<int> (data & 0xFFFFFFFF), events))
                continue
            if number == WAKER:
                self._drain_waker()
                continue
            source = self.sources[number]
            if type(source) is bool or source is None:
                continue
            try:
                (<Source> source).on_ready(token_of(data), events)
            except Exception:
                self._error("handling a socket")
        timer = self.wheel.pop(self.now)
        if timer != NULL:
            self._end_deadlines(timer)
        if self.posted or self.calls and <uint64_t> self.calls[0][0] <= self.now:
            self._run_calls()
        self.flush()
        if self.retired:
            for i in self.retired:
                self.sources[i] = None
            self.retired.clear()
        return self.foreign

    cdef int _drain_waker(self) except -1:
        cdef uint64_t drained
        if read(self.waker, &drained, sizeof(drained)) < 0 and errno != EAGAIN:
            raise OSError(errno, f"eventfd: {os.strerror(errno)}")
        return 0

    cdef int _end_deadlines(self, Timer* timer) except -1:
        """This one is due, and maybe others are."""
        cdef object source
        while timer != NULL:
            source = self.sources[timer.token >> 48]
            if type(source) is not bool and source is not None:
                try:
                    (<Source> source).on_timer(token_of(timer.token))
                except Exception:
                    self._error("handling a deadline")
            timer = self.wheel.pop(self.now)
        return 0

    def _run_calls(self) -> None:
        posted, self.posted = self.posted, []
        due = [[0, 0, callback] for callback in posted]
        while self.calls and <uint64_t> self.calls[0][0] <= self.now:
            due.append(heapq.heappop(self.calls))
        for call in due:
            if call[2] is not None:      # one of these may have cancelled a later one
                try:
                    call[2]()
                except Exception:
                    self._error("running a scheduled call")

    def run(self) -> None:
        """Turns until stop() is called."""
        self.running = True
        while self.running:
            for fd, _ in self.poll(-1):
                callback = self.callbacks.get(fd)
                if callback is not None:
                    try:
                        callback()
                    except Exception:
                        self._error("reading a descriptor")

    def stop(self) -> None:
        """Ends run() after the present turn."""
        self.running = False

    def abandon(self, came_back: object) -> None:
        """In a forked child: the kernel's list of descriptors is the parent's, and is left as it is. The loop turns no
        more; who comes back to it gets `came_back()` instead, which does not return."""
        if self.epoll >= 0:
            close(self.epoll)
            close(self.waker)
        self.epoll = self.waker = -1
        self.came_back = came_back
