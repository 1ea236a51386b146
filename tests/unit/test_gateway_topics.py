"""Topics with a history in a gateway that has clients: what it asks for, what clients get and when it asks no more.

The engine is played here: what the real one answers is tested in test_engine_service.py, both together in
tests/property/test_histories.py. How clients catch up: test_catching_up.py.
"""

from collections.abc import Iterator

import pytest

from fuzz.world import records, short
from mooring._core.wire import Command, Mail
from mooring.engine.letters import Ask, Published
from mooring.types import Verdict
from support.followers import COUNT, Room, encode


@pytest.fixture
def room(request: pytest.FixtureRequest) -> Iterator[Room]:
    made = Room(**getattr(request, "param", {}))
    yield made
    made.close()


# ------------------------------------------------------------------ coming


def test_who_comes_with_a_position_gets_what_it_missed_and_then_what_is_new_and_is_told(room: Room):
    engine = room.engine()
    room.follow(1, "a", ("e", 3), question=7)
    assert engine.asked() == [(Mail.FOLLOW, 1, Ask("a", "e", 3))]
    assert room.answers() == []
    engine.publish(5, b"too early: it is among what was missed")
    assert room.heard(1) == []
    engine.found(1, 3, b"4", b"5")
    engine.publish(6, b"6")
    assert room.heard(1) == [b"4", b"5", b"6"]
    assert room.answers() == [(1, 7, [Verdict.RECOVERED, "e", 3])]
    assert [room.heard(who) for who in (0, 2, 3)] == [[], [], []]
    assert engine.asked() == []


def test_who_waits_for_no_answer_gets_none(room: Room):
    engine = room.engine()
    room.follow(0)
    assert engine.follows() == [Ask("a")]
    engine.found(1, 3)
    engine.publish(4, b"x")
    assert room.heard(0) == [b"x"]
    assert room.answers() == []


def test_only_who_comes_gets_what_it_missed(room: Room):
    engine = room.engine()
    room.follow(0)
    engine.found(1, 1)
    engine.publish(2, b"2")
    room.follow(1, "a", ("e", 0))
    engine.publish(3, b"3")
    engine.found(2, 0, b"1", b"2", b"3")
    engine.publish(4, b"4")
    assert room.heard(0) == [b"2", b"3", b"4"]
    assert room.heard(1) == [b"1", b"2", b"3", b"4"]


def test_binary_stays_binary_and_those_left_out_hear_nothing(room: Room):
    engine = room.engine()
    for who in range(3):
        room.follow(who)
        engine.found(who + 1, 0)
    left_out = b"".join(room.fds[who].to_bytes(8, "little") for who in (0, 2))
    engine.publish(1, b"x", exclude=left_out)
    assert [room.heard(who) for who in range(3)] == [[], [b"x"], []]
    engine.say(Mail.PUBLISHED, 2, Published("a", "e", 2, b"\xff", b""))
    assert room.clients[1].receive()[-3:] == b"\x82\x01\xff"


@pytest.mark.parametrize("verdict", [Verdict.TRIMMED, Verdict.ROLLED_BACK, Verdict.UNKNOWN_EPOCH])
def test_who_has_missed_something_is_told_and_hears_what_is_new(room: Room, verdict: Verdict):
    engine = room.engine()
    room.follow(0, "a", ("e", 1), question=9)
    engine.found(1, 3, verdict=verdict, epoch="f")
    engine.publish(6, b"6")
    assert room.heard(0) == [b"6"]
    assert room.answers() == [(0, 9, [verdict, "f", 3])]
    assert (room.gaps, room.said) == (0, []), "it is the client's own position, and it knows"


def test_topics_are_apart(room: Room):
    engine = room.engine()
    room.follow(0, "a")
    room.follow(1, "ä b")
    assert [one.topic for one in engine.follows()] == ["a", "ä b"]
    engine.found(1, 0)
    engine.found(2, 0)
    engine.publish(1, b"x", topic="a")
    engine.publish(1, b"y", topic="ä b")
    engine.publish(1, b"z", topic="other")
    assert (room.heard(0), room.heard(1)) == ([b"x"], [b"y"])


