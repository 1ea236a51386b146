"""What every process with a gateway or a worker in it is made of; which process has what, the runtime says."""

import logging
import resource
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from mooring._core.reactor import Reactor
from mooring._core.relay import Port
from mooring._core.table import Table
from mooring.admin.desk import Controlled
from mooring.app.handlers import Handlers
from mooring.app.listener import Listener
from mooring.app.shared import Shared
from mooring.config import Settings
from mooring.gateway.gateway import Gateway
from mooring.worker.worker import Master, Worker

log = logging.getLogger("mooring.runtime")

GOING_AWAY = 1001
DESCRIPTOR_LIMIT = 1 << 20  # a gateway raises its own up to this
SPARE_DESCRIPTORS = 64


class Server(Controlled, Protocol):
    """What the runtime needs of a mooring.Server, which stands above it."""

    @property
    def settings(self) -> Settings: ...
    @property
    def handlers(self) -> Handlers: ...
    @property
    def listeners(self) -> Sequence[Listener]: ...
    @property
    def shared(self) -> Shared: ...
    def enter(self, worker: Worker, settings: Settings) -> None:
        """The server runs in this process from now on, with this worker and these settings."""


def clock_offset() -> int:
    """Milliseconds from the clock that nobody sets to the wall clock, at this moment."""
    return (time.time_ns() - time.monotonic_ns()) // 1_000_000


def first_serial(offset: int) -> int:
    """Where the serials of a gateway's fds begin, so that none comes back when a gateway, or the server, starts again.

    They begin where the wall clock would stand had it not been set since the server started (`offset`, of then), in
    milliseconds.
    """
    return offset + time.monotonic_ns() // 1_000_000


def new_gateway(
    reactor: Reactor,
    settings: Settings,
    number: int,
    file: int,
    offset: int,
    on_retired: Callable[[Port], None],
    on_broken: Callable[[Port, str], None] = lambda _port, _why: None,
    gateways: int = 1,
) -> Gateway:
    """`gateways`: how many share the memory. `offset` is what `clock_offset()` was when the server started."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTOR_LIMIT if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTOR_LIMIT)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    slots = settings.flow.max_connections or max(16, wanted * 9 // 10 - SPARE_DESCRIPTORS)
    gateway = Gateway(
        reactor,
        settings,
        number=number,
        table=Table(file, slots),
        first_serial=first_serial(offset),
        on_retired=on_retired,
        on_broken=on_broken,
        gateways=gateways,
    )
    # a connection that is sent a file has two descriptors: these are of what connections leave
    gateway.connections.file_limit = max(16, wanted - slots - SPARE_DESCRIPTORS)
    return gateway


def new_worker(server: Server, settings: Settings, number: int, generation: int, master: Master) -> Worker:
    here, bound = len(server.listeners), len(settings.listeners)
    if here != bound:
        log.warning("the application has %d further listeners, the server %d: restart it to change that", here, bound)
    handlers = [listener.handlers for listener in server.listeners]
    return Worker(server, server.handlers, settings, number, generation, master, handlers)
