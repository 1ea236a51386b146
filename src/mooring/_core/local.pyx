"""The seam inside one process (base mode): events and commands are plain calls between relay and inlet."""

from libc.stdint cimport uint8_t, uint32_t

import os

from mooring._core.inlet cimport Inlet
from mooring._core.outlet cimport Outlet
from mooring._core.relay cimport Port, Relay
from mooring._core.wire cimport Record


cdef class LocalPort(Port):
    """The worker of this process, as its gateway sees it. It cannot be lost: both end together."""

    cdef Inlet inlet
    cdef LocalOutlet outlet

    cdef int transmit(self, Record* record, const uint8_t* payload) except -1:
        # when this is called by the flush before a sleep, a handler may have something to do in asyncio now
        self.relay.connections.reactor.hurry = True
        return self.inlet.deliver(self.outlet, record, payload)


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
    """Makes the two ends know each other; the outlet is the worker's."""
    cdef LocalPort port = LocalPort(relay, worker, generation, True)
    cdef LocalOutlet outlet = LocalOutlet()
    port.inlet = inlet
    port.outlet = outlet
    outlet.port = port
    outlet.gateway = gateway
    outlet.table = relay.connections.table
    relay.attach(port)
    return outlet
