"""Of which connections a worker has begun `open`, so that each of these has its `close` when their gateway dies.

The table of the gateway says it too, but only since the gateway has heard that the handler is done; and a gateway that
has died hears nothing. So it is kept here for those of which the table does not say it yet. Nobody tells a worker when
it does: it looks each time that it has noted many, and keeps what it must.
"""

from mooring._core.gateway_end import Outbox

MANY = 256


class Opened:
    """WebSockets of which `open` was begun in this worker, and `close` was not."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._noted: set[int] = set()
        self._look_at = MANY

    def add(self, fd: int) -> None:
        """Its `open` begins."""
        self._noted.add(fd)
        if len(self._noted) >= self._look_at:
            self._noted = {noted for noted in self._noted if not self._told(noted)}
            self._look_at = len(self._noted) + MANY

    def _told(self, fd: int) -> bool:
        """Whether the table tells it. It knows nothing of one that is gone, whose `close` is on its way here."""
        gateway_end = self._outbox.find(fd)
        return gateway_end is not None and gateway_end.table.opened(fd)

    def discard(self, fd: int) -> None:
        """Its `close` begins."""
        self._noted.discard(fd)

    def __contains__(self, fd: int) -> bool:
        return fd in self._noted
