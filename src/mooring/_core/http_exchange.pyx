"""HTTP on a gateway's connections: requests in, answers out, one exchange after the other.

Theory
------
* One request at a time: the next one is not even parsed before the answer to this one is out, but for what fits below
  high water. Answers do not pile up, and stand in the order of their requests (RFC 9112 section 9.3.2).
* A request has a number on its connection. Whoever answers says which one is meant; a late answer, to one that is over,
  is refused.
* A request is read when the sink can take it, and not before: meanwhile its bytes are left in the socket. If that
  changes while it comes in, it is not read further between its first bytes and the end of its head; behind that its
  body is, and it is kept, complete, until its turn comes.
* Whoever sends an answer in parts may ask to be told when the client has read most of it, and hears if it leaves, or
  ends its half of the connection.
* The rest of an answer may be a file, which goes out without whoever answered (files.pyx).

A body that is streamed is asked for by the worker, part by part. Only then is the socket read, and what was read is
handed over at once: never more than one receive buffer of it is here, and TCP slows the client down. A client has to
send a body at a certain rate on average, counted over the time in which it is waited for.

Sockets, deadlines and queues are those of transport.pyx. What comes of a request is a `Sink`'s matter.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from mooring._core.buffer cimport buffer_size
from mooring._core.files cimport FileClaim, FileSender
from mooring._core.http cimport HttpCodec
from mooring._core.http_request cimport ParsedRequest
from mooring._core.pace cimport end_by_reset, is_behind, keeps_pace
from mooring._core.reactor cimport Reactor
from mooring._core.registry cimport (
    ASKED, BEGUN, BUSY, BY_APPLICATION, BY_PEER, BY_SERVER, CLOSING, D_BODY, D_CLOSE, D_IDLE, D_LINGER,
    D_REQUEST, D_TLS, D_WRITE, DEAD, DEFERRED, DONE, END_WHEN_WRITTEN, FULL, HEAD_ONLY, HELD, HTTP, LATE, OPEN,
    PEER_ENDED, THEN_LINGER, W_ANSWERED, W_BAD_REQUEST, W_CLIENT_ENDED, W_KEEPALIVE_TIMEOUT, W_MEMORY_FULL,
    W_REQUEST_TIMEOUT, W_TOO_MANY_CONNECTIONS, WANTED, WOKEN, Connection, Deadline, Why, blame,
)
from mooring._core.table cimport Table
from mooring._core.transport cimport LINGER_MS, disarm, say_at_once
from mooring._core.wire cimport (
    EV_BODY, EV_FILE, EV_GONE, EV_PEER_ENDED, EV_ROOM, FILE_LATE, FILE_LEFT, FILE_OVER, FILE_TAKEN, RESPOND_ASKS,
    RESPOND_CLOSE, RESPOND_LAST,
)

from mooring._core.http_request import HttpError

cdef bytes CONTINUE_RESPONSE = b"HTTP/1.1 100 Continue\r\n\r\n"
cdef bytes FAULT_RESPONSE = b"HTTP/1.1 500 Internal Server Error\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
cdef bytes ENDED = b"the peer ended the connection"
cdef bytes NO_CLOSE_FRAME = b"the peer ended the connection without a close frame"


cpdef Why cause_of(int status) noexcept:
    """Of a request that is refused with this status, by who reads it."""
    if status == 408:
        return W_REQUEST_TIMEOUT
    if status == 429:
        return W_TOO_MANY_CONNECTIONS
    return W_MEMORY_FULL if status == 503 else W_BAD_REQUEST


cdef class Sink:
    """What connections tell; the gateway's relay is one."""

    cdef bint ready(self, Connection* connection) except -1:
        return True

    cdef bint takes(self, Connection* connection) except -1:
        return True

    cdef bint takes_part(self, Connection* connection) except -1:
        return True

    cdef int on_message(self, Connection* connection, int opcode, const uint8_t* data, size_t size) except -1:
        return 0

    cdef int on_request(self, Connection* connection, object request) except -1:
        return 0

    cdef int on_bad_request(self, Connection* connection, object error) except -1:
        return 0

    cdef int on_note(self, Connection* connection, int kind, bytes payload) except -1:
        return 0

    cdef int on_gone(self, Connection* connection, int code, bytes reason) except -1:
        return 0


