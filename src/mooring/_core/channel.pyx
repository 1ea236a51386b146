"""One end of a channel: records in, records out, over a non-blocking stream socket.

Neither side ever blocks on a write, and reading goes on while writing cannot: two full directions would otherwise be a
deadlock. What comes in is parsed where it was received; only the part of a record that is not complete is kept, and the
rest of it put behind that. What is large can leave from where it is (`early`), without being copied into the queue.

What comes in may be nonsense: a fault in the other process, or in something that writes to a descriptor which is not
its own. A record that makes no sense is counted and ignored, and those behind it are read. A head that none can have,
by its kind or its length, says that the stream is lost, as is one for which there was no memory: nothing of it is
believed any more. That is told once (`on_broken`), and what still comes is thrown away; who owns the channel has the
worker at its one end replaced, and the end of that process ends the channel.

A process that has ended may have left its end to others, which it has started; then the stream does not end. `hang_up`
ends it from here: what had been sent is still read, nothing that is sent from then on is.

Who takes records may refuse the next one for a while (`held`). Then nothing more is read, the end of the stream
neither; the other direction goes on.
"""

from libc.errno cimport EAGAIN, ECONNRESET, EINTR, ENOBUFS, ENOMEM, errno
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

import os

from mooring._core.buffer cimport (
    buffer_append, buffer_consume, buffer_free, buffer_reserve, buffer_size,
)
from mooring._core.reactor cimport EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, RECEIVE_BYTES, Reactor, Source
from mooring._core.wire cimport RECORD_BYTES, RECORD_LIMIT, Record

cdef extern from "sys/socket.h" nogil:
    int shutdown(int fd, int how)
    enum:
        MSG_NOSIGNAL
        MSG_DONTWAIT
        SHUT_RDWR

cdef extern from "calls.h" nogil:
    ssize_t mooring_recv(int fd, void* data, size_t size, int flags)
    ssize_t mooring_send(int fd, const void* data, size_t size, int flags)
    ssize_t mooring_send_parts(int fd, const void* first, size_t first_size, const void* second, size_t second_size,
                               const void* third, size_t third_size)

cdef extern from "unistd.h" nogil:
    int close(int fd)

cdef enum:
    LARGE = 32768        # bytes of a record for which a system call of its own costs less than a copy

cdef double RETRY = 0.005            # seconds, when the kernel has no memory for what we send


class BadRecord(ValueError):
    """A record that makes no sense."""


