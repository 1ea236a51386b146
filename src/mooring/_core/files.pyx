"""Files that the gateway sends by itself: what is in them crosses no channel, and no worker waits for the client.

Theory
------
* A worker decides what is sent and says how the file can be known again (`FileClaim`). Nothing is taken on trust: a
  path may name another file by now. It is opened without following a link, and must be the very file, as it was, that
  the worker saw; else the worker is told, before a byte of the answer has left, and still has the file open itself.
* The file follows the out-queue: it begins when the head is out, and the connection takes nothing else until it has
  ended. A plain socket gets it by sendfile(2), so no byte of it is in our memory. Through TLS, and from a file system
  that knows no sendfile, it goes through the out-queue, one slice at a time.
* Patience is that of any output: D_WRITE, see pace.pyx.
* sendfile waits for the disk if the file is not in the page cache, and everybody else waits too. So there is one call
  in a turn, of at most SLICE bytes, and the kernel reads ahead meanwhile; a file system that may hang does not belong
  here.
* A file that has become shorter can't be sent as it was promised: the connection ends, which is all that can be said.
"""

from libc.errno cimport EAGAIN, EINTR, EINVAL, EIO, ENOMEM, ENOSYS, EOVERFLOW, ESTALE, errno
from libc.stddef cimport size_t
from libc.stdint cimport INT64_MAX, int64_t, uint64_t
from libc.stdlib cimport calloc, free

import os

from mooring._core.buffer cimport buffer_reserve, buffer_size
from mooring._core.reactor cimport Reactor
from mooring._core.registry cimport (
    ABOVE_HIGH_WATER, BY_SERVER, D_NONE, D_WRITE, DEAD, FULL, HTTP, W_FILE_BROKEN, W_OUT_OF_MEMORY, Connection, blame,
)
from mooring._core.secure cimport SecureTransport
from mooring._core.table cimport Table
from mooring._core.transport cimport count_out, disarm

cdef extern from "sys/types.h" nogil:
    ctypedef long off_t

cdef extern from "sys/sendfile.h" nogil:
    ssize_t sendfile(int to, int fd, off_t* at, size_t size)

cdef extern from "sys/stat.h" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    struct stat_t "stat":
        uint64_t st_dev
        uint64_t st_ino
        unsigned int st_mode
        off_t st_size
        timespec st_mtim
    int fstat(int fd, stat_t* facts)
    int lstat(const char* path, stat_t* facts)
    bint S_ISREG(unsigned int mode)

cdef extern from "fcntl.h" nogil:
    int c_open "open" (const char* path, int flags)
    int posix_fadvise(int fd, off_t first, off_t size, int advice)
    enum:
        O_RDONLY
        O_NOFOLLOW
        O_CLOEXEC
        O_NONBLOCK
        O_NOCTTY
        POSIX_FADV_SEQUENTIAL

cdef extern from "unistd.h" nogil:
    int c_close "close" (int fd)
    ssize_t pread(int fd, void* data, size_t size, off_t at)

cdef enum:
    SLICE = 256 << 10        # bytes of one sendfile, one in a turn
    PIECE = 64 << 10         # bytes that go through the out-queue at once: what TLS encrypts at once
    CHANGED = -1             # of _open
    FAILED = -2

cdef bytes RESET = b"the connection was reset"


cdef inline bint is_claimed(const stat_t* facts, const FileClaim* claim) noexcept:
    return (S_ISREG(facts.st_mode) and facts.st_dev == claim.device and facts.st_ino == claim.inode
            and <uint64_t> facts.st_size == claim.size
            and <int64_t> facts.st_mtim.tv_sec * 1000000000 + facts.st_mtim.tv_nsec == claim.modified)


