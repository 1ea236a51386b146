"""The history of one topic: what was published in it last, numbered.

Theory
    A publication has an offset: 1, 2, 3, ... The line of offsets has a name, its epoch. Who has read up to an offset
    of an epoch knows exactly what is new: what comes behind it. That is a position: (epoch, offset).

    The line may break, because what kept it has lost its end: a broker that comes back from a snapshot, a replica that
    is promoted. Then other publications get the same offsets, and an epoch that is kept beside the data would not tell.
    So whoever takes the line up again gives it a new epoch, and remembers how far the old one went: its boundary. What
    is kept is a beginning of what there was, so a position at or below the boundary means the same in the new epoch;
    one above it was read by somebody and exists no more. These are all verdicts there are:

        recovered      what is new follows, and nothing is missing
        trimmed        it is not kept that far back
        rolled_back    the position is behind the end of what was kept: some of what was read exists no more
        unknown_epoch  nobody here knows that line

    Each comes with the position where it goes on, and all that is kept behind it follows. Nobody is ever told nothing.
"""

from collections.abc import Sequence
from itertools import dropwhile
from typing import NamedTuple

from mooring.types import Position, Verdict

__all__ = ["BOUNDARIES", "History", "Kept", "Since"]

BOUNDARIES = 16  # earlier epochs that a topic remembers


class Kept(NamedTuple):
    """A publication that is kept."""

    offset: int
    form: int  # what becomes of it for clients; not looked at here
    opcode: int
    data: bytes
    at: float  # seconds, of the clock that the keeper goes by


class Since(NamedTuple):
    """What there is behind a position."""

    verdict: Verdict
    position: Position
    """Where it goes on, in the epoch of now: of `recovered` what was asked for, of `trimmed` what is before the oldest
    one that is kept, of `rolled_back` the boundary, of `unknown_epoch` the end."""
    publications: Sequence[Kept]
    """What comes behind it, in order; the first of it, if that is more than was wanted."""
    end: Position
    """Of the last publication there is."""


class History:
    """Of one topic. It knows no clock: `now` grows from call to call."""

    __slots__ = ("_boundaries", "_kept", "_most", "_ttl", "epoch", "size", "top", "used_at")

    def __init__(self, epoch: str, now: float) -> None:
        self.epoch = epoch
        self.top = 0  # the last offset that was given
        self.size = 0  # bytes of what is kept
        self.used_at = now
        self._most = 0
        self._ttl = 0.0
        self._kept: dict[int, Kept] = {}  # by offset, without a hole: any of them is found at once
        self._boundaries: tuple[Position, ...] = ()  # of few topics any: a deque takes 700 bytes of each

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def position(self) -> Position:
        """Of the last publication."""
        return Position(self.epoch, self.top)

    def room_of_next(self, most: int) -> int:
        """Bytes of what has to go for one more publication, if `most` are kept; -1: nothing has to."""
        kept = self._kept
        return len(kept[self.top - len(kept) + 1].data) if len(kept) >= most else -1

    def append(self, form: int, opcode: int, data: bytes, now: float, most: int, ttl: float) -> Kept:
        """A publication; keeps it and those before it, `most` in number, for `ttl` seconds each (0: without end)."""
        self.top += 1
        kept = Kept(self.top, form, opcode, data, now)
        self.used_at = now
        self._most, self._ttl = most, ttl
        self._kept[self.top] = kept
        self.size += len(data)
        self.trim(now)
        return kept

    def trim(self, now: float) -> None:
        """Forgets what is more, and what is older, than was said with the last publication."""
        kept = self._kept
        first = self.top - len(kept) + 1
        while kept and (len(kept) > self._most or (self._ttl and now - kept[first].at >= self._ttl)):
            self.size -= len(kept.pop(first).data)
            first += 1

    def break_line(self, epoch: str) -> None:
        """From here on the line has another name: what was behind its end may have been read by somebody."""
        self._boundaries = (*self._boundaries, self.position)[-BOUNDARIES:]
        self.epoch = epoch

    def since(self, position: Position | None, most: int, most_bytes: int) -> Since:
        """What comes behind a position, and behind the end if there is none: at most so many publications, and those
        behind the first one as long as the bytes before them are fewer than that."""
        verdict, offset = (Verdict.RECOVERED, self.top) if position is None else self._judge(position)
        first = self.top - len(self._kept) + 1
        if offset + 1 < first:
            verdict, offset = max(verdict, Verdict.TRIMMED), first - 1
        publications: list[Kept] = []
        size = 0
        for number in range(offset + 1, min(self.top, offset + most) + 1):
            if size >= most_bytes:
                break
            publications.append(self._kept[number])
            size += len(publications[-1].data)
        return Since(verdict, Position(self.epoch, offset), publications, self.position)

    def _judge(self, position: Position) -> tuple[Verdict, int]:
        """What a position is worth here, whatever is kept; and the offset that it means."""
        boundary = self.top
        if position.epoch != self.epoch:
            later = list(dropwhile(lambda one: one.epoch != position.epoch, self._boundaries))
            if not later:
                return Verdict.UNKNOWN_EPOCH, self.top
            boundary = min(one.offset for one in later)  # a later break may have lost more
        if position.offset > boundary:
            return Verdict.ROLLED_BACK, boundary
        return Verdict.RECOVERED, position.offset
