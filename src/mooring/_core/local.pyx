"""The seam inside one process (base mode): events and commands are plain calls between relay and inlet.

While a handler waits for the answer of another gateway, the loop of this process stands still, and the process is a
gateway, too: another one may wait for it at the same time. So it goes on to apply what other workers send to its
gateway (`ServingWait`). No handler runs inside of the one that waits: no command leads to an event at once, what ends
connections is the flush at the end of the turn. For the same reason no handler, and so no waiting, is ever inside of
such a command.

Among several gateways publishes have an order (order.pyx). One of this worker may have to wait for that of another, so
it goes the way that those for the other gateways go: into a queue (`LocalQueue`), and out of it together with theirs,
when the turn ends. What the worker commands behind it goes there as well, until the queue is empty. With one gateway it
is, unless so much was published in one turn that the rest has to wait for the next (turns.pyx).
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

import os
import select
import threading
import time

from mooring._core.buffer cimport Buffer, buffer_append, buffer_consume, buffer_free, buffer_reserve, buffer_size
from mooring._core.channel_link cimport ChannelWorkerEnd
from mooring._core.contract cimport GatewayWait
from mooring._core.gateway_end cimport GatewayEnd
from mooring._core.inlet cimport Inlet
from mooring._core.reactor cimport Source
from mooring._core.relay cimport Relay
from mooring._core.wire cimport ACK_HANDLED, CM_PUBLISH, RECORD_BYTES, Record
from mooring._core.worker_end cimport WorkerEnd

cdef enum:
    SERVE_BYTES = 65536      # taken from another worker in one go while this one waits
    QUEUE_BYTES = 1 << 20    # of commands that wait for the end of the turn
    QUEUE_LIMIT = 16 << 20   # of commands that wait for publishes of others; above it, who commands waits as well

ANSWER_LOOK = 0.002          # seconds between two tries to send the rest of an answer
LOOK = 0.01                  # seconds between two looks at what another thread or process has to do
CALL_TIMEOUT = 5.0           # seconds for which a call waits for the commands before it


cdef class LocalWorkerEnd(WorkerEnd):
    """The worker of this process, as its gateway sees it. It cannot be lost: both end together."""

    cdef Relay relay
    cdef Inlet inlet
    cdef LocalGatewayEnd gateway_end
    cdef LocalQueue queue

    cdef int go_on(self) except -1:
        return self.queue.flush()

    cdef int transmit(self, Record* record, const uint8_t* payload) except -1:
        # when this is called by the flush before a sleep, a handler may have something to do in asyncio now
        self.receiver.reactor.hurry = True
        return self.inlet.deliver(self.gateway_end, record, payload)


cdef class LocalQueue(Source):
    """Commands of this process's worker to its gateway, from a publish on. See the module's text."""

    cdef LocalWorkerEnd worker_end
    cdef Buffer commands
    cdef uint64_t put_in             # bytes, so far
    cdef list finished               # tickets of handlers whose commands are held here, and how each ended
    cdef bint draining

    def __cinit__(self) -> None:
        self.finished = []

    def __dealloc__(self) -> None:
        buffer_free(&self.commands)

    cdef int put(self, const Record* record, const uint8_t* payload) except -1:
        if buffer_reserve(&self.commands, RECORD_BYTES + record.size) < 0:       # all of it, or nothing
            raise MemoryError("no memory for a command")
        buffer_append(&self.commands, <const uint8_t*> record, RECORD_BYTES)
        buffer_append(&self.commands, payload, record.size)
        self.put_in += RECORD_BYTES + record.size
        self.reactor.mark_dirty(self)
        if buffer_size(&self.commands) > QUEUE_BYTES and not self.worker_end.held:
            self.flush()
        return 0

    cdef int wait_for_room(self) except -1:
        """Until what is ahead has come, or was waited for long enough, which `Order` limits; or else for so long."""
        cdef ServingWait waiting = self.worker_end.inlet.waiting
        end = time.monotonic() + CALL_TIMEOUT
        while self.full():
            if time.monotonic() >= end and self.worker_end.relay.publish_order is not None:
                self.worker_end.relay.publish_order.give_up(f"within {CALL_TIMEOUT:g} s")
                return self.worker_end.relay.publish_order.run()
            waiting._wait(-1, 0, LOOK)
        return 0

    cdef bint full(self) noexcept:
        return buffer_size(&self.commands) > QUEUE_LIMIT and (
            self.worker_end.held or self.worker_end in self.worker_end.relay.turns.paused)

    cdef int flush(self) except -1:
        """To all gateways: what some have and others don't, these wait for."""
        cdef Record record
        if self.draining:
            return 0
        self.worker_end.inlet.send_all()
        self.draining = True
        try:
            # nothing of it starts a handler: the finished ones come behind
            while buffer_size(&self.commands):
                memcpy(&record, self.commands.data + self.commands.start, RECORD_BYTES)
                try:
                    if self.worker_end.receiver.on_command(self.worker_end, &record,
                                                           self.commands.data + self.commands.start + RECORD_BYTES):
                        return 0
                except Exception:
                    self.reactor._error("handling a command")
                buffer_consume(&self.commands, RECORD_BYTES + record.size)
        finally:
            self.draining = False
        finished, self.finished = self.finished, []
        for ticket, how in finished:
            self.worker_end.relay.settle(self.worker_end, ticket, how)
        return 0