@pytest.mark.parametrize("room", [{"max_topics": 1}], indirect=True, ids=["one"])
def test_one_that_is_in_too_many_topics_is_refused(room: Room):
    engine = room.engine()
    room.follow(0, "a")
    engine.found(1, 0)
    room.follow(0, "b", ("e", 0), question=3)
    engine.asked()
    engine.found(2, 0, b"1")
    assert room.answers() == [(0, 3, None)]
    assert room.heard(0) == []
    assert room.front.gateway.counters["topics_refused"] == 1
    assert engine.asked() == [(Mail.UNFOLLOW, 0, "b")]


def test_who_hears_it_already_and_comes_with_a_position_begins_there_again(room: Room):
    engine = room.engine()
    room.follow(0)
    engine.found(1, 5)
    engine.publish(6, b"6")
    room.follow(0, "a", ("e", 3), question=3)
    engine.publish(7, b"7")
    engine.found(2, 3, *b"4 5 6 7".split())
    engine.publish(8, b"8")
    assert room.answers() == [(0, 3, [Verdict.RECOVERED, "e", 3])]
    assert room.heard(0) == b"6 4 5 6 7 8".split()


def test_who_hears_it_already_and_comes_without_goes_on(room: Room):
    engine = room.engine()
    room.follow(0)
    engine.found(1, 5)
    for _ in range(2):
        room.follow(0)
    engine.publish(6, b"6")
    assert len(engine.follows()) == 2, "of two questions for one thing one is asked"
    engine.found(2, 6)
    engine.publish(7, b"7")
    assert room.heard(0) == [b"6", b"7"]


@pytest.mark.parametrize("room", [{"max_topics": 1}], indirect=True, ids=["one"])
def test_who_hears_it_already_is_not_refused_as_one_too_many(room: Room):
    engine = room.engine()
    room.follow(0)
    engine.found(1, 5)
    room.follow(0)
    engine.found(2, 5)
    assert room.front.gateway.counters["topics_refused"] == 0


def test_of_two_questions_the_second_counts_and_the_first_is_told(room: Room):
    engine = room.engine()
    room.follow(0, "a", ("e", 1), question=4)
    room.follow(0, "a", ("e", 3), question=5)
    assert room.answers() == [(0, 4, None)]
    assert engine.follows() == [Ask("a", "e", 1), Ask("a", "e", 3)]
    engine.found(1, 1, b"2", b"3", b"4")
    assert room.heard(0) == []
    engine.found(2, 3, b"4")
    assert room.heard(0) == [b"4"]
    assert room.answers() == [(0, 5, [Verdict.RECOVERED, "e", 3])]


# ------------------------------------------------------------------ leaving


def test_the_last_one_that_leaves_ends_it(room: Room):
    engine = room.engine()
    for who in (0, 1):
        room.follow(who)
        engine.found(who + 1, 0)
    engine.asked()
    room.leave(0)
    room.leave(3)  # it never was there
    assert engine.asked() == []
    engine.publish(1, b"x")
    assert (room.heard(0), room.heard(1)) == ([], [b"x"])
    room.leave(1)
    assert engine.asked() == [(Mail.UNFOLLOW, 0, "a")]
    engine.publish(2, b"y")  # it was on its way
    room.leave(1)
    assert engine.asked() == []
    assert room.heard(1) == []


def test_who_leaves_and_comes_again_at_once_is_in_order(room: Room):
    engine = room.engine()
    room.follow(0)
    engine.found(1, 0)
    room.leave(0)
    room.follow(0, "a", ("e", 0))
    engine.publish(1, b"1")  # before the engine has read that
    assert engine.asked()[1:] == [(Mail.UNFOLLOW, 0, "a"), (Mail.FOLLOW, 2, Ask("a", "e", 0))]
    engine.found(2, 0, b"1")
    assert room.heard(0) == [b"1"]


def test_as_long_as_somebody_is_about_to_come_the_topic_is_followed(room: Room):
    engine = room.engine()
    room.follow(0)
    engine.found(1, 0)
    room.follow(1, "a", ("e", 0))
    room.leave(0)
    engine.publish(1, b"1")
    assert [mail for mail, _, _ in engine.asked()] == [Mail.FOLLOW, Mail.FOLLOW]
    engine.found(2, 0, b"1")
    assert room.heard(1) == [b"1"]
    assert engine.asked() == []