cdef class HttpExchanges(FileSender):
    """Connections that speak HTTP. Each profile also has `http`: keyword arguments of HttpCodec."""

    def __cinit__(self, reactor: Reactor, table: Table, gateway: int, first_serial: int, *profiles: dict[str, object],
                  address_limit: int = 0, fresh_limit: int = 0, ceiling: int = 0) -> None:
        self.blank_codecs = [HttpCodec(**options["http"]) for options in profiles]
        self.codecs = {}
        self.parked = {}

    cdef int on_adopted(self, Connection* c) except -1:
        return self._arm(c, D_REQUEST, c.profile.request_ms)

    cdef int on_crowd(self, Connection* c) except -1:
        return self.sink.on_bad_request(c, HttpError(429, "too many connections from your address"))

    cdef int on_gone(self, Connection* c, int code, bytes reason) except -1:
        self.codecs.pop(c.fd, None)
        self.parked.pop(c.fd, None)
        if c.flags & (BUSY | DONE) == BUSY:
            try:
                self.sink.on_note(c, EV_GONE, b"")
            except MemoryError:
                pass                 # the handler finds out when it writes; that the connection is gone matters more
        return self.sink.on_gone(c, code, reason)

    cdef int on_greedy(self, Connection* c) except -1:
        cdef HttpCodec codec = self.codecs.pop(c.fd, None)
        full = HttpError(503, "the server's memory is full, and most of it kept your request; try again later")
        self.parked.pop(c.fd, None)
        c.flags &= ~HELD
        self.gather(c, 0)
        if c.phase != HTTP or codec is None:
            blame(c, W_MEMORY_FULL)
            return self._doom(c, 1006, full.reason.encode())
        return self._body_failed(c, full) if c.flags & BUSY else self.sink.on_bad_request(c, full)

    cdef int on_fault(self, Connection* c) except -1:
        if c.phase == HTTP and not c.flags & BEGUN and say_at_once(c, FAULT_RESPONSE):
            return 500
        return FileSender.on_fault(self, c)

    cdef int on_room(self, Connection* c) except -1:
        if c.flags & ASKED:
            c.flags &= ~ASKED
            self.sink.on_note(c, EV_ROOM, b"")
        return self._answered(c) if c.flags & DONE and c.file == NULL else 0

    cdef int on_deadline(self, Connection* c, Deadline deadline) except -1:
        cdef HttpCodec codec
        if deadline == D_WRITE:
            return self._judge_pace(c)
        if self._goes_on(c, deadline):
            return 0
        self._late(c)
        if deadline == D_TLS:
            return self.on_tls_late(c)
        if deadline == D_REQUEST:
            codec = self.codecs.get(c.fd)
            if codec is None or codec.is_idle():
                blame(c, W_REQUEST_TIMEOUT)
                return self._gone(c, 1006, b"no request came in time")
            return self.sink.on_bad_request(c, HttpError(408, "the request took too long to arrive"))
        if deadline == D_BODY:
            late = HttpError(408, f"the body came at less than {c.profile.body_rate} bytes per second")
            return self._body_failed(c, late) if c.flags & BUSY else self.sink.on_bad_request(c, late)
        if deadline == D_IDLE and buffer_size(&c.out):
            return self._slow(c)
        if deadline == D_IDLE:
            blame(c, W_KEEPALIVE_TIMEOUT)
            return self._gone(c, 1006, b"idle for too long")
        if deadline == D_CLOSE:
            if c.close_code == 1008 and c.closed_by == BY_SERVER:
                end_by_reset(c)      # it does not read what it was told either
            return self._gone(c, 1006, b"no close frame came in time")
        return self._gone(c, 1006, b"lingered for too long")

    cdef int _late(self, Connection* c) noexcept:
        """Counts who is ended for a time limit: once, whatever else it is late with then."""
        if not c.flags & LATE:
            c.flags |= LATE
            self.counters.timed_out += 1
        return 0

    cdef bint _goes_on(self, Connection* c, Deadline deadline) except -1:
        """Whether the time of a peer begins again, since it still takes what was sent before."""
        if deadline == D_CLOSE:
            return self.takes_on(c, D_CLOSE, c.profile.close_ms)
        if deadline == D_LINGER:
            return self.is_served(c, D_LINGER, LINGER_MS)
        if deadline == D_IDLE and c.profile.idle_ms == 0 and buffer_size(&c.out) == 0:
            return False             # the kernel delivers what it has
        if deadline == D_IDLE and (c.taken_at or is_behind(c)):
            if not is_behind(c):
                self._arm(c, D_IDLE, c.profile.idle_ms)
            elif not c.taken_at or keeps_pace(c, self.reactor.now):
                self.watch(c, D_IDLE, c.profile.write_ms)
            return c.deadline == D_IDLE
        if deadline == D_BODY and self.is_served(c, D_BODY, c.profile.body_grace_ms):
            c.body_since = self.reactor.now
            return True
        return False

    cdef int _judge_pace(self, Connection* c) except -1:
        """Whether the peer has read fast enough what waits for it, if anything does."""
        if buffer_size(&c.out) == 0 and c.file == NULL:
            return self.on_relieved(c)
        if keeps_pace(c, self.reactor.now):
            return self.watch_pace(c)
        self._late(c)
        return self._slow(c)

    cdef int _slow(self, Connection* c) except -1:
        why = f"slow consumer: it took less than {c.profile.write_rate} bytes per second"
        if c.phase == OPEN:
            return self.on_slow(c, why.encode())         # there is a frame to tell it
        if self.on_cut is not None:
            self.on_cut(c.fd, why)
        end_by_reset(c)
        self.reasons[c.fd] = why.encode()        # also if it was to end anyway
        return self.on_slow(c, why.encode())

    # ------------------------------------------------------------------ in

    cdef int on_bytes(self, Connection* c, uint8_t* buffer, size_t got) except -1:
        cdef HttpCodec codec
        if c.phase != HTTP:
            return 0
        codec = self.codecs.get(c.fd)
        if codec is None:
            codec = self.codecs[c.fd] = (<HttpCodec> self.blank_codecs[c.profile.index]).another()
            if c.requests:
                self._arm(c, D_REQUEST, c.profile.request_ms)
        codec.receive(PyBytes_FromStringAndSize(<const char*> buffer, got))
        self._body_came(c, got)
        if c.flags & WANTED:
            self._next_part(c)
        else:
            self._next_request(c)
        return self._count_kept(c)

    cdef bint may_read(self, Connection* c) except -1:
        if c.flags & WANTED:
            if self.sink.takes_part(c):
                return True
            self._body_came(c, 0)        # it is we who keep it waiting
            c.flags |= HELD
        elif c.deadline != D_REQUEST and c.deadline != D_IDLE or c.fd in self.codecs or self._may_begin(c):
            return True                  # ahead of a request stand a handshake of TLS, a header of a proxy
        self._interest(c)
        return False

    cdef int on_wake(self, Connection* c) except -1:
        c.flags &= ~WOKEN
        if c.phase == HTTP and c.flags & (HELD | WANTED) == HELD | WANTED:
            self._next_part(c)
            self._count_kept(c)
        elif c.phase == HTTP and c.flags & (HELD | BUSY) == HELD and c.fd not in self.codecs:
            if self._may_begin(c):
                self._receive(c)
        elif c.phase == HTTP and not c.flags & BUSY:
            self._next_request(c)
            self._count_kept(c)
        # the peer's end is told by the next read
        c.flags &= ~PEER_ENDED
        return self._interest(c)

    cdef int on_end(self, Connection* c) except -1:
        if c.phase == HTTP:
            # a client may send a request and shut its half: it still gets the answer
            if c.flags & WANTED:
                return self._lost(c, ENDED)
            if c.flags & BUSY:
                c.flags |= PEER_ENDED
                self._interest(c)
                return self.on_peer_ended(c)
            if buffer_size(&c.out) == 0:
                return self._lost(c, ENDED)
            blame(c, W_CLIENT_ENDED)
            self._decide(c, BY_PEER, 1006, ENDED)
            self._enter(c, CLOSING)
            self._await_end(c)
        if c.phase == CLOSING and buffer_size(&c.out):
            c.flags |= PEER_ENDED | END_WHEN_WRITTEN
            return self._interest(c)
        return self._lost(c, NO_CLOSE_FRAME)

    cdef int on_peer_ended(self, Connection* c) except -1:
        """For whoever answers: a client that has left looks the same as one that has only said all it wants to say,
        until something is sent to it. Only who knows the answer knows what can be sent."""
        if c.phase == HTTP and c.flags & (BUSY | DONE) == BUSY:
            return self.sink.on_note(c, EV_PEER_ENDED, b"")
        return 0

    cdef int _next_request(self, Connection* c) except -1:
        """One request at a time: the next one is not even parsed before this one is answered."""
        cdef HttpCodec codec = self.codecs.get(c.fd)
        cdef ParsedRequest request
        if codec is None:
            return 0
        while c.phase == HTTP and not c.flags & (BUSY | END_WHEN_WRITTEN | DEFERRED):
            cleared = False
            event = self.parked.pop(c.fd, None) if self.parked else None
            if event is None:
                if not codec.is_in_body() and not codec.is_idle():
                    if not self._may_begin(c):
                        break
                    cleared = True
                try:
                    event = codec.next_event()
                except HttpError as error:
                    self.counters.failed += 1
                    return self.sink.on_bad_request(c, error)
            if event is None:
                self._await_rest(c, codec)
                break
            if type(event) is int:           # CONTINUE
                self._say_continue(c)
                continue
            request = event
            if not cleared and not self._may_begin(c):
                self.parked[c.fd] = request
                break
            self._hand_over(c, codec, request)
            if c.phase == DEAD:
                return 0
            codec = self.codecs.get(c.fd)
            if codec is None:            # the handler has read all of the body, and answered, at once
                break
        return self._interest(c)

    cdef int _await_rest(self, Connection* c, HttpCodec codec) except -1:
        """There is no whole request yet."""
        if codec.is_idle():
            del self.codecs[c.fd]
        elif codec.is_in_body():
            if c.deadline == D_REQUEST:      # the head is complete just now
                c.body_bytes = codec.buffered()
                c.body_waited = 0
            self._await_body(c)
        return 0

    cdef int _hand_over(self, Connection* c, HttpCodec codec, ParsedRequest request) except -1:
        c.flags |= BUSY | HEAD_ONLY if request.method == "HEAD" else BUSY
        c.requests += 1
        self.counters.requests += 1
        if request.streamed:
            c.body_bytes = codec.buffered()
            c.body_waited = 0
        disarm(self, c)
        return self.sink.on_request(c, request)

    cdef int _say_continue(self, Connection* c) except -1:
        return self.write(c, <const uint8_t*> PyBytes_AS_STRING(CONTINUE_RESPONSE), PyBytes_GET_SIZE(CONTINUE_RESPONSE),
                          NULL, 0)

    cdef bint _may_begin(self, Connection* c) except -1:
        """Whether its next request can be taken. If not, it is not read meanwhile, and no time limit of it runs."""
        if self.sink.takes(c):
            if c.flags & HELD:
                c.flags &= ~HELD
                self._arm(c, D_REQUEST, c.profile.request_ms)
            return True
        if not c.flags & HELD:
            c.flags |= HELD
            self.counters.requests_held += 1
        disarm(self, c)
        return False

    cdef int _count_kept(self, Connection* c) except -1:
        """What is here of requests that are not handed over counts against the memory for all connections."""
        cdef HttpCodec codec
        cdef ParsedRequest parked
        cdef size_t kept
        if c.phase != HTTP:
            return 0
        codec = self.codecs.get(c.fd)
        parked = self.parked.get(c.fd) if c.flags & HELD else None
        kept = codec.gathered() if codec is not None else 0
        if parked is not None:
            kept += len(parked.body)
        return self.gather(c, kept)

    cdef int _await_body(self, Connection* c) except -1:
        """It is the client's turn to send: it may take as long as what has come allows, less what it took before."""
        cdef uint64_t allowed = c.profile.body_grace_ms
        if c.profile.body_rate == 0:
            disarm(self, c)
            return 0
        if c.body_bytes * 1000 // c.profile.body_rate > allowed:
            allowed = c.body_bytes * 1000 // c.profile.body_rate
        c.body_since = self.reactor.now
        return self._arm(c, D_BODY, allowed - c.body_waited if c.body_waited < allowed else 1)

    cdef int _body_came(self, Connection* c, size_t size) except -1:
        c.body_bytes += size
        if c.deadline == D_BODY:
            if not c.taken_at:               # else it had to read first
                c.body_waited += self.reactor.now - c.body_since
            disarm(self, c)
        return 0

    cdef int _next_part(self, Connection* c) except -1:
        """The worker waits: hands over what there is of the body, or waits for the client."""
        cdef HttpCodec codec
        if not self.sink.takes_part(c):
            c.flags |= HELD
            return self._interest(c)
        c.flags &= ~HELD
        codec = self.codecs.get(c.fd)
        try:
            part = codec.next_part() if codec is not None else b""
            if type(part) is int:            # CONTINUE
                if not c.flags & BEGUN:
                    self._say_continue(c)
                part = codec.next_part()
        except HttpError as error:
            self.counters.failed += 1
            return self._body_failed(c, error)
        if part is None:
            self._await_body(c)
        else:
            c.flags &= ~WANTED
            if codec is not None and codec.is_idle():
                del self.codecs[c.fd]
            self.sink.on_note(c, EV_BODY, part)
        return self._interest(c)

    cdef int _body_failed(self, Connection* c, object error) except -1:
        """The rest of a body will not come: for its handler the client has left."""
        c.flags &= ~WANTED
        self.sink.on_note(c, EV_GONE, b"")
        if c.flags & BEGUN:
            blame(c, cause_of(error.status))
            return self._doom(c, 1006, error.reason.encode())
        return self.sink.on_bad_request(c, error)

    # ------------------------------------------------------------------ out

    cdef int want(self, Connection* c, uint32_t number) except -1:
        """The next part of the body of request `number`: now, or when it comes. 0: that request is over."""
        if c.phase == HTTP and c.flags & (BUSY | DONE | END_WHEN_WRITTEN) == BUSY and c.requests == number:
            c.flags |= WANTED
            c.flags &= ~PEER_ENDED         # the peer's end is told by the next read
            self._next_part(c)
            self._count_kept(c)
            return 1
        return 0

    cdef int respond(self, Connection* c, uint32_t number, int flags, const uint8_t* data, size_t size) except -1:
        """Bytes of the answer to request `number`. A late answer, to a request that is over, is refused (0)."""
        if c.phase != HTTP or c.flags & (BUSY | DONE) != BUSY or c.requests != number:
            return 0
        if size and not self.write(c, data, size, NULL, 0):
            return 0
        if flags & RESPOND_ASKS:
            c.flags |= ASKED
            return self._mark(c) + 1
        c.flags |= BEGUN
        if flags & RESPOND_LAST:
            self.settle(c)
            self._complete(c, flags & RESPOND_CLOSE != 0)
        return 1

    cdef int _complete(self, Connection* c, bint closes) except -1:
        """The whole answer is out or queued."""
        cdef HttpCodec codec = self.codecs.get(c.fd)
        # behind a body that nobody has read no request can be found
        if closes or codec is not None and codec.streaming:
            blame(c, W_ANSWERED)
            self._decide(c, BY_SERVER, 1006, b"the answer was the last one")
            c.flags |= END_WHEN_WRITTEN | THEN_LINGER
            c.flags &= ~(BUSY | WANTED)
            self._enter(c, CLOSING)
            self._await_end(c)
            if buffer_size(&c.out) == 0:
                return self._written(c)
            return self._interest(c)
        if buffer_size(&c.out) > c.profile.high_water:
            # the next request waits until most of this answer is out: answers must not pile up
            c.flags |= DONE
            return self._mark(c)
        return self._answered(c)

    cdef int respond_file(self, Connection* c, uint32_t number, int flags, const FileClaim* claim, bytes path,
                          const uint8_t* head, size_t size) except -1:
        if c.phase != HTTP or c.flags & (BUSY | DONE | END_WHEN_WRITTEN) != BUSY or c.requests != number:
            return FILE_LATE
        if c.flags & BEGUN or not self.take_file(c, claim, path, flags & RESPOND_CLOSE != 0):
            return FILE_LEFT
        if not self.write(c, head, size, NULL, 0) or c.file == NULL:
            return FILE_LATE         # it was the one slow reader too many
        # the worker has said all; whoever read the request's body in there reads no further
        c.flags |= BEGUN | DONE
        c.flags &= ~(WANTED | HELD)
        if c.deadline == D_BODY:
            disarm(self, c)
        self.settle(c)
        self._interest(c)
        return FILE_TAKEN

    cdef int on_file_sent(self, Connection* c, bint closes) except -1:
        return self._complete(c, closes)

    cdef int on_file_over(self, Connection* c, uint64_t sent) except -1:
        return self.sink.on_note(c, EV_FILE, bytes([FILE_OVER]) + sent.to_bytes(8, "little"))

    cdef int _answered(self, Connection* c) except -1:
        """The request is over: on to the next one."""
        cdef HttpCodec codec = self.codecs.get(c.fd)
        c.flags &= ~(BUSY | BEGUN | DONE | ASKED | HEAD_ONLY | HELD)
        if codec is None or codec.is_idle():
            self._arm(c, D_IDLE, c.profile.idle_ms)
            if c.flags & FULL:
                self._outlasts(c)
        else:
            self._arm(c, D_REQUEST, c.profile.request_ms)
        if self.reactor.is_long():
            return self.defer(c)     # many requests that came at once, or many clients
        c.flags |= WOKEN
        self.woken.append(c.fd)
        self.reactor.mark_dirty(self)
        return 0

    def answer(self, fd: int, data: bytes, status: int, reason: bytes, cause: int) -> None:
        """The gateway's own last answer on a connection, which is closed behind it, with this status and reason."""
        cdef Connection* c = self.find(fd)
        if c != NULL and c.phase == HTTP and not c.flags & END_WHEN_WRITTEN:
            blame(c, cause)
            self._decide(c, BY_SERVER, status, reason)
            c.flags |= BUSY
            if c.flags & HEAD_ONLY:
                data = data[:data.index(b"\r\n\r\n") + 4]
            self.respond(c, c.requests, RESPOND_LAST | RESPOND_CLOSE, data, len(data))

    def is_answered(self, fd: int, number: int) -> bool:
        """Whether nothing more is to come of the answer to request `number`; True for a connection that is gone."""
        cdef Connection* c = self.find(fd)
        return c == NULL or c.phase != HTTP or c.flags & (BUSY | DONE) != BUSY or c.requests != number

    def answer_begun(self, fd: int) -> bool:
        """Whether bytes of the answer to the present request are on their way; True for a connection that is gone."""
        cdef Connection* c = self.find(fd)
        return c == NULL or c.phase != HTTP or not c.flags & BUSY or c.flags & BEGUN != 0

    cdef int end_http(self, Connection* c) except -1:
        """Ends a connection that speaks HTTP behind what is queued."""
        if c.phase == HTTP and not c.flags & END_WHEN_WRITTEN:
            self._decide(c, BY_APPLICATION, 1006, b"")
            c.flags |= END_WHEN_WRITTEN
            self._enter(c, CLOSING)
            self._await_end(c)
            self._mark(c)
            return 1
        return 0

    def is_unheard(self) -> bool:
        """Whether there is somebody whose request is still on its way: who has just connected, or has begun to send."""
        cdef uint32_t slot
        cdef Connection* c
        for slot in range(self.used):
            c = self.slots[slot]
            if (c != NULL and c.phase == HTTP and c.deadline != D_IDLE
                    and not c.flags & (BUSY | END_WHEN_WRITTEN | PEER_ENDED)):
                return True
        return False

    def idle_http(self) -> list[int]:
        """Connections that speak HTTP and wait for a request."""
        cdef uint32_t slot
        cdef Connection* c
        found = []
        for slot in range(self.used):
            c = self.slots[slot]
            if c != NULL and c.phase == HTTP and not c.flags & (BUSY | HELD) and buffer_size(&c.out) == 0:
                found.append(c.fd)
        return found
