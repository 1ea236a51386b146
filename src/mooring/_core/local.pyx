"""The seam inside one process (base mode): events and commands are plain calls between relay and inlet.

While a handler waits for the answer of another gateway, the loop of this process stands still, and the process is a
gateway, too: another one may wait for it at the same time. So it goes on to apply what other workers send to its gateway
(`ServingWait`). No handler runs inside of the one that waits: no command leads to an event at once, what ends connections
is the flush at the end of the turn. For the same reason no handler, and so no waiting, is ever inside of such a command.
"""

from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free, malloc

import os
import select
import threading
import time

from mooring._core.inlet cimport Inlet, Waiting
from mooring._core.outlet cimport Outlet
from mooring._core.relay cimport ChannelPort, Port, Relay
from mooring._core.wire cimport Record

cdef enum:
    SERVE_BYTES = 65536      # taken from another worker in one go while this one waits

ANSWER_LOOK = 0.002          # seconds between two tries to send the rest of an answer
LOCK_LOOK = 0.01             # seconds between two looks at a lock that a thread of this process has


cdef class LocalPort(Port):
    """The worker of this process, as its gateway sees it. It cannot be lost: both end together."""

    cdef Inlet inlet
    cdef LocalOutlet outlet

    cdef int transmit(self, Record* record, const uint8_t* payload) except -1:
        # when this is called by the flush before a sleep, a handler may have something to do in asyncio now
        self.relay.connections.reactor.hurry = True
        return self.inlet.deliver(self.outlet, record, payload)


cdef class ServingWait(Waiting):
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
            self._wait(-1, 0, LOCK_LOOK)     # who has it may wait for one that waits for us

    cdef bint _wait(self, int fd, int events, double timeout) except -1:
        """Until `fd` (none if negative) is ready; False: it was not in time."""
        cdef uint8_t* buffer
        cdef double end = time.monotonic() + timeout
        poll = select.poll()
        if fd >= 0:
            poll.register(fd, events)
        if threading.get_ident() != self.thread:
            return bool(poll.poll(timeout * 1000))
        others = self._watch(poll)
        buffer = <uint8_t*> malloc(SERVE_BYTES)
        if buffer == NULL:
            raise MemoryError("no memory to serve other workers")
        try:
            while True:
                left = max(0.0, end - time.monotonic())
                ready = dict(poll.poll((min(left, ANSWER_LOOK) if self._answer() else left) * 1000))
                if fd in ready:
                    return True
                if time.monotonic() >= end:
                    return False
                for other in ready:
                    # one that has ended is the loop's matter
                    if not (<ChannelPort> others[other]).channel.read_alive(buffer, SERVE_BYTES):
                        poll.unregister(other)
        finally:
            free(buffer)

    cdef bint _answer(self) except -1:
        """Whether others still wait for the rest of an answer from this gateway; no timer runs that would send it."""
        cdef Port port
        cdef bint waits = False
        for port in self.relay.ports:
            if isinstance(port, ChannelPort):
                waits |= (<ChannelPort> port).send_answers()
        return waits

    cdef dict _watch(self, object poll):
        """Other workers, by the descriptor on which they are heard."""
        cdef Port port
        others = {}
        for port in self.relay.ports:
            if isinstance(port, ChannelPort) and (<ChannelPort> port).channel.fd >= 0:
                others[(<ChannelPort> port).channel.fd] = port
                poll.register((<ChannelPort> port).channel.fd, select.POLLIN)
        return others


cdef class LocalOutlet(Outlet):
    """The gateway of this process, as its worker sees it."""

    cdef LocalPort port

    cdef int command(self, Record* record, const uint8_t* payload) except -1:
        return self.port.relay.on_command(self.port, record, payload)

    cdef int finish(self, uint32_t ticket) except -1:
        return self.port.relay.finish(self.port, ticket)

    def call(self, what: int, fd: int, payload: bytes) -> bytes:
        return self.port.relay.gateway.call(what, fd, payload)

    def hello(self) -> None:
        """The worker is ready for events."""
        self.port.relay.greet(self.port, os.getpid(), self.port.inlet.wants)

    def flush(self) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        """Ends with the process."""


def join(relay: Relay, inlet: Inlet, gateway: int, worker: int, generation: int) -> LocalOutlet:
    """Makes the two ends know each other; the outlet is the worker's. To be called by the thread of the loop."""
    cdef LocalPort port = LocalPort(relay, worker, generation, True)
    cdef LocalOutlet outlet = LocalOutlet()
    cdef ServingWait waiting = ServingWait()
    port.inlet = inlet
    port.outlet = outlet
    outlet.port = port
    outlet.gateway = gateway
    outlet.table = relay.connections.table
    waiting.relay = relay
    waiting.thread = threading.get_ident()
    inlet.waiting = waiting
    relay.attach(port)
    return outlet
