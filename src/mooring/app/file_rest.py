"""The part of a large file that is sent once its handler has returned: by the gateway, or else in pieces from here.

    the gateway says TAKEN ──> it sends the head and the file; here the answer is over
                     LEFT ───> it can't have the file: the head and the pieces are sent from here
                     LATE ───> the client has left

Until it has said so, no byte of the answer has left, not even its head.
"""

import os
from collections.abc import Awaitable, Callable, Iterator

from mooring._core.wire import FileNote
from mooring.app.static import PIECE
from mooring.errors import ClientGone, HttpError

Transfer = Callable[[bytes, int, int, int, bool], Awaitable[FileNote] | None]
"""transfer(head, fd, first, length, close): have the gateway send `head` and that part of an open file. None: it can't
be asked to; else what has become of it."""


class FileRest:
    """`count` bytes from `first` of an open file, which was last changed at `modified` (nanoseconds)."""

    __slots__ = ("_file", "_first", "_modified", "_noted", "count", "head")

    def __init__(self, file: int, first: int, count: int, modified: int) -> None:
        self._file = file
        self._first = first
        self._modified = modified
        self._noted: Awaitable[FileNote] | None = None
        self.count = count
        """Bytes that are left."""
        self.head = b""
        """What has to be sent ahead of it."""

    def hand_over(self, transfer: Transfer, head: bytes, *, close: bool) -> bool:
        """Asks the gateway to send it behind `head`; whether it can be asked."""
        self._noted = transfer(head, self._file, self._first, self.count, close)
        if self._noted is not None:
            self.head = head
        return self._noted is not None

    async def is_taken(self) -> bool:
        """Whether the gateway, if it was asked, sends it. Raises ClientGone; HttpError if the file was changed."""
        note = FileNote.LEFT if self._noted is None else await self._noted
        if note == FileNote.LATE:
            raise ClientGone("the client has left before the file was sent")
        if self._noted is None or note == FileNote.TAKEN:
            return note == FileNote.TAKEN
        if os.fstat(self._file).st_mtime_ns != self._modified:
            raise HttpError(503, "the file has changed while it was read", [("Retry-After", "1")])
        return False

    def pieces(self) -> Iterator[bytes]:
        """What is left of it. Raises OSError."""
        while self.count:
            data = os.pread(self._file, min(self.count, PIECE), self._first)
            if not data:
                raise OSError(f"the file has become shorter while it was sent: {self.count} bytes are missing")
            self._first += len(data)
            self.count -= len(data)
            yield data

    def close(self) -> None:
        os.close(self._file)
