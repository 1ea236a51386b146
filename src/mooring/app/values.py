"""What a value is that goes to another process: in a session, as a task, as a message between workers.

Values cross as msgpack, which knows fewer types than Python: a set would come back as a list, a datetime as a text. The
rule here is that a value comes back as what went in, with every type inside of it, or is refused. Types that msgpack
lacks travel as its extension types, which say which one it was. The rest is refused, subclasses too: what an
application makes of an int or a dict, only its own code could make again.
"""

import datetime
import uuid
import zoneinfo
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import partial
from typing import Any, Final, NamedTuple

import msgspec

from mooring.app.foreign import class_name, text_of
from mooring.app.live import PLAIN, SCALARS

DEPTH: Final = 100  # of values inside of values: few enough that whoever reads it can follow

_KNOWN = "None, bool, int of 64 bits, float, str, bytes, list, tuple, dict, set, frozenset, datetime, date, time, "
_KNOWN += "timedelta, Decimal and UUID"

Ext = msgspec.msgpack.Ext
_encode = msgspec.msgpack.encode


def pack(value: object, what: str, refused: str = "can't be sent to another process") -> bytes:
    """The bytes of a value. `what` it is, in words, for the TypeError that says what can't be carried."""
    try:
        return _encode(value if type(value) in SCALARS else _told(value, DEPTH))
    except (TypeError, OverflowError, ValueError) as problem:
        raise TypeError(f"{what} {refused}: {_why(problem)}") from None


def unpack(packed: bytes | memoryview) -> Any:
    """The value again. Raises ValueError for what `pack` did not make."""
    return _decoder.decode(packed)


def check_entry(key: object, value: object) -> bytes:
    """The bytes of an entry of a session. Raises TypeError for a key or value that a session does not keep."""
    if not isinstance(key, str):
        raise TypeError(f"a key of a session is a str, not {text_of(key, repr, 100)}")
    if value is None:
        raise TypeError("a session does not keep None: delete the key instead")
    return pack(value, f"session[{key!r:.100}]", "can't be kept")


def _why(problem: Exception) -> str:
    if isinstance(problem, _Refused):
        return str(problem)
    return f"an integer has at most 64 bits: {problem}" if isinstance(problem, OverflowError) else text_of(problem)


class _Refused(TypeError):
    pass


# ---------------------------------------------------------------------------------------------- there


def _told(value: Any, depth: int) -> Any:
    """The same for msgpack: what it lacks is an extension."""
    kind = type(value)
    if kind in SCALARS:
        return value
    if not depth:
        raise _Refused(f"there are more than {DEPTH} values inside of one another, or one inside of itself")
    kind = PLAIN.get(kind, kind)
    if kind is list:
        return value if SCALARS.issuperset(map(type, value)) else _items(value, depth - 1)
    if kind is dict:
        return _dict(value, depth - 1)
    extension = _EXTENSIONS.get(kind)
    if extension is None:
        raise _Refused(f"{_advice(value)}; what comes back as it was is {_KNOWN}")
    return Ext(extension.code, extension.told(value, depth - 1))


def _items(values: Any, depth: int) -> list[Any]:
    if SCALARS.issuperset(map(type, values)):
        return list(values)
    return [_told(value, depth) for value in values]


def _dict(value: dict[Any, Any], depth: int) -> Any:
    if not SCALARS.issuperset(map(type, value)):  # an extension is no key
        return Ext(_PAIRS, _encode([_items(pair, depth) for pair in value.items()]))
    if SCALARS.issuperset(map(type, value.values())):
        return value
    return {key: _told(one, depth) for key, one in value.items()}


def _moment(value: datetime.datetime | datetime.time) -> bytes:
    return _encode([value.replace(tzinfo=None).isoformat(), value.fold, _zone(value)])


def _zone(value: datetime.datetime | datetime.time) -> Any:
    """None, the key of a ZoneInfo, or [days, seconds, microseconds] and perhaps the name of a fixed difference."""
    zone = value.tzinfo
    if zone is None:
        return None
    if type(zone) is zoneinfo.ZoneInfo and zone.key:
        return zone.key
    if type(zone) is datetime.timezone:
        ahead, *name = zone.__getinitargs__()  # type: ignore[attr-defined]
        return [ahead.days, ahead.seconds, ahead.microseconds, *name]
    raise _Refused(f"a time zone of the type {class_name(zone)}: use datetime.timezone or zoneinfo.ZoneInfo")


