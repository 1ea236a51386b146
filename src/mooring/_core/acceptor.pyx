"""Accepts clients from a listening socket.

At most ACCEPTS of them in one turn, so that a crowd of newcomers does not keep those who are in waiting. When the process
runs out of descriptors the listener is left alone for a moment instead of spinning on an event that cannot be served.
"""

from libc.errno cimport (
    EAGAIN, ECONNABORTED, EINTR, EMFILE, ENFILE, ENOBUFS, ENOMEM, EPERM, EPROTO, errno,
)
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

import logging
import os

from mooring._core.table cimport address_text
from mooring._core.reactor cimport EPOLLEXCLUSIVE, EPOLLIN, Reactor, Source
from mooring._core.transport cimport Transport

log = logging.getLogger("mooring.gateway")

cdef extern from "sys/socket.h" nogil:
    ctypedef unsigned short sa_family_t
    struct sockaddr_storage:
        sa_family_t ss_family
    struct sockaddr:
        pass
    int accept4(int fd, sockaddr* address, unsigned int* size, int flags)
    ssize_t c_send "send" (int fd, const void* data, size_t size, int flags)
    enum:
        SOCK_NONBLOCK
        SOCK_CLOEXEC
        MSG_NOSIGNAL
        AF_INET
        AF_INET6

cdef extern from "netinet/in.h" nogil:
    struct in_addr:
        uint32_t s_addr
    struct in6_addr:
        uint8_t s6_addr[16]
    struct sockaddr_in:
        uint16_t sin_port
        in_addr sin_addr
    struct sockaddr_in6:
        uint16_t sin6_port
        in6_addr sin6_addr
    uint16_t ntohs(uint16_t value)

cdef extern from "unistd.h" nogil:
    int c_close "close" (int fd)

cdef enum:
    ACCEPTS = 64
    PAUSE_MS = 100
    QUIET_MS = 1000          # at most one log line of a kind in this time

cdef const char* MAPPED = b"\0\0\0\0\0\0\0\0\0\0\xff\xff"

cdef bytes CROWD = (
    b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 5\r\nConnection: close\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\nContent-Length: 39\r\n\r\nToo many connections from your address."
)
cdef bytes FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\nContent-Length: 32\r\n\r\nThe server is full. Retry later."
)


cdef class Acceptor(Source):
    """Takes clients of the listening socket `fd` (not owned) into `connections`, with the profile of that index, until
    stop(). Raises ValueError when there is no such profile."""

    cdef Transport connections
    cdef int fd
    cdef int port
    cdef int listener
    cdef bint listening
    cdef uint64_t logged

    def __cinit__(self, reactor: Reactor, connections: Transport, fd: int, port: int, listener: int = 0) -> None:
        if not 0 <= listener < connections.listeners:
            raise ValueError(f"there is no profile {listener}: the connections have {connections.listeners}")
        self.connections = connections
        self.fd = fd
        self.port = port
        self.listener = listener
        reactor.add(self)
        self._listen()

    def _listen(self) -> None:
        if self.fd >= 0 and not self.listening:
            # several gateways share the socket: one of them is woken per client, not all
            self.reactor.watch(self, self.fd, 0, EPOLLIN | EPOLLEXCLUSIVE)
            self.listening = True

    def stop(self) -> None:
        """Accepts nobody any more."""
        if self.listening:
            self.reactor.forget(self.fd)
            self.listening = False
        self.fd = -1

    cdef int on_ready(self, uint64_t token, uint32_t events) except -1:
        cdef sockaddr_storage storage
        cdef unsigned int size
        cdef uint8_t address[16]
        cdef int family, remote_port, client, count
        for count in range(ACCEPTS):
            if not self.listening:
                break
            size = sizeof(storage)
            client = accept4(self.fd, <sockaddr*> &storage, &size, SOCK_NONBLOCK | SOCK_CLOEXEC)
            if client < 0:
                if errno == EAGAIN:
                    break
                if errno == EINTR or errno == ECONNABORTED or errno == EPROTO or errno == EPERM:
                    continue         # this client is gone; the next one may be there
                self._pause(errno)
                break
            if self.connections.free_count == 0:
                self.connections.counters.refused += 1
                c_send(client, <const char*> FULL, len(FULL), MSG_NOSIGNAL)
                c_close(client)
                self._log("all %d connections are taken: new clients get 503", self.connections.table.slots)
                continue
            memset(address, 0, 16)
            family = remote_port = 0
            if storage.ss_family == AF_INET:
                family = 4
                memcpy(address, &(<sockaddr_in*> &storage).sin_addr, 4)
                remote_port = ntohs((<sockaddr_in*> &storage).sin_port)
            elif storage.ss_family == AF_INET6:
                family = 6
                memcpy(address, &(<sockaddr_in6*> &storage).sin6_addr, 16)
                if memcmp(address, MAPPED, 12) == 0:
                    family = 4       # an IPv4 client of a socket for both
                    memcpy(address, address + 12, 4)
                    memset(address + 4, 0, 12)
                remote_port = ntohs((<sockaddr_in6*> &storage).sin6_port)
            if self.connections.profiles[self.listener].preface:
                # not counted by address: that of the client is not known yet
                if not self.connections.admits(self.listener, family, address):
                    self.connections.counters.refused += 1
                    self.connections.counters.prefaces_refused += 1
                    c_close(client)
                    continue
            elif not self.connections.welcome(family, address):
                self.connections.counters.refused += 1
                self.connections.counters.refused_by_address += 1
                c_send(client, <const char*> CROWD, len(CROWD), MSG_NOSIGNAL)
                c_close(client)
                self._log("%s has as many connections as one address may: new ones get 429",
                          address_text(family, address))
                continue
            self.connections.adopt(client, family, address, remote_port, self.port, self.listener)
        return 0

    def _pause(self, error: int) -> None:
        self.reactor.forget(self.fd)
        self.listening = False
        self.reactor.call_later(PAUSE_MS / 1000.0, self._listen)
        self._log("cannot accept (%s): trying again in 0.1 s; raise the limit of open files", os.strerror(error))

    def _log(self, message: str, value: object) -> None:
        if self.reactor.now - self.logged >= QUIET_MS:
            self.logged = self.reactor.now
            log.warning(message, value)
