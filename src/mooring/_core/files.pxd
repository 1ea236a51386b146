"""Files on their way to clients. Theory in files.pyx."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint32_t, uint64_t

from mooring._core.registry cimport Connection
from mooring._core.secure cimport SecureTransport


cdef struct FileClaim:
    # what a worker saw of a file, and which part of it is to be sent; begins the payload of a FILE record
    uint64_t device, inode
    uint64_t size
    int64_t modified                 # nanoseconds
    uint64_t first, length


cdef struct Outfile:
    int fd
    bint closes                      # the connection ends behind it
    bint sliced                      # it goes through the out-queue, a slice at a time
    uint64_t at                      # of the file, the next byte to send
    uint64_t left
    uint64_t sent


cdef class FileSender(SecureTransport):
    cdef public object on_file_failed        # called with what is wrong with a file; None: nobody is told
    cdef public uint32_t file_limit          # files that may be open at once
    cdef readonly uint32_t files_open

    cdef int on_file_sent(self, Connection* c, bint closes) except -1
    cdef int on_file_over(self, Connection* c, uint64_t sent) except -1
    # Opens the file, if it is still the one that was claimed; it goes out behind what is queued. Whether it was taken.
    cdef bint take_file(self, Connection* c, const FileClaim* claim, bytes path, bint closes) except -1

    cdef int _open(self, const FileClaim* claim, const char* path) noexcept
    cdef int _refuse_file(self, bytes path, str why) except -1
    cdef int _send_file(self, Connection* c) except -1
    cdef int _send_slice(self, Connection* c) except -1
    cdef int _await_peer(self, Connection* c) except -1
    cdef int _end_file(self, Connection* c) except -1
    cdef int _break_file(self, Connection* c, str why) except -1
