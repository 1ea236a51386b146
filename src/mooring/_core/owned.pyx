"""Work that connections own (`Server.spawn`), as the gateway knows it.

It runs in a worker beside the messages of its connection, and has no ticket: nothing waits for its end. But a
connection stays with the worker that serves it as long as that runs work of it (OWNS), as it does while a handler runs;
else, at a reload, its message "stop" would reach another process than the work. And unlike behind a handler messages go
on to be handed out meanwhile. So the worker says when a piece begins, behind which its handler is acknowledged in the
same stream, and when it ends. In the counts each is one event, accepted at its beginning.

Any worker may begin work for any connection; one that does not serve it holds nobody, and is told like the others when
the connection has ended, or when a handler elsewhere cancels what it owns.

Of a dead worker's work the application is told as of an event whose handler had started (UNCERTAIN).
"""

from libc.stdint cimport UINT16_MAX, uint16_t, uint32_t, uint64_t

from mooring._core.ledger cimport Books
from mooring._core.registry cimport NO_WORKER_END, OPEN, OWNS, Connection, into_flight
from mooring._core.websocket cimport WebSockets
from mooring._core.wire cimport (
    EV_UNCERTAIN, EV_WORK, WORK_BEGUN, WORK_CANCEL, WORK_CUT, Notice, Record, make_record,
)
from mooring._core.worker_end cimport WorkerEnd

from mooring._core.channel import BadRecord

cdef uint32_t MOST_WORKS = 1 << 20   # of one worker; each connection may have few, see the setting max_spawned


cdef class OwnedWork:
    """That of one gateway's connections."""

    def __cinit__(self, connections: WebSockets, books: Books, worker_ends: list[WorkerEnd | None]) -> None:
        self.connections = connections
        self.books = books
        self.worker_ends = worker_ends
        self.works = {}

    cdef int note(self, WorkerEnd worker_end, const Record* record, bytes name) except -1:
        """WORK: something has begun, has ended, or is to be cancelled in other workers."""
        cdef Connection* c = self.connections.find(record.fd)
        cdef object key = (worker_end, record.extra)
        cdef dict owned = self.works.get(record.fd)
        cdef bint known = owned is not None and key in owned
        if record.opcode > WORK_CANCEL or record.size > 255:
            raise BadRecord(f"work {record.opcode} with a name of {record.size} bytes")
        if record.opcode == WORK_CANCEL:
            return self.cancel(record.fd, name if record.extra else None, worker_end)
        if record.opcode == WORK_BEGUN:
            if known or worker_end.ledger.works >= MOST_WORKS:
                raise BadRecord(f"work {record.extra} begins and runs already, or {worker_end.ledger.works} others do")
            self.works.setdefault(record.fd, {})[key] = name
            self.books.begin_work(worker_end.ledger)
            if c == NULL:
                return self.cancel(record.fd, None, None)        # it has ended meanwhile
        else:
            if not known:
                raise BadRecord(f"work {record.extra} has ended, which nobody has begun")
            del owned[key]
            if not owned:
                del self.works[record.fd]
            self.books.end_work(worker_end.ledger, "cut" if record.opcode == WORK_CUT else "")
        return self.note_owner(c) if c != NULL else 0

    cdef int note_owner(self, Connection* c) except -1:
        """How much work it owns, and whether the worker that serves it runs some."""
        cdef WorkerEnd worker_end = None if c.worker_end == NO_WORKER_END else self.worker_ends[c.worker_end]
        c.entry.spawned = <uint16_t> min(len(self.works.get(c.fd, ())), UINT16_MAX)
        c.flags &= ~OWNS
        if worker_end is not None and worker_end.ledger.works:
            for whose, _ in self.works.get(c.fd, ()):
                if whose is worker_end:
                    c.flags |= OWNS
        return 0

    cdef int cancel(self, uint64_t fd, bytes name, WorkerEnd asks) except -1:
        """Has what a connection owns cancelled, in all workers but the one that asks; with a name only what is called
        so."""
        cdef WorkerEnd worker_end
        cdef Record record = make_record(EV_WORK, fd, 0 if name is None else <uint32_t> len(name))
        record.extra = name is not None
        for worker_end in dict.fromkeys([whose for whose, _ in self.works.get(fd, ())]):
            if worker_end is not asks and worker_end.usable:
                worker_end.transmit(&record, b"" if name is None else name)
        return 0

    cdef int lose(self, WorkerEnd worker_end, list doubtful) except -1:
        """Its worker has ended: nobody knows how far what it ran has come."""
        cdef Connection* c
        if worker_end.ledger.works == 0:
            return 0
        reason = f"worker {worker_end.worker} (pid {worker_end.pid}) ended while it ran".encode()
        head = len(reason).to_bytes(2, "little") + reason
        for fd, owned in list(self.works.items()):
            for key in [key for key in owned if key[0] is worker_end]:
                report = head + owned.pop(key)
                doubtful.append(fd)
                self.books.lose_work(worker_end.ledger)
                c = self.connections.find(fd)
                if c != NULL and c.phase == OPEN:
                    self.note_owner(c)
                    into_flight(c, <uint32_t> len(report))
                    self.books.limbo.add(Notice(EV_UNCERTAIN, fd, report, arg=EV_WORK, extra=c.profile.index))
            if not owned:
                del self.works[fd]
        return 0
