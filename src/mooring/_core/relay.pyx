"""The gateway's half of the seam: which worker gets an event, and what happens when it ends.

Theory
------
Every event that asks a worker for something takes a ticket of that worker's ledger and gives it back when the worker
acknowledges it, which it does behind everything that the handler sent (ledger.pyx). The number of tickets is the
worker's credit: when none is left (or too many bytes are out), connections bound to that worker are not read any
more.

When a worker's channel ends, the gateway has read everything the worker had sent; then it applies what the page has
kept (page.pyx), and then asks the ledger. So the ledger is the truth and never the pipe: what lies unread in the dead
worker's socket does not matter.

Order. All events of a connection go to one worker. It changes hands only when nothing of it is in flight (a retiring
worker, or one that is new and has too few), or when its events were taken back (a dead one). A connection whose next
event cannot be taken yet waits, with its bytes unparsed. Events that cannot wait there (open, close, those taken
back) queue in the ledger's backlog, and in `limbo` while there is no worker at all; as long as they do, no message
passes them.

Bounds. A message or a request is taken only while its worker has a free ticket and less than `worker_bytes`, and while
all that is with workers or waits for one (`kept`) is less than `kept_limit`: what was taken back from dead workers
comes on top of what their successors have, again and again if those end, too. Without a worker as much may wait in
`limbo` as one would be given. What is taken beyond that has to be told: the opens and closes of connections that are
there, whose number is limited. A request or handshake that no worker was given is dropped when its client leaves.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from mooring._core.asking cimport Asking
from mooring._core.closed cimport with_record
from mooring._core.http_exchange cimport Sink
from mooring._core.hub cimport Hub
from mooring._core.ledger cimport DOUBT, QUARANTINE, REPEAT, UNREPORTED, Books, Ledger
from mooring._core.owned cimport OwnedWork
from mooring._core.parking cimport Parking
from mooring._core.registry cimport (
    BY_APPLICATION, BY_SERVER, HELD, HTTP, MOVES, NO_WORKER_END, OPEN, OWNS, PAUSED, UPGRADED, Connection,
    into_flight, out_of_flight,
)
from mooring._core.shares cimport give_share, has_more
from mooring._core.turns cimport Turns
from mooring._core.websocket cimport WebSockets
from mooring._core.wire cimport (
    ACK_ENDED, ACK_FAILED, ACK_HANDLED, EV_CLOSE, EV_DISCONNECT, EV_END_STREAMS, EV_GONE, EV_HANDSHAKE, EV_MESSAGE,
    EV_OPEN, EV_QUARANTINED, EV_REQUEST, EV_SESSION, EV_UNCERTAIN, MAX_ATTEMPTS, WANTS_DISCONNECT, Notice, Record,
    is_asking, is_counted, is_last, kind_of, make_record,
)
from mooring._core.worker_end cimport WorkerEnd

from mooring._core.ledger import GIVEN_UP as _GIVEN_UP
from mooring.journal import own_logger

log = own_logger("mooring.gateway")

cdef int INTERNAL_ERROR = 1011
cdef int MOVED = 2                   # of SESSION
cdef double RETRY = 0.05             # seconds, after there was no memory for an event


cdef class Relay(Sink):
    """Events up, commands down. See the module's text.

    max_messages, max_bytes: in flight per connection; worker_messages, worker_bytes: per worker.
    """

    def __cinit__(self, connections: WebSockets, hub: Hub, max_messages: int, max_bytes: int, worker_messages: int,
                  worker_bytes: int) -> None:
        self.connections = connections
        self.hub = hub
        self.max_messages = max_messages
        self.max_bytes = max_bytes
        self.worker_ends = []
        self.sessions = {}
        self.books = Books(worker_messages, worker_bytes)
        self.limbo = self.books.limbo
        self.turns = Turns(connections)
        self.asking = Asking(connections)
        self.owned = OwnedWork(connections, self.books, self.worker_ends)
        self.parking = Parking(connections, self.books, self.worker_ends)
        connections.sink = self

    # ------------------------------------------------------------------ workers come and go

    def attach(self, worker_end: WorkerEnd) -> None:
        """A worker that may be used from its HELLO on."""
        for index, other in enumerate(self.worker_ends):
            if other is None:
                break
        else:
            index = len(self.worker_ends)
            self.worker_ends.append(None)
        self.worker_ends[index] = worker_end
        worker_end.index = index

    def greet(self, worker_end: WorkerEnd, pid: int, wants: int) -> None:
        """HELLO: the worker is ready. Everything that waited for one goes on."""
        worker_end.pid = pid
        worker_end.wants = wants
        worker_end.usable = True
        if worker_end.serves:
            self.wanted = wants
            self._set_limit()
            give_share(self.connections, self.worker_ends, worker_end, self.by_key)
            self._end_limbo()

    def retire(self, worker: int, generation: int) -> None:
        """Moves a worker's connections away; gateway.on_retired(worker_end) when nothing of it is left."""
        cdef WorkerEnd worker_end
        for worker_end in [p for p in self.worker_ends if p is not None]:
            if worker_end.worker == worker and worker_end.generation == generation and not worker_end.retiring:
                worker_end.retiring = True
                worker_end.say(EV_END_STREAMS, self.grace)
                self.let_go(worker_end)

    cdef WorkerEnd worker_end_of(self, Connection* c):
        """The worker of a connection; binds it to one. None: there is none now."""
        cdef WorkerEnd worker_end = None
        cdef WorkerEnd other
        if c.worker_end != NO_WORKER_END:
            worker_end = self.worker_ends[c.worker_end]
            if not (worker_end.retiring or c.flags & MOVES) or c.in_flight or c.flags & OWNS:
                return worker_end
        other = self.any_worker_end(c.fd)
        if other is worker_end and worker_end is not None:
            if self.by_key or not has_more(self.worker_ends, worker_end):
                c.flags &= ~MOVES    # it is the right one still; else the one that is new is only slow just now
            return worker_end
        if worker_end is not None and not worker_end.retiring:
            worker_end.say(EV_SESSION, MOVED, b"", c.fd)     # its `close`, which ends that, comes to the other one
        self.unbind(c)
        if other is not None:
            self.bind(c, other)
        return other

    cdef int bind(self, Connection* c, WorkerEnd worker_end) except -1:
        c.worker_end = worker_end.index
        c.flags &= ~MOVES
        worker_end.bound += 1
        c.entry.worker = <uint16_t> (worker_end.worker + 1)
        c.entry.owner = worker_end.pid
        if self.owned.works:
            self.owned.note_owner(c)
        return self.bring_session(c.fd, worker_end)

    cdef int bring_session(self, uint64_t fd, WorkerEnd worker_end) except -1:
        """Ahead of a connection's events, what the session holds."""
        cdef Record record
        if self.sessions and fd in self.sessions:
            payload = self.gateway.encode_session(self.sessions[fd])
            record = make_record(EV_SESSION, fd, len(payload))
            record.extra = 1
            worker_end.transmit(&record, payload)
        return 0

    cdef int unbind(self, Connection* c) except -1:
        cdef WorkerEnd worker_end
        if c.worker_end != NO_WORKER_END:
            worker_end = self.worker_ends[c.worker_end]
            c.worker_end = NO_WORKER_END
            c.flags &= ~OWNS
            if worker_end is not None:
                worker_end.bound -= 1
            c.entry.worker = c.entry.owner = 0
        return 0

    def wants(self, fd: int) -> int:
        """What the worker that the next event of a connection goes to has handlers for; if there is none now, what the
        last one had. The worker that takes over may come of other code: it copes with events it has no handler for."""
        cdef Connection* c = self.connections.find(fd)
        cdef WorkerEnd worker_end = None if c == NULL or self.limbo.count else self.worker_end_of(c)
        return self.wanted if worker_end is None else worker_end.wants

    cdef int let_go(self, WorkerEnd worker_end) except -1:
        """A retiring worker that has finished everything may go."""
        cdef Ledger ledger = worker_end.ledger
        if (worker_end.retiring and not worker_end.departed
                and not ledger.in_flight and not ledger.backlog.count and not ledger.works):
            worker_end.depart()
            self.gateway.on_retired(worker_end)
        return 0

    cdef int lost(self, WorkerEnd worker_end, str why) except -1:
        """The worker's channel has ended, and all it had sent is done. See the module's text."""
        cdef Notice event
        cdef uint32_t number
        cdef uint64_t redelivered = self.books.redelivered
        cdef uint64_t repeated = self.books.repeated
        done, doubtful = [], []
        worker_end.usable = False
        taken_back = worker_end.ledger.take_back(worker_end.torn(), done)
        self._take_out(worker_end)
        if self.publish_order is not None:
            self.publish_order.forget(worker_end)
        closed = {event.fd: event.arg for event, _ in taken_back
                  if event.kind == EV_CLOSE and event.opcode == BY_APPLICATION}
        later = self.limbo.take_all()    # behind what was taken back: it is later, or of other connections
        for event, started in taken_back:
            if started:
                self._started(worker_end, event, doubtful)
            elif event.record.kind == EV_MESSAGE and self._is_given_up(event.record.fd, closed):
                self._forget(event)
            elif not self.parking.is_abandoned(event):
                self.books.redeliver(event)
        self.owned.lose(worker_end, doubtful)
        for event in later:
            self.limbo.add(event)
        self._set_limit()
        for number in done:
            self.settle(worker_end, number, ACK_HANDLED)
        self.books.close(worker_end.ledger)
        redelivered, repeated = self.books.redelivered - redelivered, self.books.repeated - repeated
        left = worker_end.departed or (self.gateway.drained and not redelivered and not repeated and not doubtful)
        worker_end.close()
        if not left:
            log.warning("worker %d (pid %d) is gone: %s; %d events go to another worker, %d are uncertain%s",
                        worker_end.worker, worker_end.pid, why, redelivered, len(doubtful),
                        f", {repeated} are handled again" if repeated else "")
        self.gateway.on_worker_lost(worker_end)
        self._end_limbo()
        return 0

    cdef bint _is_given_up(self, uint64_t fd, dict closed) except -1:
        """Whether the application had closed that connection, by what it said or by an error, before its worker ended:
        then a message of it is dropped, as that worker would have done. `closed`: codes of those that closed since."""
        cdef Connection* c = self.connections.find(fd)
        code = closed.get(fd, 0)
        if c != NULL and c.closed_by == BY_APPLICATION:
            code = c.close_code
        if code:
            self.books.drop(_GIVEN_UP[ACK_FAILED if code == INTERNAL_ERROR else ACK_ENDED], EV_MESSAGE)
        return code != 0

    cdef int _set_limit(self) except -1:
        """So many workers are there now."""
        cdef size_t count = sum([1 for p in self.worker_ends
                                 if p is not None and (<WorkerEnd> p).usable and (<WorkerEnd> p).serves])
        self.books.limit = self.books.ledger_bytes * max(count, <size_t> 1)
        if 0 < self.connections.ceiling < self.books.limit:
            self.books.limit = self.connections.ceiling
        return self._let_in()

    cdef int _let_in(self) except -1:
        """Those who waited because too much was kept in all are looked at again."""
        cdef WorkerEnd worker_end
        self.books.crowded = False
        for worker_end in self.worker_ends:
            if worker_end is not None and worker_end.usable and worker_end.waiting:
                self._went_on(worker_end)
        return 0

    # ------------------------------------------------------------------ no worker

    cdef int _end_limbo(self) except -1:
        """Hands out what had no worker, in order, and lets the connections go on that waited for one."""
        cdef Connection* c
        cdef WorkerEnd worker_end
        cdef Notice event
        cdef uint64_t fd
        chosen: dict[int, WorkerEnd] = {}
        while self.limbo.count:
            event = self.limbo.first()
            fd = event.record.fd
            c = self.connections.find(fd)
            if c != NULL:
                worker_end = self.worker_end_of(c)
            else:
                # gone, but its last events still go to one worker
                worker_end = chosen.get(fd)
                if worker_end is None:
                    worker_end = self.any_worker_end(fd)
                    chosen[fd] = worker_end
                    if worker_end is not None:
                        self.bring_session(fd, worker_end)
            if worker_end is None:
                return 0
            self.limbo.take()
            if not self.parking.is_abandoned(event):
                self._queue(worker_end, event)
        return self.parking.wake_unbound()

    def refuse_waiting(self, reason: str) -> list[int]:
        """Gives up the requests and handshakes that wait for a worker, `dropped` for that reason; their connections.
        Those that are not even read are looked at again, and refused then."""
        cdef Connection* c
        refused = []
        for event in self.limbo.take_unless(lambda event: not is_asking(event.kind)):
            self.books.drop(reason, event.kind)
            self._forget(event)
            refused.append(event.fd)
        for fd in self.parking.unbound:
            c = self.connections.find(fd)
            if c != NULL and c.phase == HTTP:
                self.connections.wake(c)
        return refused

    def holding(self) -> set[int]:
        """WebSockets with messages that wait because there is no worker."""
        cdef Connection* c
        found = set()
        for fd in [*self.parking.unbound, *[event.fd for event in self.limbo if event.kind == EV_MESSAGE]]:
            c = self.connections.find(fd)
            if c != NULL and c.phase == OPEN:
                found.add(fd)
        return found

    def wake_asking(self) -> None:
        """Those that wait with a request: the gateway answers it now, whatever it is."""
        self.parking.wake_asking()

    cdef int _take_out(self, WorkerEnd worker_end) except -1:
        """No connection is with this worker any more."""
        cdef uint32_t slot
        cdef Connection* c
        if worker_end.index < 0:
            return 0
        for slot in range(self.connections.used):
            c = self.connections.slots[slot]
            if c != NULL and c.worker_end == worker_end.index:
                c.worker_end = NO_WORKER_END
                c.flags &= ~OWNS
                c.entry.worker = c.entry.owner = 0
                if c.flags & HELD:
                    self.parking.unbound.append(c.fd)
        self.worker_ends[worker_end.index] = None
        worker_end.index = -1
        return 0

    cdef int _started(self, WorkerEnd worker_end, Notice event, list doubtful) except -1:
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
            self._report(worker_end, event, verdict == QUARANTINE)
        return 0

    cdef int _report(self, WorkerEnd worker_end, Notice event, bint quarantined) except -1:
        """A worker will tell the application of it; a client that waits for an answer is told here."""
        cdef Connection* c
        cdef int kind = event.record.kind
        cdef uint64_t fd = event.record.fd
        text = f"worker {worker_end.worker} (pid {worker_end.pid}) ended while its handler ran"
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
            out_of_flight(c, event.record.size)
            self.connections.wake(c)

    def any_worker_end(self, fd: int) -> WorkerEnd | None:
        """The worker that the policy gives a connection now."""
        candidates = [p for p in self.worker_ends
                      if p is not None and (<WorkerEnd> p).usable and (<WorkerEnd> p).serves
                      and not (<WorkerEnd> p).retiring]
        return None if not candidates else candidates[0] if len(candidates) == 1 else self.policy(candidates, fd)

    # ------------------------------------------------------------------ up: events

    cdef bint ready(self, Connection* c) except -1:
        cdef WorkerEnd worker_end
        if c.in_flight >= self.max_messages or c.in_flight_bytes >= self.max_bytes:
            return False             # settle() wakes it
        if c.flags & PAUSED:
            return False             # CM_PAUSE with 0 wakes it
        if self.limbo.count:
            return self.parking.park(self.parking.unbound, c.fd)
        if c.worker_end != NO_WORKER_END:
            worker_end = self.worker_ends[c.worker_end]
            if not (worker_end.retiring or c.flags & MOVES) or c.flags & OWNS:
                return self.parking.park_unless_room(worker_end, c.fd)
            if c.in_flight:
                return False         # moves when the present worker has finished it; settle() wakes it
        return self.parking.park_unless_room(self.worker_end_of(c), c.fd)

    cdef bint takes(self, Connection* c) except -1:
        """Whether a request of it can be taken: by its worker, or to wait for one, or because it is refused anyway."""
        cdef WorkerEnd worker_end = None if self.limbo.count else self.worker_end_of(c)
        if worker_end is not None:
            if not worker_end.ledger.full():
                return True
        elif (self.limbo.count < self.books.tickets and self.limbo.size < self.books.ledger_bytes
                and self.books.kept < self.books.limit):
            return True
        return True if self.gateway.refuses_all else self.parking.park_unless_room(worker_end, c.fd)

    cdef bint takes_part(self, Connection* c) except -1:
        return c.worker_end == NO_WORKER_END or self.parking.takes_part(self.worker_ends[c.worker_end], c.fd)

    cdef int on_message(self, Connection* c, int opcode, const uint8_t* data, size_t size) except -1:
        cdef WorkerEnd worker_end = self.worker_ends[c.worker_end]
        cdef Record record = make_record(EV_MESSAGE, c.fd, <uint32_t> size)
        record.opcode = opcode
        record.extra = c.profile.index
        self.books.accept()
        into_flight(c, <uint32_t> size)
        if self.hand(worker_end, &record, data):
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
        """ROOM, GONE, BODY, FILE, PEER_ENDED: for the request's worker; ROOM of a WebSocket: for whoever asked."""
        if c.flags & UPGRADED:
            return self.asking.answer(c.fd, kind)
        self._tell(c, kind, c.requests, payload)
        return 0

    cdef int on_gone(self, Connection* c, int code, bytes reason) except -1:
        cdef WorkerEnd worker_end
        cdef int wants = (self.wanted if c.worker_end == NO_WORKER_END
                          else (<WorkerEnd> self.worker_ends[c.worker_end]).wants)
        cdef int kind = EV_CLOSE if c.flags & UPGRADED else EV_DISCONNECT if wants & WANTS_DISCONNECT else 0
        cdef bytes told = reason
        if c.profile.records:
            told = with_record(self.connections, self.hub, c, code, reason, wants)
        if kind == 0 and told is not reason:
            kind = EV_DISCONNECT
        self.hub.unsubscribe_all(c)
        if c.fd in self.owned.works:
            self.owned.cancel(c.fd, None, None)
        if c.in_flight and not c.flags & UPGRADED:
            self.parking.leave_behind(c.fd)
        try:
            try:
                self.asking.answer(c.fd, EV_GONE)
            except MemoryError:
                pass                 # that its `close` is told matters more
            if kind:
                # the last event of the connection; it goes where the others went
                worker_end = None if self.limbo.count else self.worker_end_of(c)
                self._queue(worker_end, Notice(kind, c.fd, told, opcode=c.closed_by, arg=code, extra=c.profile.index))
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
        cdef WorkerEnd worker_end
        if c == NULL:
            return
        worker_end = None if self.limbo.count else self.worker_end_of(c)
        if is_counted(event.record.kind):
            self.books.accept()
        into_flight(c, event.record.size)
        event.record.extra = c.profile.index
        self._queue(worker_end, event)

    cdef int _queue(self, WorkerEnd worker_end, Notice event) except -1:
        """Gives it to this worker (None: there is none) as soon as it can be."""
        if worker_end is None:
            self.limbo.add(event)
        elif worker_end.ledger.backlog.count or worker_end.ledger.free == 0:
            worker_end.ledger.backlog.add(event)
        elif self.hand(worker_end, &event.record, event.payload):
            self._put_off(worker_end, event)
        return 0

    def _put_off(self, worker_end: WorkerEnd, event: Notice) -> None:
        """There was no memory for an event that must not be lost: it is tried again."""
        worker_end.ledger.backlog.add_first(event)
        self.connections.reactor.call_later(RETRY, lambda: self._went_on(worker_end))

    cdef int hand(self, WorkerEnd worker_end, Record* record, const uint8_t* data) except -1:
        """Gives an event to a worker, on a ticket; there is a free one. 1: there is no memory, nothing has happened."""
        if worker_end.make_room(record.size) < 0 or worker_end.ledger.give(record, data, self.connections.reactor.now):
            return 1
        worker_end.transmit(record, data)
        return 0

    cdef int settle(self, WorkerEnd worker_end, uint32_t number, int how) except -1:
        """The handler of this ticket is done, or was not called: the application had given the connection up."""
        cdef const Record* record
        cdef Connection* c
        if not worker_end.ledger.settle(number, how, self.connections.reactor.now):
            return 1
        record = &worker_end.ledger.tickets[number].record
        c = self.connections.find(record.fd)
        if c == NULL and self.sessions and is_last(kind_of(record)):
            self.sessions.pop(record.fd, None)       # its last handler may have read it until now
        if c != NULL and record.kind != EV_CLOSE:
            out_of_flight(c, record.size)
            if kind_of(record) == EV_OPEN:
                c.entry.opened = 1
            if c.flags & HELD:
                self.connections.wake(c)
        if worker_end.usable and (worker_end.ledger.backlog.count or worker_end.waiting or worker_end.retiring):
            self._went_on(worker_end)
        if self.books.crowded and self.books.kept < self.books.limit:
            self._let_in()
        return 0

    def _went_on(self, worker_end: WorkerEnd) -> None:
        """A ticket came back: whoever waited for one may be next."""
        cdef Ledger ledger = worker_end.ledger
        cdef Notice event
        if worker_end.going_on:
            return  # inside of one process a handler may end within hand(): the loop below goes on, not ever deeper
        worker_end.going_on = True
        try:
            while ledger.backlog.count and ledger.free:
                event = ledger.backlog.take()
                if self.parking.is_abandoned(event):
                    continue
                if self.hand(worker_end, &event.record, event.payload):
                    self._put_off(worker_end, event)
                    break
        finally:
            worker_end.going_on = False
        self.parking.wake_waiting(worker_end)
        if worker_end.retiring:
            self.let_go(worker_end)

    # ------------------------------------------------------------------ down, and what is told of it

    @property
    def works(self) -> dict[int, dict[tuple[WorkerEnd, int], bytes]]:
        """Work that connections own: fd -> its name, by worker and number."""
        return self.owned.works

    def user_of(self, fd: int) -> str:
        """The user id a connection is bound to; empty for none."""
        cdef Connection* c = self.connections.find(fd)
        return self.hub.user_of(c).decode() if c != NULL else ""

    def tell(self, fd: int, kind: int, extra: int, payload: bytes) -> int:
        """A record without a ticket to the worker that serves the connection; its pid, 0 when there is none."""
        cdef Connection* c = self.connections.find(fd)
        return 0 if c == NULL else self._tell(c, kind, extra, payload)

    cdef int _tell(self, Connection* c, int kind, uint32_t extra, bytes payload) except -1:
        cdef WorkerEnd worker_end
        cdef Record record
        if c.worker_end == NO_WORKER_END:
            return 0
        worker_end = self.worker_ends[c.worker_end]
        record = make_record(kind, c.fd, len(payload))
        record.extra = extra
        worker_end.transmit(&record, payload)
        return worker_end.pid

    def end_streams(self, milliseconds: int) -> None:
        """Tells the workers that what would never end by itself shall end now, and the rest in that time."""
        for worker_end in [p for p in self.worker_ends if p is not None and (<WorkerEnd> p).serves]:
            (<WorkerEnd> worker_end).say(EV_END_STREAMS, milliseconds)

    def in_flight(self) -> int:
        """Messages and requests handed over and not finished, and work that connections own."""
        return self.books.in_flight

    def oldest(self) -> int:
        """Milliseconds for which the event has been with its worker that is there longest; 0: there is none."""
        return self.books.oldest(self.connections.reactor.now)

    def take_overdue(self, limit: int) -> list[tuple[int, int, int, WorkerEnd]]:
        """Events that have been with their worker for more than `limit` ms: kind, fd, ms, worker; each is told once."""
        now = self.connections.reactor.now
        return [(kind, fd, age, worker_end) for worker_end in self.worker_ends if worker_end is not None
                for kind, fd, age in (<WorkerEnd> worker_end).ledger.take_overdue(limit, now)]

    def idle(self) -> bool:
        """Whether no event of any kind is with a worker or on its way to one."""
        return self.books.idle()

    def stats(self) -> dict[str, object]:
        """accepted = finished + uncertain + dropped + in_flight, over messages, requests and owned work."""
        return {
            "accepted": self.books.accepted,
            "finished": self.books.finished,
            "uncertain": self.books.uncertain,
            "redelivered": self.books.redelivered,
            "repeated": self.books.repeated,
            "dropped": sum(self.books.dropped.values()),
            "dropped_reasons": dict(self.books.dropped),
            "in_flight": self.books.in_flight,
            "spawned": self.books.spawned,
            "oldest_in_flight": self.oldest() / 1000,
            "overdue": self.books.overdue,
            "reports_lost": self.books.reports_lost,
            "bad_records": self.bad_records,
            "ended_by_standstill": self.missed,
            "events_waiting": self.books.waiting,
            "bytes_waiting": self.books.kept,
            "published_out_of_order": 0 if self.publish_order is None else self.publish_order.out_of_order,
            "workers": [
                {"worker": p.worker, "generation": p.generation, "pid": p.pid, "connections": p.bound,
                 "in_flight": p.ledger.in_flight, "spawned": p.ledger.works, "retiring": p.retiring}
                for p in self.worker_ends if p is not None
            ],
        }
