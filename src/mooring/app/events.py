"""Server-sent events: an answer that has no end, of which each part is an event (HTML standard, section 9.2).

An event is some fields, one a line, and an empty line. What would end a line early in an event's name or id is
refused; data of several lines is sent as several fields, which the client joins again. While nothing is sent, comments
show proxies that the connection is in use, and show us whether the client is still there: one that left without a
word is noticed only when something is sent to it. One that ends its half of the connection, as every client does that
closes it, is sent a comment at once, and some more: if it has left, they come back as a reset; if not, all goes on.

A stream ends when the client leaves, or when its worker does (a reload, a stop): then the handler is cancelled where it
waits. The client comes back by itself, to the next worker, and says which event it saw last.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

from mooring.errors import ClientGone

COMMENT = b": \n\n"
LONGEST_PAUSE = 8.0  # seconds between two comments to a client that has ended its half; later the keep-alive does

Write = Callable[[bytes], Awaitable[None]]
"""write(data): sends it, and waits while the client doesn't read."""

_LINE_END = re.compile(r"\r\n|\n|\r")


def event(data: str | None, name: str | None, id: str | None, retry: int | None) -> bytes:
    """One event as it is sent. Raises ValueError for a name or id that would end its line, TypeError for what is no
    text."""
    lines: list[str] = []
    for field, value in (("event", name), ("id", id)):
        if value is not None:
            if _LINE_END.search(value) or "\0" in value:
                raise ValueError(f"{field} {value!r} of an event: it can't hold a line end or NUL")
            lines.append(f"{field}: {value}")
    if retry is not None:
        if not 0 <= retry < 1 << 31:
            raise ValueError(f"retry={retry}: milliseconds, 0 to {(1 << 31) - 1}")
        lines.append(f"retry: {int(retry)}")
    if data is not None:
        if not isinstance(data, str):
            raise TypeError(f"the data of an event is a str, not {type(data).__name__}")
        lines.extend(f"data: {line}" for line in _LINE_END.split(data))
    return ("\n".join(lines) + "\n\n").encode()


class EventStream:
    """Events to one client; from `response.event_stream()`. Its answer ends when the handler returns."""

    def __init__(
        self,
        write: Write,
        keep_alive: float,
        words: bytes,
        task: "asyncio.Task[Any]",
        last_event_id: str,
        *,
        over: bool,
    ) -> None:
        """`words`: what is sent when nothing else was for `keep_alive` seconds."""
        self._write = write
        self._keep_alive = keep_alive
        self._words = words
        self._task = task
        self._loop = asyncio.get_running_loop()
        self._busy = 0
        self._sent = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._asked: asyncio.TimerHandle | None = None
        self._comments: set[asyncio.Task[None]] = set()
        self.last_event_id = last_event_id
        """What a client that lost its stream had seen last: the `id` of that event; "" for a new client."""
        self.over = over
        """Nothing can be sent any more."""
        if not over and keep_alive:
            self._timer = self._loop.call_later(keep_alive, self._look)

    async def send(
        self, data: str | None = None, *, event: str | None = None, id: str | None = None, retry: int | None = None
    ) -> None:
        """Send one event, and wait while the client doesn't read.

        `data`: text, of any number of lines. `event`: its name; without one it is a "message". `id`: what the client
        tells when it comes back. `retry`: after how many milliseconds it comes back. Raises ClientGone when the stream
        is over; ValueError for a name or id with a line end in it.
        """
        await self._put(_event(data, event, id, retry))

    async def comment(self, text: str = "") -> None:
        """Send a line that clients don't look at. It is done by itself while nothing else is sent."""
        await self._put("".join(f": {line}\n" for line in _LINE_END.split(text)).encode() + b"\n")

    async def _put(self, data: bytes) -> None:
        if self.over:
            raise ClientGone("the event stream is over")
        self._busy += 1
        try:
            await self._write(data)
        finally:
            self._busy -= 1
            self._sent = self._loop.time()

    def _look(self) -> None:
        """Nothing was sent for a while? A client that is sent something right now needs no comment."""
        silent = self._loop.time() - self._sent
        if not self._busy and silent >= self._keep_alive:
            self._speak()
            silent = 0
        self._timer = self._loop.call_later(max(self._keep_alive - silent, 0.01), self._look)

    def _probe(self) -> None:
        """For the worker: the client may have left. If it has, what is sent now comes back, and ends the stream. A
        proxy that passes the end of half a connection on takes the first comment, and only then learns that nobody is
        there; so it is asked again, and again for each proxy in front of that."""
        if self._asked is None:
            self._ask(1.0)

    def _ask(self, pause: float) -> None:
        if self.over:
            return
        if not self._busy:
            self._speak()
        if pause <= LONGEST_PAUSE:
            self._asked = self._loop.call_later(pause, self._ask, 2 * pause)

    def _speak(self) -> None:
        comment = self._loop.create_task(self._say_something())
        self._comments.add(comment)
        comment.add_done_callback(self._comments.discard)

    async def _say_something(self) -> None:
        try:
            await self._put(self._words)
        except ClientGone:
            self._end()

    def _end(self) -> None:
        """For the worker: the client has left, or the stream has to end. Cancels the handler."""
        if not self.over:
            self._finish()
            self._task.cancel()

    def _finish(self) -> None:
        """For the worker: the handler is done."""
        self.over = True
        for timer in (self._timer, self._asked):
            if timer is not None:
                timer.cancel()
        self._timer = self._asked = None


_event = event
