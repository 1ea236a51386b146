"""What is asked of the engine, and what it answers: the payloads of the records `to engine` and `from engine`."""

from enum import IntEnum

import msgspec

from mooring.types import Position, Verdict

__all__ = ["MOST", "Append", "Appended", "Ask", "Follow", "Form", "Found", "Judged", "Published"]

MOST = 1 << 31  # publications: as many as there are


class Form(IntEnum):
    """What becomes of a publication on its way to clients."""

    BARE = 0  # it goes as it is
    TEXT = 1  # a text, into a JSON object that says where it is
    JSON = 2  # likewise a value that is JSON already


class Append(msgspec.Struct, array_like=True, frozen=True):
    """A publication; how much is kept of its topic is said with each, since only the application knows."""

    topic: str
    form: int  # a Form
    opcode: int
    data: bytes
    history_size: int
    history_ttl: float
    exclude: bytes = b""  # fds, 8 bytes each


class Appended(msgspec.Struct, array_like=True, frozen=True):
    """It is published, or refused, or nobody can say."""

    epoch: str = ""
    offset: int = 0
    refused: str = ""  # why
    uncertain: str = ""  # why


class Follow(msgspec.Struct, array_like=True, frozen=True):
    """From a worker to a gateway: a connection shall hear a topic, behind a position, or without an epoch from now
    on."""

    topic: str
    epoch: str | None = None
    offset: int = 0
    positions: bool = False  # clients of this topic are told where they are

    @property
    def position(self) -> Position | None:
        """None: from now on."""
        return None if self.epoch is None else Position(self.epoch, self.offset)


class Ask(msgspec.Struct, array_like=True, frozen=True):
    """For what comes behind a position, or without an epoch behind the end: to hear the topic from there on, or only to
    know it."""

    topic: str
    epoch: str | None = None
    offset: int = 0
    most: int = MOST

    @property
    def position(self) -> Position | None:
        """None: the end."""
        return None if self.epoch is None else Position(self.epoch, self.offset)


class Found(msgspec.Struct, array_like=True, frozen=True):
    """What there is: where it goes on, what comes behind that, and the last offset there is. If that is more than fits,
    the first of it; whoever wanted to hear the topic does not yet then, and asks again."""

    verdict: int
    epoch: str
    offset: int
    top: int
    publications: tuple[tuple[int, int, bytes], ...] = ()  # offset, opcode, data
    refused: str = ""  # why there is no answer

    @property
    def position(self) -> Position:
        return Position(self.epoch, self.offset)

    @property
    def judged(self) -> Verdict:
        return Verdict(self.verdict)

    @property
    def end(self) -> Position:
        """Behind the publications that are here."""
        return Position(self.epoch, self.publications[-1][0] if self.publications else self.offset)

    @property
    def is_all(self) -> bool:
        return self.end.offset == self.top


class Published(msgspec.Struct, array_like=True, frozen=True):
    """What a gateway hands to the subscribers that it has. The offset is the record's number."""

    topic: str
    epoch: str
    opcode: int
    data: bytes
    exclude: bytes = b""


class Judged(msgspec.Struct, array_like=True, frozen=True):
    """The line of a topic that the gateway follows is broken, and goes on behind that position."""

    topic: str
    verdict: int
    epoch: str
    offset: int
