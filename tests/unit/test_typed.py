"""What a frame is as JSON, and what a type makes of it."""

import dataclasses
from typing import Annotated, Any

import msgspec
import pytest

from mooring import BadMessage, BadRequest, CloseFrame, Frame


class Move(msgspec.Struct, tag=True):
    x: int


class Say(msgspec.Struct, tag=True):
    text: str


class Even(msgspec.Struct):
    n: int

    def __post_init__(self) -> None:
        if self.n % 2:
            raise ValueError("it is 7 - at `" if self.n == 7 else "it is odd")


@dataclasses.dataclass
class Point:
    x: float


@pytest.mark.parametrize(
    ("data", "type_", "value"),
    [
        ('{"a": [1, 2.5, null]}', None, {"a": [1, 2.5, None]}),
        ("5", int, 5),
        ("5", float, 5.0),
        ("[1]", list[int], [1]),
        ('"x"', int | str, "x"),
        ('{"a": 1}', dict[str, int], {"a": 1}),
        ('{"type": "Move", "x": 1}', Move, Move(1)),
        ('{"type": "Say", "text": "x"}', Move | Say, Say("x")),
        ('{"x": 1}', Point, Point(1.0)),
        ('{"n": 4}', Even, Even(4)),
        ("7", Annotated[int, msgspec.Meta(gt=5)], 7),
        ("7", Annotated[int, msgspec.Meta(extra={"no": "hash"})], 7),
    ],
)
def test_a_frame_is_read_as_json(data: str, type_: Any, value: object):
    for given in (data, data.encode()):
        for _ in range(2):
            assert Frame(given).json(type_) == value
            assert Frame(given).json(type=type_) == value


@pytest.mark.parametrize(
    ("data", "type_", "reason", "path"),
    [
        ('{"a": {"b": 1}}', dict[str, dict[int, int]], "Expected `int`, got `str` as a key", "$[...]"),
        ('{"n": 5}', Even, "it is odd", "$"),
        ('{"n": 7}', Even, "it is 7 - at `", "$"),
        ("{", None, "the message is not JSON: Input data was truncated", "$"),
        ("", None, "the message is not JSON: Input data was truncated", "$"),
        (b"\xff", None, "the message is not JSON: invalid character (byte 0)", "$"),
        (b'"\xff"', None, "the message is not JSON: ", "$"),
        ('"x"', int, "Expected `int`, got `str`", "$"),
        ('[1, {"a": "x"}]', list[int | dict[str, int]], "Expected `int`, got `str`", "$[1][...]"),
        ("[" * 100_000, None, "the message is JSON that is nested too deeply", "$"),
        ("[1e999]", None, "Number out of range", "$[0]"),
        ('{"n": 3}', Even, "it is odd", "$"),
        ('[{"n": 3}]', list[Even], "it is odd", "$[0]"),
        ("5", Annotated[int, msgspec.Meta(gt=5)], "Expected `int` >= 6", "$"),
    ],
)
def test_a_frame_that_is_none(data: str | bytes, type_: Any, reason: str, path: str):
    frame = Frame(data)
    with pytest.raises(BadMessage) as raised:
        frame.json(type_)
    error = raised.value
    assert error.reason.startswith(reason)
    assert error.path == path
    assert error.data == data
    assert isinstance(error, BadRequest)
    assert isinstance(error, ValueError)
    assert error.status == 400
    assert str(error) == (error.reason if path == "$" else f"{error.reason}, at {path}")


def test_a_close_frame_is_none():
    with pytest.raises(BadMessage):
        CloseFrame(1000).json()


@pytest.mark.parametrize("wrong", [5, "x", lambda: 0, Move | Even | Say])
def test_a_type_that_is_none(wrong: object):
    with pytest.raises(TypeError, match="not supported"):
        Frame("1").json(wrong)


def test_types_that_are_made_all_the_time_are_not_all_kept():
    for _ in range(1000):
        made = msgspec.defstruct("Made", [("x", int)])
        assert Frame('{"x": 1}').json(made) == made(1)
