"""WebSocket on a gateway's connections, and the upgrade that leads there.

Theory
------
* Upgrade is one act in one place: `upgrade()` writes the 101, takes the bytes that came behind the request from the
  HTTP codec and hands them to the frame decoder (RFC 6455 section 4.2.2).
* Reading stops where handling stops. Before each message the sink is asked whether it may be taken. If not, the raw
  bytes wait in `held`, the socket is not read any more, and TCP slows the peer down. Nothing is dropped and at most
  one receive buffer is kept.
* A peer that lets its out-queue fill is told 1008 behind the frame that is partly sent, and cut if it does not read
  that either.

Sockets, deadlines and queues are those of transport.pyx, HTTP is that of http_exchange.pyx. The connection knows a
`Sink`, not the gateway.
"""

from cpython.bytes cimport PyBytes_AS_STRING
from libc.stddef cimport size_t
from libc.stdint cimport UINT16_MAX, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from mooring._core.buffer cimport buffer_append, buffer_consume, buffer_free, buffer_size
from mooring._core.http_exchange cimport HttpExchanges
from mooring._core.http cimport HttpCodec
from mooring._core.pace cimport is_behind
from mooring._core.reactor cimport Reactor, monotonic_us
from mooring._core.registry cimport (
    ABOVE_HIGH_WATER, BUSY, BY_APPLICATION, BY_PEER, BY_SERVER, CLOSING, D_CLOSE, D_PING, D_PONG, DEAD,
    END_WHEN_WRITTEN, FEEDING, HELD, HTTP, OPEN, PAUSED, PEER_ENDED, THEN_LINGER, UPGRADED, W_CLIENT_CLOSED,
    W_HANDLER_FAILED, W_HEARTBEAT_TIMEOUT, W_INVALID_DATA, W_MEMORY_FULL, W_MESSAGE_REFUSED, W_MESSAGE_TOO_BIG,
    W_OUT_OF_MEMORY, W_PING_TIMEOUT, W_PROTOCOL_ERROR, W_SLOW_CONSUMER, W_TOO_MANY_PINGS, By, Connection, Deadline, Why,
    blame,
)
from mooring._core.table cimport Table
from mooring._core.transport cimport say_at_once
from mooring._core.ws cimport (
    CONTROL, FAILED, MESSAGE, OP_CLOSE, OP_PING, OP_PONG, OP_TEXT, RSV1, SERVER_HEADER_LIMIT, DecodeResult, FrameEvent,
    decode_next, decoder_free, decoder_release, encode_header, is_utf8, parse_close,
)

import os

from mooring._core.deflate import Broken, TooLong

cdef uint32_t CONTROL_SECONDS = 10
cdef enum:
    INTERNAL_ERROR = 1011            # RFC 6455 section 7.4.1
    SHARE = 16                       # messages of one connection, whatever the turn
    SHARE_BYTES = 1 << 16            # of a message that was compressed; more count as further messages
cdef bytes FAULT_FRAME = b"\x88\x18\x03\xf3an error of the server"      # a close frame with 1011


cdef Why _cause_of(int code) noexcept:
    """Of a WebSocket whose frames the decoder can't take."""
    if code == 1002:
        return W_PROTOCOL_ERROR
    if code == 1007:
        return W_INVALID_DATA
    if code == 1009:
        return W_MESSAGE_TOO_BIG
    return W_OUT_OF_MEMORY


cdef inline bint _is_control(Connection* c, uint8_t first) noexcept:
    """Whether a control frame is being read, or begins with this byte: those are ours, whoever else is busy, unless the
    application wants to see them."""
    if c.profile.open_ping or c.profile.open_pong or c.profile.open_close:
        return False
    if c.decoder.payload:
        return c.decoder.opcode >= 8
    return (c.decoder.head[0] if c.decoder.have else first) & 0x08