cdef class ServingWait(GatewayWait):
    """Waits, and goes on to be a gateway for other workers meanwhile. Threads but the loop's only wait: it serves."""

    cdef Relay relay
    cdef object thread

    def readable(self, fd: int, timeout: float) -> bool:
        return self._wait(fd, select.POLLIN, timeout)

    def writable(self, fd: int, timeout: float) -> bool:
        return self._wait(fd, select.POLLOUT, timeout)

    def acquire(self, lock: object) -> None:
        if threading.get_ident() != self.thread:
            lock.acquire()
            return
        while not lock.acquire(blocking=False):
            self._wait(-1, 0, LOOK)          # who has it may wait for one that waits for us

    cdef bint _wait(self, int fd, int events, double timeout) except -1:
        """Until `fd` (none if negative) is ready; False: it was not in time."""
        cdef uint8_t* buffer
        cdef double end = time.monotonic() + timeout
        cdef double left = timeout
        if threading.get_ident() != self.thread:
            poll = select.poll()
            if fd >= 0:
                poll.register(fd, events)
            return bool(poll.poll(timeout * 1000))
        buffer = <uint8_t*> malloc(SERVE_BYTES)
        if buffer == NULL:
            raise MemoryError("no memory to serve other workers")
        ended = set()
        unlimited = self.relay.turns.unlimited
        self.relay.turns.unlimited = True        # no turn ends before this wait does
        try:
            while True:
                if self.relay.turns.paused:
                    self.relay.turns.resume()
                poll = select.poll()
                if fd >= 0:
                    poll.register(fd, events)
                others = self._watch(poll, ended)
                if self._answer():
                    left = min(left, ANSWER_LOOK)
                if self.relay.publish_order is not None:
                    left = min(left, self.relay.publish_order.patience())
                ready = dict(poll.poll(max(0.0, left) * 1000))
                if fd in ready:
                    return True
                for other in ready:
                    # one that has ended is the loop's matter
                    if not (<ChannelWorkerEnd> others[other]).channel.read_alive(buffer, SERVE_BYTES):
                        ended.add(other)
                if self.relay.publish_order is not None:
                    self.relay.publish_order.expire()
                    self.relay.publish_order.run()
                left = end - time.monotonic()
                if left <= 0:
                    return False
        finally:
            self.relay.turns.unlimited = unlimited
            free(buffer)

    cdef bint _answer(self) except -1:
        """Whether others still wait for the rest of an answer from this gateway; no timer runs that would send it."""
        cdef WorkerEnd worker_end
        cdef bint waits = False
        for worker_end in self.relay.worker_ends:
            if isinstance(worker_end, ChannelWorkerEnd):
                waits |= (<ChannelWorkerEnd> worker_end).send_answers()
        return waits

    cdef dict _watch(self, object poll, set ended):
        """Other workers, by the descriptor on which they are heard."""
        cdef WorkerEnd worker_end
        cdef int fd
        others = {}
        for worker_end in self.relay.worker_ends:
            if isinstance(worker_end, ChannelWorkerEnd):
                fd = (<ChannelWorkerEnd> worker_end).channel.fd
                if fd >= 0 and fd not in ended and not (<ChannelWorkerEnd> worker_end).channel.held:
                    others[fd] = worker_end
                    poll.register(fd, select.POLLIN)
        return others


