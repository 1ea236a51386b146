"""The header fields of an answer, as they are kept until it is sent."""

import pytest

from mooring.app import fields


def test_a_field_is_there_however_it_is_written():
    assert fields.has([("X-A", "1"), ("DATE", "now")], "date")
    assert not fields.has([("X-Date", "now")], "date")
    assert not fields.has([], "date")


def test_what_is_replaced_stands_last_and_once():
    kept = [("A", "1"), ("b", "2"), ("a", "3")]
    same = kept
    fields.replace(kept, "A", "4")
    assert kept == [("b", "2"), ("A", "4")]
    assert kept is same, "the answer's own list"


@pytest.mark.parametrize(
    ("before", "added"),
    [
        ([], True),
        (["Cookie"], True),
        (["Cookie, Origin", "User-Agent"], True),
        (["X-Accept-Encoding"], True),
        (["*"], False),
        (["Cookie", "Origin , Accept-Encoding"], False),
        (["accept-ENCODING"], False),
    ],
)
def test_who_keeps_answers_is_told_once_that_they_differ(before: list[str], added: bool):
    kept = [("Vary", value) for value in before]
    fields.vary(kept)
    assert kept == [*(("Vary", value) for value in before), *([("Vary", "Accept-Encoding")] * added)]
    again = list(kept)
    fields.vary(again)
    assert again == kept


@pytest.mark.parametrize(("tag", "weak"), [('"a"', 'W/"a"'), ('W/"a"', 'W/"a"'), ('""', 'W/""')])
def test_a_tag_is_weakened_once(tag: str, weak: str):
    kept = [("etag", tag)]
    fields.weaken(kept)
    assert [value for _, value in kept] == [weak]


def test_without_a_tag_there_is_none_to_weaken():
    kept = [("X-ETag", '"a"')]
    fields.weaken(kept)
    assert kept == [("X-ETag", '"a"')]
