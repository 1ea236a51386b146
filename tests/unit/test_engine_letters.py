"""What the engine is asked, and what it answers: the payloads say in their order what the table of records says."""

import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mooring.engine.letters import MOST, Append, Appended, Ask, Follow, Form, Found, Judged, Published
from mooring.types import Position, Verdict

SOURCE = Path(__file__).resolve().parents[2] / "src/mooring/_core/wire.toml"

LETTERS: list[tuple[Any, list[Any]]] = [
    (Append("a", Form.JSON, 1, b"{}", 10, 2.5, b"8 bytes."), ["a", 2, 1, b"{}", 10, 2.5, b"8 bytes."]),
    (Appended("e", 7), ["e", 7, "", ""]),
    (Appended("", 0, "why"), ["", 0, "why", ""]),
    (Follow("a"), ["a", None, 0, False]),
    (Follow("a", "e", 3, True), ["a", "e", 3, True]),
    (Ask("a"), ["a", None, 0, MOST]),
    (Ask("a", "e", 3, 100), ["a", "e", 3, 100]),
    (Found(Verdict.TRIMMED, "e", 3, 9, ((4, 1, b"x"),)), [1, "e", 3, 9, [[4, 1, b"x"]], ""]),
    (Published("a", "e", 2, b"\xff", b""), ["a", "e", 2, b"\xff", b""]),
    (Judged("a", Verdict.ROLLED_BACK, "e", 3), ["a", 2, "e", 3]),
]


@pytest.mark.parametrize(("letter", "fields"), LETTERS, ids=[type(letter).__name__ for letter, _ in LETTERS])
def test_each_is_a_list_and_comes_back_as_it_was(letter: Any, fields: list[Any]):
    payload = msgspec.msgpack.encode(letter)
    assert msgspec.msgpack.decode(payload) == fields
    assert msgspec.msgpack.Decoder(type(letter)).decode(payload) == letter


@pytest.mark.parametrize("letter", [letter for letter, _ in LETTERS], ids=lambda letter: type(letter).__name__)
def test_one_that_is_cut_or_of_other_types_makes_no_sense(letter: Any):
    decoder = msgspec.msgpack.Decoder(type(letter))
    fields = msgspec.msgpack.decode(msgspec.msgpack.encode(letter))
    for bad in ([], [object.__name__] * len(fields), {}, 5):
        if bad == [] and not {"topic", "verdict"} & {*letter.__struct_fields__}:
            continue  # Appended, all of whose fields may be missing
        with pytest.raises(msgspec.MsgspecError):
            decoder.decode(msgspec.msgpack.encode(bad))
    with pytest.raises(msgspec.MsgspecError):
        decoder.decode(msgspec.msgpack.encode(letter)[:-1])


@pytest.mark.parametrize("letter", [Follow("a", "e", 3), Ask("a", "e", 3)])
def test_it_begins_at_a_position_or_at_the_end(letter: Any):
    assert letter.position == Position("e", 3)
    assert type(letter)("a").position is None
    assert type(letter)("a", "", 0).position == ("", 0), "who has read nothing"


@pytest.mark.parametrize(
    ("offset", "publications", "top", "end", "is_all"),
    [(3, 0, 3, 3, True), (3, 2, 5, 5, True), (3, 2, 6, 5, False), (3, 0, 4, 3, False)],
)
def test_it_says_where_it_ends_and_whether_that_is_all(
    offset: int, publications: int, top: int, end: int, is_all: bool
):
    some = tuple((offset + number, 1, b"x") for number in range(1, publications + 1))
    found = Found(Verdict.RECOVERED, "e", offset, top, some)
    assert (found.end, found.is_all) == (Position("e", end), is_all)


def test_what_is_found_is_told_in_the_words_of_the_application():
    payload = msgspec.msgpack.encode(Found(Verdict.ROLLED_BACK, "e", 3, 5))
    found = msgspec.msgpack.decode(payload, type=Found)
    assert (found.judged, found.position) == (Verdict.ROLLED_BACK, Position("e", 3))
    assert isinstance(found.judged, Verdict)


@pytest.mark.parametrize(
    ("table", "record", "letter"),
    [
        ("mail", "APPEND", Append),
        ("mail", "APPENDED", Appended),
        ("mail", "FOLLOW", Ask),
        ("mail", "FOLLOWED", Found),
        ("mail", "PUBLISHED", Published),
        ("mail", "JUDGED", Judged),
        ("commands", "FOLLOW", Follow),
    ],
)
def test_the_table_of_records_names_as_many_fields(table: str, record: str, letter: Any):
    payload = tomllib.loads(SOURCE.read_text())[table][record]["payload"]
    listed = re.search(r"msgpack \[(.*)\]", payload)
    assert listed is not None
    names = re.sub(r"\[\[.*?\], \.\.\.\]", "publications", listed[1]).split(", ")
    fields = letter.__struct_fields__
    assert len(names) == len(fields), names
    assert [name for name in names if name in fields] == [name for name in fields if name in names]
