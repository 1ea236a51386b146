"""How publications lie in a stream, and the names of keys and channels."""

import pytest

from mooring.engine.letters import Append
from mooring.engine.redis.options import Options
from mooring.engine.redis.packing import Head, Names, head_of, pack, topic_of, unpack


def test_what_is_packed_comes_back():
    appends = [Append("ü\n", 2, 1, b"\0\xff", 10, 0.0), Append("ü\n", 0, 2, b"", 10, 0.0, b"12345678")]
    data = pack("ü\n".encode(), "node", 7, appends)
    assert topic_of(data) == "ü\n"
    packed = unpack(data)
    assert (packed.publisher, packed.first) == ("node", 7)
    assert packed.publications == [(2, 1, b"\0\xff", b""), (0, 2, b"", b"12345678")]


@pytest.mark.parametrize("data", [b"", b"\0", b"\0\x01", b"\0\x01a", b"\0\x01a\xff", b"\xff\xffa"])
def test_what_somebody_else_has_written_is_a_bad_value(data):
    with pytest.raises(ValueError):
        unpack(data)


def test_a_topic_that_is_no_text_is_a_bad_value():
    with pytest.raises(ValueError):
        topic_of(b"\0\x01\xff")


def test_the_head_of_a_message():
    assert head_of(b"abc 7 e.1 12 3 1500") == Head(b"abc", 7, "e.1", 12, 3, 1.5)
    for line in (b"", b"abc 7 e.1 12 3", b"abc x e.1 12 3 1500"):
        with pytest.raises(ValueError):
            head_of(line)


def test_names_stand_under_the_prefix_and_partitions_are_spread():
    names = Names(Options(prefix="p", partitions=16), "node")
    topic = names.topic("a b")
    assert (topic.facts, topic.stream) == (b"p:m:a b", b"p:s:a b")
    assert names.channel(3) == b"p:p:3"
    assert names.partition_at(names.channel(3)) == 3
    assert {names.topic(f"t{i}").partition for i in range(200)} == set(range(16))
    assert all(
        one.startswith(b"p:") for one in (names.counters, names.facts, names.publisher, names.beat, names.channels)
    )
