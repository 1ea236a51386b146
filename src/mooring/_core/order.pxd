"""One order of publishes for all gateways of a host. Theory in order.pyx."""

from libc.stdint cimport uint32_t, uint64_t

from mooring._core.reactor cimport Source

cdef enum:
    ENTRIES = 1 << 20                # publishes that a gateway may be behind another one
    NUMBER_MASK = (1 << 30) - 1      # of the number of a publish; a process id has 22 bits, a lap the 12 above


cdef struct LogHead:
    uint64_t tail                    # where the next entry goes
    uint64_t unused[7]               # it has a cache line of its own; behind it the entries, a power of two of them


# What a record of a publish carries: whose it is, and its number among those of that process.
cdef inline uint64_t stamp_of(uint32_t pid, uint32_t number) noexcept:
    return <uint64_t> pid << 32 | (number & NUMBER_MASK)


cdef class Publisher:
    """A worker whose publishes come to this gateway, in the order of their numbers."""

    cdef uint32_t origin             # its process id; 0: not known yet
    cdef uint32_t passed             # number of its newest publish that was applied here
    cdef readonly bint held          # its next one is here, and waits for its turn

    # It is its turn, or may be: what waits is to be given to Order.admit again.
    cdef int go_on(self) except -1


cdef class Order(Source):
    cdef object memory               # the mmap
    cdef LogHead* log
    cdef uint64_t* entries
    cdef uint64_t mask               # their number less one
    cdef int bits                    # and its logarithm
    cdef uint64_t at                 # entry whose turn it is
    cdef uint64_t seen               # the first entry not looked at yet
    cdef dict publishers             # pid -> Publisher
    cdef dict logged                 # pid -> number of its newest publish in the log
    # pids: those that will send no more; of whom was waited for in vain, and how far was gone on without them;
    # which of these were not heard since
    cdef dict gone
    cdef dict late
    cdef set mute
    cdef list ready                  # whose turn has come
    cdef bint running
    cdef uint64_t due                # when the entry at `due_at` is waited for no longer; 0: nobody waits
    cdef uint64_t due_at
    cdef bint armed                  # a call of the reactor will look at `due`
    cdef readonly uint64_t out_of_order
    cdef uint64_t resyncs
    cdef readonly bint damaged       # what is in the log was written by nobody who may

    cdef int meet(self, Publisher publisher, uint64_t stamp) except -1
    cdef int forget(self, Publisher publisher) except -1
    cdef bint admit(self, Publisher publisher, uint64_t stamp) except -1
    cdef int run(self) except -1
    cdef int expire(self) except -1
    cdef double patience(self) except -1
    cdef int give_up(self, str why) except -1
    cdef uint32_t _lap(self, uint64_t position) noexcept
    cdef bint _turn(self, uint32_t pid, uint32_t number) except -1
    cdef int _settle(self) except -1
    cdef int _look(self) except -1
    cdef int _write(self, uint32_t pid, uint32_t number) except -1
    cdef int _resync(self) except -1
    cdef int _give_up_log(self) except -1
    cdef int _wait(self) except -1
