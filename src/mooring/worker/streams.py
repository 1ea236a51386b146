"""Answers that are sent in parts: who waits until there is room, and who must hear that the client has left.

A handler that waits asks the gateway, behind all it has sent: RESPOND with the flag ASKS. The gateway answers with ROOM
when what waits for that client is below its high water, or with GONE when the client is gone. So at most one window of
bytes is on the way and one in the gateway, however slow the client is, and neither end ever counts for the other.

The other way round it is the same: the next part of a streamed body comes when it is asked for (WANT, BODY).
"""

import asyncio
from collections.abc import Callable

from mooring._core.outlet import Outbox
from mooring.errors import StateError

_ASKS = 4  # a flag of a RESPOND record, see mooring._core.wire


class Streams:
    """Of one worker. A request is known by its connection and its number on that."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._waiting: dict[tuple[int, int], list[asyncio.Future[bool]]] = {}
        self._open: dict[tuple[int, int], Callable[[], None]] = {}
        self._parts: dict[tuple[int, int], asyncio.Future[bytes | None]] = {}
        self._ending = False

    async def room(self, fd: int, number: int) -> bool:
        """Waits until the client of that request has read enough; False: it has left."""
        if not self._outbox.respond(fd, number, _ASKS, b""):
            return False
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault((fd, number), []).append(waiter)
        return await waiter

    async def part(self, fd: int, number: int) -> bytes | None:
        """The next part of the body of that request, empty behind the last one; None: the client has left.

        It is asked for only now, so that no more than one is on the way."""
        if (fd, number) in self._parts:
            raise StateError("the body of this request is being read already, by another task")
        waiter = self._parts[fd, number] = asyncio.get_running_loop().create_future()
        try:
            return await waiter if self._outbox.want(fd, number) else None
        finally:
            self._parts.pop((fd, number), None)

    def on_part(self, fd: int, number: int, part: bytes | None) -> None:
        """The gateway hands a part over."""
        waiter = self._parts.get((fd, number))
        if waiter is not None and not waiter.done():
            waiter.set_result(part)

    def watch(self, fd: int, number: int, end: Callable[[], None]) -> None:
        """`end` is called when the client leaves, or this worker is to."""
        self._open[fd, number] = end
        if self._ending:
            asyncio.get_running_loop().call_soon(self.end)

    def forget(self, fd: int, number: int) -> None:
        """The request is over."""
        self.on_part(fd, number, None)
        self._open.pop((fd, number), None)
        self._answer(fd, number, room=False)

    def on_room(self, fd: int, number: int) -> None:
        """The gateway tells that the client has read enough."""
        self._answer(fd, number, room=True)

    def on_gone(self, fd: int, number: int) -> None:
        """The gateway tells that the client has left."""
        self.on_part(fd, number, None)
        self._answer(fd, number, room=False)
        end = self._open.pop((fd, number), None)
        if end is not None:
            end()

    def _answer(self, fd: int, number: int, *, room: bool) -> None:
        for waiter in self._waiting.pop((fd, number), ()):
            if not waiter.done():
                waiter.set_result(room)

    def gateway_lost(self) -> None:
        """The outbox does not know that gateway any more: its clients are gone."""
        for fd, number in {*self._waiting, *self._open, *self._parts}:
            if self._outbox.find(fd) is None:
                self.on_gone(fd, number)

    def end(self) -> None:
        """This worker is to go: what would never end by itself ends now, and as soon as it begins."""
        self._ending = True
        while self._open:
            self._open.popitem()[1]()