def test_who_leaves_before_the_answer_is_told_and_hears_nothing(room: Room):
    engine = room.engine()
    room.follow(1)
    engine.found(1, 0)
    room.follow(0, "a", ("e", 0), question=5)
    room.follow(0, "b", ("e", 0), question=6)
    room.leave(0)
    assert room.answers() == [(0, 5, None)]
    engine.found(2, 0, b"1")
    engine.publish(2, b"2")
    assert (room.heard(0), room.heard(1)) == ([], [b"2"])
    engine.found(3, 0, b"of b")
    assert room.heard(0) == [b"of b"], "it has left the other one alone"


def test_if_the_only_one_leaves_before_the_answer_the_engine_hears_of_it(room: Room):
    engine = room.engine()
    room.follow(0)
    room.leave(0)
    engine.found(1, 0)
    engine.publish(1, b"x")
    assert [mail for mail, _, _ in engine.asked()] == [Mail.FOLLOW, Mail.UNFOLLOW]


def test_if_the_only_one_leaves_before_the_answer_who_comes_next_hears_it(room: Room):
    engine = room.engine()
    room.follow(0)
    room.leave(0)
    room.follow(1)
    engine.found(1, 0)
    engine.found(2, 0)
    engine.publish(1, b"x")
    assert (room.heard(0), room.heard(1)) == ([], [b"x"])


def test_who_has_gone_before_the_answer_is_nobody(room: Room):
    engine = room.engine()
    room.follow(0, "a", ("e", 0), question=5)
    room.gone(0)
    engine.found(1, 0, b"1")
    assert room.answers() == [(0, 5, None)]
    assert [mail for mail, _, _ in engine.asked()] == [Mail.FOLLOW, Mail.UNFOLLOW]
    assert room.topics._topics == {}


def test_who_has_gone_is_missed_at_the_next_publication(room: Room):
    engine = room.engine()
    room.follow(0)
    engine.found(1, 0)
    engine.asked()
    room.gone(0)
    engine.publish(1, b"x")
    assert engine.asked() == [(Mail.UNFOLLOW, 0, "a")]
    assert (room.topics._topics, room.topics._asked) == ({}, {})


def test_of_one_that_closes_all_topics_are_given_up_that_nobody_else_hears(room: Room):
    engine = room.engine()
    for number, (who, topic) in enumerate([(0, "a"), (0, "b"), (0, "c"), (1, "b")], 1):
        room.follow(who, topic)
        engine.found(number, 0)
    room.tell_plain(0, "d")
    engine.asked()
    room.gone(0)
    assert sorted(topic for _, _, topic in engine.asked()) == ["a", "c"]
    assert set(room.topics._topics) == {"b"}


def test_a_quiet_topic_whose_last_subscriber_has_closed_is_forgotten(room: Room):
    engine = room.engine()
    room.follow(0)
    engine.found(1, 0)
    engine.asked()
    room.gone(0)
    assert engine.asked() == [(Mail.UNFOLLOW, 0, "a")]
    assert room.topics._topics == {}


# ------------------------------------------------------------------ nonsense


@pytest.mark.parametrize("payload", [b"", b"\xc1", encode(["a", 7]), encode([5, None, 0]), encode(["a", "e", "x"])])
def test_a_command_that_makes_no_sense_has_no_effect(room: Room, payload: bytes):
    engine = room.engine()
    room.worker_end.channel.feed(records(b"\1" + short(Command.FOLLOW, 0, 0, payload), room.fds))
    assert engine.asked() == []
    assert len(room.front.bad) == 1
    room.follow(0)
    assert engine.follows() == [Ask("a")]


def test_an_answer_that_makes_no_sense_or_that_nobody_has_asked_for_has_no_effect(
    room: Room, caplog: pytest.LogCaptureFixture
):
    engine = room.engine()
    room.follow(0)
    engine.found(99, 0, b"x")
    engine.say(Mail.FOLLOWED, 1, ["not", "so"])
    engine.say(Mail.PUBLISHED, 1, 5)
    assert caplog.text.count("made no sense and was ignored") == 2
    engine.found(1, 0, b"1")
    assert room.heard(0) == [b"1"]


def test_a_connection_that_there_never_was_is_answered(room: Room):
    engine = room.engine()
    room.fds.append(room.fds[0] + (1 << 30))
    room.follow(COUNT, "a", ("e", 0), question=4)
    engine.found(1, 0, b"1")
    assert room.answers() == [(COUNT, 4, None)]
    assert [mail for mail, _, _ in engine.asked()] == [Mail.FOLLOW, Mail.UNFOLLOW]
