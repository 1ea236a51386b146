"""The drain of a gateway: all of its clients are sent away, in bounded time.

heard   who was accepted a moment ago and has not asked yet still may, for at most HEAR_LIMIT: nobody else has that
        connection, whoever accepts the next one
closed  WebSockets, one after the other if they are many (Farewell), those that own work (`spawn`) when that is over;
        connections that speak HTTP once they are idle. Whoever asks now is refused
over    when all have gone and workers are done with what they were handed, or when the time is. If there is no worker,
        none will be started: requests and handshakes that wait for one are refused, too
"""

import time
from collections.abc import Callable

from mooring._core.reactor import Reactor
from mooring._core.registry import Cause
from mooring._core.relay import Relay
from mooring._core.websocket import WebSockets
from mooring.gateway.farewell import Farewell
from mooring.types import CloseCode

LOOK = 0.05  # seconds between two looks whether it is over
HEAR_LIMIT, HEAR_SHARE, HEAR_LOOK = 1.0, 0.1, 0.02  # seconds, of the time, seconds between two looks
STOPS = b"the server is shutting down"
RESTARTS = b"the server restarts"


class Drain:
    """One, of a gateway that accepts nobody any more; `done()` is called once, after `timeout` seconds in any case."""

    def __init__(
        self,
        reactor: Reactor,
        connections: WebSockets,
        relay: Relay,
        timeout: float,
        code: int,
        refuse: Callable[[int], None],
        done: Callable[[], None],
    ) -> None:
        """`refuse(fd)` answers a request or handshake that waits for a worker."""
        self._reactor = reactor
        self._connections = connections
        self._relay = relay
        self._timeout = timeout
        self._code = code
        self._refuse = refuse
        self._done = done
        self._deadline = time.monotonic() + timeout
        self._heard = time.monotonic() + min(HEAR_LIMIT, HEAR_SHARE * timeout)
        self._owning: set[int] = set()  # clients that are closed when the work that they own is over
        self._farewell: Farewell | None = None
        self.refuses = False
        """Whoever asks now is refused."""
        self._posted = False  # a look, behind what happens in this turn
        self.over = False
        """Everybody has gone, or the time is up."""

    def begin(self) -> None:
        """Hears who has just come, and then sends everybody away."""
        self._hear()

    def _hear(self) -> None:
        if self.refuses:
            return  # somebody was in a hurry
        if time.monotonic() < self._heard and self._connections.is_unheard():
            self._reactor.call_later(HEAR_LOOK, self._hear)
        else:
            self._send_away()

    def _send_away(self) -> None:
        self.refuses = True
        table = self._connections.table
        clients = [fd for fd in table.connections() if table.is_open(fd)]
        self._owning = {fd for fd in clients if fd in self._relay.works}
        others = [fd for fd in clients if fd not in self._owning]
        self._farewell = Farewell(self._reactor, others, self._timeout, self._close)
        self._relay.end_streams(max(0, int((self._deadline - time.monotonic()) * 1000)))
        self._relay.wake_asking()
        self.on_gone()
        self._reactor.call_later(LOOK, self._look_again)

    def _close(self, fd: int) -> None:
        reason = RESTARTS if self._code == CloseCode.SERVICE_RESTART else STOPS
        self._connections.disconnect(fd, self._code, reason, Cause.SHUTDOWN)

    def on_gone(self) -> None:
        """A connection has ended."""
        if self.refuses and not self._posted:
            self._posted = True  # one look for all that end in this turn
            self._reactor.post(self._look)

    def _look_again(self) -> None:
        self._look()
        if not self.over:
            self._reactor.call_later(LOOK, self._look_again)

    def _look(self) -> None:
        self._posted = False
        if self.over:
            return
        late = time.monotonic() >= self._deadline
        for fd in [fd for fd in self._owning if fd not in self._relay.works]:
            self._owning.discard(fd)
            self._close(fd)
        for fd in self._connections.table.connections() if late else self._connections.idle_http():
            self._connections.cut(fd, STOPS, Cause.SHUTDOWN)
        # what waits for a worker when there is none, and none will be started any more, waits in vain
        serving = any(worker_end is not None and worker_end.serves for worker_end in self._relay.worker_ends)
        for fd in () if serving else self._relay.refuse_waiting("shutdown"):
            self._refuse(fd)
        handed_over = self._relay.idle() or not serving
        if late or (self._connections.count == 0 and handed_over):
            self.over = True
            self._done()

    def hurry(self) -> None:
        """It shall be over: those that are still to be closed are closed now."""
        if not self.refuses:
            self._send_away()
        if self._farewell is not None:
            self._farewell.hurry()
        self._relay.end_streams(0)
