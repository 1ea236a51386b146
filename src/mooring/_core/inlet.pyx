"""The worker's half of the seam, upwards: events to handlers.

Messages of one connection are handled one at a time, in order. A `def` handler is called where its event was decoded;
nothing can come between. When an `async def` handler is suspended, its connection has a *lane*: later events of that
connection wait in it, those of other connections go on. A lane exists only while a handler is suspended, so a connection
that nothing is happening on costs a worker nothing.

The ticket of an event is marked as started right before its handler is called and acknowledged when it is done, behind
what it sent: the gateway sees an acknowledgement only after the pushes that belong to it. Acknowledgements and pushes
leave when the turn ends. Until then the page keeps them (see page.pyx): a handler that has ended is finished for the
gateway, too, whatever happens to this process.

Each call has a context (contextvars) of its own, a copy of that in which `worker_start` has ended: what a handler sets is
seen by what it calls and awaits, and by nobody else.

What a handler has decided about its connection holds for what the connection sent meanwhile. When one has raised, or has
disconnected it, messages that are here already are not handled (`Outbox.ended`): they are given back as dropped.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.contextvars cimport PyContext_Copy, PyContext_Enter, PyContext_Exit
from libc.stdint cimport uint8_t, uint32_t, uint64_t

import contextvars
import os
import select
import socket
import threading
import time
from collections import deque
from functools import partial
from types import CoroutineType

from mooring._core.buffer cimport buffer_size
from mooring._core.channel cimport Channel
from mooring._core.latency cimport Latencies
from mooring._core.outlet cimport Outbox, Outlet
from mooring._core.page cimport DONE, JOURNAL_BYTES, MARKS, STARTED, Page
from mooring._core.pulse cimport Pulse
from mooring._core.reactor cimport Reactor, monotonic_ms, monotonic_us
from mooring._core.steps cimport Steps
from mooring._core.table cimport Table
from mooring._core.wire cimport (
    ACK_HANDLED, ATTEMPT_UNIT, CM_ACK, CM_CALL, CM_DISCONNECT_USER, CM_HELLO, CM_MISSED, CM_PUBLISH, CM_WORK, EV_MESSAGE,
    EV_REQUEST, LISTENER_MASK, MISSED_CLIENT, MISSED_PUBLISHES, MISSED_TOPIC, MISSED_TOPICS, NO_TICKET, RECORD_LIMIT, VERSION,
    Notice, Record, is_event, is_last, make_record, new_notice, takes_ticket,
)
from mooring._core.ws cimport Frame, new_frame

from mooring._core.channel import BadRecord
from mooring._core.steps import failure_of
from mooring._core.wire import USER as _USER
from mooring.errors import StateError

cdef extern from "Python.h":
    int PyException_SetTraceback(object error, object traceback)     # whatever its class makes of the attribute

cdef uint64_t LONG_TURN_MS = 5
cdef size_t KEPT = 32768                 # bytes of one handler that are copied into the page, and sent later
cdef double RETRY = 0.05         # seconds, after there was no memory for an acknowledgement
CALL_TIMEOUT = 5.0       # seconds a gateway has to answer
ANSWER_PART = 1 << 18    # bytes of an answer that are taken from the kernel at once


cdef class Waiting:
    """How this worker waits for a gateway while its loop stands still. Where the process is itself a gateway, it must go on
    as one meanwhile: local.pyx has that kind."""

    def readable(self, fd: int, timeout: float) -> bool:
        """Until there is something to read; False: there was nothing in `timeout` seconds."""
        return _ready(fd, select.POLLIN, timeout)

    def writable(self, fd: int, timeout: float) -> bool:
        """Until there is room to write; False: there was none in `timeout` seconds."""
        return _ready(fd, select.POLLOUT, timeout)

    def acquire(self, lock: object) -> None:
        """Until the lock is this thread's, which others hold for the length of one call."""
        lock.acquire()


def _ready(fd: int, events: int, timeout: float) -> bool:
    poll = select.poll()
    poll.register(fd, events)
    return bool(poll.poll(timeout * 1000))


