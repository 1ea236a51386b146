"""A worker, as a gateway sees it, whatever leads to it. Words in worker_end.pyx."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from mooring._core.ledger cimport Books, Ledger
from mooring._core.order cimport Publisher
from mooring._core.reactor cimport Reactor
from mooring._core.wire cimport Record


cdef class Receiver:
    cdef readonly Books books
    cdef readonly Reactor reactor

    # 1: not now, see Publisher.go_on
    cdef int on_command(self, WorkerEnd worker_end, const Record* record, const uint8_t* payload) except -1
    cdef int on_lost(self, WorkerEnd worker_end, str why) except -1
    cdef int on_bad(self, WorkerEnd worker_end, object problem) except -1
    cdef int on_broken(self, WorkerEnd worker_end, str why) except -1


cdef class WorkerEnd(Publisher):
    cdef object __weakref__
    cdef readonly Receiver receiver
    cdef readonly Ledger ledger
    cdef public int index            # place in relay.worker_ends, -1 when it is in none
    cdef readonly int worker
    cdef readonly int generation
    cdef public int pid
    cdef public int wants            # flags of its HELLO: what its application has handlers for
    cdef readonly bint serves        # may be given connections (a sibling's worker in base mode may not)
    cdef public bint usable          # its worker has said HELLO and is not lost
    cdef public bint retiring        # gets no new connection; those it has move when it has finished them
    cdef readonly bint departed      # was told that nothing more comes
    cdef bint going_on               # Relay._went_on is at work
    cdef public uint32_t bound       # connections it serves
    cdef uint64_t spared             # see shares.pyx
    # who waits: fds of connections; see parking.pyx
    cdef list waiting                # that hold
    cdef list parts                  # that hold a part of a body
    cdef uint64_t woken_in           # a turn, and how many of `waiting` were woken in it
    cdef uint32_t woken
    cdef bint waking                 # the rest of `waiting` is looked at in the next turn

    cdef int transmit(self, Record* record, const uint8_t* payload) except -1
    cdef int hand_over(self) except -1
    cdef int make_room(self, size_t size) noexcept
    cdef bint torn(self) noexcept
    cpdef size_t unsent(self) noexcept
    cpdef int say(self, int kind, uint32_t extra=*, bytes payload=*, uint64_t fd=*) except -1
