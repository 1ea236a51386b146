"""Answers that are sent in parts: who waits until there is room, and who must hear that the client has left.

A handler that waits asks the gateway, behind all it has sent: RESPOND with the flag ASKS. The gateway answers with ROOM
when what waits for that client is below its high water, or with GONE when the client is gone. So at most one window of
bytes is on the way and one in the gateway, however slow the client is, and neither end ever counts for the other.

The other way round it is the same: the next part of a streamed body comes when it is asked for (WANT, BODY).

For a WebSocket there is a command of its own (ROOM): it has no request that is being answered, and any worker may ask.

A file is left to the gateway (FILE), which says at once whether it takes it, and once more when it is over.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from mooring._core.gateway_end import Outbox
from mooring._core.wire import FileNote, Respond
from mooring.app.static import claim
from mooring.errors import StateError
from mooring.journal import own_logger

log = own_logger("mooring.worker")

Over = Callable[[int | None, bool], None]
"""over(sent, whole): nothing more of a file will be sent; how many bytes of it were, None when nobody knows, and
whether that is all of them."""


class Streams:
    """Of one worker. A request is known by its connection and its number on that."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._waiting: dict[tuple[int, int], list[asyncio.Future[bool]]] = {}
        self._draining: dict[int, deque[asyncio.Future[bool]]] = {}
        self._open: dict[tuple[int, int], tuple[Callable[[], None], Callable[[], None], bool]] = {}
        self._parts: dict[tuple[int, int], asyncio.Future[bytes | None]] = {}
        self._untaken: dict[tuple[int, int], asyncio.Future[bytes | None]] = {}  # asked for, and nobody waits any more
        self._files: dict[tuple[int, int], asyncio.Future[FileNote]] = {}
        self._sent: dict[tuple[int, int], tuple[Over, int]] = {}  # and how many bytes there are to send
        self._ending = False
        self._over = False  # what would end by itself ends now, too

    async def room(self, fd: int, number: int) -> bool:
        """Waits until the client of that request has read enough; False: it has left."""
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault((fd, number), []).append(waiter)  # before it asks: the answer may come inside of that
        if not self._outbox.respond(fd, number, Respond.ASKS, b""):
            self._answer(fd, number, room=False)
        return await waiter

    async def drain(self, fd: int) -> bool:
        """Waits until a WebSocket has taken most of what was sent to it; False: it is none, or has gone."""
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._draining.setdefault(fd, deque()).append(waiter)  # the answer may come at once
        if not self._outbox.room(fd):
            self._drained(fd, room=False, all_of_them=True)
        return await waiter

    def _drained(self, fd: int, *, room: bool, all_of_them: bool = False) -> None:
        """One answer for each that has asked, in that order; also for one that does not wait any more."""
        waiters = self._draining.get(fd)
        while waiters:
            waiter = waiters.popleft()
            if not waiter.done():
                waiter.set_result(room)
            if not all_of_them:
                break
        if not waiters:
            self._draining.pop(fd, None)

    async def part(self, fd: int, number: int) -> bytes | None:
        """The next part of the body of that request, empty behind the last one; None: the client has left.

        It is asked for only now, so that no more than one is on the way. Who is cancelled leaves it to the next one."""
        if (fd, number) in self._parts:
            raise StateError("the body of this request is being read already, by another task")
        asked = self._untaken.pop((fd, number), None)
        waiter = self._parts[fd, number] = asked or asyncio.get_running_loop().create_future()
        try:
            return await waiter if asked or self._outbox.want(fd, number) else None
        except asyncio.CancelledError:
            if waiter.cancelled():
                self._untaken[fd, number] = asyncio.get_running_loop().create_future()
            elif not waiter.done() or waiter.result() is not None:  # it may have come in the same turn
                self._untaken[fd, number] = waiter
            raise
        finally:
            self._parts.pop((fd, number), None)

    def on_part(self, fd: int, number: int, part: bytes | None) -> None:
        """The gateway hands a part over."""
        waiter = self._parts.get((fd, number)) or self._untaken.get((fd, number))
        if waiter is not None and not waiter.done():
            waiter.set_result(part)

    def transfer(
        self, over: Over | None, fd: int, number: int, head: bytes, file: int, first: int, length: int, close: bool
    ) -> Awaitable[FileNote] | None:
        """Asks the gateway to answer that request with `head` and a part of an open file; see response.Transfer."""
        found = claim(file, first, length)
        if found is None:
            return None
        waiter = self._files[fd, number] = asyncio.get_running_loop().create_future()
        if over is not None:
            self._sent[fd, number] = over, length
        if not self._outbox.send_file(fd, number, Respond.CLOSE if close else 0, *found, head):
            self.on_file(fd, number, bytes([FileNote.LATE]))
        return waiter

    def on_file(self, fd: int, number: int, note: bytes) -> None:
        """The gateway tells what has become of a file. Raises ValueError for what it can't have told."""
        told = FileNote(note[0]) if note else None
        if told is None:
            raise ValueError("nothing is said of a file")
        if told == FileNote.OVER:
            sent = int.from_bytes(note[1:], "little")
            over, length = self._sent.pop((fd, number), (None, 0))
            if over is not None:
                over(sent, sent == length)
            return
        waiter = self._files.pop((fd, number), None)
        if waiter is not None and not waiter.done():
            waiter.set_result(told)
        if told != FileNote.TAKEN:
            self._sent.pop((fd, number), None)

    def watch(
        self, fd: int, number: int, end: Callable[[], None], probe: Callable[[], None], *, endless: bool = True
    ) -> None:
        """`end` is called when the client leaves, or this worker is to, at once if the answer is endless; `probe` when
        the client may have left: what is sent to it then comes back, if it has."""
        self._open[fd, number] = end, probe, endless
        if self._over or (self._ending and endless):
            asyncio.get_running_loop().call_soon(self.cut if self._over else self.end)

    def forget(self, fd: int, number: int) -> None:
        """The request is over."""
        self.on_part(fd, number, None)
        self._untaken.pop((fd, number), None)
        self._open.pop((fd, number), None)
        self._answer(fd, number, room=False)

    def on_room(self, fd: int, number: int) -> None:
        """The gateway tells that the client has read enough."""
        if not number:
            self._drained(fd, room=True)
            return
        self._answer(fd, number, room=True)

    def on_gone(self, fd: int, number: int) -> None:
        """The gateway tells that the client has left."""
        if not number:
            self._drained(fd, room=False)
            return
        self.on_part(fd, number, None)
        self._answer(fd, number, room=False)
        if (fd, number) in self._files:
            self.on_file(fd, number, bytes([FileNote.LATE]))
        found = self._open.pop((fd, number), None)
        if found is not None:
            found[0]()

    def on_peer_ended(self, fd: int, number: int) -> None:
        """The gateway tells that the client has ended its half of the connection. An answer that is not watched has
        nothing in it that could be sent without being a part of it; it goes on."""
        found = self._open.get((fd, number))
        if found is not None:
            found[1]()

    def _answer(self, fd: int, number: int, *, room: bool) -> None:
        for waiter in self._waiting.pop((fd, number), ()):
            if not waiter.done():
                waiter.set_result(room)

    def gateway_lost(self) -> None:
        """The outbox does not know that gateway any more: its clients are gone."""
        for fd, number in {*self._waiting, *self._open, *self._parts, *self._untaken, *self._files}:
            if self._outbox.find(fd) is None:
                self.on_gone(fd, number)
        for fd in [*self._draining]:
            if self._outbox.find(fd) is None:
                self._drained(fd, room=False, all_of_them=True)
        for fd, number in [*self._sent]:
            if self._outbox.find(fd) is None:
                self._sent.pop((fd, number))[0](None, False)

    def finish(self) -> None:
        """This worker ends: what becomes of the files that are under way is not its matter any more."""
        while self._sent:
            self._sent.popitem()[1][0](None, True)

    def end(self) -> None:
        """This worker is to go: what would never end by itself ends now, and as soon as it begins."""
        self._ending = True
        for key in [key for key, (_, _, endless) in self._open.items() if endless]:
            self._open.pop(key)[0]()

    def cut(self) -> None:
        """The time for all others is over, too."""
        self._over = True
        left = [key for key, (_, _, endless) in self._open.items() if not endless]
        if left:
            log.warning("%d event streams are cut: this worker has to end, and graceful_timeout is over", len(left))
        while self._open:
            self._open.popitem()[1][0]()
