"""All client connections of a gateway: sockets, buffers, codecs, states.

Theory
------
A connection is a C struct: an idle WebSocket costs that struct and its entry in the table, no Python object and no
buffer. Its life is one enum, changed in one function (`_enter`), and it only moves forward:

    HTTP -> OPEN -> CLOSING -> LINGER -> DEAD        (any phase may be left out, none is entered twice)

* Upgrade is one act in one place: `upgrade()` writes the 101, takes the bytes that came behind the request from the
  HTTP codec and hands them to the frame decoder (RFC 6455 section 4.2.2).
* Reading stops where handling stops. Before each message the sink is asked whether it may be taken. If not, the raw
  bytes wait in `held`, the socket is not read any more, and TCP slows the peer down. Nothing is dropped and at most
  one receive buffer is kept.
* Writing is queued, and flushed once before the reactor sleeps. The queue has a limit: a peer that lets it fill is told
  1008 behind the frame that is partly sent, and cut if it does not read that either. Nobody else waits for it.
* What a connection ends with is decided once (`close_code`); the one close event is given when it is gone.
* Handlers can run inside of a call from here (base mode), so any connection may be closed under our feet: a
  connection that ends becomes DEAD at once and its memory goes at the end of the turn. After every call to the sink
  the phase is looked at again.

The connection knows a `Sink`, not the gateway.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy

from mooring._core.buffer cimport (
    Buffer, buffer_append, buffer_consume, buffer_free, buffer_reserve, buffer_size,
)
from mooring._core.reactor cimport (
    EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP, RECEIVE_BYTES, Reactor, Source, monotonic_us,
)
from mooring._core.table cimport (
    GATEWAY_SHIFT, SERIAL_BITS, SLOT_BITS, ST_CLOSING, ST_HTTP, ST_OPEN, Entry, Table,
    address_text, slot_of,
)
from mooring._core.timer cimport Timer
from mooring._core.wire cimport RESPOND_CLOSE, RESPOND_LAST
from mooring._core.ws cimport (
    CONTROL, FAILED, MESSAGE, OP_CLOSE, OP_PING, OP_PONG, OP_TEXT, RSV1, SERVER_HEADER_LIMIT, FrameEvent, Outcome,
    decode_next, decoder_free, decoder_release, encode_header, is_utf8, parse_close,
)

import os

from mooring._core.deflate import Broken, TooLong
from mooring._core.http import CONTINUE as _CONTINUE, HttpCodec, HttpError

cdef extern from "sys/socket.h" nogil:
    ssize_t recv(int fd, void* data, size_t size, int flags)
    ssize_t c_send "send" (int fd, const void* data, size_t size, int flags)
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

cdef extern from *:
    """
    #define mooring_store(p, v) __atomic_store_n(p, v, __ATOMIC_RELEASE)
    """
    void mooring_store(uint64_t* where, uint64_t value) noexcept nogil

cdef uint64_t TOKEN_MASK = 0xFFFFFFFFFFFF
cdef uint64_t LINGER_MS = 2000
cdef uint32_t CONTROL_SECONDS = 10
cdef const char* LOOPBACK = b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1"
cdef const char* MAPPED = b"\0\0\0\0\0\0\0\0\0\0\xff\xff"        # an IPv4 client of a socket for both
cdef bytes CONTINUE_RESPONSE = b"HTTP/1.1 100 Continue\r\n\r\n"
cdef bytes RESET = b"the connection was reset"
cdef bytes NO_CLOSE_FRAME = b"the peer ended the connection without a close frame"


cdef bytes address_key(int family, const uint8_t* address):
    """Whose connections are counted together: one IPv4 address, or an IPv6 network of 64 bits, which is what one customer
    of a provider has. None for this machine itself."""
    if family == 4 and address[0] != 127:
        return address[:4]
    if family == 6:
        if memcmp(address, MAPPED, 12) == 0:
            return address_key(4, address + 12)
        if memcmp(address, LOOPBACK, 16):
            return address[:8]
    return None


cdef class Sink:
    """What connections tell; the gateway's relay is one."""

    cdef bint ready(self, Connection* connection) except -1:
        return True

    cdef int on_message(self, Connection* connection, int opcode, const uint8_t* data, size_t size) except -1:
        return 0

    cdef int on_request(self, Connection* connection, object request) except -1:
        return 0

    cdef int on_bad_request(self, Connection* connection, object error) except -1:
        return 0

    cdef int on_gone(self, Connection* connection, int code, bytes reason) except -1:
        return 0


