"""The connection table of one gateway, in memory that the workers can read.

`exists`, `is_established`, `connections` and `get_client_info` are asked often and about every connection, from every
worker. So the gateway keeps what the world may know of its connections in a memory file; workers map it read-only and
ask without a message. One writer, any number of readers, no lock: an entry is valid while its `fd` is the one asked
for, and `fd` is written last when a slot is taken and first when it is freed. An fd is never given out twice, so a
reader that finds the same fd before and after copying an entry has copied that connection's entry.

Readers are not trusted: the file is sealed (`seal`), so that no process can write into it or cut it, and what the
gateway goes by (how many slots there are, who is in them) stands in memory of its own.

An fd is 63 bits: number of the gateway (6), serial (35), slot (22). The serial counts accepted connections and starts
at a number that the runtime chooses anew for each start, so an fd does not come back after a restart either.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, Py_buffer, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

import errno
import fcntl
import mmap
import os
import socket
import time

from mooring.types import ClientInfo, ConnectionState

cdef extern from *:
    """
    #define mooring_load(p) __atomic_load_n(p, __ATOMIC_ACQUIRE)
    #define mooring_fence() __atomic_thread_fence(__ATOMIC_ACQUIRE)
    """
    uint64_t mooring_load(const uint64_t* where) noexcept nogil
    void mooring_fence() noexcept nogil

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
_SEAL_FUTURE_WRITE = 0x10            # fcntl has it from Python 3.13 on

cdef uint64_t MAGIC = 0x6D6F6F72696E6701


cdef class Table:
    """`Table(file, slots)` sizes the memory file and writes; `Table(file)` reads what another process writes."""

    def __cinit__(self, file: int, slots: int = 0) -> None:
        cdef Py_buffer view
        self.file = file
        if slots:
            if not 0 < slots < 1 << SLOT_BITS:
                raise ValueError(f"{slots} connections: a table holds 1 to {(1 << SLOT_BITS) - 1}")
            os.ftruncate(file, HEADER_BYTES + slots * sizeof(Entry))
            self.memory = mmap.mmap(file, 0)
            PyObject_GetBuffer(self.memory, &view, PyBUF_WRITABLE)
            self.header = <TableHeader*> view.buf
            PyBuffer_Release(&view)
            self.entries = <Entry*> (<uint8_t*> self.header + HEADER_BYTES)
            self.slots = slots
            self.header.slots = slots
            self.header.epoch = time.time() - time.monotonic()
            self.header.magic = MAGIC

    def seal(self) -> None:
        """From here on no other process can write into the file (where the kernel knows of that, Linux 5.1) or cut it,
        which would end this one with SIGBUS. For the writer, of a memory file that can be sealed."""
        for seals in (_SEALS | fcntl.F_SEAL_SEAL | _SEAL_FUTURE_WRITE, _SEALS | fcntl.F_SEAL_SEAL):
            try:
                fcntl.fcntl(self.file, fcntl.F_ADD_SEALS, seals)
                break
            except OSError as error:
                if error.errno != errno.EINVAL or not seals & _SEAL_FUTURE_WRITE:
                    raise
        if os.fstat(self.file).st_size != HEADER_BYTES + self.slots * sizeof(Entry):
            raise OSError(errno.EIO, "the table of connections was cut before it could be sealed")

    cdef bint map(self) except -1:
        """Maps the file once its writer has sized it."""
        cdef Py_buffer view
        cdef uint32_t slots
        if self.header == NULL and os.fstat(self.file).st_size:
            memory = mmap.mmap(self.file, 0, prot=mmap.PROT_READ)
            PyObject_GetBuffer(memory, &view, PyBUF_SIMPLE)
            slots = (<TableHeader*> view.buf).slots if view.len >= HEADER_BYTES else 0
            room = (view.len - HEADER_BYTES) // sizeof(Entry)
            if slots and (<TableHeader*> view.buf).magic == MAGIC and slots <= room:
                self.memory = memory
                self.header = <TableHeader*> view.buf
                self.entries = <Entry*> (<uint8_t*> view.buf + HEADER_BYTES)
                self.slots = slots
            PyBuffer_Release(&view)
        return self.header != NULL

    cdef const Entry* find(self, uint64_t fd) noexcept:
        cdef uint32_t slot = slot_of(fd)
        if self.header == NULL:
            try:
                if not self.map():
                    return NULL
            except Exception:
                return NULL
        if slot >= self.slots or mooring_load(&self.entries[slot].fd) != fd or fd == 0:
            return NULL
        return &self.entries[slot]

    cdef bint is_established(self, uint64_t fd) noexcept:
        cdef const Entry* entry = self.find(fd)
        return entry != NULL and entry.state == ST_OPEN

    def exists(self, fd: int) -> bool:
        return self.find(fd) != NULL

    def is_open(self, fd: int) -> bool:
        """Whether it is an open WebSocket."""
        return self.is_established(fd)

    def opened(self, fd: int) -> bool:
        """Whether the `open` handler of this connection is done."""
        cdef const Entry* entry = self.find(fd)
        return entry != NULL and entry.opened != 0

    def state(self, fd: int) -> int:
        """A ConnectionState, or 0 for an fd that is no connection."""
        cdef const Entry* entry = self.find(fd)
        return entry.state if entry != NULL else 0

    def owner(self, fd: int) -> int:
        """pid of the worker that serves the connection; 0 for none."""
        cdef const Entry* entry = self.find(fd)
        return entry.owner if entry != NULL else 0

    def served(self, pid: int) -> list[tuple[int, int, int, bool]]:
        """(fd, state, listener, whether its `open` handler is done) of the connections that this worker serves."""
        cdef uint32_t slot
        found = []
        if self.map():
            for slot in range(min(self.header.used, self.slots)):
                if self.entries[slot].owner == <uint32_t> pid and mooring_load(&self.entries[slot].fd):
                    found.append((self.entries[slot].fd, self.entries[slot].state, self.entries[slot].listener,
                                  self.entries[slot].opened != 0))
        return found

    cdef list of_user(self, uint64_t user):
        """The fds of the connections whose `user` is this."""
        cdef uint32_t slot
        cdef uint64_t fd
        cdef list found = []
        if self.map():
            for slot in range(min(self.header.used, self.slots)):
                if self.entries[slot].user == user:
                    fd = mooring_load(&self.entries[slot].fd)
                    if fd:
                        found.append(fd)
        return found

    def connections(self) -> list[int]:
        """The fds of all connections now."""
        cdef uint32_t slot
        cdef uint64_t fd
        found = []
        if self.map():
            for slot in range(min(self.header.used, self.slots)):
                fd = mooring_load(&self.entries[slot].fd)
                if fd:
                    found.append(fd)
        return found

    def age(self, fd: int) -> float:
        """Seconds for which it is connected; 0 when it is gone."""
        cdef const Entry* entry = self.find(fd)
        return max(0.0, time.monotonic() - entry.connected / 1000.0) if entry != NULL else 0.0

    def info(self, fd: int) -> ClientInfo | None:
        """What is known of a connection, or None when it is gone."""
        cdef const Entry* entry = self.find(fd)
        cdef Entry copy
        if entry == NULL:
            return None
        memcpy(&copy, entry, sizeof(copy))
        mooring_fence()
        if mooring_load(&entry.fd) != <uint64_t> fd or copy.fd != <uint64_t> fd:
            return None
        return ClientInfo(
            fd=fd,
            state=ConnectionState(copy.state),
            remote_ip=address_text(copy.family, copy.address),
            remote_port=copy.remote_port,
            server_port=copy.server_port,
            worker_id=copy.worker - 1 if copy.worker else None,
            connect_time=self.header.epoch + copy.connected / 1000.0,
            last_receive_time=self.header.epoch + copy.received / 1000.0,
            messages_received=copy.messages_received,
            messages_sent=copy.messages_sent,
            bytes_received=copy.bytes_received,
            bytes_sent=copy.bytes_sent,
            in_flight=copy.in_flight,
            round_trip=copy.round_trip / 1e6 if copy.round_trip else None,
            listener=copy.listener,
            spawned=copy.spawned,
        )


cdef str address_text(int family, const uint8_t* address):
    if family == 4:
        return socket.inet_ntop(socket.AF_INET, address[:4])
    if family == 6:
        return socket.inet_ntop(socket.AF_INET6, address[:16])
    return ""
