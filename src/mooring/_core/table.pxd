"""The connection table of one gateway, in memory that the workers can read. Theory in table.pyx."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    SLOT_BITS = 22
    SERIAL_BITS = 35
    GATEWAY_SHIFT = 57
    HEADER_BYTES = 64

cdef enum:
    # what the world may know of a connection's state; types.ConnectionState has the same numbers
    ST_HTTP = 1
    ST_OPEN = 2
    ST_CLOSING = 3


cdef struct TableHeader:
    uint64_t magic
    uint32_t slots
    uint32_t used                    # no slot at or above this was ever taken
    double epoch                     # unix seconds at monotonic 0: for people, no deadline reads it


cdef struct Entry:
    uint64_t fd                      # 0: free. Written last when taken, first when freed
    uint8_t state
    uint8_t family                   # 4, 6, or 0 for a Unix socket
    uint16_t remote_port
    uint16_t server_port
    uint16_t in_flight
    uint16_t worker                  # number + 1; 0: none yet
    uint16_t spawned                 # pieces of work that it owns
    uint32_t owner                   # pid of that worker
    uint8_t address[16]
    uint64_t connected               # monotonic milliseconds
    uint64_t received                # likewise: when the last byte came
    uint32_t round_trip              # microseconds a pong took to come back; 0: not measured
    uint16_t listener                # index of the one it came from
    uint16_t opened                  # its `open` handler is done; it has not closed yet
    uint64_t bytes_received
    uint64_t bytes_sent
    uint32_t messages_received
    uint32_t messages_sent
    uint64_t user                    # user_mark of whom it is bound to; 0: nobody


cdef inline uint32_t slot_of(uint64_t fd) noexcept nogil:
    return fd & ((1 << SLOT_BITS) - 1)


cdef inline uint64_t user_mark(const uint8_t* name, Py_ssize_t size) noexcept nogil:
    """A number for a user id, by which its connections are found; 0 for the empty one (FNV-1a)."""
    cdef uint64_t prime = 0x100000001B3
    cdef uint64_t mark = 0xCBF29CE484222325
    cdef Py_ssize_t i
    if size == 0:
        return 0
    for i in range(size):
        mark = (mark ^ name[i]) * prime
    return mark if mark else 1


cdef str address_text(int family, const uint8_t* address)


cdef class Table:
    cdef object memory               # the mmap; None until the gateway has sized the file
    cdef int file
    cdef TableHeader* header
    cdef Entry* entries
    cdef readonly uint32_t slots

    cdef const Entry* find(self, uint64_t fd) noexcept
    cdef bint is_established(self, uint64_t fd) noexcept
    cdef list of_user(self, uint64_t user)
    cdef bint map(self) except -1
