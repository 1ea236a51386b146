"""Client sockets of a gateway: their readiness, deadlines and out-queues, whatever is spoken on them.

Theory
------
Which connections there are, says registry.pyx, from which this is derived.

* Writing is queued, and flushed once before the reactor sleeps. The queue has a limit: a peer that lets it fill is
  handed to `on_slow`. Nobody else waits for it.
* Exactly the events are armed that can be acted on: while nobody can take its messages, a peer is not read.
* What a peer has sent at once may be thousands of small things. Each connection gets a share of a turn, more only while
  the turn is young (Reactor.is_long), and goes on in the next: `defer`. It is not read meanwhile, so what waits is one
  read.
* A connection has one timer, and `deadline` says what it is armed for.
* Two things are kept for a connection: what waits until its peer reads it (`out`), and the beginning of a message or a
  body until the rest of it comes (`gathered`). Each has a limit of its own; the sum over all connections has one, too,
  since ten thousand peers, each within its limit, are more than a machine has. Beyond it the one for whom most is kept
  is told so and ended: it frees most, and a crowd of small peers can't push it out unless they need as much together.
* `on_gone` is called when a connection is gone, once. Any call to a hook may end it: the phase is looked at again.

What is spoken is a subclass's matter (http_exchange.pyx, websocket.pyx). It fills in the hooks `on_...`, which this
class only calls.
"""

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy

from mooring._core.admission cimport WELCOME, bucket_take
from mooring._core.buffer cimport buffer_append, buffer_consume, buffer_free, buffer_reserve, buffer_size
from mooring._core.pace cimport is_behind, note_taken, took_enough
from mooring._core.reactor cimport EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP, RECEIVE_BYTES, Reactor
from mooring._core.registry cimport (
    ABOVE_HIGH_WATER, ASKED, BUSY, BY_PEER, BY_SERVER, CLOSING, D_CLOSE, D_IDLE, D_LINGER, D_NONE, D_PING, D_PONG,
    D_PREFACE, D_WRITE, DEAD, DEFERRED, DIRTY, DONE, END_WHEN_WRITTEN, FULL, HELD, HTTP, LINGER, PEER_ENDED, PREFACE,
    THEN_LINGER, UPGRADED, W_BAD_PROXY_HEADER, W_CLIENT_ENDED, W_CLIENT_RESET, W_OUT_OF_MEMORY, W_SERVER_ERROR, WANTED,
    WOKEN, Connection, Deadline, Registry, blame, path_free,
)
from mooring._core.table cimport SLOT_BITS, Table, address_text
from mooring._core.ws cimport decoder_free

cdef extern from "calls.h" nogil:
    ssize_t mooring_recv(int fd, void* data, size_t size, int flags)
    ssize_t mooring_send(int fd, const void* data, size_t size, int flags)

cdef extern from "sys/socket.h" nogil:
    int shutdown(int fd, int how)
    int setsockopt(int fd, int level, int name, const void* value, unsigned int size)
    enum:
        MSG_NOSIGNAL
        SHUT_WR

cdef extern from "netinet/in.h" nogil:
    enum:
        IPPROTO_TCP

cdef extern from "netinet/tcp.h" nogil:
    enum:
        TCP_NODELAY

cdef extern from "unistd.h" nogil:
    int c_close "close" (int fd)

cdef uint64_t TOKEN_MASK = 0xFFFFFFFFFFFF
cdef double MIN_PAUSE = 0.01         # seconds; who waits for a token is looked at no more often
cdef bytes RESET = b"the connection was reset"
cdef bytes FAULT = b"an error of the server"


