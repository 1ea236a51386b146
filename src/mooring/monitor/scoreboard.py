"""What every process says of itself, where others can read it whatever state the process is in.

Theory
    One memory file for the whole server, divided into places. A process writes a report into its own place, about once
    a second; the supervisor writes which processes there are, and where. Who reads asks nobody, and so waits for
    nobody: a process that stands still is known by the age of its report, and what it said last is still there. So it
    is after its death.

    A place has two copies, and the older one is written: whoever is killed, or read, in the middle of it leaves the
    other one whole. A copy begins with its time, its length and a checksum; what does not fit these was cut short.

    The file is read and written by calls, not mapped. So there is no order of stores to agree on between processors,
    and a file that somebody has cut is a short read.
"""

from __future__ import annotations

import os
import struct
import time
import zlib
from typing import Any, Generic, TypeVar

import msgspec

T = TypeVar("T")

TREE = 0  # the place of the supervisor
PLACES = 1024  # with that one; processes that come when all are taken do not report
TREE_COPY = 1 << 17  # bytes; 1,024 processes fit in
COPY = 1 << 14
HEAD = struct.Struct("<dII")  # monotonic seconds, bytes behind this, their CRC-32


class Seen(msgspec.Struct, array_like=True):
    """One process, as the supervisor sees it."""

    place: int  # TREE: its report is this; -1: it has none
    role: str
    number: int
    pid: int
    generation: int
    state: str  # a ChildState's value
    restarts: int  # of all that have filled its slot
    degraded: bool
    uptime: float  # seconds for which it serves


class TreeReport(msgspec.Struct, array_like=True):
    """What the supervisor writes; a process that has none writes it itself."""

    phase: str  # starting, running, stopping
    state: dict[str, Any]  # as in Server.stats()["tree"]
    processes: list[Seen]


class Report(msgspec.Struct, array_like=True):
    """What a process writes: counters by their names, and histograms: name -> value of the label -> how many there are
    in each bucket, and the sum of all in microseconds."""

    pid: int
    counts: dict[str, Any]
    timings: dict[str, dict[str, list[int]]] = {}


def new_scoreboard() -> int:
    """The descriptor of an empty one, which is not inheritable. It takes no memory for places that are not used."""
    file = os.memfd_create("mooring-scoreboard", os.MFD_CLOEXEC)
    try:
        os.ftruncate(file, 2 * TREE_COPY + (PLACES - 1) * 2 * COPY)
    except OSError:
        os.close(file)
        raise
    return file


class Place(Generic[T]):
    """One place. The file stays the caller's."""

    def __init__(self, file: int, number: int, kind: type[T]) -> None:
        if not 0 <= number < PLACES:
            raise ValueError(f"there is no place {number}")
        self._file = file
        self._size = TREE_COPY if number == TREE else COPY
        self._offset = 0 if number == TREE else 2 * TREE_COPY + (number - 1) * 2 * COPY
        self._next = 0  # the copy that is written next
        self._decoder = msgspec.msgpack.Decoder(kind)

    def write(self, report: T) -> bool:
        """Whether it has been written: it may be too long. Raises OSError."""
        body = msgspec.msgpack.encode(report)
        if len(body) > self._size - HEAD.size:
            return False
        data = HEAD.pack(time.monotonic(), len(body), zlib.crc32(body)) + body
        os.pwrite(self._file, data, self._offset + self._next * self._size)
        self._next = 1 - self._next
        return True

    def read(self) -> tuple[T, float] | None:
        """The newest report that is whole, and its age in seconds; None: there is none."""
        found = [copy for copy in map(self._copy, (0, 1)) if copy is not None]
        if not found:
            return None
        report, when = max(found, key=lambda copy: copy[1])
        return report, max(0.0, time.monotonic() - when)

    def _copy(self, number: int) -> tuple[T, float] | None:
        data = os.pread(self._file, self._size, self._offset + number * self._size)
        if len(data) < HEAD.size:
            return None
        when, size, checksum = HEAD.unpack_from(data)
        body = data[HEAD.size : HEAD.size + size]
        if not size or len(body) != size or zlib.crc32(body) != checksum:
            return None
        try:
            return self._decoder.decode(body), when
        except msgspec.DecodeError:
            return None
