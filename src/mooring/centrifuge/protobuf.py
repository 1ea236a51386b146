"""Protobuf: each message behind its length as a varint, messages one after another; a frame is a binary message.

The parser is Google's (`protobuf`, the extra `centrifuge`): compiled, an abi3 wheel without dependencies. It wants a
descriptor, usually generated from a `.proto` file; here it is made from the table in `commands.py` when the first codec
is made, in a pool of its own, so that a client's library in the same process may have one of the same protocol.

What a message of it holds becomes one of ours by the fields that are present, and back. A field `tf` is a message in
the protocol, which can hold itself; here it is bytes, which are the same on the wire, so nothing is nested at will.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Raw

from mooring.centrifuge import commands
from mooring.centrifuge.codes import Violation
from mooring.centrifuge.commands import EMPTY, MOST, Command, Emulation, Message, Reply
from mooring.centrifuge.limits import DEFAULT, Limits

try:
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    from google.protobuf.message import DecodeError
except ImportError as error:  # pragma: no cover - a matter of how it is installed
    raise ImportError("protobuf clients need the extra: pip install 'mooring-server[centrifuge]'") from error

PACKAGE = "mooring.centrifuge"
LONGEST_PREFIX = 10  # bytes of a varint of 64 bits

_Field = descriptor_pb2.FieldDescriptorProto
KINDS: dict[Any, "_Field.Type.ValueType"] = {
    "uint32": _Field.TYPE_UINT32,
    "uint64": _Field.TYPE_UINT64,
    "int32": _Field.TYPE_INT32,
    "int64": _Field.TYPE_INT64,
    str: _Field.TYPE_STRING,
    bool: _Field.TYPE_BOOL,
    bytes: _Field.TYPE_BYTES,
    Raw: _Field.TYPE_BYTES,
}
ZEROS: dict[Any, Any] = {str: "", int: 0, bool: False, list: [], dict: {}}


class ProtobufCodec:
    """Frames as protobuf."""

    name = "protobuf"
    binary = True
    ping = b"\x00"

    def __init__(self, limits: Limits = DEFAULT) -> None:
        self._limits = limits
        self._factory = translations()

    def commands(self, frame: bytes) -> list[Command]:
        splitter = Splitter(self._limits)
        messages = splitter.feed(frame)
        splitter.end()
        if not messages:
            raise Violation("an empty frame")
        command = self._factory[Command]
        return [command.read(message) if message else PONG for message in messages]

    def emulation(self, body: bytes) -> Emulation:
        if len(body) > 2 * self._limits.frame:
            raise Violation(f"a body of {len(body)} bytes, {2 * self._limits.frame} are allowed")
        found: Emulation = self._factory[Emulation].read(body)
        return found

    def encode(self, replies: Iterable[Reply]) -> bytes:
        reply = self._factory[Reply]
        return b"".join([behind_its_length(reply.write(one)) for one in replies])

    def join(self, frames: Sequence[bytes]) -> bytes:
        return b"".join(frames)


PONG = Command()


# ------------------------------------------------------------------------------------------------ lengths


class Splitter:
    """Takes messages out of bytes, which may come in any pieces. A length is looked at before its message is kept."""

    def __init__(self, limits: Limits = DEFAULT) -> None:
        self._limits = limits
        self._rest = b""

    def feed(self, piece: bytes) -> list[bytes]:
        """The messages that are complete now. Raises `Violation` at a length that is none, or is too much."""
        data = self._rest + piece if self._rest else piece
        found: list[bytes] = []
        at = 0
        while at < len(data):
            begin, length = self._length(data, at)
            if begin is None or len(data) - begin < length:
                break
            if len(found) == self._limits.commands:
                raise Violation(f"more than {self._limits.commands} commands in a frame")
            found.append(data[begin : begin + length])
            at = begin + length
        self._rest = data[at:]
        return found

    def end(self) -> None:
        """Raises `Violation` if a message is not complete."""
        if self._rest:
            raise Violation("a frame that ends within a message")

    def _length(self, data: bytes, at: int) -> tuple[int | None, int]:
        """Where the message begins and how long it is; None: not to be known yet."""
        length = 0
        for shift, byte in enumerate(data[at : at + LONGEST_PREFIX]):
            length |= (byte & 0x7F) << (7 * shift)
            if length > self._limits.frame:
                raise Violation(f"a message of more than {self._limits.frame} bytes")
            if byte < 0x80:
                return at + shift + 1, length
        if len(data) - at >= LONGEST_PREFIX:
            raise Violation("a length that does not end")
        return None, 0


def behind_its_length(message: bytes) -> bytes:
    length = len(message)
    prefix = bytearray()
    while length > 0x7F:
        prefix.append(length & 0x7F | 0x80)
        length >>= 7
    prefix.append(length)
    return bytes(prefix) + message


# ------------------------------------------------------------------------------------------------ messages


class Translation:
    """Between one class of `commands` and what the parser makes."""

    def __init__(self, ours: type[Message], theirs: Any) -> None:
        self._ours = ours
        self._theirs = theirs
        self._reads: dict[str, Callable[[Any], Any] | None] = {}
        self._writes: list[tuple[str, Any, Callable[[Any], Any] | None]] = []
        self._zeros: dict[str, Any] = {}

    def prepare(self, all_of_them: dict[type, "Translation"]) -> None:
        for one in msgspec.structs.fields(self._ours):
            hint = get_type_hints(self._ours)[one.name]
            read, write = _ways(hint, all_of_them)
            self._reads[one.name] = read
            self._writes.append((one.name, one.default, write))
            if one.required and (get_origin(hint) or hint) in ZEROS:
                self._zeros[one.name] = ZEROS[get_origin(hint) or hint]

    def read(self, message: bytes) -> Any:
        """One of ours. Raises `Violation`."""
        try:
            return self.ours(self._theirs.FromString(message))
        except DecodeError as error:
            raise Violation(f"not a protobuf message of the protocol: {error}") from error

    def write(self, value: Message) -> bytes:
        written: bytes = self.theirs(value).SerializeToString()
        return written

    def ours(self, message: Any) -> Any:
        values = dict(self._zeros)
        for described, value in message.ListFields():
            name = described.name
            read = self._reads[name]
            values[name] = value if read is None else read(value)
        return self._ours(**values)

    def theirs(self, value: Any) -> Any:
        fields = {}
        for name, default, write in self._writes:
            found = getattr(value, name)
            if found is not default and found is not None:
                fields[name] = found if write is None else write(found)
        return self._theirs(**fields)


def _ways(hint: Any, translations: dict[type, Translation]) -> tuple[Callable[[Any], Any] | None, Any]:
    """How a value of this type is read, and how it is written; None: it is the same on both sides."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is UnionType:
        hint = next(part for part in args if part is not type(None))
    if hint in translations:
        return translations[hint].ours, translations[hint].theirs
    if origin is list:
        inner = translations[args[0]]
        return lambda many: [inner.ours(one) for one in many], lambda many: [inner.theirs(one) for one in many]
    if origin is dict and args[1] in translations:
        inner = translations[args[1]]
        return (
            lambda many: {name: inner.ours(one) for name, one in many.items()},
            lambda many: {name: inner.theirs(one) for name, one in many.items()},
        )
    if origin is dict:
        return dict, None
    if hint is Raw:
        return lambda data: Raw(data) if data else EMPTY, bytes
    if hint is int:
        return _bounded, None
    return None, None


