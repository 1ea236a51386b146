"""The worker's half of the seam, upwards: events to handlers.

Messages of one connection are handled one at a time, in order. A `def` handler is called where its event was decoded;
nothing can come between. When an `async def` handler is suspended, its connection has a *lane*: later events of that
connection wait in it, those of other connections go on. A lane exists only while a handler is suspended, so a
connection that nothing is happening on costs a worker nothing.

The ticket of an event is marked as started right before its handler is called and acknowledged when it is done, behind
what it sent: the gateway sees an acknowledgement only after the pushes that belong to it. Acknowledgements and pushes
leave when the turn ends. Until then the page keeps them (see page.pyx): a handler that has ended is finished for the
gateway, too, whatever happens to this process.

Each call has a context (contextvars) of its own, a copy of that in which `worker_start` has ended: what a handler sets
is seen by what it calls and awaits, and by nobody else.

What a handler has decided about its connection holds for what the connection sent meanwhile. When one has raised, or
has disconnected it, messages that are here already are not handled (`Outbox.ended`): they are given back as dropped.
"""

from cpython.contextvars cimport PyContext_Copy, PyContext_Enter, PyContext_Exit
from libc.stdint cimport uint8_t, uint32_t, uint64_t

import contextvars
from collections import deque
from types import CoroutineType

from mooring._core.contract cimport Taker, WorkerContract
from mooring._core.gateway_end cimport Outbox, GatewayEnd
from mooring._core.latency cimport Latencies
from mooring._core.page cimport MARKS
from mooring._core.pulse cimport Pulse
from mooring._core.reactor cimport monotonic_us
from mooring._core.steps cimport Steps
from mooring._core.wire cimport (
    ACK_HANDLED, ATTEMPT_UNIT, EV_MESSAGE, EV_REQUEST, LISTENER_MASK, NO_TICKET, Notice, Record, is_last, new_notice,
    takes_ticket,
)
from mooring._core.ws cimport Frame, new_frame

from mooring._core.channel import BadRecord
from mooring._core.steps import failure_of

cdef extern from "Python.h":
    int PyException_SetTraceback(object error, object traceback)     # whatever its class makes of the attribute


