"""The memory that a worker and a gateway share: what of a worker survives its death.

Stores into shared memory survive SIGKILL, because the memory belongs to the kernel and not to the process. So the
worker leaves there, without a system call, what the gateway could not know otherwise:

*Marks*, one byte per ticket: the handler was not started, was started, or is done and all it sent is safe.

*The journal*. What a handler sends stands in the worker's memory until its turn ends, and many handlers run in one
turn; without more, all of that would be lost with the worker, and all those handlers were in doubt though they had
ended. So when a handler ends, what the kernel does not have yet is copied into the journal. Positions are counted in
bytes from the beginning of the stream: the gateway knows how many it has received, the journal says where it begins,
and so it needs no other agreement about what had been sent. `start` and `size` only change such that any byte that a
mark DONE relies on is either in the journal or with the kernel:

    nothing in it is needed any more (the kernel has it all)     begin anew
    there is room behind it                                      append
    otherwise                                                    refused: the handler stays STARTED, which is true, too

*What is applied*, written by the gateway: how many bytes of the worker's stream of commands. The worker asks the
gateway's table about connections, and knows so whether the table shows what it has decided already (gateway_end.pyx).

Neither side believes what the other may have written. The worker goes by numbers of its own and leaves copies here; the
gateway reads each once, checks it, and takes a copy of the journal before it looks into it. The file is sealed: nobody
can cut it and so end the other side with SIGBUS.

*The beat*, a time that a timer of the worker's loop writes: how a gateway knows of a worker with nothing to do whether
it would do anything.

What a handler has sent that did not end is not copied: of a killed worker, either all of a `def` handler is seen, or
nothing.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy
from libc.errno cimport errno

import os

from mooring._core.buffer cimport Buffer, buffer_size

cdef extern from *:
    """
    /* In this order for whoever looks later; a killed process has done all its stores up to some instruction. */
    #define publish_size(place, value) __atomic_store_n((place), (value), __ATOMIC_RELEASE)
    #define publish_mark(place, value) __atomic_store_n((place), (uint8_t) (value), __ATOMIC_RELEASE)
    /* Once: a compiler may read other memory as often as it likes, and this may have changed meanwhile. */
    #define read_size(place) __atomic_load_n((place), __ATOMIC_ACQUIRE)
    #define read_mark(place) __atomic_load_n((place), __ATOMIC_ACQUIRE)
    """
    uint64_t read_size(const uint64_t* place) noexcept nogil
    uint8_t read_mark(const uint8_t* place) noexcept nogil
    void publish_size(uint64_t* place, uint64_t value) noexcept nogil
    void publish_mark(uint8_t* place, int value) noexcept nogil

cdef extern from "sys/mman.h" nogil:
    void* mmap(void* address, size_t size, int protection, int flags, int fd, long offset)
    int munmap(void* address, size_t size)
    enum:
        PROT_READ
        PROT_WRITE
        MAP_SHARED
    void* MAP_FAILED

PAGE_BYTES = sizeof(Shared)


cdef class Page:
    """One page, mapped; takes over its descriptor. It has PAGE_BYTES bytes, all 0 at first."""

    def __init__(self, fd: int) -> None:
        cdef void* memory
        try:
            if self.shared != NULL or os.fstat(fd).st_size < PAGE_BYTES:
                raise ValueError(f"a page is mapped once, and has {PAGE_BYTES} bytes")
            # not Python's mmap: that needs another descriptor, which there may not be
            memory = mmap(NULL, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
            if memory == MAP_FAILED:
                raise OSError(errno, f"mapping a page: {os.strerror(errno)}")
            self.shared = <Shared*> memory
        finally:
            os.close(fd)

    def __dealloc__(self) -> None:
        if self.shared != NULL:
            munmap(self.shared, sizeof(Shared))

    cdef int mark(self, uint32_t ticket, Mark mark) noexcept:
        if ticket < MARKS:
            publish_mark(&self.shared.marks[ticket], mark)
        return 0

    cdef Mark mark_of(self, uint32_t ticket) noexcept:
        """What a worker has left; anything strange counts as started."""
        cdef uint8_t mark = read_mark(&self.shared.marks[ticket]) if ticket < MARKS else STARTED
        return NOT_STARTED if mark == NOT_STARTED else DONE if mark == DONE else STARTED

    # ------------------------------------------------------------------ the worker's side

    cdef bint keep(self, uint64_t sent, const Buffer* output, size_t most) noexcept:
        """Copies what is not in the journal yet; `output` begins at position `sent` of the stream. False: there is no
        room, or it is more than `most`."""
        cdef Shared* shared = self.shared
        cdef uint64_t end = sent + buffer_size(output)
        cdef uint64_t kept = self.start + self.size
        cdef uint64_t more
        if kept <= sent:
            self.size = 0
            self.start = sent
            publish_size(&shared.size, 0)
            publish_size(&shared.start, sent)
            kept = sent
        if kept >= end:
            return True
        more = end - kept
        if more > most or more > JOURNAL_BYTES - self.size:
            return False
        memcpy(shared.journal + self.size, output.data + output.start + (kept - sent), more)
        self.size += more
        publish_size(&shared.size, self.size)
        return True

    cdef uint64_t applied(self) noexcept:
        return read_size(&self.shared.applied)

    cdef uint64_t waited(self, uint32_t ticket, uint64_t now) noexcept:
        """Milliseconds since the event on that ticket was given; 0: who knows."""
        cdef uint32_t waited
        if ticket >= MARKS:
            return 0
        waited = <uint32_t> now - self.shared.offered[ticket]
        return waited if waited < 0x80000000 else 0

    # ------------------------------------------------------------------ the gateway's side

    cdef int offer(self, uint32_t ticket, uint64_t now) noexcept:
        """The event on that ticket is given to the worker."""
        if ticket < MARKS:
            self.shared.offered[ticket] = <uint32_t> now
        return self.mark(ticket, NOT_STARTED)

    cdef int note_applied(self, uint64_t bytes) noexcept:
        publish_size(&self.shared.applied, bytes)
        return 0

    cdef uint64_t last_beat(self) noexcept:
        return read_size(&self.shared.beat)

    cdef bytes rest(self, uint64_t received):
        """What a dead worker had kept beyond the bytes that were received from it. A copy: a descendant of it may go on
        to write here, and what was looked at must not change."""
        cdef uint64_t start = read_size(&self.shared.start)
        cdef uint64_t kept = read_size(&self.shared.size)
        if kept > JOURNAL_BYTES or received < start or received - start >= kept:
            return b""
        received -= start
        return PyBytes_FromStringAndSize(<const char*> self.shared.journal + received, kept - received)
