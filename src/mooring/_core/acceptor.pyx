"""Accepts clients from a listening socket.

At most ACCEPTS of them in one turn, so that a crowd of newcomers does not keep those who are in waiting. When nobody
can be accepted, the listener is left alone for a moment instead of spinning on an event that cannot be served.

Descriptors are given out lowest number first. So a client with one of `kept_from` or above is one too many: what is
left is for channels to new workers, log files and the like. If there are none at all even so (somebody has lowered the
limit, or the whole machine is out of them), a spare one, which is held for that, is given up for a moment: one client
is accepted and told, and the others wait in the kernel's queue until it is tried again.

Several processes accept from one socket, and the kernel wakes the first in the line of those that wait for it. With
epoll one keeps its place in that line, so the same process would be woken again and again, and get nearly all clients
for as long as it keeps up; theirs are connections that stay. So whoever has accepted goes to the end of the line.

Who has no place left, or no descriptor, leaves the listener to the others, and looks each LEFT_MS. Only when all are
full (room.pyx), and have said so again since somebody waits, is somebody refused, by whoever looks first. A full one
must not wait in the line meanwhile: it would be woken for a client, and nobody else would be. That can still happen to
one that has just become full, so all look now and then (`look`).
"""

from libc.errno cimport (
    EAGAIN, ECONNABORTED, EINTR, EMFILE, ENFILE, EPERM, EPROTO, errno,
)
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

import logging
import os
from collections.abc import Callable

from mooring._core.admission cimport CROWDED, WELCOME, Welcome
from mooring._core.buffer cimport buffer_size
from mooring._core.reactor cimport EPOLLEXCLUSIVE, EPOLLIN, Reactor, Source
from mooring._core.registry cimport D_IDLE, HTTP, W_SERVER_FULL, Connection, blame
from mooring._core.table cimport address_text
from mooring._core.transport cimport Transport
from mooring.journal import own_logger

log = own_logger("mooring.gateway")

cdef extern from "calls.h" nogil:
    ssize_t mooring_send(int fd, const void* data, size_t size, int flags)

cdef extern from "sys/socket.h" nogil:
    ctypedef unsigned short sa_family_t
    struct sockaddr_storage:
        sa_family_t ss_family
    struct sockaddr:
        pass
    int accept4(int fd, sockaddr* address, unsigned int* size, int flags)
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
    int c_dup "dup" (int fd)

cdef extern from "poll.h" nogil:
    struct pollfd:
        int fd
        short events
        short revents
    int c_poll "poll" (pollfd* fds, unsigned long count, int timeout)
    enum:
        POLLIN

cdef extern from "fcntl.h" nogil:
    int c_open "open" (const char* path, int flags)
    enum:
        O_RDONLY
        O_CLOEXEC

cdef enum:
    ACCEPTS = 64
    PAUSE_MS = 100
    SAY_EACH_MS = 1000
    CROWDED_MS = 100
    LEFT_MS = 50
    SPARE = 64       # descriptors that are open beside those of connections and files, or so

cdef const char* MAPPED = b"\0\0\0\0\0\0\0\0\0\0\xff\xff"

cdef double CROWDED_AT = 0.8         # of the slots: from here on idle connections give way to new ones

cdef bytes CROWD = (
    b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 5\r\nConnection: close\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\nContent-Length: 39\r\n\r\nToo many connections from your address."
)
cdef bytes HASTE = (
    b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 5\r\nConnection: close\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\nContent-Length: 47\r\n\r\n"
    b"Too many unfinished requests from your address."
)
cdef bytes FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\nContent-Length: 32\r\n\r\nThe server is full. Retry later."
)


cdef struct Peer:
    int family           # 4 or 6; 0: a Unix socket
    int port
    uint8_t address[16]


