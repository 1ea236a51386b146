"""What the server's answers mean, also where somebody else has been at the streams."""

import asyncio

import pytest

from mooring.engine.letters import MOST, Append
from mooring.engine.redis.options import Options
from mooring.engine.redis.packing import Names, pack
from mooring.engine.redis.reading import Question, ask
from mooring.types import Position, Verdict


def entry(last, *texts, publisher="node", first=1):
    data = pack(b"a", publisher, first, [Append("a", 0, 1, text, 1, 0.0) for text in texts])
    fields = [b"n", b"%d" % len(texts), b"p", publisher.encode(), b"l", b"1", b"t", b"2000", b"d", data]
    return [b"%d-0" % last, fields]


class Answering:
    """A pair of connections whose script has answered already."""

    def __init__(self, *answers):
        self.answers = list(answers)

    async def script(self, script, keys, arguments):
        self.keys, self.arguments = keys, arguments
        return self.answers


def found(entries, *, verdict=0, begin=0, top=9, latest=(), most=MOST, most_bytes=MOST, position=Position("e", 0)):
    pair = Answering([verdict, b"%d" % begin, b"e", b"%d" % top, entries, list(latest)])
    question = Question("a", position, most, most_bytes)
    return asyncio.run(ask(pair, Names(Options(), "node"), Options(), "fresh", [question]))[0]


def test_entries_are_taken_apart():
    one = found([entry(2, b"1", b"2", first=5), entry(3, b"3", publisher="other", first=1)], top=3)
    assert (one.verdict, one.begin, one.end, one.until) == (Verdict.RECOVERED, ("e", 0), ("e", 3), ("e", 3))
    assert [(x.kept.offset, x.kept.data, x.publisher, x.number) for x in one.publications] == [
        (1, b"1", "node", 5),
        (2, b"2", "node", 6),
        (3, b"3", "other", 1),
    ]
    assert {x.kept.at for x in one.publications} == {2.0}


def test_what_is_before_the_place_is_left_out():
    one = found([entry(3, b"1", b"2", b"3")], begin=2, top=3)
    assert [x.kept.data for x in one.publications] == [b"3"]
    assert one.publications[0].number == 3


def test_behind_a_hole_it_goes_on_as_trimmed():
    one = found([entry(1, b"1"), entry(2, b"2"), entry(4, b"4"), entry(5, b"5")], top=5)
    assert (one.verdict, one.begin) == (Verdict.TRIMMED, ("e", 3))
    assert [x.kept.offset for x in one.publications] == [4, 5]


def test_what_somebody_else_has_written_is_a_hole():
    strange = [b"2-0", [b"x", b"y"]]
    one = found([entry(1, b"1"), strange, entry(3, b"3")], top=3)
    assert (one.verdict, one.begin) == (Verdict.TRIMMED, ("e", 2))
    assert [x.kept.offset for x in one.publications] == [3]
    assert found([strange], top=2).publications == []


def test_a_worse_verdict_stays():
    one = found([entry(5, b"5")], verdict=2, begin=3, top=5)
    assert (one.verdict, one.begin) == (Verdict.ROLLED_BACK, ("e", 4))


def test_nothing_above_the_end():
    assert [x.kept.offset for x in found([entry(1, b"1"), entry(2, b"2")], top=1).publications] == [1]


@pytest.mark.parametrize(
    ("most", "most_bytes", "texts"),
    [(2, MOST, [b"1", b"22"]), (0, MOST, []), (MOST, 1, [b"1"]), (MOST, 2, [b"1", b"22"]), (MOST, 0, [])],
)
def test_a_part_of_it(most, most_bytes, texts):
    one = found([entry(3, b"1", b"22", b"333")], top=3, most=most, most_bytes=most_bytes)
    assert [x.kept.data for x in one.publications] == texts
    assert one.until == ("e", len(texts))
    assert one.end == ("e", 3)


def test_of_each_publisher_the_highest_number_is_known():
    latest = [b"x", b"9", b"y", b"4", b"x", b"7"]  # the newest first
    assert found([], top=0, latest=latest).latest == {"x": 9, "y": 4}


def test_why_there_is_no_answer():
    pair = Answering([b"OOM"], [0, b"0", b"e", b"0", [], []])
    questions = [Question("a", None, 1, 1), Question("b", Position("e", 3), 5, 6)]
    first, second = asyncio.run(ask(pair, Names(Options(), "node"), Options(), "fresh", questions))
    assert first.why == "OOM"
    assert second.why == ""
    assert pair.arguments[3:] == ["end", "", 0, 1, 1, "from", "e", 3, 5, 6]
