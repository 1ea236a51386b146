"""The gateway's half of the seam: which worker gets an event, and what happens when it ends.

Theory
------
Every event that asks a worker for something takes a ticket of that worker's ledger and gives it back when the worker
acknowledges it, which it does behind everything that the handler sent (ledger.pyx). The number of tickets is the worker's
credit: when none is left (or too many bytes are out), connections bound to that worker are not read any more.

When a worker's channel ends, the gateway has read everything the worker had sent; then it applies what the page has kept
(page.pyx), and then asks the ledger. So the ledger is the truth and never the pipe: what lies unread in the dead worker's
socket does not matter.

Order. All events of a connection go to one worker. It changes hands only when nothing of it is in flight (a retiring
worker, or one that is new and has too few), or when its events were taken back (a dead one). A connection whose next
event cannot be taken yet waits, with its bytes unparsed. Events that cannot wait there (open, close, those taken back)
queue in the ledger's backlog, and in `limbo` while there is no worker at all; as long as they do, no message passes them.

Bounds. A message or a request is taken only while its worker has a free ticket and less than `port_bytes`, and while all
that is with workers or waits for one (`kept`) is less than `kept_limit`: what was taken back from dead workers comes on
top of what their successors have, again and again if those end, too. Without a worker as much may wait in `limbo` as one
would be given. What is taken beyond that has to be told: the opens and closes of connections that are there, whose number
is limited. A request or handshake that no worker was given is dropped when its client leaves.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stddef cimport size_t
from libc.stdint cimport UINT16_MAX, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from functools import partial

from mooring._core.buffer cimport buffer_reserve, buffer_size
from mooring._core.channel cimport Channel
from mooring._core.closed cimport with_record
from mooring._core.connection cimport Connections
from mooring._core.exchange cimport Sink
from mooring._core.files cimport FileClaim
from mooring._core.hub cimport Hub
from mooring._core.ledger cimport DOUBT, QUARANTINE, REPEAT, UNREPORTED, Books, Ledger
from mooring._core.order cimport Order, Publisher
from mooring._core.page cimport Page
from mooring._core.reactor cimport Reactor, monotonic_ms
from mooring._core.registry cimport (
    ASKED, BUSY, BY_APPLICATION, BY_SERVER, HELD, HTTP, MOVES, NO_PORT, OPEN, OWNS, PAUSED, UPGRADED, W_STANDSTILL,
    Connection, blame,
)
from mooring._core.table cimport SLOT_BITS, user_mark
from mooring._core.wire cimport (
    ACK_ENDED, ACK_FAILED, ACK_HANDLED, CM_HELLO, EV_CLOSE, EV_DISCONNECT, EV_FILE, EV_FINISH, EV_GONE,
    EV_HANDSHAKE, EV_LEAVE, EV_MESSAGE, EV_OPEN, EV_QUARANTINED, EV_REQUEST, EV_ROOM, EV_SESSION, EV_UNCERTAIN, EV_WORK,
    EXCLUDED_LIMIT, FILE_LATE, MAX_ATTEMPTS, MISSED_CLIENT, MISSED_PUBLISHES, MISSED_TOPIC, MISSED_TOPICS,
    RECORD_BYTES, RESPOND_ASKS, RESPOND_REFUSES, VERSION, WANTS_DISCONNECT, WORK_BEGUN, WORK_CANCEL, WORK_CUT, Notice, Record,
    is_asking, is_command, is_counted, is_last, kind_of, make_record, new_notice,
)
from mooring._core.ws cimport OP_BINARY, OP_PING, OP_PONG, OP_TEXT, is_utf8, may_send_close_code

from mooring._core.channel import BadRecord
from mooring._core.ledger import GIVEN_UP
from mooring._core.wire import USER as _USER
from mooring.journal import own_logger

log = own_logger("mooring.gateway")

cdef int INTERNAL_ERROR = 1011
cdef double RETRY = 0.05             # seconds, after there was no memory for an event
cdef int WOKEN_AT_ONCE = 256         # of a crowd, in one turn

include "relay_waiting.pxi"
include "relay_limbo.pxi"
include "relay_shares.pxi"
include "relay_ports.pxi"
include "relay_files.pxi"
include "relay_room.pxi"
include "relay_turns.pxi"
include "relay_missed.pxi"
include "relay_commands.pxi"
include "relay_works.pxi"
include "relay_counts.pxi"


cdef class Relay(Sink):
    """Events up, commands down. See the module's text.

    max_messages, max_bytes: in flight per connection; port_messages, port_bytes: per worker.
    """

    def __cinit__(self, connections: Connections, hub: Hub, max_messages: int, max_bytes: int, port_messages: int,
                  port_bytes: int) -> None:
        self.connections = connections
        self.hub = hub
        self.max_messages = max_messages
        self.max_bytes = max_bytes
        self.port_messages = port_messages
        self.port_bytes = port_bytes
        self.ports = []
        self.kept_limit = port_bytes
        self.sessions = {}
        self.asking = {}
        self.works = {}
        self.paused = []
        self.books = Books()
        self.limbo = self.books.limbo
        self.abandoned = set()
        self.unbound = []
        connections.sink = self

    # ------------------------------------------------------------------ workers come and go

    def attach(self, port: Port) -> None:
        """A worker that may be used from its HELLO on."""
        for index, other in enumerate(self.ports):
            if other is None:
                break
        else:
            index = len(self.ports)
            self.ports.append(None)
        self.ports[index] = port
        port.index = index

    def greet(self, port: Port, pid: int, wants: int) -> None:
        """HELLO: the worker is ready. Everything that waited for one goes on."""
        port.pid = pid
        port.wants = wants
        port.usable = True
        if port.serves:
            self.wanted = wants
            set_limit(self)
            give_share(self, port)
            end_limbo(self)

    def retire(self, worker: int, generation: int) -> None:
        """Moves a worker's connections away; gateway.on_retired(port) when nothing of it is left."""
        cdef Port port
        for port in [p for p in self.ports if p is not None]:
            if port.worker == worker and port.generation == generation and not port.retiring:
                port.retiring = True
                port.say(EV_FINISH, self.grace)
                self._settle(port)

    cdef Port port_of(self, Connection* c):
        """The worker of a connection; binds it to one. None: there is none now."""
        cdef Port port = None
        cdef Port other
        if c.port != NO_PORT:
            port = self.ports[c.port]
            if not (port.retiring or c.flags & MOVES) or c.in_flight or c.flags & OWNS:
                return port
        other = self._any_port(c.fd)
        if other is port and port is not None:
            if self.by_key or not has_more(self, port):
                c.flags &= ~MOVES    # it is the right one still; else the one that is new is only slow just now
            return port
        self.unbind(c)
        if other is not None:
            self.bind(c, other)
        return other

    cdef int bind(self, Connection* c, Port port) except -1:
        c.port = port.index
        c.flags &= ~MOVES
        port.bound += 1
        c.entry.worker = <uint16_t> (port.worker + 1)
        c.entry.owner = port.pid
        if self.works:
            note_owner(self, c)
        return self.bring_session(c.fd, port)

    cdef int bring_session(self, uint64_t fd, Port port) except -1:
        """Ahead of a connection's events, what the session holds."""
        cdef Record record
        if self.sessions and fd in self.sessions:
            payload = self.gateway.encode_session(self.sessions[fd])
            record = make_record(EV_SESSION, fd, len(payload))
            record.extra = 1
            port.transmit(&record, payload)
        return 0

    cdef int unbind(self, Connection* c) except -1:
        cdef Port port
        if c.port != NO_PORT:
            port = self.ports[c.port]
            c.port = NO_PORT
            c.flags &= ~OWNS
            if port is not None:
                port.bound -= 1
            c.entry.worker = c.entry.owner = 0
        return 0

    def wants(self, fd: int) -> int:
        """What the worker that the next event of a connection goes to has handlers for; if there is none now, what the
        last one had. The worker that takes over may come of other code: it copes with events it has no handler for."""
        cdef Connection* c = self.connections.find(fd)
        cdef Port port = None if c == NULL or self.limbo.count else self.port_of(c)
        return self.wanted if port is None else port.wants

    def _settle(self, port: Port) -> None:
        """A retiring worker that has finished everything may go."""
        if port.retiring and not port.left and not port.ledger.in_flight and not port.ledger.backlog.count and not port.ledger.works:
            port.leave()
            self.gateway.on_retired(port)

    cdef int lost(self, Port port, str why) except -1:
        """The worker's channel has ended, and all it had sent is done. See the module's text."""
        cdef Notice event
        cdef uint32_t number
        cdef uint64_t redelivered = self.books.redelivered
        cdef uint64_t repeated = self.books.repeated
        done, doubtful = [], []
        port.usable = False
        taken_back = port.ledger.take_back(port.torn(), done)
        self._detach(port)
        if self.publish_order is not None:
            self.publish_order.leave(port)
        closed = {event.fd: event.arg for event, _ in taken_back
                  if event.kind == EV_CLOSE and event.opcode == BY_APPLICATION}
        later = self.limbo.take_all()    # what was taken back is ahead of it: the rest is later, or of other connections
        for event, started in taken_back:
            if started:
                self._started(port, event, doubtful)
            elif event.record.kind == EV_MESSAGE and given_up(self, event.record.fd, closed):
                self._forget(event)
            elif not is_abandoned(self, event):
                self.books.redeliver(event)
        lose_works(self, port, doubtful)
        for event in later:
            self.limbo.add(event)
        set_limit(self)
        for number in done:
            self.finish(port, number, ACK_HANDLED)
        self.books.close(port.ledger)
        redelivered, repeated = self.books.redelivered - redelivered, self.books.repeated - repeated
        left = port.left
        port.close()
        if not left:
            log.warning("worker %d (pid %d) is gone: %s; %d events go to another worker, %d are uncertain%s",
                        port.worker, port.pid, why, redelivered, len(doubtful),
                        f", {repeated} are handled again" if repeated else "")
        self.gateway.on_port_lost(port)
        end_limbo(self)
        return 0

    cdef int _detach(self, Port port) except -1:
        """No connection is with this worker any more."""
        cdef uint32_t slot
        cdef Connection* c
        if port.index < 0:
            return 0
        for slot in range(self.connections.used):
            c = self.connections.slots[slot]
            if c != NULL and c.port == port.index:
                c.port = NO_PORT
                c.flags &= ~OWNS
                c.entry.worker = c.entry.owner = 0
                if c.flags & HELD:
                    self.unbound.append(c.fd)
        self.ports[port.index] = None
        port.index = -1
        return 0

    cdef int _started(self, Port port, Notice event, list doubtful) except -1:
        """The worker has ended while the handler of this event ran."""
        cdef uint64_t fd = event.record.fd
        verdict = self.books.judge(event, self.redeliver[event.listener])
        if verdict == REPEAT:
            if event.record.kind == EV_OPEN and fd in self.sessions:
                event.record.opcode = 1          # the first attempt has written it
            self.limbo.add(event)
        elif verdict == UNREPORTED:
            log.error("%d workers ended while they were told of a lost event of connection %d", MAX_ATTEMPTS, fd)
            self._forget(event)
        else:
            if verdict == DOUBT:
                doubtful.append(fd)
            self._report(port, event, verdict == QUARANTINE)
        return 0

    cdef int _report(self, Port port, Notice event, bint quarantined) except -1:
        """A worker will tell the application of it; a client that waits for an answer is told here."""
        cdef Connection* c
        cdef int kind = event.record.kind
        cdef uint64_t fd = event.record.fd
        text = f"worker {port.worker} (pid {port.pid}) ended while its handler ran"
        if quarantined:
            text += f", the last of {MAX_ATTEMPTS}"
            log.error("an event of connection %d is quarantined: %s", fd, text)
        if kind == EV_REQUEST:
            self.gateway.on_request_lost(fd, event.record.arg)
        elif kind == EV_HANDSHAKE:
            self.gateway.on_handshake_lost(fd)
        reason = text.encode()
        report = Notice(EV_QUARANTINED if quarantined else EV_UNCERTAIN, fd,
                        len(reason).to_bytes(2, "little") + reason + event.payload,
                        opcode=event.opcode, arg=kind, extra=event.listener)
        c = self.connections.find(fd)
        if c != NULL:
            c.in_flight_bytes += report.record.size - event.record.size
        self.limbo.add(report)
        return 0

    def _forget(self, event: Notice) -> None:
        """An event of its connection is not in flight any more."""
        cdef Connection* c = self.connections.find(event.record.fd)
        if c != NULL:
            c.in_flight -= 1
            c.in_flight_bytes -= event.record.size
            c.entry.in_flight = c.in_flight
            self.connections.wake(c)

    def _any_port(self, fd: int) -> Port | None:
        candidates = [p for p in self.ports
                      if p is not None and (<Port> p).usable and (<Port> p).serves and not (<Port> p).retiring]
        return None if not candidates else candidates[0] if len(candidates) == 1 else self.policy(candidates, fd)

    # ------------------------------------------------------------------ up: events

    cdef bint ready(self, Connection* c) except -1:
        cdef Port port
        if c.in_flight >= self.max_messages or c.in_flight_bytes >= self.max_bytes:
            return False             # finish() wakes it
        if c.flags & PAUSED:
            return False             # CM_PAUSE with 0 wakes it
        if self.limbo.count:
            return wait_in(self, self.unbound, c.fd)
        if c.port != NO_PORT:
            port = self.ports[c.port]
            if not (port.retiring or c.flags & MOVES) or c.flags & OWNS:
                return True if not port.full() else wait_in(self, port.waiting, c.fd)
            if c.in_flight:
                return False         # moves when the present worker has finished it; finish() wakes it
        port = self.port_of(c)
        if port is None:
            return wait_in(self, self.unbound, c.fd)
        return True if not port.full() else wait_in(self, port.waiting, c.fd)

    cdef bint takes(self, Connection* c) except -1:
        return may_ask(self, c)

    cdef bint takes_part(self, Connection* c) except -1:
        return may_send_part(self, c)

    cdef int on_message(self, Connection* c, int opcode, const uint8_t* data, size_t size) except -1:
        cdef Port port = self.ports[c.port]
        cdef Record record = make_record(EV_MESSAGE, c.fd, <uint32_t> size)
        record.opcode = opcode
        record.extra = c.profile.index
        self.books.accept()
        c.in_flight += 1
        c.in_flight_bytes += <uint32_t> size
        c.entry.in_flight = c.in_flight
        if self.hand(port, &record, data):
            self.books.drop("no memory", EV_MESSAGE)
            raise MemoryError("no memory for a message")         # which ends the connection
        return 0

    cdef int on_request(self, Connection* c, object request) except -1:
        self.gateway.on_request(c.fd, c.requests, request)
        return 0

    cdef int on_bad_request(self, Connection* c, object error) except -1:
        self.gateway.on_bad_request(c.fd, error)
        return 0

    cdef int on_note(self, Connection* c, int kind, bytes payload) except -1:
        """ROOM, GONE, BODY, FILE, HALF: for whoever handles its request; ROOM of a WebSocket for whoever has asked."""
        if c.flags & UPGRADED:
            return _answer_asking(self, c.fd, kind)
        self._tell(c, kind, c.requests, payload)
        return 0

    cdef int on_gone(self, Connection* c, int code, bytes reason) except -1:
        cdef Port port
        cdef int wants = self.wanted if c.port == NO_PORT else (<Port> self.ports[c.port]).wants
        cdef int kind = EV_CLOSE if c.flags & UPGRADED else EV_DISCONNECT if wants & WANTS_DISCONNECT else 0
        cdef bytes told = reason
        if c.profile.records:
            told = with_record(self.connections, self.hub, c, code, reason, wants)
        if kind == 0 and told is not reason:
            kind = EV_DISCONNECT
        self.hub.leave(c)
        if c.fd in self.works:
            cancel_works(self, c.fd, None, None)
        if c.in_flight and not c.flags & UPGRADED:
            leave_behind(self, c.fd)
        try:
            if c.fd in self.asking:
                try:
                    _answer_asking(self, c.fd, EV_GONE)
                except MemoryError:
                    pass             # that its `close` is told matters more
            if kind:
                # the last event of the connection; it goes where the others went
                port = None if self.limbo.count else self.port_of(c)
                self._queue(port, Notice(kind, c.fd, told, opcode=c.closed_by, arg=code, extra=c.profile.index))
            else:
                self.sessions.pop(c.fd, None)        # no handler will read it
        finally:
            self.unbind(c)
            if c.closed_by == BY_SERVER and c.flags & UPGRADED and code != 1000 and code != 1001:
                self.gateway.on_failed(c.fd, code, reason)
            self.gateway.on_gone(c.fd, code, reason)
        return 0

    def event(self, event: Notice) -> None:
        """An event that the gateway itself makes: HANDSHAKE, OPEN, REQUEST."""
        cdef Connection* c = self.connections.find(event.record.fd)
        cdef Port port
        if c == NULL:
            return
        port = None if self.limbo.count else self.port_of(c)
        if is_counted(event.record.kind):
            self.books.accept()
        c.in_flight += 1
        c.in_flight_bytes += event.record.size
        c.entry.in_flight = c.in_flight
        event.record.extra = c.profile.index
        self._queue(port, event)

    cdef int _queue(self, Port port, Notice event) except -1:
        """Gives it to this worker (None: there is none) as soon as it can be."""
        if port is None:
            self.limbo.add(event)
        elif port.ledger.backlog.count or port.ledger.free == 0:
            port.ledger.backlog.add(event)
        elif self.hand(port, &event.record, event.payload):
            self._put_off(port, event)
        return 0

    def _put_off(self, port: Port, event: Notice) -> None:
        """There was no memory for an event that must not be lost: it is tried again."""
        port.ledger.backlog.add_first(event)
        self.connections.reactor.call_later(RETRY, lambda: self._went_on(port))

    cdef int hand(self, Port port, Record* record, const uint8_t* data) except -1:
        """Gives an event to a worker, on a ticket; there is a free one. 1: there is no memory, and nothing has happened."""
        if port.make_room(record.size) < 0 or port.ledger.give(record, data, self.connections.reactor.now):
            return 1
        port.transmit(record, data)
        return 0

    cdef int finish(self, Port port, uint32_t number, int how) except -1:
        """The handler of this ticket is done, or was not called, because the application had given the connection up."""
        cdef const Record* record
        cdef Connection* c
        if not port.ledger.settle(number, how, self.connections.reactor.now):
            return 1
        record = &port.ledger.tickets[number].record
        c = self.connections.find(record.fd)
        if c == NULL and self.sessions and is_last(kind_of(record)):
            self.sessions.pop(record.fd, None)       # its last handler may have read it until now
        if c != NULL and record.kind != EV_CLOSE:
            c.in_flight -= 1
            c.in_flight_bytes -= record.size
            c.entry.in_flight = c.in_flight
            if kind_of(record) == EV_OPEN:
                c.entry.opened = 1
            if c.flags & HELD:
                self.connections.wake(c)
        if port.usable and (port.ledger.backlog.count or port.waiting or port.retiring):
            self._went_on(port)
        if self.crowded and self.books.kept < self.kept_limit:
            let_in(self)
        return 0

    def _went_on(self, port: Port) -> None:
        """A ticket came back: whoever waited for one may be next."""
        cdef Ledger ledger = port.ledger
        cdef Notice event
        if port.going_on:
            return       # inside of one process a handler may end within hand(): not ever deeper, the loop below goes on
        port.going_on = True
        try:
            while ledger.backlog.count and ledger.free:
                event = ledger.backlog.take()
                if is_abandoned(self, event):
                    continue
                if self.hand(port, &event.record, event.payload):
                    self._put_off(port, event)
                    break
        finally:
            port.going_on = False
        if port.waiting and not port.full():
            # not at the first free ticket: a crowd woken for one place would only queue again. But not never either, when
            # what is left in flight stays there for long
            if (ledger.free >= ledger.size // 4
                    and ledger.in_flight_bytes <= self.port_bytes - self.port_bytes // 4):
                wake_some(self, port)
            elif not port.waking:
                port.waking = True
                self.connections.reactor.call_later(RETRY, partial(_wake_more, self, port))
        if port.retiring:
            self._settle(port)

    # ------------------------------------------------------------------ down: commands

    cdef int on_command(self, Port port, const Record* record, const uint8_t* payload) except -1:
        return _apply(self, port, record, payload)

    def resume_paused(self) -> None:
        """Those go on whose publishes were too many for the turn before."""
        self.posted = False
        try:
            _resume_paused(self)
        finally:
            if self.paused and not self.posted:
                self.posted = True
                self.connections.reactor.post(self.resume_paused)

    def user_of(self, fd: int) -> str:
        """The user id a connection is bound to; empty for none."""
        cdef Connection* c = self.connections.find(fd)
        return self.hub.user_of(c).decode() if c != NULL else ""

    def tell(self, fd: int, kind: int, extra: int, payload: bytes) -> int:
        """A record without a ticket to the worker that serves the connection; its pid, 0 when there is none."""
        cdef Connection* c = self.connections.find(fd)
        return 0 if c == NULL else self._tell(c, kind, extra, payload)

    cdef int _tell(self, Connection* c, int kind, uint32_t extra, bytes payload) except -1:
        cdef Port port
        cdef Record record
        if c.port == NO_PORT:
            return 0
        port = self.ports[c.port]
        record = make_record(kind, c.fd, len(payload))
        record.extra = extra
        port.transmit(&record, payload)
        return port.pid

    def end_streams(self, milliseconds: int) -> None:
        """Tells the workers of this gateway that what would never end by itself shall end, and the rest in that time."""
        for port in [p for p in self.ports if p is not None and (<Port> p).serves]:
            (<Port> port).say(EV_FINISH, milliseconds)

    def in_flight(self) -> int:
        """Messages and requests handed over and not finished, and work that connections own."""
        return self.books.in_flight

    def oldest(self) -> int:
        """Milliseconds for which the event has been with its worker that is there longest; 0: there is none."""
        return self.books.oldest(self.connections.reactor.now)

    def take_overdue(self, limit: int) -> list[tuple[int, int, int, Port]]:
        """Events that have been with their worker for more than `limit` ms: kind, fd, ms, worker; each is told once."""
        now = self.connections.reactor.now
        return [(kind, fd, age, port) for port in self.ports if port is not None
                for kind, fd, age in (<Port> port).ledger.take_overdue(limit, now)]

    def idle(self) -> bool:
        """Whether no event of any kind is with a worker or on its way to one."""
        return self.books.idle()

    def stats(self) -> dict[str, object]:
        """accepted = finished + uncertain + dropped + in_flight, over messages, requests and work that connections own."""
        return _stats(self)