cdef class Inlet(Taker):
    """Calls handlers. `on_message` are those of messages, one for each listener; `worker` is told of everything else,
    see mooring.worker.Worker."""

    def __cinit__(self, server: object, on_message: tuple[object, ...], WorkerContract worker, outbox: Outbox) -> None:
        self.server = server
        self.on_message = on_message
        self.worker = worker
        self.outbox = outbox
        self.context = contextvars.copy_context()
        self.steps = Steps(worker)
        self.lanes = {}
        self.pulse = Pulse()

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

    cdef int deliver(self, GatewayEnd gateway_end, const Record* record, const uint8_t* payload) except -1:
        try:
            return self._deliver(gateway_end, record, payload)
        except MemoryError as error:
            # before its handler had begun
            if record.ticket == NO_TICKET:
                raise
            if self._failed(gateway_end, record, error, None, 0):
                return 0
            return gateway_end.settle(record.ticket)

    cdef int _failed(self, GatewayEnd gateway_end, const Record* record, object error, object context,
                     uint64_t began) except -1:
        """Reports it, also when there is hardly any memory, or it can't even be looked at. Who waits for an answer is
        not left waiting, nor is what comes next on that connection: nothing is raised here. 1: the handler of `error`
        is suspended, and the event not over."""
        cdef int _attempt
        cdef object running = None
        if self.child:
            self.worker.end_child(error)
        for _attempt in range(3):
            try:
                if context is None:
                    context = self.context.copy()
                running = context.run(self.worker.failed, record.kind, record.extra & LISTENER_MASK, record.fd, error)
                if record.kind == EV_REQUEST:
                    self.outbox.drop(record.fd)      # the answer to a handler that raises is given elsewhere
                return self._wait(gateway_end, record, running, context, began) if running is not None else 0
            except MemoryError:
                PyException_SetTraceback(error, None)    # frees what the handler had, and then it can be said
            except BaseException as fault:
                error = fault                            # is told in its place
        try:
            self.outbox.drop(record.fd)
        except BaseException:
            pass                                         # no memory even for that
        return 0

    cdef int _deliver(self, GatewayEnd gateway_end, const Record* record, const uint8_t* payload) except -1:
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
                self.worker.note(gateway_end, data)
                return 0
        return self._queue(gateway_end, record, data)

    cdef int _queue(self, GatewayEnd gateway_end, const Record* record, object data) except -1:
        if self.lanes:
            lane = self.lanes.get(record.fd)
            if lane is not None:
                lane.append(_new_call(self, gateway_end, record, data, 0 if self.queueing is None else monotonic_us()))
                return 0
        self._start(gateway_end, record, data, 0)
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

    cdef int _start(self, GatewayEnd gateway_end, const Record* record, object data, uint64_t queued) except -1:
        """Runs one handler; 1 when it is suspended, and has a lane then."""
        cdef uint64_t began = 0
        cdef object context = None
        cdef object running
        cdef int kind = record.kind
        cdef int why
        if self.outbox.ended:
            why = self.outbox.why_ended(record.fd)
            if why != ACK_HANDLED and kind == EV_MESSAGE:
                return gateway_end.give_back(record.ticket, why)
            if is_last(kind):
                self.outbox.forget(record.fd)
        gateway_end.begin(record.ticket)
        self.handled += 1
        if self.handling is not None:
            began = monotonic_us()
            self._note_wait(kind, gateway_end.waited(record.ticket, began // 1000) * 1000, queued, began)
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
            if running is not None and self._wait(gateway_end, record, running, context, began):
                return 1
        except BaseException as error:
            # KeyboardInterrupt and the like too: raised in a handler, they are that handler's failure
            if self._failed(gateway_end, record, error, context, began):
                return 1
        if self.child:
            self.worker.end_child(None)
        if self.handling is not None:
            self.handling.add(kind, monotonic_us() - began)
        if record.ticket != NO_TICKET:
            gateway_end.settle(record.ticket)
        return 0

    cdef int _wait(self, GatewayEnd gateway_end, const Record* record, object running, object context,
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
        task.add_done_callback(_new_call(self, gateway_end, record, context, began))
        return 1

    def end(self, gateway_end: GatewayEnd, last: Notice) -> None:
        """The last event of a connection that its gateway cannot tell of any more."""
        self._queue(gateway_end, &last.record, last)

    cdef int _done(self, _Call call, object task) except -1:
        """A suspended handler has ended: the next event of that connection is due."""
        cdef uint64_t fd = call.record.fd
        cdef _Call next
        error = failure_of(task)
        if error is not None and self._failed(call.gateway_end, &call.record, error, call.what, call.since):
            return 0
        if self.handling is not None and call.since:
            self.handling.add(call.record.kind, monotonic_us() - call.since)
        if call.record.ticket != NO_TICKET:
            call.gateway_end.settle(call.record.ticket)
        lane = self.lanes[fd]
        while lane:
            next = lane.popleft()
            if self._start(next.gateway_end, &next.record, next.what, next.since):
                return 0
        del self.lanes[fd]
        if self.on_idle is not None and not self.lanes:
            self.on_idle()
        return 0


cdef class _Call:
    """An event that waits in a lane, where `what` is what its handler will be given; or one whose handler is suspended,
    in the context `what`: then this is its task's callback."""

    def __call__(self, task: object) -> None:
        self.inlet._done(self, task)


cdef _Call _new_call(Inlet inlet, GatewayEnd gateway_end, const Record* record, object what, uint64_t since):
    cdef _Call call = _Call.__new__(_Call)
    call.inlet = inlet
    call.gateway_end = gateway_end
    call.record = record[0]
    call.what = what
    call.since = since
    return call