def _bounded(number: int) -> int:
    if number > MOST:
        raise Violation(f"the number {number}, {MOST} is the largest one that is taken")
    return number


@cache
def translations() -> dict[type, Translation]:
    """For every message of the protocol."""
    ours = [one for one in vars(commands).values() if isinstance(one, type) and issubclass(one, Message)]
    ours.remove(Message)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(describe(ours))
    found: dict[type, Translation] = {}
    for one in ours:
        theirs = message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{one.__name__}"))
        found[one] = Translation(one, theirs)
    for translation in found.values():
        translation.prepare(found)
    return found


def describe(messages: Iterable[type[Message]]) -> descriptor_pb2.FileDescriptorProto:
    """The table in the form that the parser wants."""
    file = descriptor_pb2.FileDescriptorProto(name="mooring/centrifuge.proto", package=PACKAGE, syntax="proto3")
    for message in messages:
        described = file.message_type.add(name=message.__name__)
        for name, hint in get_type_hints(message, include_extras=True).items():
            meta = hint.__metadata__[0].extra
            _describe_field(described, name, hint.__origin__, meta)
    return file


def _describe_field(message: descriptor_pb2.DescriptorProto, name: str, hint: Any, meta: dict[str, Any]) -> None:
    origin, args = get_origin(hint), get_args(hint)
    described = message.field.add(name=name, number=meta["number"], label=_Field.LABEL_OPTIONAL)
    if origin is dict:  # a map is a list of entries, whatever the syntax of a .proto says
        entry = message.nested_type.add(name="".join(part.title() for part in name.split("_")) + "Entry")
        entry.options.map_entry = True
        for number, (part, of) in enumerate(zip(("key", "value"), args, strict=True), 1):
            _set_type(entry.field.add(name=part, number=number, label=_Field.LABEL_OPTIONAL), of, {})
        described.label = _Field.LABEL_REPEATED
        described.type = _Field.TYPE_MESSAGE
        described.type_name = f".{PACKAGE}.{message.name}.{entry.name}"
    elif origin is list:
        described.label = _Field.LABEL_REPEATED
        _set_type(described, args[0], meta)
    else:
        _set_type(described, args[0] if origin is UnionType else hint, meta)


def _set_type(described: descriptor_pb2.FieldDescriptorProto, hint: Any, meta: dict[str, Any]) -> None:
    kind = meta.get("kind", hint)
    if kind in KINDS:
        described.type = KINDS[kind]
    else:
        described.type = _Field.TYPE_MESSAGE
        described.type_name = f".{PACKAGE}.{hint.__name__}"
