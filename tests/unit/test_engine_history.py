"""The history of one topic, by examples; at random: tests/property/test_history.py."""

import pytest

from mooring.engine.history import BOUNDARIES, History
from mooring.types import Position, Verdict


def history(count, most=10, ttl=0.0, epoch="e"):
    made = History(epoch, 0.0)
    for number in range(1, count + 1):
        made.append(0, 1, f"{number}".encode(), float(number), most, ttl)
    return made


def since(made, position, most=100, most_bytes=1000):
    return made.since(position, most, most_bytes)


def offsets(found):
    return [kept.offset for kept in found.publications]


def test_what_is_new_follows_in_order():
    found = since(history(5), Position("e", 2))
    assert (found.verdict, found.position, offsets(found)) == (Verdict.RECOVERED, Position("e", 2), [3, 4, 5])
    assert [kept.data for kept in found.publications] == [b"3", b"4", b"5"]
    assert offsets(since(history(5), Position("e", 2), most=2)) == [3, 4]


def test_who_has_read_everything_misses_nothing():
    assert since(history(5), Position("e", 5)) == (Verdict.RECOVERED, Position("e", 5), [], Position("e", 5))
    assert since(history(0), Position("e", 0)) == (Verdict.RECOVERED, Position("e", 0), [], Position("e", 0))
    assert since(history(5, most=0), Position("e", 5)).verdict is Verdict.RECOVERED


@pytest.mark.parametrize(("most", "offset", "verdict"), [(3, 2, Verdict.RECOVERED), (3, 1, Verdict.TRIMMED)])
def test_what_is_not_kept_is_said(most, offset, verdict):
    found = since(history(5, most=most), Position("e", offset))
    assert found.verdict is verdict
    if verdict is Verdict.TRIMMED:
        assert (found.position, offsets(found)) == (Position("e", 2), [3, 4, 5])


def test_what_is_old_is_forgotten():
    made = history(5, ttl=3.0)
    assert offsets(since(made, Position("e", 2))) == [3, 4, 5]
    made.trim(6.0)
    assert offsets(since(made, Position("e", 3))) == [4, 5]
    assert since(made, Position("e", 2)).verdict is Verdict.TRIMMED
    made.trim(60.0)
    assert (len(made), made.size, made.position) == (0, 0, Position("e", 5))
    assert since(made, Position("e", 5)).verdict is Verdict.RECOVERED


def test_a_position_that_nobody_can_have():
    assert since(history(5), Position("e", 6)) == (Verdict.ROLLED_BACK, Position("e", 5), [], Position("e", 5))
    assert since(history(5), Position("other", 1)) == (Verdict.UNKNOWN_EPOCH, Position("e", 5), [], Position("e", 5))


def test_behind_a_break_the_part_that_was_kept_is_the_same():
    made = history(5)
    made.break_line("f")
    made.append(0, 1, b"six", 6.0, 10, 0.0)
    found = since(made, Position("e", 4))
    assert (found.verdict, found.position, offsets(found)) == (Verdict.RECOVERED, Position("f", 4), [5, 6])
    found = since(made, Position("e", 6))
    assert (found.verdict, found.position, offsets(found)) == (Verdict.ROLLED_BACK, Position("f", 5), [6])
    assert offsets(since(made, Position("f", 5))) == [6]


def test_so_many_breaks_are_remembered():
    made = history(1, epoch="0")
    for number in range(1, BOUNDARIES + 2):
        made.break_line(str(number))
    assert since(made, Position("0", 1)).verdict is Verdict.UNKNOWN_EPOCH
    assert since(made, Position("1", 1)).verdict is Verdict.RECOVERED


def test_what_was_rolled_back_may_be_trimmed_too():
    made = history(5, most=1)
    made.break_line("f")
    for _ in range(3):
        made.append(0, 1, b"new", 6.0, 1, 0.0)
    found = since(made, Position("e", 6))
    assert (found.verdict, found.position, offsets(found)) == (Verdict.ROLLED_BACK, Position("f", 7), [8])


def test_from_the_end_on():
    assert since(history(5), None) == (Verdict.RECOVERED, Position("e", 5), [], Position("e", 5))


@pytest.mark.parametrize(("most_bytes", "count"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3)])
def test_a_part_ends_with_what_fills_it(most_bytes, count):
    made = History("e", 0.0)
    for _ in range(5):
        made.append(0, 1, b"xx", 0.0, 10, 0.0)
    found = since(made, Position("e", 1), most_bytes=most_bytes)
    assert offsets(found) == [2, 3, 4][:count]
    assert found.end == Position("e", 5)
