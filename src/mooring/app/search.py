"""What connections are looked for: what they must be, in which order, how many. And what is found.

Asked on the control socket, answered by each gateway for itself (mooring._core.finder), merged by who asked.
"""

import struct
from collections.abc import Iterable, Iterator
from heapq import merge
from ipaddress import ip_network
from itertools import islice
from typing import Any, Literal, NamedTuple, get_args

import msgspec

from mooring.types import ConnectionState

LISTED_LIMIT = 10_000  # connections in one answer
_BRIEF = struct.Struct("=dQdd")  # finder.pyx, Brief
PATH_LIMIT = 255  # bytes of a path that gateways keep
STATES = {"http": ConnectionState.HTTP, "established": ConnectionState.OPEN, "closing": ConnectionState.CLOSING}
State = Literal["http", "established", "closing"]
Sort = Literal["age", "idle", "messages", "bytes", "queued", "rtt", "rate"]
SORTS: tuple[str, ...] = get_args(Sort)


class Search(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Which connections are wanted; a field that is not given does not matter."""

    path: str | None = None
    """That they were opened for, without the query; with a `*` at its end, what begins so. WebSockets only."""
    address: str | None = None
    """Of the peer, or a network such as 10.0.0.0/8."""
    user: str | None = None
    topic: str | None = None
    worker: int | None = None
    gateway: int | None = None
    state: State | None = None
    older: float = 0.0
    """Connected for at least so many seconds."""
    younger: float = 0.0
    """Connected for less than so many seconds; 0: any."""
    idle: float = 0.0
    """Nothing has come from them for so many seconds."""
    sort: Sort = "age"
    """The largest come first: those connected or idle for longest, with most messages, bytes, bytes queued, the longest
    round trip, most messages per second."""
    reverse: bool = False
    """The smallest come first."""
    limit: int = 1000

    def terms(self) -> dict[str, Any]:
        """The same as a Finder wants it. Raises ValueError for what can't be meant."""
        if not 0 <= self.limit <= LISTED_LIMIT:
            raise ValueError(f"limit={self.limit}: must be from 0 to {LISTED_LIMIT}")
        terms: dict[str, Any] = {"sort": self.sort, "reverse": self.reverse, "limit": self.limit}
        for name in ("older", "younger", "idle"):
            seconds = getattr(self, name)
            if not 0 <= seconds < 1e9:
                raise ValueError(f"{name}={seconds}: a number of seconds, 0 or more")
            terms[name] = round(seconds * 1000)
        for name in ("worker", "gateway"):
            number = getattr(self, name)
            if number is not None and not 0 <= number < 1 << 16:
                raise ValueError(f"{name}={number}: the number of a {name}, from 0")
        if self.worker is not None:
            terms["worker"] = self.worker
        for name in ("user", "topic"):
            given = getattr(self, name)
            if given is not None:
                terms[name] = given.encode()
                if not 0 < len(terms[name]) < 256:
                    raise ValueError(f"{name}={given!r}: must have 1 to 255 bytes in UTF-8")
        if self.state is not None:
            terms["state"] = int(STATES[self.state])
        if self.path is not None:
            terms["prefix"] = self.path.endswith("*")
            terms["path"] = self.path.removesuffix("*").encode()
            if not self.path or len(terms["path"]) > PATH_LIMIT:
                raise ValueError(f"path={self.path!r}: must have 1 to {PATH_LIMIT} bytes; an end of * is any")
        if self.address is not None:
            try:
                network = ip_network(self.address, strict=False)
            except ValueError as problem:
                raise ValueError(f"address={self.address!r}: {problem}; write 192.0.2.7 or 192.0.2.0/24") from None
            terms |= {"family": network.version, "network": network.network_address.packed, "bits": network.prefixlen}
        return terms


class FoundConnection(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What only its gateway knows of a connection. `key` is larger for who comes first."""

    key: float
    fd: int
    age: float
    idle: float
    path: bytes
    user: bytes
    topics: int
    queued: int
    message_rate: float | None
    byte_rate: float | None


class Found(msgspec.Struct, array_like=True, frozen=True):
    """What a gateway has found: how many there are, and those that come first."""

    total: int
    first: list[FoundConnection]


class Brief(NamedTuple):
    """Which connection, and why it has its place in the list; messages and bytes a second if that is why."""

    key: float
    fd: int
    message_rate: float
    byte_rate: float


class Briefs(msgspec.Struct, array_like=True, frozen=True):
    """What a gateway has found, in order: how many there are, and those that come first, packed."""

    total: int
    packed: bytes


def in_order(answers: Iterable[Briefs], limit: int, *, reverse: bool = False) -> Iterator[Brief]:
    """Of several gateways, one after the other: nothing of ten thousand is done at once."""
    sign = -1 if reverse else 1  # among equals
    each = (map(Brief._make, _BRIEF.iter_unpack(answer.packed)) for answer in answers)
    return islice(merge(*each, key=lambda one: (-one.key, sign * one.fd)), limit)


def merged(answers: Iterable[Found], limit: int, *, reverse: bool = False) -> Found:
    """Of several gateways."""
    answers = list(answers)
    sign = -1 if reverse else 1  # among equals
    rows = sorted((row for answer in answers for row in answer.first), key=lambda row: (-row.key, sign * row.fd))
    return Found(sum(answer.total for answer in answers), rows[:limit])
