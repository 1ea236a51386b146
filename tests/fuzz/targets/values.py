"""Values that cross processes: what another process may have packed, and a session's objects changed in any way."""

import threading
from collections.abc import Iterator
from contextlib import suppress
from decimal import Decimal
from typing import Any

from mooring.app.live import LIVE, LiveDict, LiveList, adopted, plain
from mooring.app.values import pack, unpack
from mooring.errors import StateError

LIMIT = 2000  # bytes of a value, as of a session


class Root:
    """The key of a session: what is kept of its value."""

    def __init__(self, packed: bytes) -> None:
        self.lock = threading.RLock()
        self.tuple: Any = None
        self.packed = packed

    def check(self) -> None:
        pass

    def keep(self, value: Any) -> None:
        packed = pack(value, "it")
        if len(packed) > LIMIT:
            raise ValueError("too large")
        self.packed = packed


def seeds() -> Iterator[bytes]:
    value = {"a": [1, [2, {3}], (4, [5])], "b": {"c": {"d": b"x"}}, (1, 2): Decimal("1.5"), "e": frozenset({1})}
    packed = pack(value, "it")
    yield bytes([0]) + packed
    for number in range(8):
        yield bytes([6]) + bytes(range(number, number + 6)) + packed
    yield bytes([3, 0, 0, 4]) + pack([[1], [2]], "it")


def one(data: bytes) -> None:
    if not data:
        return
    count = data[0] % 16
    commands, packed = data[1 : 1 + count], data[1 + count :]
    try:
        value = unpack(packed)
    except ValueError:
        return
    try:
        again = pack(value, "it")
    except TypeError:
        return  # such as a number of nobody's extension: none that pack() made
    assert same(unpack(again), value)
    root = Root(again)
    live = adopted(value, root)
    if not isinstance(live, LIVE) or len(again) > LIMIT:
        return
    held = parts(live)
    for command in commands:
        part = held[command % len(held)]
        with suppress(StateError, TypeError, ValueError, IndexError, KeyError):
            change(part, command // 16, held[command // 7 % len(held)])
        assert same(unpack(root.packed), plain(live)), "what is read is what is kept"
        held = [*held, *parts(live)][-40:]


def change(part: Any, how: int, other: Any) -> None:
    if isinstance(part, LiveList):
        (
            lambda: part.append(other),
            lambda: part.pop(),
            lambda: part.reverse(),
            lambda: part.__setitem__(0, other),
            lambda: part.__delitem__(0),
            lambda: part.extend([other, 1]),
            lambda: part.insert(0, [how]),
            lambda: part.clear(),
        )[how % 8]()
    elif isinstance(part, LiveDict):
        (
            lambda: part.__setitem__("a", other),
            lambda: part.popitem(),
            lambda: part.setdefault("n", []).append(how),
            lambda: part.update(b=other, c=[how]),
            lambda: part.pop("a"),
            lambda: part.clear(),
        )[how % 6]()
    else:
        (lambda: part.add(how), lambda: part.pop(), lambda: part.update({how, "x"}), lambda: part.clear())[how % 4]()


def parts(value: Any) -> list[Any]:
    """Every live object in it."""
    found = [value] if isinstance(value, LIVE) else []
    inside: Any = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [*found, *(part for one in inside for part in parts(one))]


def same(one: Any, other: Any) -> bool:
    """Also of what is not equal to itself."""
    return one == other or repr(one) == repr(other)
