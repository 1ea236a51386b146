"""One order of publishes for all gateways of a host.

Theory
------
A worker tells a publish to each gateway, on that gateway's channel. A gateway comes to the channels of
its workers as the kernel has it; so without more, the publishes of two workers could reach the subscribers here in one
order and there in another one. Somebody has to decide, and it is whoever comes first:

The gateways share a log, a ring in memory. A gateway that meets a publish at the head of a worker's channel looks
whether it is in the log, and writes it there if it is not: (process id, number of the publish in that process), one
word, stored by compare-and-swap in the first free place. So there is no lock that a process could take with it when it
dies. All gateways apply the publishes in the order of the log. What has come to this one before its turn stays where it
is, and so does all that is behind it on that channel: what one worker sends to one connection keeps its order. The
others go on.

A worker takes no part in it. It numbers its publishes, and sends what it has for one gateway together with what it has
for the others. A number is not in the log before its publish has arrived somewhere; so a worker that dies in between
leaves no gap, but at most publishes that have come to some gateways only. Those that lost its channel know that they
won't come.

An entry is skipped where its publish cannot come
    the worker's channel here has ended, and everything from it was handed out (`forget`);
    it was passed before, or the worker had sent it before this gateway existed (`meet`, by HELLO).
And after HOLD_MS in vain, for a worker that was stopped between two gateways, say: waiting has a limit. Its publish is
applied when it comes, out of order, and counted. A gateway that is ENTRIES behind cannot read what was decided; it
begins anew, and that is counted, too.

One gateway needs none of this, and has no Order.
"""

from cpython.buffer cimport PyBUF_WRITABLE, Py_buffer, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint32_t, uint64_t

import mmap
import os

from mooring._core.reactor cimport Reactor, Source, monotonic_ms
from mooring.journal import own_logger

cdef extern from *:
    """
    #define order_load(at) __atomic_load_n((at), __ATOMIC_ACQUIRE)
    static inline int order_swap(uint64_t *at, uint64_t old, uint64_t new_) {
        return __atomic_compare_exchange_n(at, &old, new_, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
    }
    """
    uint64_t order_load(const uint64_t* at) noexcept nogil
    bint order_swap(uint64_t* at, uint64_t old, uint64_t new) noexcept nogil

log = own_logger("mooring.gateway")

ORDER_BYTES = sizeof(LogHead) + ENTRIES * sizeof(uint64_t)
HOLD_MS = 1000               # milliseconds for which a publish is waited for that has come to another gateway
cdef uint64_t _HOLD_MS = HOLD_MS
cdef enum:
    REMEMBERED = 1024        # processes that are gone
    FUTILE = 3               # times that it begins anew, for one publish, until the log is taken for damaged
    PID_MASK = (1 << 22) - 1
    LAP_SHIFT = 52
    LAP_MASK = (1 << 12) - 1


cdef inline uint32_t _pid_of(uint64_t entry) noexcept:
    return (entry >> 30) & PID_MASK


cdef inline bint _after(uint32_t one, uint32_t other) noexcept:
    """Whether a number is later than another one; numbers begin again at 0."""
    cdef uint32_t distance = (one - other) & NUMBER_MASK
    return 0 < distance <= NUMBER_MASK // 2


cdef class Publisher:

    cdef int go_on(self) except -1:
        return 0