cdef class LocalGatewayEnd(GatewayEnd):
    """The gateway of this process, as its worker sees it."""

    cdef LocalWorkerEnd worker_end

    cdef int command(self, Record* record, const uint8_t* payload) except -1:
        cdef LocalQueue queue = self.worker_end.queue
        if buffer_size(&queue.commands) or (
                record.kind == CM_PUBLISH and self.worker_end.relay.publish_order is not None):
            if record.kind != CM_PUBLISH:
                self.make_room()     # of a publish it was called before, see Outbox._publish
            return queue.put(record, payload)
        if self.worker_end.receiver.on_command(self.worker_end, record, payload):
            return queue.put(record, payload)            # a publish, and enough were copied in this turn
        return 0

    cdef int make_room(self) except -1:
        if self.worker_end.queue.full():
            self.worker_end.queue.wait_for_room()
        return 0

    cdef int settle(self, uint32_t ticket) except -1:
        if buffer_size(&self.worker_end.queue.commands):
            return self.give_back(ticket, ACK_HANDLED)
        return self.worker_end.relay.settle(self.worker_end, ticket, ACK_HANDLED)

    cdef int give_back(self, uint32_t ticket, int why) except -1:
        if buffer_size(&self.worker_end.queue.commands):
            self.worker_end.queue.finished.append((ticket, why))
            return 0
        return self.worker_end.relay.settle(self.worker_end, ticket, why)

    cdef uint64_t position(self) noexcept:
        return self.worker_end.queue.put_in if buffer_size(&self.worker_end.queue.commands) else 0

    cdef bint is_applied(self, uint64_t position) noexcept:
        return self.worker_end.queue.put_in - buffer_size(&self.worker_end.queue.commands) >= position

    def call(self, what: int, fd: int, payload: bytes) -> bytes:
        self.apply_all()
        return self.worker_end.relay.gateway.call(what, fd, payload)

    cdef int apply_all(self) except -1:
        """Has the commands applied that were given so far, for which publishes of others may have to be waited for."""
        cdef LocalQueue queue = self.worker_end.queue
        cdef ServingWait waiting
        end = time.monotonic() + CALL_TIMEOUT
        if buffer_size(&queue.commands):
            queue.flush()
        while buffer_size(&queue.commands) and time.monotonic() < end:
            waiting = self.worker_end.inlet.waiting
            waiting._wait(-1, 0, LOOK)
        return 0

    def hello(self) -> None:
        """The worker is ready for events."""
        self.worker_end.relay.greet(self.worker_end, os.getpid(), self.worker_end.inlet.wants)

    def flush(self) -> None:
        self.apply_all()

    def close(self) -> None:
        """Ends with the process."""


def join(relay: Relay, inlet: Inlet, gateway: int, worker: int, generation: int) -> LocalGatewayEnd:
    """Makes the two ends know each other; the gateway end is the worker's. To be called by the thread of the loop."""
    cdef LocalWorkerEnd worker_end = LocalWorkerEnd(relay.commands, worker, generation, True)
    cdef LocalGatewayEnd gateway_end = LocalGatewayEnd()
    cdef LocalQueue queue = LocalQueue()
    cdef ServingWait waiting = ServingWait()
    worker_end.relay = relay
    worker_end.inlet = inlet
    worker_end.gateway_end = gateway_end
    worker_end.queue = queue
    gateway_end.worker_end = worker_end
    gateway_end.gateway = gateway
    gateway_end.table = relay.connections.table
    queue.worker_end = worker_end
    relay.connections.reactor.add(queue)
    waiting.relay = relay
    waiting.thread = threading.get_ident()
    inlet.waiting = waiting
    relay.attach(worker_end)
    return gateway_end
