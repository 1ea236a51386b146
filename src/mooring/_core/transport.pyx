"""Client sockets of a gateway: their slots, deadlines and out-queues, whatever is spoken on them.

Theory
------
A connection is a C struct in a slot: an idle one costs that struct and its entry in the table, no Python object and no
buffer. Its life is one enum, changed in one function (`_enter`), and it only moves forward:

    HTTP -> OPEN -> CLOSING -> LINGER -> DEAD        (any phase may be left out, none is entered twice)

* Writing is queued, and flushed once before the reactor sleeps. The queue has a limit: a peer that lets it fill is
  handed to `on_slow`. Nobody else waits for it.
* What a connection ends with is decided once (`close_code`); `on_gone` is called when it is gone, once.
* Handlers can run inside of a call from here (base mode), so any connection may be closed under our feet: a
  connection that ends becomes DEAD at once and its memory goes at the end of the turn. After every call to a hook the
  phase is looked at again.
* Limits and times are those of the listener a connection came from: its `profile`.

What is spoken is a subclass's matter (exchange.pyx, connection.pyx). It fills in the hooks `on_...`, which this class only
calls.
"""

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy

from mooring._core.admission cimport WELCOME, Admission, bucket_take
from mooring._core.buffer cimport Buffer, buffer_append, buffer_consume, buffer_free, buffer_reserve, buffer_size
from mooring._core.reactor cimport (
    EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP, RECEIVE_BYTES, Reactor, Source,
)
from mooring._core.table cimport (
    GATEWAY_SHIFT, SERIAL_BITS, SLOT_BITS, ST_CLOSING, ST_HTTP, ST_OPEN, Entry, Table, address_text, slot_of,
)
from mooring._core.ws cimport decoder_free

cdef extern from "sys/socket.h" nogil:
    ssize_t recv(int fd, void* data, size_t size, int flags)
    ssize_t c_send "send" (int fd, const void* data, size_t size, int flags)
    int shutdown(int fd, int how)
    int setsockopt(int fd, int level, int name, const void* value, unsigned int size)
    enum:
        MSG_NOSIGNAL
        SHUT_WR
        SOL_SOCKET
        SO_LINGER

cdef extern from "netinet/in.h" nogil:
    enum:
        IPPROTO_TCP

cdef extern from "netinet/tcp.h" nogil:
    enum:
        TCP_NODELAY

cdef extern from "sys/ioctl.h" nogil:
    int ioctl(int fd, unsigned long what, int* value)

cdef extern from "linux/sockios.h" nogil:
    enum:
        SIOCOUTQ

cdef extern from "unistd.h" nogil:
    int c_close "close" (int fd)

cdef extern from *:
    """
    #define mooring_store(p, v) __atomic_store_n(p, v, __ATOMIC_RELEASE)
    """
    void mooring_store(uint64_t* where, uint64_t value) noexcept nogil

cdef uint64_t TOKEN_MASK = 0xFFFFFFFFFFFF
cdef uint64_t LINGER_MS = 2000
cdef double MIN_PAUSE = 0.01         # seconds; who waits for a token is looked at no more often
cdef uint32_t CONTROL_SECONDS = 10
cdef bytes RESET = b"the connection was reset"


include "transport_profile.pxi"
include "transport_memory.pxi"


