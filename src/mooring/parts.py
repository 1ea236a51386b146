"""What every process with a gateway or a worker in it is made of; which process has what, the runtime says."""

import os
import resource
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from mooring._core.reactor import Reactor
from mooring._core.relay import Port
from mooring._core.table import Table
from mooring.admin.desk import Controlled
from mooring.app.handlers import Handlers
from mooring.app.listener import Listener
from mooring.app.shared import Shared
from mooring.config import Settings
from mooring.gateway.gateway import Gateway
from mooring.journal import own_logger
from mooring.worker.worker import Master, Worker

log = own_logger("mooring.runtime")

GOING_AWAY = 1001
DESCRIPTOR_LIMIT = 1 << 20  # every process raises its own up to this
SPARE_DESCRIPTORS = 64  # beside those of channels: log files, certificates, whoever asks
LINK_DESCRIPTORS = 3  # of one link to another process
FEWEST = 16  # clients, and files for them, however low the limit is


class Server(Controlled, Protocol):
    """What the runtime needs of a mooring.Server, which stands above it."""

    @property
    def settings(self) -> Settings: ...
    @property
    def _handlers(self) -> Handlers: ...
    @property
    def _listeners(self) -> Sequence[Listener]: ...
    @property
    def _shared(self) -> Shared: ...
    def _enter(self, worker: Worker, settings: Settings) -> None:
        """The server runs in this process from now on, with this worker and these settings."""

    def _leave(self) -> None:
        """It does not: this is a forked child."""


def clock_offset() -> int:
    """Milliseconds from the clock that nobody sets to the wall clock, at this moment."""
    return (time.time_ns() - time.monotonic_ns()) // 1_000_000


def first_serial(offset: int) -> int:
    """Where the serials of a gateway's fds begin, so that none comes back when a gateway, or the server, starts again.

    They begin where the wall clock would stand had it not been set since the server started (`offset`, of then), in
    milliseconds.
    """
    return offset + time.monotonic_ns() // 1_000_000


class Share(NamedTuple):
    """What becomes of the descriptors of a process with a gateway in it."""

    connections: int
    files: int  # that are being sent; a connection that is sent one has two descriptors
    kept_from: int  # this number and those above it are for nobody who is served


def share(limit: int, taken: int, links: int, connections: int = 0) -> Share:
    """Of `limit` descriptors, `taken` of which are open already, with so many links to other processes.

    Kept back are 64, and those of a second set of links: during a reload there are old workers and new ones. Of what is
    left when the process has its own, nine tenths are for connections, unless `connections` says how many.
    """
    kept_from = limit - SPARE_DESCRIPTORS - LINK_DESCRIPTORS * links
    room = max(2 * FEWEST, kept_from - taken - LINK_DESCRIPTORS * links)
    connections = connections or max(FEWEST, room * 9 // 10)
    return Share(connections, max(FEWEST, room - connections), max(kept_from, taken + 2 * FEWEST))


def raise_descriptor_limit() -> int:
    """Lets this process have as many descriptors as it may, 1,048,576 at most; how many that are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTOR_LIMIT if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTOR_LIMIT)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def new_gateway(
    reactor: Reactor,
    settings: Settings,
    number: int,
    file: int,
    offset: int,
    on_retired: Callable[[Port], None],
    on_broken: Callable[[Port, str], None] = lambda _port, _why: None,
    gateways: int = 1,
    links: int = 0,
) -> Gateway:
    """`gateways`: how many share the memory. `offset` is what `clock_offset()` was when the server started.

    `links`: how many other processes it will have a link with, at the same time.
    """
    wanted = raise_descriptor_limit()
    descriptors = share(wanted, len(os.listdir("/proc/self/fd")), links, settings.flow.max_connections)
    if descriptors.kept_from > wanted - SPARE_DESCRIPTORS - LINK_DESCRIPTORS * links:
        log.warning("the limit of open files, %d, is too low for %d links to other processes: raise it", wanted, links)
    gateway = Gateway(
        reactor,
        settings,
        number=number,
        table=Table(file, descriptors.connections),
        first_serial=first_serial(offset),
        on_retired=on_retired,
        on_broken=on_broken,
        gateways=gateways,
    )
    gateway.connections.file_limit = descriptors.files
    gateway.connections.kept_from = descriptors.kept_from
    return gateway


def new_worker(server: Server, settings: Settings, number: int, generation: int, master: Master) -> Worker:
    here, bound = len(server._listeners), len(settings.listeners)
    if here != bound:
        log.warning("the application has %d further listeners, the server %d: restart it to change that", here, bound)
    handlers = [listener._handlers for listener in server._listeners]
    return Worker(server, server._handlers, settings, number, generation, master, handlers)