cdef class Inlet:
    """Calls handlers. `on_message` are those of messages, one for each listener; `worker` is told of everything else, see
    mooring.worker.Worker."""

    def __cinit__(self, server: object, on_message: tuple[object, ...], worker: object, outbox: Outbox) -> None:
        self.server = server
        self.on_message = on_message
        self.worker = worker
        self.outbox = outbox
        self.context = contextvars.copy_context()
        self.steps = Steps(worker)
        self.lanes = {}
        self.channels = []
        self.pulse = Pulse()
        self.waiting = Waiting()
        self.output_limit = 64 << 20

    def observe(self, pulse: Pulse, limit: int = 0) -> None:
        """Notes in `pulse` what is begun; after `limit` messages and requests, if not 0, worker.limit_reached()."""
        self.pulse = pulse
        self.until_limit = limit

    def measure(self) -> None:
        """Counts from now on how long handlers take, and events before them."""
        self.handling, self.queueing = Latencies(), Latencies()

    def timings(self) -> dict[str, dict[str, list[int]]]:
        """What was measured so far, as `Latencies.report()` gives it; nothing unless measure() was called."""
        handling, queueing = self.handling, self.queueing
        return {} if handling is None else {"handler": handling.report(), "queue": queueing.report()}

    def abandon(self) -> None:
        """In a forked child: what is under way was its parent's to begin, and is its parent's to end."""
        self.child = self.steps.child = True

    @property
    def suspended(self) -> int:
        """How many connections have a handler under way."""
        return len(self.lanes)

    cdef int send_all(self) except -1:
        """Hands over what the kernel takes. Always to all gateways: what some have and others don't, these wait for."""
        cdef ChannelOutlet outlet
        for outlet in self.channels:
            outlet.channel.flush()
        return 0

    cdef int deliver(self, Outlet outlet, const Record* record, const uint8_t* payload) except -1:
        try:
            return self._deliver(outlet, record, payload)
        except MemoryError as error:
            # before its handler had begun
            if record.ticket == NO_TICKET:
                raise
            if self._failed(outlet, record, error, None, 0):
                return 0
            return outlet.finish(record.ticket)

    cdef int _failed(self, Outlet outlet, const Record* record, object error, object context,
                     uint64_t began) except -1:
        """Reports it, also when there is hardly any memory, or it can't even be looked at. Who waits for an answer is not
        left waiting, nor is what comes next on that connection: nothing is raised here. 1: the handler of `error` is
        suspended, and the event not over."""
        cdef int attempt
        cdef object running = None
        if self.child:
            self.worker.leave_child(error)
        for attempt in range(3):
            try:
                if context is None:
                    context = self.context.copy()
                running = context.run(self.worker.failed, record.kind, record.extra & LISTENER_MASK, record.fd, error)
                if record.kind == EV_REQUEST:
                    self.outbox.drop(record.fd)      # the answer to a handler that raises is given elsewhere
                return self._wait(outlet, record, running, context, began) if running is not None else 0
            except MemoryError:
                PyException_SetTraceback(error, None)    # frees what the handler had, and then it can be said
            except BaseException as fault:
                error = fault                            # is told in its place
        try:
            self.outbox.drop(record.fd)
        except BaseException:
            pass                                         # no memory even for that
        return 0

    cdef int _deliver(self, Outlet outlet, const Record* record, const uint8_t* payload) except -1:
        cdef object data
        if record.ticket != NO_TICKET:
            if record.ticket >= MARKS or record.extra & LISTENER_MASK >= <uint32_t> len(self.on_message):
                raise BadRecord(f"an event on ticket {record.ticket} of listener {record.extra & LISTENER_MASK}")
            if not takes_ticket(record.kind):
                raise BadRecord(f"unknown kind {record.kind}")
        elif takes_ticket(record.kind):
            raise BadRecord(f"an event of kind {record.kind} without a ticket")
        if record.kind == EV_MESSAGE:
            data = new_frame(record.fd, record.opcode, payload, record.size)
            if record.extra >= ATTEMPT_UNIT:
                (<Frame> data).attempt = <int> (record.extra / ATTEMPT_UNIT) + 1
        else:
            data = new_notice(record, payload)
            if record.ticket == NO_TICKET:
                self.worker.note(outlet, data)
                return 0
        return self._queue(outlet, record, data)

    cdef int _queue(self, Outlet outlet, const Record* record, object data) except -1:
        if self.lanes:
            lane = self.lanes.get(record.fd)
            if lane is not None:
                lane.append(_new_call(self, outlet, record, data, 0 if self.queueing is None else monotonic_us()))
                return 0
        self._start(outlet, record, data, 0)
        return 0

    cdef int _note_wait(self, int kind, uint64_t waited, uint64_t queued, uint64_t began) noexcept:
        """What `waited` for so long, as its gateway says, or has been in a lane since `queued`, waits no more."""
        return self.queueing.add(kind, waited if waited or not queued else began - queued)

    cdef int _count_down(self, int kind) except -1:
        """One less until this worker is replaced."""
        if kind == EV_MESSAGE or kind == EV_REQUEST:
            self.until_limit -= 1
            if self.until_limit == 0:
                self.worker.limit_reached()
        return 0

    cdef int _start(self, Outlet outlet, const Record* record, object data, uint64_t queued) except -1:
        """Runs one handler; 1 when it is suspended, and has a lane then."""
        cdef uint64_t began = 0
        cdef object context = None
        cdef object running
        cdef int kind = record.kind
        cdef int why
        if self.outbox.ended:
            why = self.outbox.why_ended(record.fd)
            if why != ACK_HANDLED and kind == EV_MESSAGE:
                return outlet.give_back(record.ticket, why)
            if is_last(kind):
                self.outbox.forget(record.fd)
        outlet.begin(record.ticket)
        self.handled += 1
        if self.handling is not None:
            began = monotonic_us()
            self._note_wait(kind, outlet.waited(record.ticket, began // 1000) * 1000, queued, began)
        if self.kept_waiting is not None:
            self.kept_waiting.add(record.fd)
        self.pulse.data.begun += 1
        self.pulse.data.fd = record.fd
        self.pulse.data.kind = kind
        if self.until_limit:
            self._count_down(kind)
        try:
            context = PyContext_Copy(self.context)
            PyContext_Enter(context)
            try:
                if kind == EV_MESSAGE:
                    running = self.on_message[record.extra & LISTENER_MASK](self.server, data)
                else:
                    running = self.worker.cold(data)
            finally:
                PyContext_Exit(context)
            if running is not None and type(running) is not CoroutineType:
                running = self.worker.running_of(running, kind)
            if running is not None and self._wait(outlet, record, running, context, began):
                return 1
        except BaseException as error:
            # KeyboardInterrupt and the like too: raised in a handler, they are that handler's failure
            if self._failed(outlet, record, error, context, began):
                return 1
        if self.child:
            self.worker.leave_child(None)
        if self.handling is not None:
            self.handling.add(kind, monotonic_us() - began)
        if record.ticket != NO_TICKET:
            outlet.finish(record.ticket)
        return 0

    cdef int _wait(self, Outlet outlet, const Record* record, object running, object context,
                   uint64_t began) except -1:
        """Goes on with a handler that is a coroutine, in its context; 1 when it is suspended."""
        if type(running) is CoroutineType:
            task = self.steps.begin(running, context, False, record.kind)
            if task is None:
                return 0
        else:
            task = self.steps.task_of(running, context, record.kind)
        if task not in self.steps.tasks:
            error = failure_of(task)
            if error is not None:
                raise error
            return 0
        if self.child:
            self.worker.came_back()
        if record.fd not in self.lanes:
            self.lanes[record.fd] = deque()
        task.add_done_callback(_new_call(self, outlet, record, context, began))
        return 1

    def end(self, outlet: Outlet, last: Notice) -> None:
        """The last event of a connection that its gateway cannot tell of any more."""
        self._queue(outlet, &last.record, last)

    cdef int _done(self, _Call call, object task) except -1:
        """A suspended handler has ended: the next event of that connection is due."""
        cdef uint64_t fd = call.record.fd
        cdef _Call next
        error = failure_of(task)
        if error is not None and self._failed(call.outlet, &call.record, error, call.what, call.since):
            return 0
        if self.handling is not None and call.since:
            self.handling.add(call.record.kind, monotonic_us() - call.since)
        if call.record.ticket != NO_TICKET:
            call.outlet.finish(call.record.ticket)
        lane = self.lanes[fd]
        while lane:
            next = lane.popleft()
            if self._start(next.outlet, &next.record, next.what, next.since):
                return 0
        del self.lanes[fd]
        if self.on_idle is not None and not self.lanes:
            self.on_idle()
        return 0


cdef class _Call:
    """An event that waits in a lane, where `what` is what its handler will be given; or one whose handler is suspended, in
    the context `what`: then this is its task's callback."""

    def __call__(self, task: object) -> None:
        self.inlet._done(self, task)


cdef _Call _new_call(Inlet inlet, Outlet outlet, const Record* record, object what, uint64_t since):
    cdef _Call call = _Call.__new__(_Call)
    call.inlet = inlet
    call.outlet = outlet
    call.record = record[0]
    call.what = what
    call.since = since
    return call


cdef class WorkerChannel(Channel):
    """The worker's end of a channel to a gateway."""

    cdef bint fits(self, const Record* record) noexcept:
        return is_event(record)

    cdef int on_record(self, const Record* record, const uint8_t* payload) except -1:
        if monotonic_ms() - self.reactor.now > LONG_TURN_MS:
            # handlers are slow: what those before have sent shall not wait for those behind
            self.inlet.send_all()
        return self.inlet.deliver(self.outlet, record, payload)

    cdef int on_bad(self, object problem) except -1:
        self.inlet.worker.on_bad_record(f"gateway {self.outlet.gateway}", problem)
        return 0

    cdef int on_broken(self, str why) except -1:
        self.inlet.worker.on_broken(f"gateway {self.outlet.gateway}", why)
        return 0

    cdef int on_lost(self, str why) except -1:
        self.inlet.channels.remove(self.outlet)
        self.inlet.worker.gateway_lost(self.outlet, why)
        return 0

    cdef int flush(self) except -1:
        self.outlet.send_acks()
        return Channel.flush(self)


cdef class ChannelOutlet(Outlet):
    """A gateway in another process. Takes over the descriptors of the channel, the reply socket and the page."""

    def __init__(self, gateway: int, table: Table, inlet: Inlet, reactor: Reactor, channel: int, reply_socket: object,
                 page: int) -> None:
        self.gateway = gateway
        self.table = table
        self.page = Page(page)
        self.reply_socket = reply_socket
        self.one_call = threading.Lock()
        reply_socket.settimeout(CALL_TIMEOUT)
        self.unread = bytearray()
        self.channel = WorkerChannel(reactor, channel)
        self.channel.outlet = self
        self.channel.inlet = inlet
        inlet.channels.append(self)

    def hello(self) -> None:
        """The first record: this worker is ready for events."""
        cdef Record record = make_record(CM_HELLO, self.outbox.stamp(), 0)
        record.opcode = self.channel.inlet.wants
        record.arg = VERSION
        record.extra = os.getpid()
        self.channel.put(&record, NULL)

    def beat(self) -> None:
        self.page.shared.beat = monotonic_ms()

    def hang_up(self) -> None:
        """The gateway's process has ended: see Channel.hang_up. Nobody waits for an answer of it either."""
        self.channel.hang_up()
        try:
            self.reply_socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass                         # it is closed already

    def abandon(self) -> None:
        """In a forked child: see Channel.abandon."""
        self.channel.abandon()
        self.reply_socket.close()

    def close(self) -> None:
        if self in self.channel.inlet.channels:
            self.channel.inlet.channels.remove(self)
        self.channel.close()
        self.reply_socket.close()

    def flush(self) -> None:
        """Hands everything queued to the kernel, waiting for room if there is none."""
        while not self.hand_over(CALL_TIMEOUT):
            pass

    cdef bint hand_over(self, double timeout) except -1:
        """The same, waiting at most for so many seconds; False: there is something left."""
        cdef double end = time.monotonic() + timeout
        cdef double left
        self.channel.inlet.send_all()
        self.send_acks()
        while self.channel.fd >= 0:
            self.channel.send_some()
            if not self.channel.writing:
                break
            left = end - time.monotonic()
            if left <= 0:
                return False
            self.channel.inlet.waiting.writable(self.channel.fd, left)
        return True

    cdef int command(self, Record* record, const uint8_t* payload) except -1:
        self.make_room()
        if buffer_size(&self.channel.output) > self.channel.inlet.output_limit:
            if record.kind == CM_WORK:
                self.channel.put(record, payload)        # small, and the gateway's ledger relies on it
            else:
                _miss(self, record, payload)
        else:
            if self.missed is not None:
                _takes_again(self)
            self.channel.put(record, payload)
        return self.channel.flush() if self.eager else 0

    cdef int make_room(self) except -1:
        if buffer_size(&self.channel.output) > self.channel.inlet.output_limit // 4:
            _wait_for_room(self)
        return 0

    cdef int begin(self, uint32_t ticket) noexcept:
        return self.page.mark(ticket, STARTED)

    cdef uint64_t waited(self, uint32_t ticket, uint64_t now) noexcept:
        return self.page.waited(ticket, now)

    cdef bint keep(self) except -1:
        """Whether what was sent so far would survive this process."""
        cdef Channel channel = self.channel
        if buffer_size(&channel.output) == 0 or self.page.keep(channel.sent, &channel.output, KEPT):
            return True
        # it is large, so another copy costs more than a system call; or the page is full: the kernel shall have it, if it can
        self.channel.inlet.send_all()
        return buffer_size(&channel.output) == 0 or self.page.keep(channel.sent, &channel.output, JOURNAL_BYTES)

    cdef bint all_keep(self) except -1:
        """The same for all gateways: a handler may have sent through any of them."""
        cdef ChannelOutlet outlet
        cdef bint kept = True
        for outlet in self.channel.inlet.channels:
            kept &= outlet.keep()
        return kept

    cdef int finish(self, uint32_t ticket) except -1:
        if self.keep() if len(self.channel.inlet.channels) == 1 else self.all_keep():
            self.page.mark(ticket, DONE)
        return self._acknowledge(ticket, ACK_HANDLED)

    cdef int give_back(self, uint32_t ticket, int why) except -1:
        # without a mark: should this process end before that has left, the gateway knows the same from what has closed it
        return self._acknowledge(ticket, why)

    cdef int _acknowledge(self, uint32_t ticket, int how) except -1:
        if self.acked and ticket == self.first_ack + self.acked and how == self.how_acked:
            self.acked += 1
            return 0
        self.send_acks()
        self.first_ack = ticket
        self.acked = 1
        self.how_acked = how
        self.channel.reactor.mark_dirty(self.channel)
        return 0

    cdef uint64_t position(self) noexcept:
        return self.channel.sent + buffer_size(&self.channel.output) if self.channel.fd >= 0 else 0

    cdef bint is_applied(self, uint64_t position) noexcept:
        return self.page.applied() >= position

    cpdef send_acks(self):
        cdef Record record
        if self.acked:
            record = make_record(CM_ACK, 0, 0)
            record.opcode = self.how_acked
            record.ticket = self.first_ack
            record.extra = self.acked
            self.acked = 0
            try:
                self.channel.put(&record, NULL)
            except MemoryError:
                self.channel.reactor.call_later(RETRY, partial(self._ack_again, record.ticket, record.extra,
                                                                      record.opcode))

    def _ack_again(self, first: int, count: int, how: int) -> None:
        self.send_acks()
        self.first_ack = first
        self.acked = count
        self.how_acked = how
        self.send_acks()

    def call(self, what: int, fd: int, payload: bytes) -> bytes:
        self.channel.inlet.waiting.acquire(self.one_call)
        try:
            return self._call(what, fd, payload)
        finally:
            self.one_call.release()

    def _call(self, what: int, fd: int, payload: bytes) -> bytes:
        cdef Record record = make_record(CM_CALL, fd, <uint32_t> len(payload))
        record.arg = what
        waits = self.reply_socket.fileno()
        if self.answered != self.calls and (waits < 0 or not _ready(waits, select.POLLIN, 0.0)):
            # it stands still: this worker waits for that once, and not again with each question
            raise StateError(f"gateway {self.gateway} does not answer: timed out")
        deadline = time.monotonic() + CALL_TIMEOUT
        self.calls += 1
        record.ticket = self.calls
        self.channel.put(&record, payload)
        if not self.hand_over(CALL_TIMEOUT):
            raise StateError(f"gateway {self.gateway} does not take the question: timed out")
        try:
            while True:
                self.answered, answer = self._receive(deadline)
                if self.answered == self.calls:   # else it came too late for an earlier one
                    return answer
        except OSError as error:
            raise StateError(f"gateway {self.gateway} does not answer: {error}") from None

    def _receive(self, deadline: float) -> tuple[int, bytes]:
        """The next answer, and the number of its call; `unread` keeps what a call that was given up has left."""
        answers = self.unread
        while len(answers) < 8 or len(answers) < 8 + int.from_bytes(answers[4:8], "little"):
            if len(answers) >= 8 and int.from_bytes(answers[4:8], "little") > RECORD_LIMIT:
                self.reply_socket.close()        # whatever follows is no answer either
                raise ConnectionError(f"an answer of {int.from_bytes(answers[4:8], 'little')} bytes: the stream is broken")
            fd = self.reply_socket.fileno()
            if fd < 0 or not self.channel.inlet.waiting.readable(fd, max(0.0, deadline - time.monotonic())):
                raise TimeoutError("timed out")
            part = self.reply_socket.recv(ANSWER_PART)
            if not part:
                raise ConnectionError("it is gone")
            answers += part
        end = 8 + int.from_bytes(answers[4:8], "little")
        call, answer = int.from_bytes(answers[:4], "little"), bytes(answers[8:end])
        del answers[:end]
        return call, answer


include "inlet_standstill.pxi"
