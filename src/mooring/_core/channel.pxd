"""One end of a channel: records in, records out, over a non-blocking stream socket."""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from mooring._core.buffer cimport Buffer
from mooring._core.reactor cimport Source
from mooring._core.wire cimport Record


cdef class Channel(Source):
    cdef object __weakref__
    cdef int fd                      # -1 once the channel is lost or closed
    cdef Buffer input                # the beginning of a record whose rest has not arrived
    cdef Buffer output               # records not yet taken by the kernel
    cdef bint writing                # EPOLLOUT is armed: the kernel's buffer is full
    cdef bint early                  # large records need not wait for the end of the turn
    cdef bint held                   # on_record has refused the record at the front of `input` for now
    cdef uint32_t armed              # what epoll waits for; 0: it does not know the descriptor
    cdef str ended                   # why the other end is gone, while its last records are held
    cdef bint reset                  # the kernel has told that the other end left something of ours unread
    cdef readonly bint torn          # a part of what came was lost; what still comes is thrown away
    cdef uint64_t received            # bytes, since the beginning of either stream
    cdef uint64_t sent

    cdef bint fits(self, const Record* record) noexcept
    # 1: not now. It is asked again after resume(), and nothing behind it is handed out before
    cdef int on_record(self, const Record* record, const uint8_t* payload) except -1
    cdef int resume(self) except -1
    cdef int _arm(self, uint32_t events) except -1
    cdef int on_end(self) except -1
    cdef int on_lost(self, str why) except -1
    cdef int on_bad(self, object problem) except -1
    cdef int on_broken(self, str why) except -1
    cdef int _ended(self, str why) except -1
    cdef int _over(self, str why) except -1
    cdef int put(self, Record* record, const uint8_t* payload) except -1
    cdef int send_some(self) except -1
    cdef int wait_writable(self, bint wanted) except -1
    cdef int lose(self, str why) except -1
    cdef int _tear(self, str why) except -1
    cdef Py_ssize_t _parse(self, const uint8_t* data, size_t size) except -1
    cdef size_t _missing(self) noexcept
    cdef int _parse_input(self) except -1
    cdef int _send_early(self, const Record* record, const uint8_t* payload) noexcept
    cdef int take(self, const uint8_t* data, size_t size) except -1
    cdef int _read(self) except -1
    cdef int read_with(self, uint8_t* buffer, size_t size) except -1
    cdef bint read_alive(self, uint8_t* buffer, size_t size) except -1
