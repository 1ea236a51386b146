"""The engine that needs nothing."""

import subprocess
import sys

import pytest

from mooring.engine.history import History
from mooring.engine.memory import IDLE, LOOK, PUBLICATION_BYTES, TOPIC_BYTES, Full, MemoryEngine
from mooring.types import Position, Verdict


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def engine(clock):
    return MemoryEngine(clock, 1 << 20)


def test_each_topic_has_a_line_of_its_own(engine):
    _, one = engine.publish("a", 0, 1, b"x", 10, 0.0)
    _, other = engine.publish("b", 0, 2, b"y", 10, 0.0)
    assert (one.offset, other.offset) == (1, 1)
    assert engine.publish("a", 0, 1, b"z", 10, 0.0)[1].offset == 2


def since(engine, topic, position):
    return engine.since(topic, position, 100, 1000)


def test_who_has_read_nothing_gets_what_there_is(engine):
    for text in (b"1", b"2", b"3"):
        epoch, _ = engine.publish("a", 0, 1, text, 2, 0.0)
    found = since(engine, "a", Position("", 0))
    assert (found.verdict, found.position) == (Verdict.RECOVERED, Position(epoch, 1))
    assert [kept.data for kept in found.publications] == [b"2", b"3"]


def test_a_topic_without_a_publication_costs_nothing_and_has_a_position(engine):
    for position in (None, Position("", 0), Position("other", 3)):
        found = since(engine, "quiet", position)
        assert (len(engine), engine.bytes, list(found.publications)) == (0, 0, [])
    engine.publish("quiet", 0, 1, b"x", 10, 0.0)
    found = since(engine, "quiet", found.position)
    assert (found.verdict, [kept.data for kept in found.publications]) == (Verdict.RECOVERED, [b"x"])


def test_a_topic_that_is_forgotten_begins_anew(engine, clock):
    epoch, _ = engine.publish("a", 0, 1, b"x", 10, 5.0)
    clock.now += 6
    engine.sweep()
    assert len(engine) == 1
    assert since(engine, "a", Position(epoch, 1)).verdict is Verdict.RECOVERED
    clock.now += IDLE
    engine.sweep()
    assert (len(engine), engine.bytes) == (0, 0)
    assert since(engine, "a", Position(epoch, 1)).verdict is Verdict.UNKNOWN_EPOCH


def test_two_lives_have_no_epoch_in_common(clock):
    epochs = {MemoryEngine(clock, 1 << 20).publish("a", 0, 1, b"", 1, 0.0)[0] for _ in range(10)}
    assert len(epochs) == 10


def test_above_its_limit_it_refuses_and_nothing_has_happened(clock):
    engine = MemoryEngine(clock, 2 * (TOPIC_BYTES + PUBLICATION_BYTES + 100))
    engine.publish("a", 0, 1, b"x" * 100, 10, 5.0)
    before = engine.bytes
    with pytest.raises(Full):
        engine.publish("b", 0, 1, b"x" * 1000, 10, 5.0)
    assert (len(engine), engine.bytes) == (1, before)
    clock.now += 6  # what is too old makes room
    assert engine.publish("a", 0, 1, b"x" * 100, 10, 5.0)[1].offset == 2
    assert engine.bytes == before


def test_a_topic_that_has_all_it_may_goes_on_when_there_is_no_room_for_more(clock):
    engine = MemoryEngine(clock, TOPIC_BYTES + 3 * (PUBLICATION_BYTES + 100))
    for _ in range(3):
        engine.publish("a", 0, 1, b"x" * 100, 3, 0.0)
    with pytest.raises(Full):
        engine.publish("b", 0, 1, b"", 3, 0.0)
    with pytest.raises(Full):
        engine.publish("a", 0, 1, b"x" * 100, 4, 0.0)  # as many again are not there yet
    with pytest.raises(Full):
        engine.publish("a", 0, 1, b"x" * 101, 3, 0.0)
    before = engine.bytes
    for number in range(4, 10):
        assert engine.publish("a", 0, 1, b"y" * 100, 3, 0.0)[1].offset == number
    assert engine.bytes == before


def test_where_there_is_no_room_few_are_looked_at_for_each_publication(clock, monkeypatch):
    """With 300,000 topics a look at all of them takes half a second, in which nothing is published."""
    engine = MemoryEngine(clock, 5 * LOOK * (TOPIC_BYTES + PUBLICATION_BYTES))
    for number in range(5 * LOOK):
        engine.publish(f"{number}", 0, 1, b"", 1, 5.0)
    looks = []
    monkeypatch.setattr(History, "trim", lambda self, now: looks.append(self))
    for _ in range(10):
        with pytest.raises(Full):
            engine.publish("another", 0, 1, b"", 1, 5.0)
    assert len(looks) <= 10 * LOOK
    assert len(set(looks)) == 5 * LOOK  # and in time at all


def test_topics_of_which_nothing_is_kept_make_room(clock):
    """A server has a topic for each visit, of which it keeps a minute; a day's visits shall not silence it."""
    engine = MemoryEngine(clock, 1 << 20)
    epochs = []
    for visit in range(10_000):
        epochs.append(engine.publish(f"visit-{visit}", 0, 1, b"x" * 10, 10, 60.0)[0])
        clock.now += 1
    assert since(engine, f"visit-{visit}", Position(epochs[-1], 1)).verdict is Verdict.RECOVERED
    assert since(engine, "visit-0", Position(epochs[0], 1)).verdict is Verdict.UNKNOWN_EPOCH


def test_a_round_of_sweeping_comes_to_all(engine, clock):
    for number in range(10):
        engine.publish(f"{number}", 0, 1, b"", 1, 5.0)
    clock.now += 6 + IDLE
    assert [engine.sweep(4) for _ in range(3)] == [False, False, True]
    assert (len(engine), engine.bytes) == (0, 0)


def test_a_topic_takes_about_what_is_said():
    code = """
from mooring.engine.memory import MemoryEngine
def taken():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
engine = MemoryEngine(lambda: 0.0, 1 << 30)
before = taken()
for number in range(50_000):
    engine.publish(f"user:{number}", 0, 1, b"%20d" % number, 10, 0.0)
print((taken() - before) / engine.bytes)
"""
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60).stdout
    assert 0.5 < float(said) < 1.3
