"""What was given to workers and is not settled, and what became of the rest. Theory in ledger.pyx."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from mooring._core.buffer cimport Buffer
from mooring._core.page cimport Mark, Page
from mooring._core.wire cimport Notice, Record


cdef struct Ticket:
    # one event that a worker was given and has not acknowledged; payload is kept to give it to another
    Record record
    uint64_t order
    uint64_t since       # when it was given
    Buffer payload
    bint used
    bint told            # it has been reported as overdue


cpdef enum Verdict:
    # what becomes of an event whose handler had started when its worker ended
    REPEAT               # it is handled again, in its place
    DOUBT                # it is reported as uncertain
    QUARANTINE           # it is dropped, and reported
    UNREPORTED           # it was a report, and is given up


cdef class Books:
    cdef readonly uint64_t accepted
    cdef readonly uint64_t finished
    cdef readonly uint64_t uncertain
    cdef readonly uint64_t redelivered
    cdef readonly uint64_t repeated  # handled again, their handler having started before
    cdef readonly uint64_t reports_lost
    cdef readonly uint64_t overdue   # reported by take_overdue
    cdef readonly dict dropped       # reason -> count
    cdef readonly size_t kept        # bytes of all events that are with workers or wait for one
    cdef public size_t limit         # how many of them there may be
    cdef bint crowded         # somebody waits for it to become less
    cdef public uint32_t tickets     # of each worker
    cdef uint64_t ledger_bytes        # in flight to each worker
    cdef readonly Backlog limbo      # those for which there is no worker
    cdef readonly list ledgers
    cdef uint64_t order              # number of the last event that was given out

    cpdef int accept(self) except -1
    cpdef int drop(self, str reason, int kind) except -1
    cpdef int end_work(self, Ledger ledger, str dropped) except -1
    cpdef Verdict judge(self, Notice event, bint redeliver) except *


cdef class Backlog:
    cdef Books books
    cdef object events               # a deque of Notice
    cdef readonly size_t size        # bytes of their payloads
    cdef readonly uint32_t count

    cpdef int add(self, Notice event) except -1
    cpdef int add_first(self, Notice event) except -1
    cpdef Notice take(self)
    cdef int _count(self, Notice event, int sign) except -1


cdef class Ledger:
    cdef Books books
    cdef Page page                   # where the worker marks what it has started; None: in this process
    cdef readonly Backlog backlog    # events that wait for a ticket
    # free ticket numbers go round, so that acknowledgements come in ranges
    cdef Ticket* tickets
    cdef uint32_t* free_tickets
    cdef readonly uint32_t size      # tickets
    cdef uint32_t free_head
    cdef readonly uint32_t free
    cdef readonly uint32_t in_flight
    cdef readonly uint64_t in_flight_bytes
    cdef public uint32_t works       # that connections own and its worker runs, see works.pyx
    cdef uint64_t heard              # when its worker last finished something, or had nothing to do

    cdef bint full(self) noexcept
    cdef int give(self, Record* record, const uint8_t* data, uint64_t now) except -1
    cpdef bint settle(self, uint32_t number, int how, uint64_t now) except -1
    cdef int _free(self, Ticket* ticket) except -1
    cdef Mark mark_of(self, uint32_t number, bint torn) noexcept
    cpdef list take_back(self, bint torn, list done)