cdef class FileSender(SecureTransport):
    """Connections that can be sent files."""

    def __cinit__(self, reactor: Reactor, table: Table, gateway: int, first_serial: int, *profiles: dict[str, object],
                  address_limit: int = 0, fresh_limit: int = 0, ceiling: int = 0) -> None:
        self.file_limit = 64

    def __dealloc__(self) -> None:
        cdef size_t slot
        if self.slots != NULL:
            for slot in range(self.slot_count):
                if self.slots[slot] != NULL and self.slots[slot].file != NULL:
                    c_close((<Outfile*> self.slots[slot].file).fd)
                    free(self.slots[slot].file)
                    self.slots[slot].file = NULL

    cdef int on_file_sent(self, Connection* c, bint closes) except -1:
        """The whole file is out, or its last slice is queued."""
        return 0

    cdef int on_file_over(self, Connection* c, uint64_t sent) except -1:
        """Nothing more of the file will be sent: it is closed."""
        return 0

    # ------------------------------------------------------------------ which file

    cdef bint take_file(self, Connection* c, const FileClaim* claim, bytes path, bint closes) except -1:
        cdef Outfile* file
        cdef int fd
        if (claim.length == 0 or claim.size > INT64_MAX or claim.first > claim.size
                or claim.length > claim.size - claim.first or b"\0" in path or path[:1] != b"/"):
            return self._refuse_file(path, "the worker asked for a part that it can't have")
        if self.files_open >= self.file_limit:
            return self._refuse_file(path, f"{self.files_open} others are open, and descriptors are for clients")
        fd = self._open(claim, path)
        if fd == FAILED:
            return self._refuse_file(path, f"it can't be opened: {os.strerror(errno)}")
        if fd == CHANGED:
            return self._refuse_file(path, "it is not the file any more that the worker saw")
        if self.kept_from and fd >= self.kept_from:
            c_close(fd)
            return self._refuse_file(path, "descriptors run short, and are for clients")
        file = <Outfile*> calloc(1, sizeof(Outfile))
        if file == NULL:
            c_close(fd)
            raise MemoryError("no memory to send a file")
        file.fd = fd
        file.closes = closes
        file.sliced = c.tls != NULL
        file.at = claim.first
        file.left = claim.length
        c.file = file
        self.files_open += 1
        return True

    cdef int _open(self, const FileClaim* claim, const char* path) noexcept:
        """A descriptor, CHANGED or FAILED."""
        cdef stat_t facts
        cdef int fd
        # looked at first, because to open a device may do something; and again, because it may be another by now
        if lstat(path, &facts) < 0:
            return FAILED
        if not is_claimed(&facts, claim):
            return CHANGED
        fd = c_open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)
        if fd < 0:
            return FAILED
        if fstat(fd, &facts) < 0 or not is_claimed(&facts, claim):
            c_close(fd)
            return CHANGED
        posix_fadvise(fd, claim.first, claim.length, POSIX_FADV_SEQUENTIAL)
        return fd

    cdef int _refuse_file(self, bytes path, str why) except -1:
        self.counters.files_refused += 1
        if self.on_file_failed is not None:
            self.on_file_failed(f"{os.fsdecode(path)} is left to the worker: {why}")
        return False

    # ------------------------------------------------------------------ out

    cdef int _send_some(self, Connection* c) except -1:
        if c.file == NULL or c.owed or c.flags & ABOVE_HIGH_WATER or buffer_size(&c.out):
            SecureTransport._send_some(self, c)
            if c.file == NULL or c.phase != HTTP:
                return 0
            if c.flags & FULL or c.owed or buffer_size(&c.out):
                return self._await_peer(c)
        elif c.phase != HTTP:
            return SecureTransport._send_some(self, c)
        if (<Outfile*> c.file).sliced:
            return self._send_slice(c)
        return self._send_file(c)

    cdef int _send_file(self, Connection* c) except -1:
        cdef Outfile* file = <Outfile*> c.file
        cdef size_t size = <size_t> file.left if file.left < <uint64_t> SLICE else <size_t> SLICE
        cdef off_t at = <off_t> file.at
        cdef ssize_t sent = sendfile(c.socket, file.fd, &at, size)
        if sent < 0:
            if errno == EINVAL or errno == ENOSYS:
                file.sliced = True
                return self._send_slice(c)
            if errno == EIO or errno == ESTALE or errno == ENOMEM or errno == EOVERFLOW:
                return self._break_file(c, f"it can't be read: {os.strerror(errno)}")
            if errno != EAGAIN and errno != EINTR:
                return self._lost(c, RESET)
            return self._await_peer(c)
        if sent == 0:
            return self._break_file(c, f"it has become shorter: {file.left} bytes are missing")
        c.entry.bytes_sent += sent
        self.counters.bytes_sent += sent
        file.at += sent
        file.left -= sent
        file.sent += sent
        if file.left == 0:
            return self._end_file(c)
        return self._await_peer(c)

    cdef int _send_slice(self, Connection* c) except -1:
        cdef Outfile* file = <Outfile*> c.file
        cdef size_t size = <size_t> file.left if file.left < <uint64_t> PIECE else <size_t> PIECE
        cdef ssize_t got
        if buffer_reserve(&c.out, size) < 0:
            blame(c, W_OUT_OF_MEMORY)
            return self._doom(c, 1006, b"no memory for a slice of a file")
        got = pread(file.fd, c.out.data + c.out.end, size, <off_t> file.at)
        if got < 0 and errno != EINTR:
            return self._break_file(c, f"it can't be read: {os.strerror(errno)}")
        if got == 0:
            return self._break_file(c, f"it has become shorter: {file.left} bytes are missing")
        if got > 0:
            c.out.end += got
            count_out(self, c)
            file.at += got
            file.left -= got
            file.sent += got
        if file.left == 0:
            self._end_file(c)
            return self._mark(c) if c.phase != DEAD else 0
        SecureTransport._send_some(self, c)
        return self._await_peer(c) if c.phase == HTTP else 0

    cdef int _await_peer(self, Connection* c) except -1:
        """Goes on when the kernel has room: in the next turn at the earliest, as others want theirs."""
        c.flags |= FULL
        if c.deadline == D_NONE:
            self.watch_pace(c)
        return self._interest(c)

    # ------------------------------------------------------------------ the end of it

    cdef int _end_file(self, Connection* c) except -1:
        cdef bint closes = (<Outfile*> c.file).closes
        if c.deadline == D_WRITE:
            disarm(self, c)
        self.counters.files_sent += 1
        release_file(self, c)
        return self.on_file_sent(c, closes)

    cdef int _break_file(self, Connection* c, str why) except -1:
        """The rest can't be sent, and the head has promised it."""
        self.counters.files_broken += 1
        if self.on_file_failed is not None:
            self.on_file_failed(f"the file for connection {c.fd} was not sent to its end: {why}")
        blame(c, W_FILE_BROKEN)
        self._decide(c, BY_SERVER, 1006, b"a file could not be sent to its end")
        return self._gone(c, 1006, b"")

    cdef int _doom(self, Connection* c, int code, bytes reason) except -1:
        if c.file != NULL:
            release_file(self, c)
        return SecureTransport._doom(self, c, code, reason)

    cdef int _gone(self, Connection* c, int code, bytes reason) except -1:
        if c.file != NULL:
            release_file(self, c)
        return SecureTransport._gone(self, c, code, reason)


cdef int release_file(FileSender self, Connection* c) except -1:
    cdef Outfile* file = <Outfile*> c.file
    cdef uint64_t sent = file.sent
    c.file = NULL
    c_close(file.fd)
    free(file)
    self.files_open -= 1
    return self.on_file_over(c, sent)
