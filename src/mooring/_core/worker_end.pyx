"""A worker, as a gateway sees it, whatever leads to it: a channel (channel_link.pyx) or a call (local.pyx).

Events go up through a worker end, and what comes down through it goes to a receiver: that of its gateway
(commands.pyx).
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from mooring._core.order cimport Publisher
from mooring._core.wire cimport EV_DEPART, Record, make_record


cdef class Receiver:
    """What a worker end asks of its gateway."""

    cdef int on_command(self, WorkerEnd worker_end, const Record* record, const uint8_t* payload) except -1:
        """One command of that worker, whose head `is_command`. 1: not now. BadRecord for one that makes no sense."""
        raise NotImplementedError

    cdef int on_lost(self, WorkerEnd worker_end, str why) except -1:
        """The worker has ended, and all it had sent is done."""
        raise NotImplementedError

    cdef int on_bad(self, WorkerEnd worker_end, object problem) except -1:
        """A record had no effect."""
        raise NotImplementedError

    cdef int on_broken(self, WorkerEnd worker_end, str why) except -1:
        """What still comes means nothing."""
        raise NotImplementedError


cdef class WorkerEnd(Publisher):
    """One worker. Subclasses carry records to it."""

    def __cinit__(self, receiver: Receiver, worker: int, generation: int = 0, serves: bool = True,
                  *args: object) -> None:
        self.receiver = receiver
        self.ledger = receiver.books.open(receiver.books.tickets)
        self.index = -1
        self.worker = worker
        self.generation = generation
        self.serves = serves
        self.waiting = []
        self.parts = []

    cdef int transmit(self, Record* record, const uint8_t* payload) except -1:
        """Carries one record to the worker."""
        return 0

    cdef int hand_over(self) except -1:
        """Gives the kernel what was transmitted, as far as it takes it: the supervisor, who hears next that this worker
        may go, tells it by another way, which must not be the shorter one."""
        return 0

    cdef int make_room(self, size_t size) noexcept:
        """Memory for a record of that size, which `transmit` then has; -1: there is none."""
        return 0

    cdef bint torn(self) noexcept:
        """Whether a part of what it sent was lost."""
        return False

    cpdef size_t unsent(self) noexcept:
        """Bytes for the worker that the kernel has not taken."""
        return 0

    @property
    def in_flight(self) -> int:
        """Events that it was given and has not finished."""
        return self.ledger.in_flight

    @property
    def silent(self) -> int:
        """Milliseconds for which it has had something to do and has finished nothing."""
        return self.ledger.silent(self.receiver.reactor.now)

    @property
    def still(self) -> int:
        """Milliseconds for which its loop was not seen to turn, whether it has something to do or not."""
        return 0

    def close(self) -> None:
        """Gives up the connection to the worker."""

    def reply(self, call: int, payload: bytes) -> None:
        """Answers a call of the worker."""

    def depart(self) -> None:
        """Tells the worker that nothing more will come."""
        self.departed = True
        self.say(EV_DEPART)
        self.hand_over()

    cpdef int say(self, int kind, uint32_t extra=0, bytes payload=b"", uint64_t fd=0) except -1:
        """An event on no ticket."""
        cdef Record record = make_record(kind, fd, <uint32_t> len(payload))
        record.extra = extra
        return self.transmit(&record, payload)