cdef class Order(Source):
    """The gateway's view of the log. Maps the memory file, which stays the caller's and is all 0 at first; of
    ORDER_BYTES bytes, or less for fewer entries."""

    def __cinit__(self, reactor: Reactor, file: int) -> None:
        cdef Py_buffer view
        size = os.fstat(file).st_size
        count = (size - sizeof(LogHead)) // sizeof(uint64_t)
        if not 2 <= count <= ENTRIES or count & (count - 1) or size != sizeof(LogHead) + count * sizeof(uint64_t):
            raise ValueError(
                f"a log of {size} bytes: it has {ORDER_BYTES}, or less for another power of two of entries"
            )
        self.memory = mmap.mmap(file, size)
        PyObject_GetBuffer(self.memory, &view, PyBUF_WRITABLE)
        self.log = <LogHead*> view.buf
        PyBuffer_Release(&view)
        self.entries = <uint64_t*> (self.log + 1)
        self.mask = count - 1
        self.bits = count.bit_length() - 1
        self.publishers = {}
        self.logged = {}
        self.gone = {}
        self.late = {}
        self.mute = set()
        self.ready = []
        self.at = self.seen = order_load(&self.log.tail)
        reactor.add(self)

    # ------------------------------------------------------------------ who publishes

    cdef int meet(self, Publisher publisher, uint64_t stamp) except -1:
        """HELLO: this process; what comes from it here is numbered after that one's number."""
        cdef uint32_t pid = stamp >> 32
        self.mute.discard(pid)
        if publisher.origin != pid:
            publisher.origin = pid
            publisher.passed = stamp & NUMBER_MASK
            self.publishers[pid] = publisher
            if self.gone.pop(pid, None) is not None:
                self.logged.pop(pid, None)       # another process had this number
        elif _after(stamp & NUMBER_MASK, publisher.passed):
            publisher.passed = stamp & NUMBER_MASK
        return self._settle()

    cdef int forget(self, Publisher publisher) except -1:
        """Nothing more comes from it."""
        cdef uint32_t pid = publisher.origin
        publisher.held = False
        if pid == 0 or self.publishers.get(pid) is not publisher:
            return 0
        publisher.origin = 0
        del self.publishers[pid]
        self.late.pop(pid, None)
        self.mute.discard(pid)
        self.gone[pid] = True
        if len(self.gone) > REMEMBERED:
            forgotten = next(iter(self.gone))
            del self.gone[forgotten]
            self.logged.pop(forgotten, None)
        return self._settle()

    # ------------------------------------------------------------------ whose turn it is

    cdef bint admit(self, Publisher publisher, uint64_t stamp) except -1:
        """Whether the publish at the head of that channel is to be applied now. If not, go_on() of the publisher is
        called when it may be, and nothing behind it may be applied before."""
        cdef uint32_t pid = stamp >> 32
        cdef uint32_t number = stamp & NUMBER_MASK
        if publisher.origin != pid:
            self.meet(publisher, stamp_of(pid, number - 1))
        if self.damaged:
            self.out_of_order += 1
        elif self.late and self._was_late(pid, number):
            self.out_of_order += 1
        else:
            self._look()
            if _after(number, self.logged.get(pid, publisher.passed)):
                self._write(pid, number)
            if not self.damaged and not self._turn(pid, number):
                publisher.held = True
                self._wait()
                return False
        publisher.held = False
        publisher.passed = number
        self._settle()
        return True

    def _was_late(self, pid: int, number: int) -> bool:
        limit = self.late.get(pid)
        self.mute.discard(pid)
        if limit is not None and _after(number, limit):
            del self.late[pid]
            return False
        return limit is not None

    def offer(self, publisher: Publisher, pid: int, number: int) -> bool:
        """admit(), of a publish that is on no channel."""
        return self.admit(publisher, stamp_of(pid, number))

    cdef bint _turn(self, uint32_t pid, uint32_t number) except -1:
        """Whether nothing has to come before it here."""
        cdef uint64_t entry
        cdef uint32_t listed
        while True:
            self._settle()
            if self.at == self.seen:
                return True          # it is not in the log: that was passed
            entry = order_load(&self.entries[self.at & self.mask])
            if _pid_of(entry) != pid or entry >> LAP_SHIFT != self._lap(self.at):
                return False         # if it was overwritten just now, that is found when this one is offered again
            listed = entry & NUMBER_MASK
            if _after(listed, number):
                return True          # likewise
            self.at += 1
            if listed == number:
                return True
            # an earlier one of the same channel: it cannot come any more

    cdef int _settle(self) except -1:
        """Skips entries that cannot come; wakes the publisher whose turn it is."""
        cdef uint64_t entry
        cdef uint32_t pid, number
        cdef Publisher publisher
        while self.at != self.seen:
            entry = order_load(&self.entries[self.at & self.mask])
            if entry >> LAP_SHIFT != self._lap(self.at):
                return self._resync()
            pid = _pid_of(entry)
            number = entry & NUMBER_MASK
            publisher = self.publishers.get(pid)
            if pid in self.mute:
                self.late[pid] = number
            elif publisher is None:
                if pid not in self.gone:
                    return 0
            elif _after(number, publisher.passed):
                if publisher.held:
                    self._wake(publisher)
                return 0
            self.at += 1
        return 0

    def _wake(self, publisher: Publisher) -> None:
        if publisher not in self.ready:
            self.ready.append(publisher)
            self.reactor.mark_dirty(self)

    cdef int flush(self) except -1:
        return self.run()

    cdef int run(self) except -1:
        """Lets those go on whose turn has come."""
        cdef Publisher publisher
        if self.running:
            return 0
        self.running = True
        try:
            while self.ready:
                publisher = self.ready.pop(0)
                if publisher.held:
                    publisher.held = False
                    publisher.go_on()
        finally:
            self.running = False
        return 0

    # ------------------------------------------------------------------ the log

    cdef uint32_t _lap(self, uint64_t position) noexcept:
        return ((position >> self.bits) + 1) & LAP_MASK  # not 0 in the first one: that is an empty place

    cdef int _look(self) except -1:
        """Takes note of what was written since."""
        cdef uint64_t entry
        cdef uint32_t lap
        while True:
            entry = order_load(&self.entries[self.seen & self.mask])
            lap = entry >> LAP_SHIFT
            if lap != self._lap(self.seen):
                if lap != ((self._lap(self.seen) - 1) & LAP_MASK):
                    self._resync()
                return 0
            self.logged[_pid_of(entry)] = entry & NUMBER_MASK
            order_swap(&self.log.tail, self.seen, self.seen + 1)     # whoever wrote it may have died before it could
            self.seen += 1

    cdef int _write(self, uint32_t pid, uint32_t number) except -1:
        """Puts it at the end, unless another gateway has done so."""
        cdef uint64_t* place
        cdef uint64_t old, entry
        cdef uint64_t resyncs = self.resyncs
        while _after(number, self.logged.get(pid, number - 1)) and not self.damaged:
            if self.resyncs - resyncs >= FUTILE:
                return self._give_up_log()
            place = &self.entries[self.seen & self.mask]
            old = order_load(place)
            entry = <uint64_t> self._lap(self.seen) << LAP_SHIFT | <uint64_t> (pid & PID_MASK) << 30 | number
            if old >> LAP_SHIFT == ((self._lap(self.seen) - 1) & LAP_MASK):
                order_swap(place, old, entry)
            self._look()
        return 0

    cdef int _give_up_log(self) except -1:
        """What stands in the log is not what gateways write: each publish is applied when it comes from now on. Else
        this loop would look for a place in it for ever."""
        cdef Publisher publisher
        log.critical(
            "the memory in which the order of publishes is kept has been damaged: this gateway goes on without "
            "it, and its clients may see an order of their own; restart the server"
        )
        self.damaged = True
        self.out_of_order += 1
        self.at = self.seen
        for publisher in self.publishers.values():
            if publisher.held:
                self._wake(publisher)
        return 0

    cdef int _resync(self) except -1:
        """Too far behind: what was decided is overwritten. What is in the log still is not written again, which would
        only push others out of it."""
        cdef Publisher publisher
        cdef uint64_t entry, place
        cdef uint32_t pid, number
        log.warning("this gateway is more than %d publishes behind another one: for some of them, "
                    "its clients see an order of their own", self.mask + 1)
        self.resyncs += 1
        self.out_of_order += 1
        self.logged.clear()
        for place in range(self.mask + 1):
            entry = order_load(&self.entries[place])
            pid = _pid_of(entry)
            number = entry & NUMBER_MASK
            if pid in self.publishers and _after(number, self.logged.get(pid, number - 1)):
                self.logged[pid] = number
        self.at = self.seen = order_load(&self.log.tail)
        for publisher in self.publishers.values():
            if publisher.held:
                self._wake(publisher)
        return 0

    # ------------------------------------------------------------------ waiting has a limit

    cdef int _wait(self) except -1:
        if self.due == 0:
            self.due = monotonic_ms() + _HOLD_MS
            self.due_at = self.at
        if not self.armed:
            self.armed = True
            self.reactor.call_later((<double> self.due - monotonic_ms()) / 1000, self._on_time)
        return 0

    def _on_time(self) -> None:
        self.armed = False
        self.expire()

    cdef int expire(self) except -1:
        """Gives up what was waited for too long; goes on waiting if anything is held."""
        cdef Publisher publisher
        if self.due and monotonic_ms() >= self.due:
            if self.at == self.due_at:
                self.give_up(f"within {HOLD_MS / 1000:g} s")
            self.due = 0
        for publisher in self.publishers.values():
            if publisher.held:
                return self._wait()
        self.due = 0
        return 0

    cdef double patience(self) except -1:
        """Seconds until expire() has something to do, or many."""
        cdef uint64_t now = monotonic_ms()
        return 3600 if self.due == 0 else 0 if now >= self.due else (<double> self.due - now) / 1000

    cdef int give_up(self, str why) except -1:
        """Goes on without the publish whose turn it is, and without more of that process until it is heard again."""
        cdef uint32_t pid
        if self.at == self.seen:
            return 0
        pid = _pid_of(order_load(&self.entries[self.at & self.mask]))
        log.warning("process %d has published something that has come to another gateway and not to this one %s: "
                    "going on without it, and out of order when it comes", pid, why)
        if len(self.mute) >= REMEMBERED:
            self.mute.clear()
            self.late.clear()
        self.mute.add(pid)
        return self._settle()