cdef int read_peer(const sockaddr_storage* storage, Peer* peer) noexcept:
    """Who has connected."""
    memset(peer, 0, sizeof(Peer))
    if storage.ss_family == AF_INET:
        peer.family = 4
        memcpy(peer.address, &(<sockaddr_in*> storage).sin_addr, 4)
        peer.port = ntohs((<sockaddr_in*> storage).sin_port)
    elif storage.ss_family == AF_INET6:
        peer.family = 6
        memcpy(peer.address, &(<sockaddr_in6*> storage).sin6_addr, 16)
        if memcmp(peer.address, MAPPED, 12) == 0:
            peer.family = 4              # an IPv4 client of a socket for both
            memcpy(peer.address, peer.address + 12, 4)
            memset(peer.address + 4, 0, 12)
        peer.port = ntohs((<sockaddr_in6*> storage).sin6_port)
    return 0


cdef class Acceptor(Source):
    """Takes clients of the listening socket `fd` (not owned) into `connections`, with the profile of that index, until
    stop(). Raises ValueError when there is no such profile.

    rate: new clients a second; those above it wait in the kernel's queue; 0: any number. say(level, message, *values)
    is called for each refusal.
    """

    cdef Transport connections
    cdef int fd
    cdef int port
    cdef int listener
    cdef bint listening
    cdef bint secure                 # its clients speak TLS, and would not understand an answer in plain text
    cdef int rate
    cdef uint64_t second             # the present one's begin, and how many came in it
    cdef int in_second
    cdef object say
    cdef uint64_t crowded_at         # when room was last made
    cdef uint64_t said_at            # when it was last logged that nobody can be accepted
    cdef uint64_t waited_at          # when somebody was seen to wait while all were full; 0: nobody waits
    cdef int spare                   # a descriptor for the time when there are none; -1: it could not be had

    def __cinit__(self, reactor: Reactor, connections: Transport, fd: int, port: int, listener: int = 0,
                  rate: int = 0, say: Callable[..., None] = log.log) -> None:
        if not 0 <= listener < connections.listeners:
            raise ValueError(f"there is no profile {listener}: the connections have {connections.listeners}")
        self.connections = connections
        self.fd = fd
        self.port = port
        self.listener = listener
        self.secure = (<object> connections).is_secure(listener)
        self.rate = rate
        self.say = say
        self.spare = -1
        reactor.add(self)
        self._take_spare()
        self._listen()

    def __dealloc__(self) -> None:
        if self.spare >= 0:
            c_close(self.spare)

    def _listen(self) -> None:
        if self.fd >= 0 and not self.listening:
            # several gateways share the socket: one of them is woken per client, not all
            self.reactor.watch(self, self.fd, 0, EPOLLIN | EPOLLEXCLUSIVE)
            self.listening = True

    cdef int _take_spare(self) noexcept:
        if self.spare < 0:
            self.spare = c_open(b"/dev/null", O_RDONLY | O_CLOEXEC)
        return 0

    cdef int _tell_one(self) except -1:
        """There are no descriptors: one client is told so, with the spare one."""
        cdef int client
        if self.spare < 0:
            return 0
        c_close(self.spare)
        self.spare = -1
        client = accept4(self.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)
        if client >= 0:
            self.connections.counters.connections_refused += 1
            self._refuse(client, FULL)
        self._take_spare()
        return 0

    def _listen_again(self) -> None:
        self._take_spare()
        try:
            self._listen()
        except OSError as error:         # the kernel has no memory for it right now
            self._pause(error.errno)

    cdef int _to_the_end_of_the_line(self) except -1:
        if self.listening and not self._steps_back():
            self.reactor.forget(self.fd)
            self.listening = False
            self._listen_again()
        return 0

    def stop(self) -> None:
        """Accepts nobody any more."""
        self.connections.closed = True
        self.connections._say_room()
        self.connections.rooms = None        # a successor may say it in the same place
        if self.listening:
            self.reactor.forget(self.fd)
            self.listening = False
        self.fd = -1
        if self.spare >= 0:
            c_close(self.spare)
            self.spare = -1

    cdef int on_ready(self, uint64_t token, uint32_t events) except -1:
        return self._accept(False)

    cdef int _accept(self, bint refuses) except -1:
        """`refuses`: it is full, and so are all others."""
        cdef sockaddr_storage storage
        cdef Peer peer
        cdef int client, _turn
        cdef int failed = 0
        cdef bint accepted = False
        cdef bint goes_on = True
        for _turn in range(ACCEPTS):
            if not goes_on or (not refuses and (not self.listening or self._steps_back())):
                break
            client = self._next_client(&storage)
            if client < 0:
                failed += 1
                if self._may_try_again(failed, refuses):
                    continue
                break
            accepted = True
            if self._has_no_place(client):
                continue
            read_peer(&storage, &peer)
            if self._is_unwelcome(client, &peer):
                continue
            goes_on = not self.rate or self._in_rate()
            self.connections.adopt(client, peer.family, peer.address, peer.port, self.port, self.listener)
        if accepted:
            self._to_the_end_of_the_line()
        return 0

    cdef int _next_client(self, sockaddr_storage* storage) noexcept:
        cdef unsigned int size = sizeof(sockaddr_storage)
        return accept4(self.fd, <sockaddr*> storage, &size, SOCK_NONBLOCK | SOCK_CLOEXEC)

    cdef bint _may_try_again(self, int failed, bint refuses) except -1:
        """Whether accept4, which has failed so often, may succeed with the next client."""
        if errno == EAGAIN:
            return False
        if errno == EINTR or errno == ECONNABORTED or errno == EPROTO or errno == EPERM:
            if failed < ACCEPTS:
                return True              # this client is gone; the next one may be there
        if not refuses:
            self._pause(errno)
        elif errno == EMFILE or errno == ENFILE:
            self._tell_one()
        return False

    cdef bint _has_no_place(self, int client) except -1:
        """Whether there is no place for it, or no descriptor, and it was told so."""
        if self.connections.kept_from and client >= self.connections.kept_from:
            self.connections.counters.connections_refused += 1
            self._refuse(client, FULL)
            self._log("descriptors run short, the last ones are kept back: new clients get %s; raise the limit of "
                      "open files", "no answer" if self.secure else "503")
            return True
        self.reactor.read_clock()        # the oldest connection of all gateways is the one that came first
        self._make_room()
        if self.connections.free_count == 0:
            self.connections.counters.connections_refused += 1
            self._refuse(client, FULL)
            self._log("all %d connections are taken: new clients get %s", self.connections.table.slots,
                      "no answer" if self.secure else "503")
            return True
        return False

    cdef bint _is_unwelcome(self, int client, const Peer* peer) except -1:
        """Whether its address, or that of the proxy before it, may not have one more connection, and it was told so."""
        cdef Welcome welcome
        if self.connections.profiles[self.listener].preface:
            # not counted by address: that of the client is not known yet
            if self.connections.admits(self.listener, peer.family, peer.address):
                return False
            self.connections.counters.connections_refused += 1
            self.connections.counters.proxy_headers_refused += 1
            c_close(client)
            return True
        welcome = self.connections.admission.welcome(peer.family, peer.address)
        if welcome == WELCOME:
            return False
        self.connections.counters.connections_refused += 1
        if welcome == CROWDED:
            self.connections.counters.connections_refused_by_address += 1
            self._refuse(client, CROWD)
            self._log("%s has as many connections as one address may: new ones get %s",
                      address_text(peer.family, peer.address), "no answer" if self.secure else "429")
        else:
            self.connections.counters.connections_refused_unfinished += 1
            self._refuse(client, HASTE)
            self._log("%s has as many connections without an answered request as one address may: new ones "
                      "get %s", address_text(peer.family, peer.address), "no answer" if self.secure else "429")
        return True

    cdef bint _is_full(self) noexcept:
        """No place, or the next descriptor is one of those that are kept back. That is asked of the kernel where it may
        be so: a connection has one, and one more for a file."""
        cdef int next_one
        cdef bint short = False
        if self.connections.kept_from and 2 * self.connections.count + SPARE >= self.connections.kept_from:
            next_one = c_dup(self.fd)
            short = next_one < 0 or next_one >= self.connections.kept_from
            if next_one >= 0:
                c_close(next_one)
        if short != self.connections.closed:
            self.connections.closed = short
            self.connections._say_room()
        return short or self.connections.free_count == 0

    cdef bint _steps_back(self) except -1:
        """Whether it is full and there are others, to whom the listener is left."""
        if self.connections.rooms is None or not self._is_full():
            return False
        self.connections.counters.listener_left_to_others += 1
        self._leave_alone(LEFT_MS, self._look_again)
        return True

    cdef bint _others_have_room(self) except -1:
        if self.connections.rooms is None:
            return False
        self.reactor.read_clock()
        return self.connections.rooms.elsewhere(self.connections.gateway, self.reactor.now)

    def _look_again(self) -> None:
        if self.fd < 0:
            return
        if self._is_full():
            self.connections._say_room()
            self._refuse_some()
        if self._is_full():
            self._leave_alone(LEFT_MS, self._look_again)
        else:
            self._listen_again()

    cdef int _refuse_some(self) except -1:
        """Those that wait, when all others are full and have said so since: one that has died says no more."""
        cdef pollfd waiting
        cdef uint64_t since = self.waited_at
        waiting.fd = self.fd
        waiting.events = POLLIN
        waiting.revents = 0
        self.waited_at = 0
        if self._others_have_room() or c_poll(&waiting, 1, 0) <= 0:
            return 0
        if since and self.connections.rooms.confirmed(self.connections.gateway, since, self.reactor.now):
            self._accept(True)
            since = 0
        self.waited_at = since if since else self.reactor.now
        return 0

    def look(self) -> None:
        """Whether somebody waits who has woken another one, in vain."""
        if self.listening:
            self._to_the_end_of_the_line()

    cdef int _refuse(self, int client, bytes answer) except -1:
        if not self.secure:
            mooring_send(client, <const char*> answer, len(answer), MSG_NOSIGNAL)
        c_close(client)
        return 0

    cdef int _make_room(self) except -1:
        """Those that wait for a next request give way, the one that has waited longest first. At most every CROWDED_MS,
        because it looks at every slot."""
        cdef uint32_t slot
        cdef Connection* c
        cdef Transport them = self.connections
        if (them.free_count >= them.slot_count * (1 - CROWDED_AT)
                or self.crowded_at and self.reactor.now - self.crowded_at < CROWDED_MS):
            return 0
        self.crowded_at = self.reactor.now
        idle = []
        for slot in range(them.used):
            c = them.slots[slot]
            if c != NULL and c.phase == HTTP and c.deadline == D_IDLE and buffer_size(&c.out) == 0:
                idle.append((c.entry.received, c.fd))
        idle.sort()
        for _, fd in idle[:max(1, them.slot_count // 20)]:
            c = them.find(fd)
            if c != NULL:
                them.counters.connections_evicted += 1
                blame(c, W_SERVER_FULL)
                them._gone(c, 1006, b"idle, and the server is nearly full")
        return 0

    cdef bint _in_rate(self) except -1:
        """Counts one more; False when it is the last of this second: the rest of it is waited for."""
        if self.reactor.now - self.second >= 1000:
            self.second = self.reactor.now
            self.in_second = 0
        self.in_second += 1
        if self.in_second < self.rate:
            return True
        self._leave_alone(1000 - (self.reactor.now - self.second), self._listen_again)
        return False

    cdef int _leave_alone(self, uint64_t ms, object then) except -1:
        if self.listening:
            self.reactor.forget(self.fd)
            self.listening = False
        self.reactor.call_later(ms / 1000.0, then)
        return 0

    cdef int _pause(self, int error) except -1:
        cdef bint short = error == EMFILE or error == ENFILE
        self.connections.counters.accept_pauses += 1
        if short and self._others_have_room():
            self.connections.counters.listener_left_to_others += 1
            return self._leave_alone(LEFT_MS, self._look_again)
        if short:
            self._tell_one()
        self._leave_alone(PAUSE_MS, self._listen_again)
        if self.said_at and self.reactor.now - self.said_at < SAY_EACH_MS:
            return 0
        self.said_at = self.reactor.now
        advice = "; one client each time gets %s, raise the limit of open files" if short else ""
        values = ("no answer" if self.secure else "503",) if short else ()
        self._log("cannot accept (%s): trying again each 0.1 s" + advice, os.strerror(error), *values)
        return 0

    def _log(self, message: str, *values: object) -> None:
        self.say(logging.WARNING, message, *values)
