"""Values that go to other processes: each comes back as what went in, or is refused with words that help."""

import collections
import dataclasses
import datetime
import enum
import io
import math
import struct
import sys
import types
import uuid
import zoneinfo
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mooring import CloseCode, Frame
from mooring.app.values import DEPTH, pack, unpack
from support.values import shape

BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
zones = st.none() | st.just(datetime.UTC) | st.just(BERLIN) | st.just(datetime.timezone(datetime.timedelta(hours=-3.5)))
keys = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.datetimes(timezones=zones)
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.decimals(allow_nan=False)
    | st.uuids()
)
hashable = st.deferred(lambda: keys | st.lists(hashable, max_size=2).map(tuple) | st.frozensets(hashable, max_size=2))
values = st.deferred(
    lambda: (
        hashable
        | st.lists(values, max_size=3)
        | st.lists(values, max_size=3).map(tuple)
        | st.dictionaries(hashable, values, max_size=3)
        | st.sets(hashable, max_size=3)
    )
)


@given(values)
def test_what_comes_back_is_what_went_in(value: Any):
    assert shape(unpack(pack(value, "it"))) == shape(value)


@pytest.mark.parametrize(
    "value",
    [
        *[{1}, (1, [2, (3,)]), {"a": {"b": {4}}}, {(1, 2): "x"}, {None: 1, 1.5: 2, b"k": 3}, [frozenset({(1,)})]],
        datetime.datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN, fold=1),
        datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone(datetime.timedelta(hours=1), "CET")),
        datetime.time(1, 2, 3, 4, fold=1),
        *[
            Decimal("1.10"),
            Decimal("-0"),
            Decimal("Infinity"),
            uuid.UUID(int=5),
            math.inf,
            -0.0,
            datetime.timedelta.max,
        ],
        *[datetime.datetime.max, datetime.date.min],
    ],
    ids=repr,
)
def test_some_of_them(value: Any):
    assert shape(unpack(pack(value, "it"))) == shape(value)


def test_what_msgpack_knows_is_written_as_msgpack_has_it():
    """What other languages, and older workers during a reload, read."""
    for value in (None, True, 5, 1.5, "x", b"x", [1, {"a": [2]}], {"k": 1, 2: 3}):
        assert pack(value, "it") == msgspec.msgpack.encode(value)


class Colour(enum.IntEnum):
    RED = 1


class Named(str):
    __slots__ = ()


Pair = collections.namedtuple("Pair", "a b")


@dataclasses.dataclass
class Point:
    x: int


class Move(msgspec.Struct):
    x: int


class Zone(datetime.tzinfo):
    pass


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        (Colour.RED, "a member of the enum Colour: write its .value"),
        ([CloseCode.NORMAL], "a member of the enum CloseCode: write its .value"),
        (Named("x"), "a Named, which is a subclass of str: write str"),
        (Pair(1, 2), "the named tuple Pair: write its _asdict()"),
        (collections.OrderedDict(a=1), "a OrderedDict, which is a subclass of dict: write dict"),
        (collections.Counter("a"), "a subclass of dict: write dict"),
        ({"p": Point(1)}, "the dataclass Point: write dataclasses.asdict"),
        (Move(1), "the Struct Move: write msgspec.to_builtins"),
        (bytearray(b"x"), "a bytearray: write bytes"),
        (memoryview(b"x"), "a memoryview: write bytes"),
        ({1: [object()]}, "it is, or has in it, an object of the type object; what comes back as it was is None, bool"),
        (Frame("x", fd=3), "a Frame: write its data"),
        ([types.MappingProxyType({})], "a mappingproxy: write dict(...)"),
        (1j, "an object of the type complex"),
        (print, "an object of the type builtin_function_or_method"),
        (1 << 64, "an integer has at most 64 bits"),
        ([-(1 << 63) - 1], "an integer has at most 64 bits"),
        ("\ud800", "surrogates not allowed"),
        (datetime.datetime(2026, 1, 1, tzinfo=Zone()), "a time zone of the type Zone: use datetime.timezone"),
    ],
    ids=lambda one: one if isinstance(one, str) and one.isascii() else type(one).__name__,  # a repr may have an address
)
def test_what_is_refused(value: Any, advice: str):
    with pytest.raises(TypeError) as raised:
        pack(value, "the data of a task")
    assert str(raised.value).startswith("the data of a task can't be sent to another process: ")
    assert advice in str(raised.value)
    assert "\n" not in str(raised.value)


def test_how_deep():
    """As deep as whoever reads it can follow, also deep in calls of its own."""
    for kind in (list, tuple):
        value: Any = kind()
        for _ in range(DEPTH - 1):
            value = kind([value])
        room = sys.getrecursionlimit()
        assert unpack(pack(value, "it")) == value
        assert sys.getrecursionlimit() == room
        with pytest.raises(TypeError, match="inside of one another"):
            pack([value], "it")
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(TypeError, match="or one inside of itself"):
        pack(loop, "it")


@pytest.mark.parametrize(
    "packed", [b"", b"\xc1", b"\xd4\x63x", b"\xd4\x01\xc0", b"\xd4\x0ax", b"\xd4\x09x", b"\xd4\x06x"]
)
def test_what_was_not_packed_here_is_a_value_error(packed: bytes):
    with pytest.raises(ValueError):
        unpack(packed)


def test_a_set_of_what_has_no_hash_is_a_value_error():
    with pytest.raises(ValueError):
        unpack(msgspec.msgpack.encode(msgspec.msgpack.Ext(2, msgspec.msgpack.encode([[1]]))))


def test_what_equality_does_not_see() -> None:
    zone = datetime.timezone(datetime.timedelta(hours=2), "here")
    assert unpack(pack(datetime.datetime(2024, 1, 1, tzinfo=zone), "it")).tzname() == "here"


def test_what_looks_like_something_else_is_refused() -> None:
    class Rooms(list[int]):
        pass

    utc = struct.pack(">4sc15x6l", b"TZif", b"\0", 0, 0, 0, 0, 1, 4) + struct.pack(">lbb", 0, 0, 0) + b"UTC\0"
    nameless = zoneinfo.ZoneInfo.from_file(io.BytesIO(utc))  # without a key by which it could be found again
    for value, why in ((Rooms(), "subclass of list"), (datetime.datetime(2024, 1, 1, tzinfo=nameless), "time zone")):
        with pytest.raises(TypeError, match=why):
            pack(value, "it")
