"""The gateway's part: owns connections, which it accepts from the listeners of the server."""

import os
import socket
import time
from typing import Any, NamedTuple

from mooring._core.order import Order
from mooring._core.room import Rooms
from mooring._core.table import Table
from mooring.boot import LinkEnd
from mooring.gateway.gateway import Gateway
from mooring.journal import own_logger
from mooring.link.channel import open_worker_end
from mooring.net import messages
from mooring.net.descriptors import LINK_DESCRIPTORS, SPARE_DESCRIPTORS, raise_descriptor_limit
from mooring.parts import Drained, Host, OpenLink, Part

log = own_logger("mooring.runtime")

FEWEST = 16  # clients, and files for them, however low the limit is


class GatewayPart(Part):
    """One gateway."""

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        boot = host.boot
        assert boot.gateway is not None
        descriptors = _share_of_this_process(boot.link_num, host.settings.flow.max_connections)
        self.gateway = Gateway(
            host.reactor,
            host.settings,
            number=boot.gateway,
            table=Table(boot.tables[boot.gateway], descriptors.connections),
            first_serial=first_serial(boot.clock),
            on_retired=host.controller.retired,
            on_broken=host.controller.broken,
            engine=host.engine,
        )
        self.gateway.connections.file_limit = descriptors.files
        self.gateway.connections.kept_from = descriptors.kept_from
        self.gateway.connections.table.seal()
        host.relay = self.gateway.relay
        if boot.order >= 0:
            self.gateway.relay.publish_order = Order(host.reactor, boot.order)
            os.close(boot.order)
        if boot.rooms >= 0:
            self.gateway.share_room(Rooms(boot.rooms))
            os.close(boot.rooms)
        self._listeners = [socket.socket(fileno=fd) for fd in boot.listeners]

    def link(self, end: LinkEnd) -> OpenLink | None:
        if end.service == "engine":
            return self.host.engine.open(end.channel)
        if end.gateway != self.gateway.number:
            return None
        assert end.worker is not None
        return open_worker_end(
            self.gateway.relay,
            self.host.reactor,
            worker=end.worker,
            generation=end.peer_generation,
            serves=self.host.boot.worker is None and end.worker < self.host.settings.process.worker_num,
            channel=end.channel,
            reply=end.reply,
            page=end.page,
        )

    def serve(self) -> None:
        self.gateway.listen(self._listeners)

    def hear(self, message: messages.ToChild) -> None:
        if isinstance(message, messages.Degraded):
            self.gateway.pool.tell(degraded=message.degraded)

    def retire(self, worker: int, generation: int) -> None:
        if worker != self.host.boot.worker:
            self.gateway.read_certificates()
            self.gateway.relay.retire(worker, generation)

    def drain(self, timeout: float, code: int, drained: Drained) -> None:
        self.gateway.drain(timeout, code, drained)
        self.close_listeners()  # a client that connects now had better be refused than wait for nobody

    def hurry(self) -> None:
        self.gateway.hurry()

    def counts(self) -> dict[str, int]:
        return self.gateway.counts()

    def stats(self) -> dict[str, Any]:
        return self.gateway.stats()

    def depart(self) -> None:
        self.gateway.depart()

    def abandon(self) -> None:
        self.gateway.connections.abandon()
        self.close_listeners()

    def close_listeners(self) -> None:
        """Its own descriptors of them."""
        for listener in self._listeners:
            listener.close()


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


def _share_of_this_process(links: int, connections: int) -> Share:
    """`links`: how many other processes it will have a link with, at the same time."""
    wanted = raise_descriptor_limit()
    descriptors = share(wanted, len(os.listdir("/proc/self/fd")), links, connections)
    if descriptors.kept_from > wanted - SPARE_DESCRIPTORS - LINK_DESCRIPTORS * links:
        log.warning("the limit of open files, %d, is too low for %d links to other processes: raise it", wanted, links)
    return descriptors