cdef class Connections(Source):
    """The connections of gateway number `gateway`; `table` must be writable. MemoryError without memory for it.

    options: max_message, max_fragments, write_limit, high_water (bytes), request_timeout, idle_timeout,
    write_timeout, close_timeout, ping_interval (0: never), pong_timeout (seconds), address_limit (connections),
    control_limit (frames), open_ping, open_pong, open_close (hand these frames to the sink), http (keyword arguments of HttpCodec).
    """

    def __cinit__(self, reactor: Reactor, table: Table, gateway: int, first_serial: int, **options: object) -> None:
        cdef uint32_t slot
        self.table = table
        self.slot_count = table.slots
        self.gateway = gateway
        self.serial = <uint64_t> first_serial & ((<uint64_t> 1 << SERIAL_BITS) - 1)
        self.limits.message = options["max_message"]
        self.limits.fragments = options["max_fragments"]
        self.write_limit = options["write_limit"]
        self.high_water = options["high_water"]
        self.request_ms = <uint64_t> (options["request_timeout"] * 1000)
        self.idle_ms = <uint64_t> (options["idle_timeout"] * 1000)
        self.write_ms = <uint64_t> (options["write_timeout"] * 1000)
        self.close_ms = <uint64_t> (options["close_timeout"] * 1000)
        self.ping_ms = <uint64_t> (options.get("ping_interval", 0) * 1000)
        self.pong_ms = <uint64_t> (options.get("pong_timeout", 10) * 1000)
        self.ping_key = int.from_bytes(os.urandom(8), "little")
        self.http_options = dict(options["http"])
        self.codecs = {}
        self.reasons = {}
        self.deflates = {}
        self.addresses = {}
        self.address_limit = options.get("address_limit", 0)
        self.control_limit = options.get("control_limit", 65535)
        self.open_ping = options.get("open_ping", False)
        self.open_pong = options.get("open_pong", False)
        self.open_close = options.get("open_close", False)
        self.woken = []
        self.slots = <Connection**> calloc(self.slot_count, sizeof(Connection*))
        self.free_slots = <uint32_t*> malloc(self.slot_count * sizeof(uint32_t))
        if self.slots == NULL or self.free_slots == NULL:
            raise MemoryError("no memory for the table of connections")
        for slot in range(self.slot_count):
            self.free_slots[slot] = slot
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
                    free(self.slots[slot])
        self._bury()
        free(self.slots)
        free(self.free_slots)
        free(self.dirty_list)
        free(self.graves)

    cdef int _bury(self) noexcept:
        cdef size_t i
        for i in range(self.grave_count):
            free(self.graves[i])
        self.grave_count = 0
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

    cdef int adopt(self, int socket, int family, const uint8_t* address, int remote_port, int server_port) except -1:
        """Takes over a fresh non-blocking socket; the caller has looked whether there is a free slot."""
        cdef int one = 1
        cdef uint32_t slot
        cdef Connection* c
        cdef Entry* entry
        c = <Connection*> calloc(1, sizeof(Connection))
        if c == NULL:
            c_close(socket)
            raise MemoryError("no memory for a connection")
        slot = self.free_slots[self.free_head]
        self.free_head = (self.free_head + 1) % self.slot_count
        self.free_count -= 1
        self.slots[slot] = c
        self.serial = (self.serial + 1) & ((<uint64_t> 1 << SERIAL_BITS) - 1)
        c.fd = (<uint64_t> self.gateway << GATEWAY_SHIFT) | (self.serial << SLOT_BITS) | slot
        c.socket = socket
        c.port = NO_PORT
        c.timer.token = c.fd & TOKEN_MASK
        entry = &self.table.entries[slot]
        entry.state = ST_HTTP
        entry.family = family
        entry.remote_port = remote_port
        entry.server_port = server_port
        entry.worker = entry.owner = 0
        entry.in_flight = 0
        entry.round_trip = 0
        memcpy(entry.address, address, 16)
        if self.address_limit:
            key = address_key(family, address)
            if key is not None:
                self.addresses[key] = self.addresses.get(key, 0) + 1
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
        self.reactor.watch(self, socket, c.fd & TOKEN_MASK, EPOLLIN)
        self._arm(c, D_REQUEST, self.request_ms)
        return 0

    cdef bint welcome(self, int family, const uint8_t* address) except -1:
        """Connections from this machine itself are not counted: they are a proxy's, or tests."""
        key = address_key(family, address) if self.address_limit else None
        return key is None or self.addresses.get(key, 0) < self.address_limit

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

    cdef int _gone(self, Connection* c, int code, bytes reason) except -1:
        """The end: tells the sink, once, and gives everything back."""
        cdef uint32_t slot = slot_of(c.fd)
        cdef Connection** grown
        if c.phase == DEAD:
            return 0
        if c.close_code == 0:
            c.close_code = code
            self.reasons[c.fd] = reason
        self._enter(c, DEAD)
        self.reactor.disarm(&c.timer)
        if self.grave_count == self.grave_capacity:
            grown = <Connection**> realloc(self.graves, (self.grave_capacity * 2 + 64) * sizeof(Connection*))
            if grown == NULL:
                raise MemoryError("no memory to end a connection")
            self.graves = grown
            self.grave_capacity = self.grave_capacity * 2 + 64
        self.graves[self.grave_count] = c
        self.grave_count += 1
        # the number of the socket is free for the next accept from here on, so nothing may use it after this
        c_close(c.socket)
        c.socket = -1
        buffer_free(&c.out)
        buffer_free(&c.held)
        decoder_free(&c.decoder)
        self.codecs.pop(c.fd, None)
        if self.address_limit:
            key = address_key(c.entry.family, c.entry.address)
            if key is not None:
                left = self.addresses.get(key, 1) - 1
                if left:
                    self.addresses[key] = left
                else:
                    self.addresses.pop(key, None)
        if c.deflate != NULL:
            c.deflate = NULL
            self.deflates.pop(c.fd, None)
        self.slots[slot] = NULL
        self.free_slots[(self.free_head + self.free_count) % self.slot_count] = slot
        self.free_count += 1
        self.count -= 1
        self.counters.closed += 1
        mooring_store(&c.entry.fd, 0)
        self.reactor.mark_dirty(self)
        try:
            self.sink.on_gone(c, c.close_code, self.reasons.pop(c.fd, reason))
        finally:
            free(c.topics)
            c.topics = NULL
            c.topic_count = 0
        return 0

    # ------------------------------------------------------------------ readiness and time

    cdef int _interest(self, Connection* c) except -1:
        """Arms exactly the events that can be acted on."""
        cdef uint32_t wanted = 0
        if c.phase == DEAD:
            return 0
        if not c.flags & HALF:
            if c.phase == LINGER or not (c.flags & (HELD | SHUT) or c.phase == HTTP and c.flags & BUSY):
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
        if events & EPOLLOUT:
            c.flags &= ~FULL
            self._send_some(c)
            if c.phase == DEAD:
                return 0
        if events & EPOLLIN:
            return self._receive(c)
        if events & (EPOLLHUP | EPOLLERR):
            return self._gone(c, 1006, RESET)
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
        if deadline == D_PING:
            return self._ping(c)
        if deadline == D_PONG and c.entry.received >= self.reactor.now - self.pong_ms:
            return self._await_silence(c)        # any byte shows that the peer is there
        if deadline == D_PONG and c.flags & HELD:
            return self._arm(c, D_PONG, self.pong_ms)    # it is we who do not read
        self.counters.timed_out += 1
        if deadline == D_PONG:
            return self._gone(c, 1006, b"no answer to a ping")
        if deadline == D_REQUEST:
            codec = self.codecs.get(c.fd)
            if codec is None or codec.idle:
                return self._gone(c, 1006, b"no request came in time")
            return self.sink.on_bad_request(c, HttpError(408, "the request took too long to arrive"))
        if deadline == D_IDLE:
            return self._gone(c, 1006, b"idle for too long")
        if deadline == D_WRITE:
            return self._slow(c, b"slow consumer: above high water for too long")
        if deadline == D_CLOSE:
            return self._gone(c, 1006, b"no close frame came in time")
        return self._gone(c, 1006, b"lingered for too long")

    # ------------------------------------------------------------------ in

    cdef int _receive(self, Connection* c) except -1:
        cdef uint8_t* buffer = self.reactor.receive_buffer
        cdef ssize_t got = recv(c.socket, buffer, RECEIVE_BYTES, 0)
        cdef size_t used
        if got < 0:
            if errno == EAGAIN or errno == EINTR:
                return 0
            return self._gone(c, 1006, RESET)
        if got == 0:
            return self._end_of_input(c)
        c.entry.bytes_received += got
        c.entry.received = self.reactor.now
        self.counters.bytes_received += got
        if c.phase == OPEN or c.phase == CLOSING and c.flags & UPGRADED:
            used = self._feed(c, buffer, got)
            if c.phase <= CLOSING and used < <size_t> got and not c.flags & SHUT:
                if buffer_append(&c.held, buffer + used, got - used) < 0:
                    return self._fail(c, 1011, b"out of memory")
                c.flags |= HELD
                self._interest(c)
        elif c.phase == HTTP:
            codec = self.codecs.get(c.fd)
            if codec is None:
                codec = self.codecs[c.fd] = HttpCodec(**self.http_options)
                if c.requests:
                    self._arm(c, D_REQUEST, self.request_ms)
            codec.receive(PyBytes_FromStringAndSize(<const char*> buffer, got))
            self._next_request(c)
        return 0

    cdef size_t _feed(self, Connection* c, uint8_t* data, size_t size) except? 0:
        """Decodes frames; gives the bytes used, fewer than `size` when the sink wants to wait."""
        cdef size_t at = 0
        cdef FrameEvent event
        cdef Outcome outcome
        cdef bytes inflated
        while at < size:
            if c.phase == OPEN and not self._is_control(c, data[at]) and not self.sink.ready(c):
                break
            outcome = decode_next(&c.decoder, &self.limits, data, size, &at, &event)
            if outcome == MESSAGE:
                if c.phase == OPEN:      # in CLOSING: too late, it is not handled (RFC 6455 section 1.4)
                    c.entry.messages_received += 1
                    self.counters.messages_received += 1
                    if not event.compressed:
                        self.sink.on_message(c, event.opcode, event.data, event.size)
                    else:
                        inflated = self._inflated(c, &event)
                        if inflated is not None:
                            self.sink.on_message(c, event.opcode, <const uint8_t*> PyBytes_AS_STRING(inflated),
                                                 len(inflated))
            elif outcome == CONTROL:
                self._control(c, &event)
            elif outcome == FAILED:
                self._fail(c, event.code, event.reason)
            else:
                break
            if c.phase > CLOSING or c.flags & SHUT:
                return size
        decoder_release(&c.decoder)
        return at

    cdef bytes _inflated(self, Connection* c, const FrameEvent* event):
        """The message; None when it failed the connection."""
        cdef bytes message
        try:
            message = (<Deflate> c.deflate).inflate(event.data, event.size)
        except TooLong as error:
            self._fail(c, 1009, f"message too big: {error}".encode())
            return None
        except Broken as error:
            self._fail(c, 1007, f"broken compression: {error}".encode())
            return None
        if event.opcode == OP_TEXT and not is_utf8(message, len(message)):
            self._fail(c, 1007, b"text is not UTF-8 (RFC 6455 section 8.1)")
            return None
        return message

    cdef bint _is_control(self, Connection* c, uint8_t first) noexcept:
        """Whether a control frame is being read, or begins with this byte: those are ours, whoever else is busy, unless
        the application wants to see them."""
        if self.open_ping or self.open_pong or self.open_close:
            return False
        if c.decoder.payload:
            return c.decoder.opcode >= 8
        return (c.decoder.head[0] if c.decoder.have else first) & 0x08

    cdef int _control(self, Connection* c, const FrameEvent* event) except -1:
        cdef uint16_t code = 0
        cdef uint16_t fault
        cdef uint32_t second
        if event.opcode != OP_CLOSE:
            # each one makes us work, or even write (a pong), without ever being a message
            second = <uint32_t> (self.reactor.now // 1000)
            if second - c.controls_since >= CONTROL_SECONDS:
                c.controls_since = second
                c.controls = 0
            c.controls += 1
            if c.controls > self.control_limit:
                return self._fail(c, 1008, b"too many pings and pongs")
        if event.opcode == OP_PING:
            if c.phase == OPEN:
                self.send(c, OP_PONG, event.data, event.size)
                if self.open_ping and c.phase == OPEN:
                    self.sink.on_message(c, OP_PING, event.data, event.size)
        elif event.opcode == OP_PONG:
            self._pong(c, event)
            if self.open_pong and c.phase == OPEN:
                self.sink.on_message(c, OP_PONG, event.data, event.size)
        elif event.opcode == OP_CLOSE:
            fault = parse_close(event.data, event.size, &code)
            if fault:
                return self._fail(c, fault, b"a close frame with a wrong payload (RFC 6455 section 5.5.1)")
            if self.open_close and c.phase == OPEN:
                self.sink.on_message(c, OP_CLOSE, event.data, event.size)
                if c.phase == DEAD:
                    return 0
            if c.phase == OPEN:
                # the peer begins: its frame is echoed, and ours is the last (section 5.5.1)
                c.close_code = code
                self.reasons[c.fd] = event.data[2:event.size] if event.size > 2 else b""
                self.send(c, OP_CLOSE, event.data, event.size if event.size < 2 else 2)
                self._enter(c, CLOSING)
            c.flags |= SHUT
            self._arm(c, D_CLOSE, self.close_ms)
            if buffer_size(&c.out) == 0:
                self._written(c)
            else:
                self._interest(c)
        return 0

    cdef int _await_silence(self, Connection* c) except -1:
        """Arms the next ping: when nothing has been heard of the peer for ping_interval."""
        cdef uint64_t quiet = self.reactor.now - c.entry.received
        if self.ping_ms and c.phase == OPEN:
            return self._arm(c, D_PING, self.ping_ms - quiet if quiet < self.ping_ms else 0)
        return 0

    cdef int _ping(self, Connection* c) except -1:
        cdef uint64_t now
        if self.reactor.now - c.entry.received < self.ping_ms:
            return self._await_silence(c)
        now = monotonic_us() ^ self.ping_key
        self.counters.pings_sent += 1
        self.send(c, OP_PING, <const uint8_t*> &now, sizeof(now))
        return self._arm(c, D_PONG, self.pong_ms) if c.phase == OPEN else 0

    cdef int _pong(self, Connection* c, const FrameEvent* event) except -1:
        """The payload is the time at which we asked, unless the pong answers a ping of the application, or none."""
        cdef uint64_t asked
        cdef uint64_t now
        if event.size == sizeof(asked):
            memcpy(&asked, event.data, sizeof(asked))
            asked ^= self.ping_key
            now = monotonic_us()
            if asked < now and now - asked < 3600000000:
                c.entry.round_trip = <uint32_t> (now - asked)
        if c.deadline == D_PONG:
            self._await_silence(c)
        return 0

    cdef int wake(self, Connection* c) except -1:
        """The sink can take messages of this connection again."""
        if c.flags & (HELD | BUSY) and not c.flags & WOKEN:
            c.flags |= WOKEN
            self.woken.append(c.fd)
            self.reactor.mark_dirty(self)
        return 0

    cdef int _resume(self, Connection* c) except -1:
        """Goes on with what was held, then with the socket."""
        cdef size_t used
        c.flags &= ~WOKEN
        if c.phase == HTTP:
            if not c.flags & BUSY:
                self._next_request(c)
        elif c.flags & HELD and not c.flags & FEEDING:
            c.flags |= FEEDING
            used = self._feed(c, c.held.data + c.held.start, buffer_size(&c.held))
            c.flags &= ~FEEDING
            if c.phase == DEAD:
                return 0
            buffer_consume(&c.held, used)
            if buffer_size(&c.held) == 0 or c.flags & SHUT:
                buffer_free(&c.held)
                c.flags &= ~HELD
        # the peer's end is told by the next read
        c.flags &= ~HALF
        return self._interest(c)

    cdef int _end_of_input(self, Connection* c) except -1:
        if c.phase == HTTP:
            # a client may send a request and shut its half: it still gets the answer
            if c.flags & BUSY:
                c.flags |= HALF
                return self._interest(c)
            if buffer_size(&c.out) == 0:
                return self._gone(c, 1006, b"")
            self._enter(c, CLOSING)
            self._arm(c, D_CLOSE, self.close_ms)
        if c.phase == CLOSING and buffer_size(&c.out):
            c.flags |= HALF | SHUT
            return self._interest(c)
        return self._gone(c, 1006, NO_CLOSE_FRAME)

    # ------------------------------------------------------------------ HTTP and the upgrade

    cdef int _next_request(self, Connection* c) except -1:
        """One request at a time: the next one is not even parsed before this one is answered."""
        codec = self.codecs.get(c.fd)
        if codec is None:
            return 0
        while c.phase == HTTP and not c.flags & (BUSY | SHUT):
            try:
                request = codec.next_event()
            except HttpError as error:
                self.counters.failed += 1
                return self.sink.on_bad_request(c, error)
            if request is None:
                if codec.idle:
                    del self.codecs[c.fd]
                break
            if request == _CONTINUE:
                self.write(c, <const uint8_t*> PyBytes_AS_STRING(CONTINUE_RESPONSE),
                           PyBytes_GET_SIZE(CONTINUE_RESPONSE), NULL, 0)
                continue
            c.flags |= BUSY
            c.requests += 1
            self.counters.requests += 1
            self.reactor.disarm(&c.timer)
            c.deadline = D_NONE
            self.sink.on_request(c, request)
            if c.phase == DEAD:
                return 0
        return self._interest(c)

    cdef int respond(self, Connection* c, uint32_t number, int flags, const uint8_t* data, size_t size) except -1:
        """Bytes of the answer to request `number`. A late answer, to a request that is over, is refused (0)."""
        if c.phase != HTTP or not c.flags & BUSY or c.requests != number:
            return 0
        if size and not self.write(c, data, size, NULL, 0):
            return 0
        c.flags |= BEGUN
        if flags & RESPOND_LAST:
            if flags & RESPOND_CLOSE:
                c.flags |= SHUT | SLOWLY
                self._enter(c, CLOSING)
                self._arm(c, D_CLOSE, self.close_ms)
                if buffer_size(&c.out) == 0:
                    self._written(c)
                else:
                    self._interest(c)
            else:
                c.flags |= WOKEN
                c.flags &= ~(BUSY | BEGUN)
                codec = self.codecs.get(c.fd)
                if codec is None or codec.idle:
                    self._arm(c, D_IDLE, self.idle_ms)
                else:
                    self._arm(c, D_REQUEST, self.request_ms)
                self.woken.append(c.fd)
                self.reactor.mark_dirty(self)
        return 1

    def answer(self, fd: int, data: bytes) -> None:
        """The gateway's own last answer on a connection: it is closed behind it."""
        cdef Connection* c = self.find(fd)
        if c != NULL and c.phase == HTTP and not c.flags & SHUT:
            c.flags |= BUSY
            self.respond(c, c.requests, RESPOND_LAST | RESPOND_CLOSE, data, len(data))

    def answer_begun(self, fd: int) -> bool:
        """Whether bytes of the answer to the present request are on their way; True for a connection that is gone."""
        cdef Connection* c = self.find(fd)
        return c == NULL or c.phase != HTTP or not c.flags & BUSY or c.flags & BEGUN != 0

    def upgrade(self, fd: int, response: bytes, deflate: tuple | None = None) -> bool:
        """Writes the 101 and makes the connection a WebSocket, unread bytes included.

        deflate: (our window's bits, the peer's, whether we keep ours, the peer its, keyword arguments of Deflate).
        """
        cdef Connection* c = self.find(fd)
        cdef Deflate agreed
        cdef bytes rest
        if c == NULL or c.phase != HTTP or c.flags & SHUT:
            return False
        self.write(c, response, len(response), NULL, 0)
        c.boundary = buffer_size(&c.out)
        codec = self.codecs.pop(fd, None)
        rest = codec.take_rest() if codec is not None else b""
        c.flags &= ~BUSY
        c.flags |= UPGRADED
        self.counters.upgraded += 1
        self._enter(c, OPEN)
        if deflate is not None:
            c.decoder.deflates = True
            agreed = self._agree(fd, deflate)
            c.deflate = <void*> agreed
        self._await_silence(c)
        if rest:
            if buffer_append(&c.held, rest, len(rest)) < 0:
                self._fail(c, 1011, b"out of memory")
                return False
            c.flags |= HELD
            self.wake(c)
        self._interest(c)
        return True

    cdef Deflate _agree(self, uint64_t fd, tuple terms):
        """Who compresses for this connection: one for all with these terms, or its own if windows are kept."""
        cdef Deflate shared, own
        shared = self.deflates.get(terms[:4])
        if shared is None:
            shared = self.deflates[terms[:4]] = Deflate(*terms[:4], **terms[4])
        own = shared.own()
        if own is not shared:
            self.deflates[fd] = own
        return own

    # ------------------------------------------------------------------ out

    cdef int write(self, Connection* c, const uint8_t* head, size_t head_size,
                   const uint8_t* data, size_t size) except -1:
        cdef size_t queued = buffer_size(&c.out)
        if c.phase >= LINGER or c.flags & SHUT:
            return 0
        if queued > self.write_limit:
            if not c.flags & FULL:
                self._offer(c)
            if buffer_size(&c.out) > self.write_limit:
                self._slow(c, b"slow consumer: the out-queue is full")
                return 0
        if buffer_reserve(&c.out, head_size + size) < 0:
            self._doom(c, 1006, b"no memory for the out-queue")
            return 0
        memcpy(c.out.data + c.out.end, head, head_size)
        c.out.end += head_size
        if size:
            memcpy(c.out.data + c.out.end, data, size)
            c.out.end += size
        self._mark(c)
        return 1

    cdef int _mark(self, Connection* c) except -1:
        """The connection wants its flush."""
        cdef Connection** grown
        if not c.flags & DIRTY:
            if self.dirty_count == self.dirty_capacity:
                grown = <Connection**> realloc(self.dirty_list, (self.dirty_capacity * 2 + 64) * sizeof(Connection*))
                if grown == NULL:
                    raise MemoryError("no memory for the list of writers")
                self.dirty_list = grown
                self.dirty_capacity = self.dirty_capacity * 2 + 64
            self.dirty_list[self.dirty_count] = c
            self.dirty_count += 1
            c.flags |= DIRTY
            self.reactor.mark_dirty(self)
        return 0

    cdef int _doom(self, Connection* c, int code, bytes reason) except -1:
        """Ends a connection without a word, but not before the flush: the caller may be in the middle of a fan-out or of
        somebody's handler, and the close event must not run inside of it."""
        if c.phase >= LINGER:
            return 0
        if c.close_code == 0:
            c.close_code = code
            self.reasons[c.fd] = reason
        if c.phase != CLOSING:
            self._enter(c, CLOSING)
        buffer_free(&c.out)
        c.flags |= SHUT
        c.flags &= ~(FULL | SLOWLY)
        return self._mark(c)

    cdef int send(self, Connection* c, int opcode, const uint8_t* data, size_t size) except -1:
        """One whole frame; 0 when the connection is no open WebSocket."""
        cdef uint8_t header[SERVER_HEADER_LIMIT]
        cdef bytes payload
        if c.phase != OPEN:
            return 0
        if opcode < 8:
            c.entry.messages_sent += 1
            self.counters.messages_sent += 1
            if c.deflate != NULL:
                payload = self.deflated(c, data, size)
                if payload is not None:
                    return self.write(c, header, encode_header(header, opcode | RSV1, True, len(payload)),
                                      payload, len(payload))
        return self.write(c, header, encode_header(header, opcode, True, size), data, size)

    cdef bytes deflated(self, Connection* c, const uint8_t* data, size_t size):
        """The payload of a compressed frame; None when the message goes as it is."""
        cdef Deflate deflate = <Deflate> c.deflate
        cdef bytes payload
        if size < deflate.threshold or deflate.longest and size > deflate.longest:
            return None
        payload = deflate.compress(data, size)
        # a compressor that keeps its window has seen the message: then it must be sent in its words
        return payload if deflate.keeps or <size_t> len(payload) < size else None

    cdef int close(self, Connection* c, int code, bytes reason) except -1:
        """Begins the closing handshake (RFC 6455 section 7.1.2); the peer has close_timeout to answer."""
        cdef bytes payload
        if c.phase != OPEN:
            return 0
        c.close_code = code
        self.reasons[c.fd] = reason
        payload = code.to_bytes(2, "big") + reason
        self.send(c, OP_CLOSE, payload, len(payload))
        if c.phase == OPEN:
            self._enter(c, CLOSING)
            self._let_go(c)
            self._arm(c, D_CLOSE, self.close_ms)
            self._interest(c)
        return 1

    cdef int _let_go(self, Connection* c) except -1:
        """Nothing more of it is handled: what was held is thrown away up to the frame that is coming in."""
        cdef size_t used
        if c.flags & HELD and not c.flags & FEEDING:
            # in CLOSING the decoder takes everything: messages are skipped, the peer's close frame is found
            self.wake(c)
        return 0

    cdef int _fail(self, Connection* c, int code, bytes reason) except -1:
        """Fails the WebSocket (section 7.1.7): one close frame, and no waiting for the peer's."""
        cdef bytes payload = code.to_bytes(2, "big") + reason[:123]
        self.counters.failed += 1
        if c.phase == OPEN:
            c.close_code = code
            self.reasons[c.fd] = reason
            self.send(c, OP_CLOSE, payload, len(payload))
            if c.phase == OPEN:
                self._enter(c, CLOSING)
        if c.phase != CLOSING:
            return 0
        c.flags |= SHUT | SLOWLY
        self._arm(c, D_CLOSE, self.close_ms)
        if buffer_size(&c.out) == 0:
            return self._written(c)
        return self._interest(c)

    cdef int drop(self, Connection* c) except -1:
        """Ends a connection, whatever it speaks."""
        if c.phase == OPEN:
            return self.close(c, 1000, b"")
        if c.phase == HTTP and not c.flags & SHUT:
            c.flags |= SHUT
            self._enter(c, CLOSING)
            self._arm(c, D_CLOSE, self.close_ms)
            self._mark(c)
            return 1
        return 0

    cdef int _slow(self, Connection* c, bytes why) except -1:
        """The peer does not read. What is queued behind the frame it is in the middle of gives way to the reason."""
        cdef uint8_t header[SERVER_HEADER_LIMIT]
        cdef bytes payload = (1008).to_bytes(2, "big") + why
        cdef size_t size
        self.counters.slow += 1
        if c.phase != OPEN:
            return self._doom(c, 1006, why)
        c.close_code = 1008
        self.reasons[c.fd] = why
        c.out.end = c.out.start + c.boundary
        size = encode_header(header, OP_CLOSE, True, len(payload))
        if buffer_append(&c.out, header, size) < 0 or buffer_append(&c.out, payload, len(payload)) < 0:
            return self._doom(c, 1008, why)
        self._enter(c, CLOSING)
        self._let_go(c)
        self._arm(c, D_CLOSE, self.close_ms)
        return self._interest(c)

    cdef int flush(self) except -1:
        """Before the reactor sleeps: resumes what was woken, writes what was queued, frees what has died."""
        cdef size_t at = 0
        cdef Connection* c
        if self.woken:
            woken = self.woken
            self.woken = []
            for fd in woken:
                c = self.find(fd)
                if c != NULL:
                    self._resume(c)
        while at < self.dirty_count:
            c = self.dirty_list[at]
            at += 1
            c.flags &= ~DIRTY
            if c.phase != DEAD:
                if c.flags & FULL:
                    self._above(c)
                else:
                    self._send_some(c)
        self.dirty_count = 0
        if self.grave_count:
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
            self._move_boundary(c, sent)
        else:
            c.boundary = 0
        buffer_consume(&c.out, sent)
        return 0

    cdef int _send_some(self, Connection* c) except -1:
        cdef size_t queued = buffer_size(&c.out)
        if queued:
            if self._offer(c):
                return self._gone(c, 1006, RESET)
            if (buffer_size(&c.out) < queued and not c.flags & UPGRADED
                    and (c.deadline == D_WRITE or c.deadline == D_CLOSE)):
                self._arm(c, c.deadline, self.write_ms)      # a slow download is fine while it goes on
            if buffer_size(&c.out) > self.high_water:
                self._above(c)
            elif c.flags & HIGH:
                self._below(c)
            if buffer_size(&c.out):
                return self._interest(c)
        if c.flags & SHUT:
            return self._written(c)
        return self._interest(c)

    cdef int _above(self, Connection* c) except -1:
        """From now on the peer has write_timeout to take what waits, if that is much."""
        if (buffer_size(&c.out) > self.high_water and not c.flags & HIGH
                and (c.deadline == D_NONE or c.deadline >= D_PING)):
            c.flags |= HIGH
            self._arm(c, D_WRITE, self.write_ms)
        return 0

    cdef int _below(self, Connection* c) except -1:
        c.flags &= ~HIGH
        if c.deadline == D_WRITE:
            c.deadline = D_NONE
            self.reactor.disarm(&c.timer)
            self._await_silence(c)
        return 0

    cdef int _move_boundary(self, Connection* c, size_t sent) except -1:
        """`sent` bytes leave the front of the queue: where does the frame that is then partly sent end?"""
        cdef size_t at = c.boundary
        cdef const uint8_t* data = c.out.data + c.out.start
        cdef uint64_t length
        cdef int i
        if c.phase != OPEN and not c.flags & UPGRADED:
            return 0
        while at < sent:
            length = data[at + 1]
            if length < 126:
                length += 2
            elif length == 126:
                length = ((<uint64_t> data[at + 2] << 8) | data[at + 3]) + 4
            else:
                length = 0
                for i in range(8):
                    length = (length << 8) | data[at + 2 + i]
                length += 10
            at += length
        c.boundary = at - sent
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

    def push(self, fd: int, opcode: int, data: bytes) -> bool:
        """Queues one frame; False when the connection is no open WebSocket."""
        cdef Connection* c = self.find(fd)
        return c != NULL and self.send(c, opcode, data, len(data)) == 1

    def disconnect(self, fd: int, code: int, reason: bytes) -> bool:
        cdef Connection* c = self.find(fd)
        return c != NULL and self.close(c, code, reason) == 1

    def end(self, fd: int) -> bool:
        """Ends a connection, whatever it speaks."""
        cdef Connection* c = self.find(fd)
        return c != NULL and self.drop(c) == 1

    def cut(self, fd: int, reason: bytes) -> None:
        """Ends a connection without a word to the peer."""
        cdef Connection* c = self.find(fd)
        if c != NULL:
            self._doom(c, 1006, reason)

    def peer(self, fd: int) -> tuple[str, int, int]:
        """(remote address, remote port, our port); empty for a connection that is gone."""
        cdef Connection* c = self.find(fd)
        if c == NULL:
            return "", 0, 0
        return address_text(c.entry.family, c.entry.address), c.entry.remote_port, c.entry.server_port

    def idle_http(self) -> list[int]:
        """Connections that speak HTTP and wait for a request."""
        cdef uint32_t slot
        cdef Connection* c
        found = []
        for slot in range(self.table.header.used):
            c = self.slots[slot]
            if c != NULL and c.phase == HTTP and not c.flags & BUSY and buffer_size(&c.out) == 0:
                found.append(c.fd)
        return found

    def stats(self) -> dict[str, int]:
        """Counters since the start, and how many connections there are."""
        cdef uint32_t slot
        websockets = 0
        for slot in range(self.table.header.used):
            if self.slots[slot] != NULL and self.slots[slot].phase == OPEN:
                websockets += 1
        return {
            "connections": self.count,
            "websockets": websockets,
            "connections_accepted": self.counters.accepted,
            "connections_refused": self.counters.refused,
            "connections_refused_by_address": self.counters.refused_by_address,
            "connections_closed": self.counters.closed,
            "websockets_opened": self.counters.upgraded,
            "requests": self.counters.requests,
            "messages_received": self.counters.messages_received,
            "messages_sent": self.counters.messages_sent,
            "bytes_received": self.counters.bytes_received,
            "bytes_sent": self.counters.bytes_sent,
            "failed": self.counters.failed,
            "slow_consumers": self.counters.slow,
            "timed_out": self.counters.timed_out,
            "pings_sent": self.counters.pings_sent,
        }
