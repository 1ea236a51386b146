"""Messages that are JSON of a type: the first byte says which type, and whether it came as text or as binary."""

import json
from collections.abc import Iterator
from typing import Annotated, Any, Generic, TypeVar

import msgspec

from mooring import BadMessage, Frame
from mooring._core.ws import decoder_of, value_of

T = TypeVar("T")


class Join(msgspec.Struct, tag="join"):
    room: Annotated[str, msgspec.Meta(min_length=1, max_length=9)]


class Move(msgspec.Struct, tag="move"):
    x: int
    y: float = 0
    tree: "Move | None" = None


class Even(msgspec.Struct):
    n: int

    def __post_init__(self) -> None:
        if self.n % 2:
            raise ValueError("it is odd - at `")


class Box(msgspec.Struct, Generic[T]):
    inside: T


TYPES: list[Any] = [
    None,
    Join | Move,
    Even,
    Box[list[int] | None],
    dict[int, dict[str, int]],
    dict[str, set[tuple[int, ...]]],
    Annotated[int, msgspec.Meta(ge=0, le=1000)],
]


def seeds() -> Iterator[bytes]:
    for number, text in enumerate(
        [
            b'{"a": [1, 2.5, null, true, "x\\u00e9\\ud83d\\ude00"], "a": {}}',
            b'{"type": "move", "x": 1, "y": 1e3, "tree": {"type": "move", "x": 99999999999999999999}}',
            b'{"n": 3}',
            b'{"inside": [1, 2, "3"]}',
            b'{"1": {"a": 1}, "x": {"a": 1}}',
            b'{"a": [[1, 2], [1, "2"]]}',
            b"1001",
        ]
    ):
        yield bytes([number]) + text
        yield bytes([number | 128]) + text
        yield bytes([number]) + b"[" * 5000
    yield b"\x01" + b'{"type": "join", "room": "\xed\xa0\x80"}'


def one(data: bytes) -> None:
    kind, body = data[:1], data[1:]
    if not kind:
        return
    type_ = TYPES[(kind[0] & 127) % len(TYPES)]
    message: str | bytes = body
    if kind[0] < 128:
        try:
            message = body.decode()
        except UnicodeDecodeError:
            return  # such text ends its connection
    frame = Frame(message)
    told = outcome_of(frame, type_)
    assert told == outcome_of(Frame(body), type_), "text and binary are the same"
    ok, value = told
    if not ok:
        reason, path = value
        assert path.startswith("$")
        assert "`" not in path
        assert reason
        return
    again = msgspec.json.encode(value)
    assert value_of(Frame(again), decoder_of(type_)) == value
    if type_ is None:
        other = json.loads(body)
        assert other == value or repr(other) == repr(value), "another library reads the same"


def outcome_of(frame: Frame, type_: object) -> tuple[bool, Any]:
    try:
        return True, frame.json(type_)
    except BadMessage as problem:
        told = problem
    assert told.data is frame.data
    json_of(told)
    return False, (told.reason, told.path)


def json_of(problem: BadMessage) -> bytes:
    """As a client is told of it."""
    return msgspec.json.encode({"error": {"reason": problem.reason, "path": problem.path}})
