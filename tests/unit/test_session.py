"""A session is copied as it was at one moment, also when its connection ends meanwhile."""

import asyncio
import logging
from typing import Any

import msgspec
import pytest

from mooring.worker.session import MISTAKES, Session, Sessions

FD = 7
HELD = {"name": "ada", "rooms": ["red"]}


class Elsewhere:
    """Gateway and connection of another worker. After so many looks the connection ends."""

    def __init__(self, looks: int) -> None:
        self.left = looks
        self.table = self
        self.told = 0

    def find(self, fd: int) -> "Elsewhere":
        return self

    def owner(self, fd: int) -> int:
        return 1

    def exists(self, fd: int) -> bool:
        return self.left > 0

    def call(self, kind: int, fd: int, payload: bytes) -> bytes:
        held = HELD if self.left > 0 else {}
        self.left -= 1
        return msgspec.msgpack.encode(held)

    def session(self, fd: int, payload: bytes) -> None:
        self.told += 1


def session_of(looks: int) -> Session:
    outbox: Any = Elsewhere(looks)
    return Session(Sessions(outbox, 65536), FD)


@pytest.mark.parametrize(
    "copied", [dict, lambda s: {**s}, lambda s: dict(s.items()), lambda s: dict(zip(s, s.values(), strict=False))]
)
@pytest.mark.parametrize("looks", range(5))
def test_copies_while_the_connection_ends(copied: Any, looks: int) -> None:
    """All of it or nothing."""
    assert copied(session_of(looks)) in ({}, HELD)


def test_one_look_is_enough_for_items_and_values() -> None:
    session = session_of(1)
    assert dict(session.items()) == HELD
    assert dict(session) == {}
    assert next(zip(*[iter(session_of(1).values())] * 2, strict=True)) == tuple(HELD.values())
    assert repr(session_of(1)) == f"<Session of connection {FD}: {HELD!r}>"


def test_what_was_not_listed_is_not_there_any_more() -> None:
    session = session_of(0)
    with pytest.raises(KeyError):
        session["name"]


def test_a_default_is_given_where_nothing_is_kept() -> None:
    """The connection ends while its session is asked for a key, or has ended."""
    for looks in range(3):
        assert session_of(looks).setdefault("other", [1]) == [1]


def test_mistakes_are_told_of_so_many_keys(caplog: pytest.LogCaptureFixture) -> None:
    """A key may be anything, and a log has an end."""

    async def mistakes() -> None:
        session = session_of(1 << 30)
        for number in range(3 * MISTAKES):
            value = [number]
            session[str(number)] = value
            value.append(0)
        await asyncio.sleep(0)
        session["0"] = value = [0]
        value.append(1)  # of this it was told
        await asyncio.sleep(0)

    with caplog.at_level(logging.ERROR, "mooring"):
        asyncio.run(mistakes())
    assert sum("was changed afterwards" in line for line in caplog.messages) == MISTAKES