_OURS: Final = {
    "Frame": "its data",
    "Request": "what is wanted of it, such as request.path or request.body",
    "UploadedFile": "what its read() gives",
}


def _advice(value: object) -> str:
    """What else to write, in place of what is not carried."""
    kind, name = type(value), class_name(value)
    known = next((one for one in kind.__mro__[1:] if one in SCALARS or one in (list, dict) or one in _EXTENSIONS), None)
    if hasattr(kind, "_member_map_"):
        return f"a member of the enum {name}: write its .value"
    if hasattr(kind, "_fields") and known is tuple:
        return f"the named tuple {name}: write its _asdict()"
    if known is not None:
        return f"a {name}, which is a subclass of {known.__name__}: write {known.__name__}(...)"
    if hasattr(kind, "__dataclass_fields__"):
        return f"the dataclass {name}: write dataclasses.asdict(...)"
    if hasattr(kind, "__struct_fields__"):
        return f"the Struct {name}: write msgspec.to_builtins(...)"
    if kind in (bytearray, memoryview):
        return f"a {name}: write bytes(...)"
    if name in _OURS and kind.__module__.startswith("mooring."):
        return f"a {name}: write {_OURS[name]}"
    if issubclass(kind, Mapping):  # a session above all
        return f"a {name}: write dict(...)"
    return f"it is, or has in it, an object of the type {name}"


# ---------------------------------------------------------------------------------------------- and back


def _zoned(told: Any) -> datetime.tzinfo | None:
    if told is None:
        return None
    if isinstance(told, str):
        return zoneinfo.ZoneInfo(told)
    days, seconds, microseconds, *name = told
    return datetime.timezone(datetime.timedelta(days, seconds, microseconds), *name)


class _Extension(NamedTuple):
    """How a type travels that msgpack lacks. `code` never gets another meaning: a server that runs is reloaded."""

    code: int
    told: Callable[[Any, int], bytes]
    made: Callable[[memoryview], Any]


def _several(value: Any, depth: int) -> bytes:
    return _encode(_items(value, depth))


def _made_moment(kind: Any, data: memoryview) -> Any:
    text, fold, zone = unpack(data)
    return kind.fromisoformat(text).replace(fold=fold, tzinfo=_zoned(zone))


_EXTENSIONS: Final[dict[type, _Extension]] = {
    tuple: _Extension(1, _several, lambda data: tuple(unpack(data))),
    set: _Extension(2, _several, lambda data: set(unpack(data))),
    frozenset: _Extension(3, _several, lambda data: frozenset(unpack(data))),
    datetime.datetime: _Extension(5, lambda value, _: _moment(value), partial(_made_moment, datetime.datetime)),
    datetime.date: _Extension(
        6, lambda value, _: value.isoformat().encode(), lambda data: datetime.date.fromisoformat(str(data, "ascii"))
    ),
    datetime.time: _Extension(7, lambda value, _: _moment(value), partial(_made_moment, datetime.time)),
    datetime.timedelta: _Extension(
        8,
        lambda value, _: _encode([value.days, value.seconds, value.microseconds]),
        lambda data: datetime.timedelta(*unpack(data)),
    ),
    Decimal: _Extension(9, lambda value, _: str(value).encode(), lambda data: Decimal(str(data, "ascii"))),
    uuid.UUID: _Extension(10, lambda value, _: value.bytes, lambda data: uuid.UUID(bytes=bytes(data))),
}
_PAIRS: Final = 4  # a dict whose keys msgpack can't have as keys
_MADE: Final = {one.code: one.made for one in _EXTENSIONS.values()} | {_PAIRS: lambda data: dict(unpack(data))}


def _back(code: int, data: memoryview) -> Any:
    made = _MADE.get(code)
    if made is None:
        raise ValueError(f"there is no extension {code}")
    try:
        return made(data)
    except (TypeError, ArithmeticError, KeyError, OSError) as problem:
        raise ValueError(f"extension {code}: {problem}") from None


_decoder: Final[msgspec.msgpack.Decoder[Any]] = msgspec.msgpack.Decoder(ext_hook=_back)
