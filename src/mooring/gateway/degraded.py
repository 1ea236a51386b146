"""What a gateway does for its clients while the workers end again and again.

Workers that end are started again, and what comes meanwhile waits, for a moment usually. When all of them are degraded,
the supervisor says so, and waiting is no help any more. From then on, whenever no worker is there,

    requests and handshakes, new ones and those that wait, are refused with 503 and Retry-After;
    a WebSocket whose messages have waited for `degraded_hold_time` is closed with 1013, "try again later".

Until then its messages are held as always: those that were accepted in order, the others unread, so that TCP slows the
client down. A WebSocket that says nothing stays. A worker that gets ready is used at once, degraded or not; that is how
it ends by itself.
"""

import time
from collections.abc import Callable

from mooring._core.reactor import Reactor
from mooring._core.relay import Relay
from mooring.journal import own_logger

log = own_logger("mooring.gateway")

LOOK = 0.2  # seconds between two looks at who waits


class DegradedPool:
    """`refuse(fd)` answers a request; `close(fd)` closes a WebSocket."""

    def __init__(
        self,
        reactor: Reactor,
        relay: Relay,
        hold_time: float,
        refuse: Callable[[int], None],
        close: Callable[[int], None],
    ) -> None:
        self._reactor = reactor
        self._relay = relay
        self._hold_time = hold_time
        self._refuse = refuse
        self._close = close
        self._degraded = False
        self._looking = False
        self._since: dict[int, float] = {}  # when a WebSocket was first seen to wait

    @property
    def hopeless(self) -> bool:
        """There is no worker, and it makes no sense to wait for one."""
        return self._degraded and not any(
            worker_end is not None and worker_end.usable and worker_end.serves for worker_end in self._relay.worker_ends
        )

    def tell(self, *, degraded: bool) -> None:
        """The supervisor says how it stands."""
        self._degraded = degraded
        if degraded:
            log.error("all workers end again and again: clients are told so while there is none")
            self._look()
        else:
            log.info("workers serve again")

    def _look(self) -> None:
        if not self._degraded or self._looking:
            return
        if self.hopeless:
            for fd in self._relay.refuse_waiting("degraded"):
                self._refuse(fd)
        waiting = self._relay.holding() if self.hopeless else set()
        now = time.monotonic()
        self._since = {fd: self._since.get(fd, now) for fd in waiting}
        for fd, since in list(self._since.items()):
            if now - since >= self._hold_time:
                del self._since[fd]
                self._close(fd)
        self._looking = True
        self._reactor.call_later(LOOK, self._look_again)

    def _look_again(self) -> None:
        self._looking = False
        self._look()