cdef class WebSockets(HttpExchanges):
    """The connections of a gateway."""

    def __cinit__(self, reactor: Reactor, table: Table, gateway: int, first_serial: int, *profiles: dict[str, object],
                  address_limit: int = 0, fresh_limit: int = 0, ceiling: int = 0) -> None:
        self.ping_key = int.from_bytes(os.urandom(8), "little")
        self.deflates = {}

    cdef int on_gone(self, Connection* c, int code, bytes reason) except -1:
        if c.deflate != NULL:
            c.deflate = NULL
            self.deflates.pop(c.fd, None)
        return HttpExchanges.on_gone(self, c, code, reason)

    cdef int on_relieved(self, Connection* c) except -1:
        return self._await_silence(c)

    cdef int on_deadline(self, Connection* c, Deadline deadline) except -1:
        if deadline == D_PONG and self.takes_on(c, D_PONG, self._patience(c)):
            return 0             # it has the ping from now on
        if deadline == D_PONG and self._is_on_its_way(c):
            return 0
        if (deadline == D_PONG or deadline == D_PING and not self._may_ask(c)) and self._is_dead(c):
            self._late(c)
            blame(c, W_HEARTBEAT_TIMEOUT)
            return self.close(c, 1001, b"nothing was heard for heartbeat_idle_time", BY_SERVER)
        if deadline == D_PING:
            return self._ping(c)
        if deadline == D_PONG and c.entry.received >= (c.taken_at or self.reactor.now - c.profile.pong_ms):
            return self._await_silence(c)        # any byte shows that the peer is there
        if deadline == D_PONG and c.flags & HELD:
            return self._arm(c, D_PONG, c.profile.pong_ms)    # it is we who do not read
        if deadline == D_PONG:
            self._late(c)
            blame(c, W_PING_TIMEOUT)
            return self._gone(c, 1006, b"no answer to a ping")
        return HttpExchanges.on_deadline(self, c, deadline)

    cdef int on_fault(self, Connection* c) except -1:
        if c.phase == OPEN:
            say_at_once(c, FAULT_FRAME)
        return HttpExchanges.on_fault(self, c)

    # ------------------------------------------------------------------ in

    cdef int on_bytes(self, Connection* c, uint8_t* buffer, size_t got) except -1:
        cdef size_t used
        if c.phase == OPEN or c.phase == CLOSING and c.flags & UPGRADED:
            used = self._feed(c, buffer, got)
            if c.phase <= CLOSING and used < got and not c.flags & END_WHEN_WRITTEN:
                if buffer_append(&c.held, buffer + used, got - used) < 0:
                    return self._fail(c, 1011, W_OUT_OF_MEMORY, b"out of memory")
                c.flags |= HELD
                self._interest(c)
            return self.gather(c, buffer_size(&c.held) + buffer_size(&c.decoder.message))
        return HttpExchanges.on_bytes(self, c, buffer, got)

    cdef size_t _feed(self, Connection* c, uint8_t* data, size_t size) except? 0:
        """Decodes frames; gives the bytes used, fewer than `size` when the sink wants to wait."""
        c.flags |= FEEDING
        try:
            return self._decode(c, data, size)
        finally:
            c.flags &= ~FEEDING

    cdef size_t _decode(self, Connection* c, uint8_t* data, size_t size) except? 0:
        cdef size_t at = 0
        cdef FrameEvent event
        cdef DecodeResult outcome
        cdef bytes inflated
        cdef Py_ssize_t share = SHARE
        while at < size:
            if share <= 0:
                if self.reactor.is_long():
                    self.defer(c)
                    break
                share = SHARE
            if c.phase == OPEN and not _is_control(c, data[at]):
                if not self.sink.ready(c):
                    break
                if c.profile.rate > 0 and c.decoder.have == 0 and not c.decoder.payload and not self.take_token(c):
                    break
            outcome = decode_next(&c.decoder, &c.profile.frames, data, size, &at, &event)
            share -= 1
            if outcome == MESSAGE:
                if c.phase == OPEN:      # in CLOSING: too late, it is not handled (RFC 6455 section 1.4)
                    c.entry.messages_received += 1
                    self.counters.messages_received += 1
                    if not event.compressed:
                        self.sink.on_message(c, event.opcode, event.data, event.size)
                    else:
                        inflated = self._inflated(c, &event)
                        if inflated is not None:
                            share -= len(inflated) // SHARE_BYTES
                            self.sink.on_message(c, event.opcode, <const uint8_t*> PyBytes_AS_STRING(inflated),
                                                 len(inflated))
            elif outcome == CONTROL:
                self._control(c, &event)
            elif outcome == FAILED:
                self._fail(c, event.code, _cause_of(event.code), event.reason)
            else:
                break
            if c.phase > CLOSING or c.flags & END_WHEN_WRITTEN:
                return size
        decoder_release(&c.decoder)
        return at

    cdef bytes _inflated(self, Connection* c, const FrameEvent* event):
        """The message; None when it failed the connection."""
        cdef bytes message
        try:
            message = (<Deflate> c.deflate).inflate(event.data, event.size)
        except TooLong as error:
            self._fail(c, 1009, W_MESSAGE_TOO_BIG, f"message too big: {error}".encode())
            return None
        except Broken as error:
            self._fail(c, 1007, W_INVALID_DATA, f"broken compression: {error}".encode())
            return None
        if event.opcode == OP_TEXT and not is_utf8(message, len(message)):
            self._fail(c, 1007, W_INVALID_DATA, b"text is not UTF-8 (RFC 6455 section 8.1)")
            return None
        return message

    cdef int _control(self, Connection* c, const FrameEvent* event) except -1:
        if c.decoder.bare:
            self.counters.unmasked_control_frames += 1
        if event.opcode == OP_CLOSE:
            return self._take_close(c, event)
        if event.opcode == OP_PONG and c.pongs_due:
            c.pongs_due -= 1             # we have asked for it
        elif self._is_flooded(c):
            return self._fail(c, 1008, W_TOO_MANY_PINGS, b"too many pings and pongs")
        if event.opcode == OP_PONG:
            self._pong(c, event)
            if c.profile.open_pong and c.phase == OPEN:
                self.sink.on_message(c, OP_PONG, event.data, event.size)
        elif c.phase == OPEN:
            self.send(c, OP_PONG, event.data, event.size)
            if c.profile.open_ping and c.phase == OPEN:
                self.sink.on_message(c, OP_PING, event.data, event.size)
        return 0

    cdef bint _is_flooded(self, Connection* c) noexcept:
        """Counts a ping or pong: each makes us work, or even write (a pong), without ever being a message."""
        cdef uint32_t second = <uint32_t> (self.reactor.now // 1000)
        if second - c.controls_since >= CONTROL_SECONDS:
            c.controls_since = second
            c.controls = 0
        c.controls += 1
        return c.controls > c.profile.control_limit

    cdef int _take_close(self, Connection* c, const FrameEvent* event) except -1:
        """The peer's close frame: the answer to ours, or the first."""
        cdef uint16_t code = 0
        cdef uint16_t fault = parse_close(event.data, event.size, &code)
        if fault:
            return self._fail(c, fault, _cause_of(fault),
                              b"a close frame with a wrong payload (RFC 6455 section 5.5.1)")
        if c.profile.open_close and c.phase == OPEN:
            self.sink.on_message(c, OP_CLOSE, event.data, event.size)
            if c.phase == DEAD:
                return 0
        if c.phase == OPEN:
            # the peer begins: its frame is echoed, and ours is the last (section 5.5.1)
            blame(c, W_CLIENT_CLOSED)
            self._decide(c, BY_PEER, code, event.data[2:event.size] if event.size > 2 else b"")
            self.send(c, OP_CLOSE, event.data, event.size if event.size < 2 else 2)
            self._enter(c, CLOSING)
        c.flags |= END_WHEN_WRITTEN
        return self._end_when_written(c)

    cdef int _end_when_written(self, Connection* c) except -1:
        """Nothing is waited for but that the last bytes leave, and maybe they have."""
        self._await_close(c, buffer_size(&c.out) > 0)
        return self._written(c) if buffer_size(&c.out) == 0 else self._interest(c)

    cdef int _await_close(self, Connection* c, bint behind) except -1:
        """It has close_timeout from now on; or from when it has what stands before that, as long as it takes enough."""
        if behind:
            return self.watch(c, D_CLOSE, c.profile.close_ms)
        return self._arm(c, D_CLOSE, c.profile.close_ms)

    cdef bint _may_ask(self, Connection* c) noexcept:
        """Whether a peer is asked before its patience ends; else it has to say something by itself."""
        return c.profile.ping_ms != 0 and c.profile.ping_ms < c.profile.heartbeat_ms

    cdef bint _is_dead(self, Connection* c) noexcept:
        """Whether nothing has been heard for heartbeat_idle_time, although we have read."""
        cdef uint64_t limit = c.profile.heartbeat_ms
        return limit != 0 and not c.flags & HELD and self.reactor.now - c.entry.received >= limit

    cdef int _await_silence(self, Connection* c) except -1:
        """Arms the next ping, for when nothing has been heard of the peer for ping_interval, or the end of its
        patience, whatever is first."""
        cdef uint64_t quiet = self.reactor.now - c.entry.received
        cdef uint64_t due = c.profile.ping_ms
        if c.profile.heartbeat_ms and (due == 0 or c.profile.heartbeat_ms < due):
            due = c.profile.heartbeat_ms
        if due and c.phase == OPEN:
            return self._arm(c, D_PING, due - quiet if quiet < due else 0)
        return 0

    cdef int _ping(self, Connection* c) except -1:
        cdef uint64_t now
        cdef uint64_t wait = c.profile.pong_ms
        cdef uint64_t quiet = self.reactor.now - c.entry.received
        cdef bint behind = is_behind(c)
        if c.flags & HELD and c.profile.heartbeat_ms and quiet >= c.profile.heartbeat_ms:
            return self._arm(c, D_PING, c.profile.heartbeat_ms)      # it is we who do not read
        if c.profile.ping_ms == 0 or quiet < c.profile.ping_ms:
            return self._await_silence(c)
        if quiet < c.profile.heartbeat_ms and c.profile.heartbeat_ms - quiet < wait:
            wait = c.profile.heartbeat_ms - quiet
        now = monotonic_us() ^ self.ping_key
        self.counters.pings_sent += 1
        self.send(c, OP_PING, <const uint8_t*> &now, sizeof(now))
        if c.phase != OPEN:
            return 0
        return self.watch(c, D_PONG, wait) if behind else self._arm(c, D_PONG, wait)

    cdef uint64_t _patience(self, Connection* c) noexcept:
        """How long an answer to a ping may take that has arrived."""
        cdef uint64_t limit = c.profile.heartbeat_ms
        return limit if limit and limit < c.profile.pong_ms else c.profile.pong_ms

    cdef bint _is_on_its_way(self, Connection* c) except -1:
        """Whether a ping still stands behind what the peer has not taken: its patience may end, it has pong_timeout. It
        is looked at again after heartbeat_idle_time, when it may have taken all of it."""
        cdef uint64_t since = c.taken_at
        cdef int64_t taken = c.taken
        cdef uint64_t passed = self.reactor.now - since
        if self._patience(c) == c.profile.pong_ms or since == 0 or passed >= c.profile.pong_ms:
            return False
        if c.entry.received >= since or not is_behind(c):
            return False
        self._arm(c, D_PONG, min(c.profile.pong_ms - passed, c.profile.heartbeat_ms))
        c.taken_at, c.taken = since, taken
        return True

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
                if c.least_round_trip == 0 or c.entry.round_trip < c.least_round_trip:
                    c.least_round_trip = c.entry.round_trip
        if c.deadline == D_PONG:
            self._await_silence(c)
        return 0

    cdef int on_wake(self, Connection* c) except -1:
        """Goes on with what was held, then with the socket."""
        cdef size_t used
        if c.phase != HTTP and c.flags & HELD and not c.flags & FEEDING:
            used = self._feed(c, c.held.data + c.held.start, buffer_size(&c.held))
            if c.phase == DEAD:
                return 0
            buffer_consume(&c.held, used)
            if buffer_size(&c.held) == 0 or c.flags & END_WHEN_WRITTEN:
                buffer_free(&c.held)
                c.flags &= ~HELD
            self.gather(c, buffer_size(&c.held) + buffer_size(&c.decoder.message))
        return HttpExchanges.on_wake(self, c)

    # ------------------------------------------------------------------ the upgrade

    def upgrade(self, fd: int, response: bytes, deflate: tuple | None = None) -> bool:
        """Writes the 101 and makes the connection a WebSocket, unread bytes included.

        deflate: (our window's bits, the peer's, whether we keep ours, the peer its, keyword arguments of Deflate).
        """
        cdef Connection* c = self.find(fd)
        cdef Deflate agreed
        cdef HttpCodec codec
        cdef bytes rest
        if c == NULL or c.phase != HTTP or c.flags & END_WHEN_WRITTEN:
            return False
        self.write(c, response, len(response), NULL, 0)
        c.boundary = buffer_size(&c.out)
        codec = self.codecs.pop(fd, None)
        rest = codec.take_rest() if codec is not None else b""
        c.flags &= ~(BUSY | PEER_ENDED)        # if the peer has ended its half, the next read tells
        c.flags |= UPGRADED
        self.counters.websockets_opened += 1
        self.settle(c)
        self._enter(c, OPEN)
        if deflate is not None:
            c.decoder.deflates = True
            agreed = self._agree(c, deflate)
            c.deflate = <void*> agreed
        self._await_silence(c)
        self.gather(c, 0)
        if rest:
            if buffer_append(&c.held, rest, len(rest)) < 0:
                self._fail(c, 1011, W_OUT_OF_MEMORY, b"out of memory")
                return False
            c.flags |= HELD
            self.wake(c)
        self._interest(c)
        return True

    cdef Deflate _agree(self, Connection* c, tuple terms):
        """Who compresses for this connection: one for all of its listener with these terms, or its own if windows are
        kept."""
        cdef Deflate shared, own
        cdef tuple key = (c.profile.index, *terms[:4])
        shared = self.deflates.get(key)
        if shared is None:
            shared = self.deflates[key] = Deflate(*terms[:4], **terms[4])
        own = shared.own()
        if own is not shared:
            self.deflates[c.fd] = own
        return own

    # ------------------------------------------------------------------ out

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
        elif opcode == OP_PING and c.pongs_due < UINT16_MAX:
            c.pongs_due += 1
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

    cdef int close(self, Connection* c, int code, bytes reason, By by) except -1:
        """Begins the closing handshake (RFC 6455 section 7.1.2); the peer has close_timeout to answer."""
        cdef bytes payload
        cdef bint behind
        if c.phase != OPEN:
            return 0
        behind = is_behind(c)
        self._decide(c, by, code, reason)
        payload = code.to_bytes(2, "big") + reason
        self.send(c, OP_CLOSE, payload, len(payload))
        if c.phase == OPEN:
            self._enter(c, CLOSING)
            self._let_go(c)
            self._await_close(c, behind)
            self._interest(c)
        return 1

    cdef int dismiss(self, Connection* c, int code, bytes reason, bint failed) except -1:
        """The application closes it; `failed`: because of what a handler has raised."""
        if failed and c.phase == OPEN:
            blame(c, W_HANDLER_FAILED if code == INTERNAL_ERROR else W_MESSAGE_REFUSED)
        return self.close(c, code, reason, BY_APPLICATION)

    cdef int _let_go(self, Connection* c) except -1:
        """Nothing more of it is handled: what was held is thrown away up to the frame that is coming in."""
        if c.flags & HELD and not c.flags & FEEDING:
            # in CLOSING the decoder takes everything: messages are skipped, the peer's close frame is found
            self.wake(c)
        return 0

    cdef int _fail(self, Connection* c, int code, Why why, bytes reason) except -1:
        """Fails the WebSocket (section 7.1.7): one close frame, and no waiting for the peer's."""
        cdef bytes payload = code.to_bytes(2, "big") + reason[:123]
        self.counters.failed += 1
        if c.phase == OPEN:
            blame(c, why)
            self._decide(c, BY_SERVER, code, reason)
            self.send(c, OP_CLOSE, payload, len(payload))
            if c.phase == OPEN:
                self._enter(c, CLOSING)
        if c.phase != CLOSING:
            return 0
        c.flags |= END_WHEN_WRITTEN | THEN_LINGER
        return self._end_when_written(c)

    cdef int drop(self, Connection* c) except -1:
        """Ends a connection, whatever it speaks."""
        if c.phase == OPEN:
            return self.close(c, 1000, b"", BY_APPLICATION)
        return self.end_http(c)

    cdef int on_slow(self, Connection* c, bytes why) except -1:
        """The peer does not read. What is queued behind the frame it is in the middle of gives way to the reason."""
        cdef uint8_t header[SERVER_HEADER_LIMIT]
        cdef bytes payload = (1008).to_bytes(2, "big") + why
        cdef size_t size
        self.counters.slow_consumers += 1
        blame(c, W_MEMORY_FULL if self.relieving else W_SLOW_CONSUMER)
        if c.phase != OPEN:
            return self._doom(c, 1006, why)
        self._decide(c, BY_SERVER, 1008, why)
        c.out.end = c.out.start + c.boundary
        size = encode_header(header, OP_CLOSE, True, len(payload))
        if buffer_append(&c.out, header, size) < 0 or buffer_append(&c.out, payload, len(payload)) < 0:
            return self._doom(c, 1008, why)
        self._enter(c, CLOSING)
        self._let_go(c)
        self._await_close(c, True)
        return self._interest(c)

    cdef int on_greedy(self, Connection* c) except -1:
        if not c.flags & UPGRADED:
            return HttpExchanges.on_greedy(self, c)
        self._fail(c, 1013, W_MEMORY_FULL,
                   b"the server's memory is full, and most of it kept your message; try again later")
        if not c.flags & FEEDING and c.phase != DEAD:
            buffer_free(&c.held)
            c.flags &= ~HELD
            decoder_free(&c.decoder)
            self.gather(c, 0)
        return 0

    cdef int on_partial(self, Connection* c, size_t sent) except -1:
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

    # ------------------------------------------------------------------ for the gateway

    def push(self, fd: int, opcode: int, data: bytes) -> bool:
        """Queues one frame; False when the connection is no open WebSocket."""
        cdef Connection* c = self.find(fd)
        return c != NULL and self.send(c, opcode, data, len(data)) == 1

    def disconnect(self, fd: int, code: int, reason: bytes, cause: int) -> bool:
        cdef Connection* c = self.find(fd)
        if c == NULL or c.phase != OPEN:
            return False
        blame(c, cause)
        return self.close(c, code, reason, BY_SERVER) == 1

    def end(self, fd: int) -> bool:
        """Ends a connection, whatever it speaks."""
        cdef Connection* c = self.find(fd)
        return c != NULL and self.drop(c) == 1

    def stats(self) -> dict[str, int]:
        """Counters since the start, and how many connections there are: see mooring.counters."""
        cdef Connection* c
        cdef uint32_t slot
        counts = dict(self.counters)
        websockets = paused = behind = 0
        for slot in range(self.used):
            c = self.slots[slot]
            if c != NULL:
                websockets += c.phase == OPEN
                paused += c.flags & (HELD | PAUSED) != 0
                behind += c.flags & ABOVE_HIGH_WATER != 0
        counts.update(
            connections=self.count, websockets=websockets, connections_paused=paused, connections_behind=behind,
            bytes_queued=self.queued, bytes_gathered=self.gathered, files_open=self.files_open)
        return counts