cdef class Channel(Source):
    """Owns descriptor `fd` of a stream socket and closes it."""

    def __cinit__(self, reactor: Reactor, fd: int, *args: object) -> None:
        self.fd = fd
        reactor.add(self)
        self._arm(EPOLLIN)

    def __dealloc__(self) -> None:
        buffer_free(&self.input)
        buffer_free(&self.output)
        if self.fd >= 0:
            close(self.fd)

    cdef bint fits(self, const Record* record) noexcept:
        """Whether this can be the head of a record here."""
        return True

    cdef int on_record(self, const Record* record, const uint8_t* payload) except -1:
        """One whole record; `payload` is valid during the call. 1: not now, see `resume`."""
        return 0

    cdef int on_end(self) except -1:
        """The other end is gone, and all it sent was handed out; on_lost follows. `take` can be given more."""
        return 0

    cdef int on_lost(self, str why) except -1:
        """The other end is gone, or spoke nonsense. Everything it had sent was handed out before."""
        return 0

    cdef int on_bad(self, object problem) except -1:
        """A record was ignored: `problem`, an exception, was raised by `on_record`, or says what is wrong with it."""
        self.reactor._error("handling a record")
        return 0

    cdef int on_broken(self, str why) except -1:
        """The stream that comes in is lost."""
        return self.lose(why)

    @property
    def open(self) -> bool:
        return self.fd >= 0

    def abandon(self) -> None:
        """In a forked child, whose reactor was abandoned before: gives the descriptor back. The buffers stay."""
        if self.fd >= 0:
            close(self.fd)
            self.fd = -1

    def close(self) -> None:
        """Closes the channel without on_lost."""
        cdef int fd = self.fd
        if fd >= 0:
            self.fd = -1
            self.reactor.forget(fd)
            self.reactor.remove(self)
            close(fd)
            buffer_free(&self.input)
            buffer_free(&self.output)

    def hang_up(self) -> None:
        """The process at the other end has ended. What it had sent is read, and then the channel is lost."""
        if self.fd >= 0:
            shutdown(self.fd, SHUT_RDWR)

    cdef int lose(self, str why) except -1:
        if self.fd >= 0:
            self.close()
            self.on_lost(why)
        return 0

    cdef int _tear(self, str why) except -1:
        """Part of what the other end has sent is lost, so the rest means nothing."""
        self.torn = True
        return self.on_broken(why)

    # ------------------------------------------------------------------ in

    cdef int on_ready(self, uint64_t token, uint32_t events) except -1:
        if events & EPOLLOUT and self.fd >= 0:
            self.send_some()
        if events & (EPOLLIN | EPOLLHUP | EPOLLERR) and self.fd >= 0:
            if self.held:
                # not before there is something to read: mostly it is held for a moment
                self._arm(self.armed & ~EPOLLIN)
            else:
                self._read()
        return 0

    cdef int _arm(self, uint32_t events) except -1:
        """Waits for these events. None: the descriptor is taken out, as epoll always tells of a peer that hung up."""
        if events == self.armed or self.fd < 0:
            return 0
        if events == 0:
            self.reactor.forget(self.fd)
        elif self.armed == 0:
            self.reactor.watch(self, self.fd, 0, events)
        else:
            self.reactor.change(self, self.fd, 0, events)
        self.armed = events
        return 0

    cdef int _read(self) except -1:
        return self.read_with(self.reactor.receive_buffer, RECEIVE_BYTES)

    cdef int read_with(self, uint8_t* buffer, size_t size) except -1:
        """Receives once, into a buffer that is the caller's, and hands out what is whole."""
        cdef ssize_t got
        got = mooring_recv(self.fd, buffer, size, MSG_DONTWAIT)
        if got < 0:
            if errno == EAGAIN or errno == EINTR:
                return 0
            if errno == ECONNRESET and not self.reset:
                # it ended with something of ours unread; the kernel says so once, and before what it had sent
                self.reset = True
                return 0
            return self._ended(os.strerror(errno))
        if got == 0:
            return self._ended("the other end closed the channel")
        self.received += got
        return self.take(buffer, got)

    cdef bint read_alive(self, uint8_t* buffer, size_t size) except -1:
        """Like read_with, inside a handler: that the channel has ended is left to the loop. False: nothing came."""
        cdef ssize_t got = mooring_recv(self.fd, buffer, size, MSG_DONTWAIT) if self.fd >= 0 else 0
        if got < 0 and errno == ECONNRESET and not self.reset:
            self.reset = True
            return True
        if got <= 0:
            return False
        self.received += got
        self.take(buffer, got)
        return True

    cdef int _ended(self, str why) except -1:
        if not self.torn:
            self.on_end()
        if self.held:
            self.ended = why
            return self._arm(0)
        return self._over(why)

    cdef int _over(self, str why) except -1:
        if self.fd >= 0 and buffer_size(&self.input):
            self.on_bad(BadRecord("the channel has ended in the middle of a record"))
        return self.lose(why)

    cdef int take(self, const uint8_t* data, size_t size) except -1:
        """The next bytes of the stream that comes in."""
        cdef Py_ssize_t used
        cdef size_t part
        if self.torn:
            return 0
        while size and buffer_size(&self.input) and not self.held:
            part = min(self._missing(), size)
            if buffer_append(&self.input, data, part) < 0:
                return self._tear("no memory for a record")
            data += part
            size -= part
            self._parse_input()
            if self.fd < 0 or self.torn:
                return 0
        if size:
            used = 0 if self.held else self._parse(data, size)
            if (self.fd >= 0 and not self.torn and <size_t> used < size
                    and buffer_append(&self.input, data + used, size - used) < 0):
                return self._tear("no memory for a record")
        return 0

    cdef size_t _missing(self) noexcept:
        """How many bytes complete the record that has begun in `input`, or its head."""
        cdef Record record
        cdef size_t have = buffer_size(&self.input)
        if have < RECORD_BYTES:
            return RECORD_BYTES - have
        memcpy(&record, self.input.data + self.input.start, RECORD_BYTES)
        return RECORD_BYTES + record.size - have

    cdef int _parse_input(self) except -1:
        cdef Py_ssize_t used = self._parse(self.input.data + self.input.start, buffer_size(&self.input))
        if self.torn:
            buffer_free(&self.input)
        elif self.fd >= 0:
            buffer_consume(&self.input, used)
        return 0

    def feed(self, data: bytes) -> None:
        """For tests and tools: takes bytes as if they had been received, out of memory that ends where they end, so
        that a sanitizer sees what reads beyond them."""
        cdef size_t size = len(data)
        cdef uint8_t* copy
        if self.fd < 0 or size == 0:
            return
        copy = <uint8_t*> malloc(size)
        if copy == NULL:
            raise MemoryError("no memory for a copy")
        memcpy(copy, <const uint8_t*> data, size)
        try:
            self.received += size
            self.take(copy, size)
        finally:
            free(copy)

    cdef int resume(self) except -1:
        """Offers the record again that was refused, and goes on with those behind it."""
        if self.fd < 0 or not self.held:
            return 0
        self.held = False
        self._parse_input()
        if self.fd < 0:
            return 0
        if self.held:
            return 0
        return self._arm(self.armed | EPOLLIN) if self.ended is None else self._over(self.ended)

    cdef Py_ssize_t _parse(self, const uint8_t* data, size_t size) except -1:
        """Hands out all whole records; gives the bytes used."""
        cdef size_t at = 0
        cdef int refused
        cdef Record record
        while size - at >= RECORD_BYTES:
            memcpy(&record, data + at, RECORD_BYTES)
            if record.size > RECORD_LIMIT or not self.fits(&record):
                self._tear(f"a record of kind {record.kind} with {record.size} bytes: the stream is broken")
                break
            if size - at - RECORD_BYTES < record.size:
                break
            refused = 0
            try:
                refused = self.on_record(&record, data + at + RECORD_BYTES)
            except Exception as problem:
                # one bad record must not stop those behind it
                self.on_bad(problem)
            if self.fd < 0 or self.torn:
                break
            if refused:
                self.held = True
                break
            at += RECORD_BYTES + record.size
        return at

    # ------------------------------------------------------------------ out

    cdef int put(self, Record* record, const uint8_t* payload) except -1:
        """Queues a record; it leaves before the reactor sleeps."""
        if self.fd < 0:
            return 0
        if record.size > RECORD_LIMIT:
            raise ValueError("a record holds at most 1 GiB")
        if buffer_reserve(&self.output, RECORD_BYTES + record.size) < 0:     # all of it, or nothing
            raise MemoryError("no memory for a record")
        if self.early and record.size >= LARGE and not self.writing:
            self._send_early(record, payload)
        else:
            buffer_append(&self.output, <const uint8_t*> record, RECORD_BYTES)
            buffer_append(&self.output, payload, record.size)
        if buffer_size(&self.output):
            self.reactor.mark_dirty(self)
        return 0

    cdef int _send_early(self, const Record* record, const uint8_t* payload) noexcept:
        """Offers the kernel what is queued and the record behind it, and queues what it did not take: there is room."""
        cdef size_t queued = buffer_size(&self.output)
        cdef ssize_t sent = mooring_send_parts(self.fd, self.output.data + self.output.start, queued,
                                               record, RECORD_BYTES, payload, record.size)
        cdef size_t taken = sent if sent > 0 else 0          # an error will be met again, where it can be dealt with
        cdef size_t over = taken - queued if taken > queued else 0
        self.sent += taken
        if over < RECORD_BYTES:
            buffer_append(&self.output, <const uint8_t*> record + over, RECORD_BYTES - over)
            over = RECORD_BYTES
        buffer_append(&self.output, payload + (over - RECORD_BYTES), record.size - (over - RECORD_BYTES))
        buffer_consume(&self.output, min(taken, queued))
        return 0

    cdef int flush(self) except -1:
        if self.fd >= 0 and not self.writing:
            self.send_some()
        return 0

    cdef int send_some(self) except -1:
        cdef ssize_t sent
        while buffer_size(&self.output):
            sent = mooring_send(self.fd, self.output.data + self.output.start, buffer_size(&self.output),
                                MSG_NOSIGNAL | MSG_DONTWAIT)
            if sent < 0:
                if errno == EINTR:
                    continue
                if errno == EAGAIN:
                    return self.wait_writable(True)
                if errno == ENOBUFS or errno == ENOMEM:
                    # the socket would be said to be writable, so time is waited for
                    if not self.writing:
                        self.writing = True
                        self.reactor.call_later(RETRY, self._send_again)
                    return 0
                # the other end is gone: what it sent before is read first, then EOF says so
                buffer_free(&self.output)
                break
            self.sent += sent
            buffer_consume(&self.output, sent)
        return self.wait_writable(False)

    def _send_again(self) -> None:
        if self.fd >= 0:
            self.writing = False
            self.send_some()

    cdef int wait_writable(self, bint wanted) except -1:
        if wanted != self.writing:
            self.writing = wanted
            self._arm(self.armed | EPOLLOUT if wanted else self.armed & ~EPOLLOUT)
        return 0