cdef class Transport(Source):
    """The connections of gateway number `gateway`; `table` must be writable. MemoryError without memory for it.

    profiles: the options of each listener, by its index: max_message, max_fragments, write_limit, high_water (bytes),
    request_timeout, idle_timeout, write_timeout, close_timeout, ping_interval (0: never), pong_timeout,
    heartbeat_idle_time (seconds; 0: any time),
    control_limit (frames), open_ping, open_pong, open_close (hand these frames to the application).
    preface, preface_timeout (seconds): an object with admits(), parse() and refused(), see gateway/preface.py, when
    connections begin with a header of a proxy.
    message_rate, message_burst (messages a second, and at once; 0: any number).
    address_limit: connections of one address; fresh_limit: those of them without an answered request; 0: any number.
    """

    def __cinit__(self, reactor: Reactor, table: Table, gateway: int, first_serial: int, *profiles: dict[str, object],
                  address_limit: int = 0, fresh_limit: int = 0, ceiling: int = 0) -> None:
        cdef uint32_t slot
        self.table = table
        self.slot_count = table.slots
        self.gateway = gateway
        self.ceiling = ceiling
        self.serial = <uint64_t> first_serial & ((<uint64_t> 1 << SERIAL_BITS) - 1)
        self.reasons = {}
        self.admission = Admission(address_limit, fresh_limit)
        self.waiting = []
        self.woken = []
        self.prefaces = []
        self.slots = <Connection**> calloc(self.slot_count, sizeof(Connection*))
        self.free_slots = <uint32_t*> malloc(self.slot_count * sizeof(uint32_t))
        self.profiles = <Profile*> calloc(len(profiles), sizeof(Profile))
        if self.slots == NULL or self.free_slots == NULL or self.profiles == NULL:
            raise MemoryError("no memory for the table of connections")
        for index, options in enumerate(profiles):
            fill_profile(&self.profiles[index], index, options)
            self.prefaces.append(options.get("preface"))
        self.listeners = len(profiles)
        for slot in range(self.slot_count):
            self.free_slots[slot] = <uint32_t> (self.slot_count - 1 - slot)
        self.free_count = self.slot_count
        reactor.add(self)

    def __dealloc__(self) -> None:
        # `table` may be cleared by now: an object in a circle loses its references before this
        cdef uint32_t slot
        if self.slots != NULL:
            for slot in range(self.slot_count):
                if self.slots[slot] != NULL:
                    c_close(self.slots[slot].socket)
                    buffer_free(&self.slots[slot].out)
                    buffer_free(&self.slots[slot].held)
                    decoder_free(&self.slots[slot].decoder)
                    free(self.slots[slot].topics)
                    free(self.slots[slot].path)
                    free(self.slots[slot])
        self._bury()
        free(self.slots)
        free(self.free_slots)
        free(self.profiles)

    cdef int _bury(self) noexcept:
        cdef Connection* c
        while self.graves != NULL:
            c = self.graves
            self.graves = c.next_grave
            free(c)
        return 0

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

    cdef int on_end(self, Connection* c) except -1:
        """The peer has ended its half, and all that it sent was read."""
        return self._gone(c, 1006, b"")

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
        """It ends for an error of ours. What is done here needs no memory."""
        return 0

    cdef int on_gone(self, Connection* c, int code, bytes reason) except -1:
        """The connection has ended; its slot is free, its fd unknown."""
        return 0

    # ------------------------------------------------------------------ coming and going

    cdef Connection* find(self, uint64_t fd) noexcept:
        """The connection with this public id, or NULL: an id is never given out twice."""
        cdef uint32_t slot = slot_of(fd)
        cdef Connection* c
        if slot >= self.slot_count:
            return NULL
        c = self.slots[slot]
        return c if c != NULL and c.fd == fd else NULL

    @property
    def free(self) -> int:
        """How many connections can still be taken."""
        return self.free_count

    cdef int adopt(self, int socket, int family, const uint8_t* address, int remote_port, int server_port,
                   int listener) except -1:
        """Takes over a fresh non-blocking socket; the caller has looked whether there is a free slot."""
        cdef int one = 1
        cdef uint32_t slot
        cdef Connection* c
        cdef Entry* entry
        c = <Connection*> calloc(1, sizeof(Connection))
        if c == NULL:
            c_close(socket)
            raise MemoryError("no memory for a connection")
        # the one that was freed last: so no more of the table is ever touched than there were connections at one time
        self.free_count -= 1
        slot = self.free_slots[self.free_count]
        self.slots[slot] = c
        self.serial = (self.serial + 1) & ((<uint64_t> 1 << SERIAL_BITS) - 1)
        c.fd = (<uint64_t> self.gateway << GATEWAY_SHIFT) | (self.serial << SLOT_BITS) | slot
        c.socket = socket
        c.profile = &self.profiles[listener]
        c.port = NO_PORT
        c.timer.token = c.fd & TOKEN_MASK
        entry = &self.table.entries[slot]
        entry.state = ST_HTTP
        entry.family = family
        entry.remote_port = remote_port
        entry.server_port = server_port
        entry.listener = listener
        entry.worker = entry.owner = 0
        entry.in_flight = 0
        entry.round_trip = 0
        entry.opened = 0
        memcpy(entry.address, address, 16)
        entry.connected = entry.received = self.reactor.now
        entry.bytes_received = entry.bytes_sent = 0
        entry.messages_received = entry.messages_sent = 0
        c.entry = entry
        if slot >= self.table.header.used:
            self.table.header.used = slot + 1
        mooring_store(&entry.fd, c.fd)
        self.count += 1
        self.counters.accepted += 1
        c.phase = HTTP
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
            return end_for_fault(self, c)

    cdef int _count(self, Connection* c) except -1:
        """One more of this address; _gone takes it back."""
        if self.admission.enter(c.entry.family, c.entry.address):
            c.flags |= FRESH | COUNTED
        return 0

    cdef bint admits(self, int listener, int family, const uint8_t* address) except -1:
        return self.prefaces[listener].admits(address_text(family, address))

    cdef int settle(self, Connection* c) except -1:
        if c.flags & FRESH:
            c.flags &= ~FRESH
            self.admission.settle(c.entry.family, c.entry.address)
        return 0

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

    cdef int _enter(self, Connection* c, Phase phase) except -1:
        """The one place where a phase changes: forward only."""
        if phase <= c.phase:
            raise AssertionError(f"connection {c.fd}: phase {c.phase} -> {phase}")
        c.phase = phase
        if phase == OPEN:
            c.entry.state = ST_OPEN
        elif phase < DEAD:
            c.entry.state = ST_CLOSING
        return 0

    cdef int _decide(self, Connection* c, By by, int code, bytes reason) except -1:
        if c.close_code == 0:
            c.close_code = code
            c.closed_by = by
            self.reasons[c.fd] = reason
        return 0

    cdef int _lost(self, Connection* c, bytes reason) except -1:
        """The peer has ended the connection."""
        self._decide(c, BY_PEER, 1006, reason)
        return self._gone(c, 1006, reason)

    cdef int _gone(self, Connection* c, int code, bytes reason) except -1:
        """The end: tells of it, once, and gives everything back."""
        cdef uint32_t slot = slot_of(c.fd)
        if c.phase == DEAD:
            return 0
        self._decide(c, BY_SERVER, code, reason)
        self._enter(c, DEAD)
        self.reactor.disarm(&c.timer)
        c.next_grave = self.graves
        self.graves = c
        # the number of the socket is free for the next accept from here on, so nothing may use it after this
        c_close(c.socket)
        c.socket = -1
        buffer_free(&c.out)
        self._count_out(c)
        buffer_free(&c.held)
        decoder_free(&c.decoder)
        self.gathered -= c.gathered
        c.gathered = 0
        self.settle(c)
        if c.flags & COUNTED:
            self.admission.leave(c.entry.family, c.entry.address)
        self.slots[slot] = NULL
        self.free_slots[self.free_count] = slot
        self.free_count += 1
        self.count -= 1
        self.counters.closed += 1
        mooring_store(&c.entry.fd, 0)
        self.reactor.mark_dirty(self)
        try:
            self.on_gone(c, c.close_code, self.reasons.pop(c.fd, reason))
        finally:
            free(c.topics)
            c.topics = NULL
            c.topic_count = 0
            free(c.path)
            c.path = NULL
            c.path_size = 0
        return 0

    # ------------------------------------------------------------------ readiness and time

    cdef int _interest(self, Connection* c) except -1:
        """Arms exactly the events that can be acted on."""
        cdef uint32_t wanted = 0
        if c.phase == DEAD:
            return 0
        if not c.flags & HALF:
            if reads(c):
                wanted = EPOLLIN
            else:
                wanted = EPOLLRDHUP
        if c.flags & FULL:
            wanted |= EPOLLOUT
        if wanted != c.interest:
            c.interest = wanted
            self.reactor.change(self, c.socket, c.fd & TOKEN_MASK, wanted)
        return 0

    cdef int _arm(self, Connection* c, Deadline deadline, uint64_t ms) except -1:
        c.deadline = deadline
        self.reactor.arm(self, &c.timer, self.reactor.now + ms)
        return 0

    cdef int on_ready(self, uint64_t token, uint32_t events) except -1:
        cdef Connection* c = self.slots[token & ((1 << SLOT_BITS) - 1)]
        if c == NULL or c.fd & TOKEN_MASK != token:
            return 0        # closed earlier in this batch
        try:
            return self._ready(c, events)
        except Exception:
            return end_for_fault(self, c)

    cdef int _ready(self, Connection* c, uint32_t events) except -1:
        if events & EPOLLOUT:
            c.flags &= ~FULL
            self._send_some(c)
            if c.phase == DEAD:
                return 0
        if events & EPOLLIN:
            return self._receive(c)
        if events & (EPOLLHUP | EPOLLERR):
            return self._lost(c, RESET)
        if events & EPOLLRDHUP and c.flags & WANTED:
            return self._receive(c)      # seen before reading went on
        if events & EPOLLRDHUP:
            # what it sent before is still to be read; for the answer to a request the other half is enough
            c.flags |= HALF
            self._interest(c)
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
                return refuse_preface(self, c, "no header came in time")
            return self.on_deadline(c, deadline)
        except Exception:
            return end_for_fault(self, c)

    cdef int _receive(self, Connection* c) except -1:
        cdef uint8_t* buffer = self.reactor.receive_buffer
        cdef ssize_t got = recv(c.socket, buffer, RECEIVE_BYTES, 0)
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
            return read_preface(self, c, buffer, got)
        return self.on_raw(c, buffer, got)

    cdef int wake(self, Connection* c) except -1:
        """The sink can take messages of this connection again."""
        if c.flags & (HELD | BUSY) and not c.flags & WOKEN:
            c.flags |= WOKEN
            self.woken.append(c.fd)
            self.reactor.mark_dirty(self)
        return 0

    # ------------------------------------------------------------------ out

    cdef int write(self, Connection* c, const uint8_t* head, size_t head_size,
                   const uint8_t* data, size_t size) except -1:
        cdef size_t queued = buffer_size(&c.out)
        if c.phase >= LINGER or c.flags & SHUT:
            return 0
        if queued > c.profile.write_limit:
            if not c.flags & FULL:
                self._offer(c)
            if buffer_size(&c.out) > c.profile.write_limit:
                self.on_slow(c, b"slow consumer: the out-queue is full")
                return 0
        if buffer_reserve(&c.out, head_size + size) < 0:
            self._doom(c, 1006, b"no memory for the out-queue")
            return 0
        memcpy(c.out.data + c.out.end, head, head_size)
        c.out.end += head_size
        if size:
            memcpy(c.out.data + c.out.end, data, size)
            c.out.end += size
        self._count_out(c)
        if self.ceiling and self.queued + self.gathered > self.ceiling:
            _relieve(self)
        self._mark(c)
        return 1

    cdef int _count_out(self, Connection* c) noexcept:
        cdef size_t size = buffer_size(&c.out)
        self.queued += size - c.counted
        c.counted = size
        return 0

    cdef int gather(self, Connection* c, size_t size) except -1:
        if size != c.gathered and c.phase != DEAD:
            self.gathered += size - c.gathered
            c.gathered = size
            if self.ceiling and self.queued + self.gathered > self.ceiling:
                _relieve(self)
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
        """Ends a connection without a word, but not before the flush: the caller may be in the middle of a fan-out or of
        somebody's handler, and the close event must not run inside of it."""
        if c.phase >= LINGER:
            return 0
        self._decide(c, BY_SERVER, code, reason)
        if c.phase != CLOSING:
            self._enter(c, CLOSING)
        buffer_free(&c.out)
        self._count_out(c)
        c.flags |= SHUT
        c.flags &= ~(FULL | SLOWLY)
        return self._mark(c)

    cdef int flush(self) except -1:
        """Before the reactor sleeps: resumes what was woken, writes what was queued, frees what has died."""
        cdef Connection* c
        if self.woken:
            woken = self.woken
            self.woken = []
            for fd in woken:
                c = self.find(fd)
                if c != NULL:
                    try:
                        self.on_wake(c)
                    except Exception:
                        end_for_fault(self, c)
        while self.dirty_first != NULL:
            c = self.dirty_first
            self.dirty_first = c.next_dirty
            c.next_dirty = NULL
            c.flags &= ~DIRTY
            if c.phase != DEAD:
                try:
                    if c.flags & FULL:
                        self._above(c)
                    else:
                        self._send_some(c)
                except Exception:
                    end_for_fault(self, c)
        if self.graves != NULL:
            self._bury()
        return 0

    cdef int _offer(self, Connection* c) except -1:
        """Offers the queue to the kernel once; what is left stays queued. 0, or the error of a broken connection."""
        cdef size_t size = buffer_size(&c.out)
        cdef ssize_t sent = c_send(c.socket, c.out.data + c.out.start, size, MSG_NOSIGNAL)
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
            self._count_out(c)
            if buffer_size(&c.out) > c.profile.high_water:
                self._above(c)
            elif c.flags & HIGH or c.deadline == D_WRITE and buffer_size(&c.out) == 0:
                self._below(c)
            if c.deadline == D_CLOSE and buffer_size(&c.out) and not c.flags & UPGRADED:
                watch_pace(self, c)       # the last answer may take as long as any
        if c.flags & (ASKED | DONE) and buffer_size(&c.out) <= c.profile.high_water:
            self.on_room(c)
        if buffer_size(&c.out) or c.owed:
            return self._interest(c)
        if c.flags & SHUT:
            return self._written(c)
        return self._interest(c)

    cdef int _above(self, Connection* c) except -1:
        """From now on the peer has write_timeout to take what waits, if that is much."""
        if (buffer_size(&c.out) > c.profile.high_water and not c.flags & HIGH
                and (c.deadline == D_NONE or c.deadline == D_PING or c.deadline == D_PONG)):
            c.flags |= HIGH
            watch_pace(self, c)
        return 0

    cdef int _below(self, Connection* c) except -1:
        c.flags &= ~HIGH
        # an answer is read too slowly as long as anything of it waits
        if c.deadline == D_WRITE and (c.flags & UPGRADED or buffer_size(&c.out) == 0 and c.file == NULL):
            c.deadline = D_NONE
            self.reactor.disarm(&c.timer)
            self.on_relieved(c)
        return 0

    cdef int _written(self, Connection* c) except -1:
        """The last byte is out and the connection is to end."""
        if not c.flags & SLOWLY or c.flags & HALF:
            return self._gone(c, 1006, b"")
        # closing with unread input would send a reset, which may overtake our last bytes (RFC 9112 section 9.6)
        shutdown(c.socket, SHUT_WR)
        self._enter(c, LINGER)
        self._arm(c, D_LINGER, LINGER_MS)
        return self._interest(c)

    # ------------------------------------------------------------------ for the gateway

    def cut(self, fd: int, reason: bytes) -> None:
        """Ends a connection without a word to the peer."""
        cdef Connection* c = self.find(fd)
        if c != NULL:
            self._doom(c, 1006, reason)

    def listener(self, fd: int) -> int:
        """Index of the listener it came from; 0 for a connection that is gone."""
        cdef Connection* c = self.find(fd)
        return c.profile.index if c != NULL else 0

    def peer(self, fd: int) -> tuple[str, int, int]:
        """(remote address, remote port, our port); empty for a connection that is gone."""
        cdef Connection* c = self.find(fd)
        if c == NULL:
            return "", 0, 0
        return address_text(c.entry.family, c.entry.address), c.entry.remote_port, c.entry.server_port


include "transport_preface.pxi"
include "transport_pace.pxi"
include "transport_faults.pxi"
