"""Links: what a worker and a gateway in two different processes share.

Three descriptors on each side: `channel` carries wire records both ways, `reply` the answers to calls, and
`page` is memory in which the worker keeps what shall survive its death. The
supervisor makes them and keeps an end only until the process it is for exists and its peer may know it;
an end it still held would keep the peer from seeing the end of file when a process dies.

That end of file is only the quick news: what a process has started, with fork or with inherited descriptors, may hold
its ends and live on. So each link has a number that both sides know, and when a process is gone, its peers are told
the number.

A service of the server (the dispatcher, the engine) shares a channel only with each worker, or gateway: there `reply`
and `page` are -1, and not sent.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import socket
from typing import Any, NamedTuple

from mooring._core.order import ORDER_BYTES
from mooring._core.page import PAGE_BYTES
from mooring._core.pulse import PULSE_BYTES
from mooring._core.room import ROOMS_BYTES
from mooring.supervisor.child import Child

CHANNEL_BUFFER = 4 << 20  # bytes; the default holds only 278 messages of 100 bytes
_SO_SNDBUFFORCE = 32  # not in the socket module

_numbers = itertools.count(1)


class End(NamedTuple):
    """One side's descriptors, in the order in which `attach` sends them."""

    channel: int
    reply: int = -1
    page: int = -1

    def descriptors(self) -> list[int]:
        return [fd for fd in self if fd >= 0]

    def close(self) -> None:
        for fd in self.descriptors():
            os.close(fd)


class Link:
    """The link of one worker incarnation with one gateway incarnation, or with one of a service, which stands in the
    place of the gateway then; a gateway with a link to a service stands in that of the worker."""

    def __init__(self, worker: Child, gateway: Child) -> None:
        """Make the descriptors. Raises OSError when there are none left."""
        self.number = next(_numbers)
        self.worker = worker
        self.gateway = gateway
        self.settled = False  # the worker retires, and the gateway has nothing of it in flight any more
        made: list[int] = []
        try:
            for blocking in (False, True) if gateway.spec.gateway is not None else (False,):
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
                made += [ours.detach(), theirs.detach()]
                # A worker waits for the answer to a call; a gateway never waits.
                os.set_blocking(made[-2], blocking)
                os.set_blocking(made[-1], False)
            _enlarge(made[0])
            _enlarge(made[1])
            if gateway.spec.gateway is not None:
                made.append(_memory("mooring-page", PAGE_BYTES))
                made.append(os.dup(made[-1]))
        except OSError:
            for fd in made:
                os.close(fd)
            raise
        self._ends = {worker: End(*made[0::2]), gateway: End(*made[1::2])}

    @property
    def service(self) -> str:
        """The role of who takes it."""
        return self.gateway.spec.role

    def peer_of(self, child: Child) -> Child:
        return self.gateway if child is self.worker else self.worker

    def holds(self, child: Child) -> bool:
        """Whether that child has not got its end yet."""
        return child in self._ends

    def take(self, child: Child) -> End:
        """The end of that child, now the caller's to hand over and close."""
        return self._ends.pop(child)

    def describe(self, child: Child, end: End) -> dict[str, Any]:
        """The entry of that child's boot payload."""
        return {
            "number": self.number,
            "worker": self.worker.spec.worker,
            "gateway": self.gateway.spec.gateway,
            "service": self.service,
            "peer_generation": self.peer_of(child).generation,
            "channel": end.channel,
            "reply": end.reply,
            "page": end.page,
        }

    def close(self) -> None:
        """Close what was not handed over."""
        for end in self._ends.values():
            end.close()
        self._ends.clear()


class Links:
    """Those that there are; a child does not know its own."""

    def __init__(self) -> None:
        self._of: dict[Child, list[Link]] = {}

    def of(self, child: Child) -> list[Link]:
        """Those of one child, at this moment."""
        return list(self._of.get(child, ()))

    def make(self, worker: Child, gateway: Child) -> Link:
        """Raises OSError when there are no descriptors left."""
        link = Link(worker, gateway)
        for child in (worker, gateway):
            self._of.setdefault(child, []).append(link)
        return link

    def close(self, link: Link) -> None:
        """Forget it: close what was not handed over."""
        for child in (link.worker, link.gateway):
            self._of[child].remove(link)
            if not self._of[child]:
                del self._of[child]
        link.close()

    def settled(self, worker: Child) -> bool:
        """Whether no gateway has anything of this worker, which retires, in flight."""
        return all(link.settled for link in self._of.get(worker, ()))


def new_table(gateway: int) -> int:
    """An empty memfd for the connection table of a gateway, which gives it its size and seals it."""
    return os.memfd_create(f"mooring-table-{gateway}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)


def new_order() -> int:
    """A memfd for the order of publishes among gateways."""
    return _memory("mooring-order", ORDER_BYTES)


def new_rooms() -> int:
    """A memfd in which gateways say how many clients they can take."""
    return _memory("mooring-rooms", ROOMS_BYTES)


def new_pulse() -> int:
    """A memfd for the pulse of a process."""
    return _memory("mooring-pulse", PULSE_BYTES)


def _memory(name: str, size: int) -> int:
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, size)
        # A page cut by one side would be a SIGBUS in the other.
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    except OSError:
        os.close(fd)
        raise
    return fd


def _enlarge(fd: int) -> None:
    with socket.socket(fileno=os.dup(fd)) as view:
        try:
            # Past net.core.wmem_max, for those who may.
            view.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, CHANNEL_BUFFER)
        except PermissionError:
            view.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, CHANNEL_BUFFER)