cdef class Transport(Registry):
    """The sockets of the connections of a gateway. Its options are those of Registry, and

    ceiling: bytes that may be kept for all connections together; more end those for whom most is kept. 0: any number.
    """

    def __cinit__(self, reactor: Reactor, table: Table, gateway: int, first_serial: int, *profiles: dict[str, object],
                  address_limit: int = 0, fresh_limit: int = 0, ceiling: int = 0) -> None:
        self.ceiling = ceiling
        self.waiting, self.woken, self.deferred = [], [], []
        self.prefaces = [options.get("preface") for options in profiles]
        reactor.add(self)

    # ------------------------------------------------------------------ hooks of what is spoken

    cdef int on_connected(self, Connection* c) except -1:
        return self.on_adopted(c)

    cdef int on_adopted(self, Connection* c) except -1:
        """A client has come; with TLS, its handshake is done."""
        return 0

    cdef int on_raw(self, Connection* c, uint8_t* buffer, size_t got) except -1:
        return self.on_bytes(c, buffer, got)

    cdef int on_bytes(self, Connection* c, uint8_t* buffer, size_t got) except -1:
        """Bytes of the peer, in the reactor's buffer."""
        return 0

    cdef bint may_read(self, Connection* c) except -1:
        """Whether what it sends can be acted on now, as far as that is not known before it sends."""
        return True

    cdef int on_end(self, Connection* c) except -1:
        """The peer has ended its half, and all that it sent was read."""
        return self._gone(c, 1006, b"")

    cdef int on_peer_ended(self, Connection* c) except -1:
        """The peer has ended its half, and what it sent before is not read yet."""
        return 0

    cdef bint listens(self, Connection* c) except -1:
        """Whether an end of the peer's half has to be read, although nothing else is read now."""
        return False

    cdef int on_wake(self, Connection* c) except -1:
        """After `wake`, before the reactor sleeps."""
        return 0

    cdef int on_deadline(self, Connection* c, Deadline deadline) except -1:
        return self._gone(c, 1006, b"out of time")

    cdef int on_slow(self, Connection* c, bytes why) except -1:
        """The peer does not read, and its queue is full."""
        return self._doom(c, 1006, why)

    cdef int on_greedy(self, Connection* c) except -1:
        """Memory is full, and most of it keeps what this peer has begun to send."""
        return self._doom(c, 1006, b"the server's memory is full")

    cdef int on_partial(self, Connection* c, size_t sent) except -1:
        """`sent` bytes leave the front of the queue, and others stay."""
        return 0

    cdef int on_room(self, Connection* c) except -1:
        """The queue is below high water, which somebody waited for."""
        return 0

    cdef int on_relieved(self, Connection* c) except -1:
        """The queue is below high water again."""
        return 0

    cdef int on_crowd(self, Connection* c) except -1:
        """It is one of too many of its address, which became known only now."""
        return self._doom(c, 1006, b"too many connections from this address")

    cdef int on_fault(self, Connection* c) except -1:
        """It ends for an error of ours; the code that it ends with. What is done here needs no memory."""
        return 1011                  # internal error (RFC 6455 section 7.4.1)

    cdef int on_gone(self, Connection* c, int code, bytes reason) except -1:
        """The connection has ended; its slot is free, its fd unknown."""
        return 0

    # ------------------------------------------------------------------ coming and going

    cdef int adopt(self, int socket, int family, const uint8_t* address, int remote_port, int server_port,
                   int listener) except -1:
        """Takes over a fresh non-blocking socket; the caller has looked whether there is a free slot."""
        cdef int one = 1
        cdef Connection* c = self._occupy(socket, family, address, remote_port, server_port, listener)
        self.counters.connections_accepted += 1
        c.timer.token = c.fd & TOKEN_MASK
        setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one))
        c.interest = EPOLLIN
        try:
            self.reactor.watch(self, socket, c.fd & TOKEN_MASK, EPOLLIN)
            if c.profile.preface:
                c.flags |= PREFACE
                return self._arm(c, D_PREFACE, c.profile.preface_ms)
            self._count(c)
            return self.on_connected(c)
        except Exception:
            return self._end_for_fault(c)

    cdef bint admits(self, int listener, int family, const uint8_t* address) except -1:
        return self.prefaces[listener].admits(address_text(family, address))

    cdef bint take_token(self, Connection* c) except -1:
        cdef double wait = bucket_take(&c.bucket, c.profile.rate, c.profile.burst, self.reactor.now)
        if wait <= 0:
            return True
        self.counters.rate_pauses += 1
        if not self.waiting:
            self.reactor.call_later(max(MIN_PAUSE, wait), self._resume)
        self.waiting.append(c.fd)
        return False

    def _resume(self) -> None:
        cdef Connection* c
        waiting, self.waiting = self.waiting, []
        for fd in waiting:
            c = self.find(fd)
            if c != NULL:
                self.wake(c)

    cdef int _lost(self, Connection* c, bytes reason) except -1:
        """The peer has ended the connection."""
        blame(c, W_CLIENT_RESET if reason is RESET else W_CLIENT_ENDED)
        self._decide(c, BY_PEER, 1006, reason)
        return self._gone(c, 1006, reason)

    cdef int _gone(self, Connection* c, int code, bytes reason) except -1:
        """The end: tells of it, once, and gives everything back."""
        if c.phase == DEAD:
            return 0
        self._decide(c, BY_SERVER, code, reason)
        self._enter(c, DEAD)
        self.reactor.disarm(&c.timer)
        # the number of the socket is free for the next accept from here on, so nothing may use it after this
        c_close(c.socket)
        c.socket = -1
        buffer_free(&c.out)
        count_out(self, c)
        buffer_free(&c.held)
        decoder_free(&c.decoder)
        self.gathered -= c.gathered
        c.gathered = 0
        self._vacate(c)
        self.counters.connections_closed += 1
        self.reactor.mark_dirty(self)
        try:
            self.on_gone(c, c.close_code, self.reasons.pop(c.fd, reason))
        finally:
            free(c.topics)
            c.topics = NULL
            c.topic_count = 0
            path_free(c)
        return 0

    cdef int _end_for_fault(self, Connection* c) except -1:
        """An exception, or no memory, in the middle of something: what it would have said next may be lost, so it ends.
        Everybody else goes on. What is done here needs no memory but what Python takes for the log."""
        try:
            self.reactor._error("serving a connection")
        except MemoryError:
            pass
        if c.phase == DEAD:
            return 0
        self.counters.faults += 1
        blame(c, W_SERVER_ERROR)
        return self._gone(c, self.on_fault(c), FAULT)

    # ------------------------------------------------------------------ readiness and time

    cdef int _interest(self, Connection* c) except -1:
        """Arms exactly the events that can be acted on."""
        cdef uint32_t wanted = 0
        if c.phase == DEAD:
            return 0
        if not c.flags & PEER_ENDED:
            wanted = EPOLLIN if reads(c) or c.tls != NULL and self.listens(c) else EPOLLRDHUP
        if c.flags & FULL:
            wanted |= EPOLLOUT
        if wanted != c.interest:
            c.interest = wanted
            self.reactor.change(self, c.socket, c.fd & TOKEN_MASK, wanted)
        return 0

    cdef int _arm(self, Connection* c, Deadline deadline, uint64_t ms) except -1:
        c.deadline = deadline
        c.taken_at = 0
        self.reactor.arm(self, &c.timer, self.reactor.now + ms)
        return 0

    cdef int on_ready(self, uint64_t token, uint32_t events) except -1:
        cdef Connection* c = self.slots[token & ((1 << SLOT_BITS) - 1)]
        if c == NULL or c.fd & TOKEN_MASK != token:
            return 0        # closed earlier in this batch
        try:
            return self._ready(c, events)
        except Exception:
            return self._end_for_fault(c)

    cdef int _ready(self, Connection* c, uint32_t events) except -1:
        if events & EPOLLOUT:
            c.flags &= ~FULL
            self._send_some(c)
            if c.phase == DEAD:
                return 0
        if events & EPOLLIN:
            return 0 if c.phase == HTTP and not self.may_read(c) else self._receive(c)
        if events & (EPOLLHUP | EPOLLERR):
            return self._lost(c, RESET)
        if events & EPOLLRDHUP and c.flags & (WANTED | HELD) == WANTED:
            return self._receive(c)      # seen before reading went on
        if events & EPOLLRDHUP:
            # what it sent before is still to be read; for the answer to a request the other half is enough
            c.flags |= PEER_ENDED
            self._interest(c)
            return self.on_peer_ended(c)
        return 0

    cdef int on_timer(self, uint64_t token) except -1:
        cdef Connection* c = self.slots[token & ((1 << SLOT_BITS) - 1)]
        cdef Deadline deadline
        if c == NULL or c.fd & TOKEN_MASK != token:
            return 0
        deadline = c.deadline
        c.deadline = D_NONE
        try:
            if deadline == D_PREFACE:
                self.counters.timed_out += 1
                return self._refuse_preface(c, "no header came in time")
            return self.on_deadline(c, deadline)
        except Exception:
            return self._end_for_fault(c)

    cdef int _receive(self, Connection* c) except -1:
        cdef uint8_t* buffer = self.reactor.receive_buffer
        cdef ssize_t got = mooring_recv(c.socket, buffer, RECEIVE_BYTES, 0)
        if got < 0:
            if errno == EAGAIN or errno == EINTR:
                return 0
            return self._lost(c, RESET)
        if got == 0:
            return self.on_end(c)
        c.entry.bytes_received += got
        c.entry.received = self.reactor.now
        self.counters.bytes_received += got
        if c.flags & PREFACE:
            return self._read_preface(c, buffer, got)
        return self.on_raw(c, buffer, got)

    cdef int _read_preface(self, Connection* c, uint8_t* buffer, size_t got) except -1:
        """Bytes of the header of the PROXY protocol, which comes ahead of everything else. `held` keeps an unfinished
        one."""
        cdef size_t have = buffer_size(&c.held)
        cdef size_t used
        cdef bytes padded
        if buffer_append(&c.held, buffer, got) < 0:
            blame(c, W_OUT_OF_MEMORY)
            return self._gone(c, 1006, b"no memory for a header of the PROXY protocol")
        try:
            header = self.prefaces[c.profile.index].parse((<const char*> c.held.data + c.held.start)[:have + got])
        except ValueError as error:
            return self._refuse_preface(c, str(error))
        if header is None:
            return 0
        size, family, address, port = header
        used = size - have           # it was not whole before these bytes
        buffer_free(&c.held)
        if family:
            c.entry.family = family
            padded = address.ljust(16, b"\0")
            memcpy(c.entry.address, <const char*> padded, 16)
            c.entry.remote_port = port
        c.flags &= ~PREFACE
        crowded = self.admission.welcome(c.entry.family, c.entry.address) != WELCOME
        self._count(c)
        self.on_connected(c)
        if crowded:
            self.counters.connections_refused += 1
            self.counters.connections_refused_by_address += 1
            return self.on_crowd(c)
        if c.phase == DEAD or used == got:
            return 0
        return self.on_raw(c, buffer + used, got - used)

    cdef int _refuse_preface(self, Connection* c, str why) except -1:
        self.counters.proxy_headers_refused += 1
        self.prefaces[c.profile.index].refused(address_text(c.entry.family, c.entry.address), why)
        blame(c, W_BAD_PROXY_HEADER)
        return self._gone(c, 1006, b"PROXY protocol: " + why.encode())

    cdef int wake(self, Connection* c) except -1:
        """The sink can take messages of this connection again."""
        if c.flags & (HELD | BUSY) and not c.flags & (WOKEN | DEFERRED):
            c.flags |= WOKEN
            self.woken.append(c.fd)
            self.reactor.mark_dirty(self)
        return 0

    cdef int defer(self, Connection* c) except -1:
        if not c.flags & DEFERRED:
            if not self.deferred:
                self.reactor.post(self._go_on)
            self.deferred.append(c.fd)
            c.flags |= DEFERRED
            self.counters.deferred += 1
        return self._interest(c)

    def _go_on(self) -> None:
        cdef Connection* c
        deferred, self.deferred = self.deferred, []
        for fd in deferred:
            c = self.find(fd)
            if c != NULL:
                c.flags &= ~DEFERRED
                c.flags |= WOKEN
                self.woken.append(fd)
        self.reactor.mark_dirty(self)

    # ------------------------------------------------------------------ out

    cdef int write(self, Connection* c, const uint8_t* head, size_t head_size,
                   const uint8_t* data, size_t size) except -1:
        cdef size_t queued = buffer_size(&c.out)
        if c.phase >= LINGER or c.flags & END_WHEN_WRITTEN:
            return 0
        if queued > c.profile.write_limit:
            if not c.flags & FULL:
                self._offer(c)
            if buffer_size(&c.out) > c.profile.write_limit:
                self.on_slow(c, b"slow consumer: the out-queue is full")
                return 0
        if buffer_reserve(&c.out, head_size + size) < 0:
            blame(c, W_OUT_OF_MEMORY)
            self._doom(c, 1006, b"no memory for the out-queue")
            return 0
        memcpy(c.out.data + c.out.end, head, head_size)
        c.out.end += head_size
        if size:
            memcpy(c.out.data + c.out.end, data, size)
            c.out.end += size
        count_out(self, c)
        if self.ceiling and self.queued + self.gathered > self.ceiling:
            self._relieve()
        self._mark(c)
        return 1

    cdef int gather(self, Connection* c, size_t size) except -1:
        if size != c.gathered and c.phase != DEAD:
            self.gathered += size - c.gathered
            c.gathered = size
            if self.ceiling and self.queued + self.gathered > self.ceiling:
                self._relieve()
        return 0

    cdef int _relieve(self) except -1:
        """Too much is kept for all together: for whom most is kept goes, until a tenth of the room is free."""
        cdef Connection* c
        if self.relieving:
            return 0
        self.relieving = True
        try:
            for fd in self.greediest():
                if self.queued + self.gathered <= self.ceiling - self.ceiling // 10:
                    break
                c = self.find(fd)
                if c == NULL:
                    continue
                self.counters.ended_for_memory += 1
                if c.gathered > c.counted:
                    self.on_greedy(c)
                else:
                    self.on_slow(c, b"slow consumer: the server's memory is full, and most of it waited for you")
                if self.find(fd) != NULL:
                    count_out(self, c)
        finally:
            self.relieving = False
        return 0

    cdef int _mark(self, Connection* c) except -1:
        """The connection wants its flush."""
        if not c.flags & DIRTY:
            if self.dirty_first == NULL:
                self.dirty_first = c
            else:
                self.dirty_last.next_dirty = c
            self.dirty_last = c
            c.flags |= DIRTY
            self.reactor.mark_dirty(self)
        return 0

    cdef int _doom(self, Connection* c, int code, bytes reason) except -1:
        """Ends a connection without a word, but not before the flush: the caller may be in the middle of a fan-out or
        of somebody's handler, and the close event must not run inside of it."""
        if c.phase >= LINGER:
            return 0
        self._decide(c, BY_SERVER, code, reason)
        if c.phase != CLOSING:
            self._enter(c, CLOSING)
        buffer_free(&c.out)
        count_out(self, c)
        c.flags = (c.flags | END_WHEN_WRITTEN) & ~(FULL | THEN_LINGER)
        return self._mark(c)

    cdef int flush(self) except -1:
        """Before the reactor sleeps: resumes what was woken, writes what was queued, frees what has died."""
        cdef Connection* c
        if self.woken:
            woken, self.woken = self.woken, []
            for fd in woken:
                c = self.find(fd)
                if c != NULL and c.flags & DEFERRED:
                    c.flags &= ~WOKEN        # _go_on comes back to it
                elif c != NULL:
                    try:
                        self.on_wake(c)
                    except Exception:
                        self._end_for_fault(c)
        self.flushed = 0
        while self.dirty_first != NULL:
            self.flushed += 1
            c = self.dirty_first
            self.dirty_first = c.next_dirty
            c.next_dirty = NULL
            c.flags &= ~DIRTY
            if c.phase != DEAD:
                try:
                    if c.flags & FULL:
                        self._above(c)
                        self._interest(c)     # write() may have filled the kernel, and has left this to us
                    else:
                        self._send_some(c)
                except Exception:
                    self._end_for_fault(c)
        if self.graves != NULL:
            self._bury()
        return 0

    cdef int _offer(self, Connection* c) except -1:
        """Offers the queue to the kernel once; what is left stays queued. 0, or the error of a broken connection."""
        cdef size_t size = buffer_size(&c.out)
        cdef ssize_t sent = mooring_send(c.socket, c.out.data + c.out.start, size, MSG_NOSIGNAL)
        if sent < 0:
            if errno != EAGAIN and errno != EINTR:
                return errno
            sent = 0
        c.entry.bytes_sent += sent
        self.counters.bytes_sent += sent
        if <size_t> sent < size:
            c.flags |= FULL
            self.on_partial(c, sent)
        else:
            c.boundary = 0
        buffer_consume(&c.out, sent)
        return 0

    cdef int _send_some(self, Connection* c) except -1:
        if buffer_size(&c.out) or c.owed:
            if self._offer(c):
                return self._lost(c, RESET)
            count_out(self, c)
            if buffer_size(&c.out) > c.profile.high_water:
                self._above(c)
            elif c.flags & ABOVE_HIGH_WATER or c.deadline == D_WRITE and buffer_size(&c.out) == 0:
                self._below(c)
            if buffer_size(&c.out) and (c.deadline == D_CLOSE or c.deadline == D_IDLE):
                self._outlasts(c)
        if c.flags & (ASKED | DONE) and buffer_size(&c.out) <= c.profile.high_water:
            self.on_room(c)
        if buffer_size(&c.out) or c.owed:
            return self._interest(c)
        return self._written(c) if c.flags & END_WHEN_WRITTEN else self._interest(c)

    cdef int _outlasts(self, Connection* c) except -1:
        """What waits may take longer than what comes behind it."""
        if c.deadline == D_CLOSE and not c.flags & UPGRADED:
            return self.watch_pace(c)       # the last answer may take as long as any
        if c.deadline == D_IDLE and not c.taken_at:
            return self.watch(c, D_IDLE, c.profile.write_ms)
        return 0

    cdef int _above(self, Connection* c) except -1:
        """From now on the peer has to take what waits fast enough, if that is much."""
        if (buffer_size(&c.out) > c.profile.high_water and not c.flags & ABOVE_HIGH_WATER
                and (c.deadline == D_NONE or c.deadline == D_PING or c.deadline == D_PONG)):
            c.flags |= ABOVE_HIGH_WATER
            self.watch_pace(c)
        return 0

    cdef int _below(self, Connection* c) except -1:
        c.flags &= ~ABOVE_HIGH_WATER
        # an answer is read too slowly as long as anything of it waits
        if c.deadline == D_WRITE and (c.flags & UPGRADED or buffer_size(&c.out) == 0 and c.file == NULL):
            disarm(self, c)
            self.on_relieved(c)
        return 0

    cdef int _written(self, Connection* c) except -1:
        """The last byte is out and the connection is to end."""
        if not c.flags & THEN_LINGER or c.flags & PEER_ENDED:
            return self._gone(c, 1006, b"")
        # closing with unread input would send a reset, which may overtake our last bytes (RFC 9112 section 9.6)
        shutdown(c.socket, SHUT_WR)
        self._enter(c, LINGER)
        self._arm(c, D_LINGER, LINGER_MS)
        return self._interest(c)

    cdef int _await_end(self, Connection* c) except -1:
        # if the kernel is full, it may be long before _send_some comes by
        return self.watch_pace(c) if c.flags & FULL else self._arm(c, D_CLOSE, c.profile.close_ms)

    # ------------------------------------------------------------------ deadlines by what the peer takes, see pace.pyx

    cdef int watch(self, Connection* c, Deadline deadline, uint64_t ms) except -1:
        self._arm(c, deadline, ms)
        return note_taken(c, self.reactor.now)

    cdef int watch_pace(self, Connection* c) except -1:
        return self.watch(c, D_WRITE, c.profile.write_ms)

    cdef bint takes_on(self, Connection* c, Deadline deadline, uint64_t ms) except -1:
        if not took_enough(c, self.reactor.now):
            return False
        if is_behind(c):
            self.watch(c, deadline, c.profile.write_ms)
        else:
            self._arm(c, deadline, ms)
        return True

    cdef bint is_served(self, Connection* c, Deadline deadline, uint64_t ms) except -1:
        if c.taken_at or not is_behind(c):
            return self.takes_on(c, deadline, ms)
        self.watch(c, deadline, c.profile.write_ms)
        return True

    # ------------------------------------------------------------------ for the gateway

    def cut(self, fd: int, reason: bytes, cause: int) -> None:
        """Ends a connection without a word to the peer."""
        cdef Connection* c = self.find(fd)
        if c != NULL:
            blame(c, cause)
            c.flags &= ~THEN_LINGER    # all is written where it lingers: the flush waits for the peer no more
            self._mark(c)
            self._doom(c, 1006, reason)


cdef bint say_at_once(Connection* c, bytes words) noexcept:
    """Last words, past the queue, which could need memory; False if they would be in the middle of others."""
    if buffer_size(&c.out) or c.tls != NULL:
        return False
    mooring_send(c.socket, <const char*> words, len(words), MSG_NOSIGNAL)
    return True
