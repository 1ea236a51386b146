"""Clients that catch up in a gateway: each on its own, in parts, and all of them when there is another engine."""

from collections.abc import Iterator

import msgspec
import pytest

from mooring._core.wire import Mail
from mooring.engine.letters import Ask, Published
from mooring.types import Position, Verdict
from support.followers import Room


@pytest.fixture
def room(request: pytest.FixtureRequest) -> Iterator[Room]:
    made = Room(**getattr(request, "param", {}))
    yield made
    made.close()


# ------------------------------------------------------------------ in parts


def test_what_does_not_fit_comes_in_parts_and_it_hears_the_topic_behind_the_last_one(room: Room):
    engine = room.engine()
    room.follow(1)
    engine.found(1, 5)
    room.follow(0, "a", ("e", 1), question=4)
    engine.asked()
    engine.found(2, 1, b"2", b"3", top=5)
    assert engine.asked() == [(Mail.FOLLOW, 3, Ask("a", "e", 3))]
    engine.publish(6, b"6")
    assert room.heard(0) == [b"2", b"3"]
    assert room.answers() == []
    engine.found(3, 3, b"4", top=6)
    engine.found(4, 4, b"5", b"6")
    engine.publish(7, b"7")
    assert room.heard(0) == b"2 3 4 5 6 7".split()[2:]
    assert room.heard(1) == [b"6", b"7"]
    assert room.answers() == [(0, 4, [Verdict.RECOVERED, "e", 1])]


def test_a_later_part_that_is_not_there_any_more_gives_its_verdict(room: Room):
    engine = room.engine()
    room.follow(0, "a", ("e", 1), question=4)
    engine.found(1, 1, b"2", top=9)
    engine.found(2, 6, b"7", verdict=Verdict.TRIMMED, top=9)
    engine.found(3, 7, b"8", b"9")
    assert room.heard(0) == b"2 7 8 9".split()
    assert room.answers() == [(0, 4, [Verdict.TRIMMED, "e", 6])]


class Slow:
    """The client 0, which is sent more than it takes."""

    def __init__(self, room: Room) -> None:
        self.room = room
        self.engine = room.engine()
        self.large = bytes(600_000)  # more than a socket and write_high_water, less than write_limit
        room.follow(0, "a", ("e", 0), question=4)
        self.engine.asked()
        self.engine.found(1, 0, self.large, top=3)

    def read(self) -> None:
        """Until it has got everything."""
        for _ in range(500):
            self.room.clients[0].receive()
            self.room.loop.turn(1)


def test_a_slow_client_is_asked_for_no_more_until_it_has_taken_what_it_has(room: Room):
    slow = Slow(room)
    assert slow.engine.asked() == []
    slow.read()
    assert slow.engine.asked() == [(Mail.FOLLOW, 2, Ask("a", "e", 1))]
    slow.engine.found(2, 1, b"2", b"3")
    assert room.clients[0].receive().endswith(b"\x81\x012\x81\x013")
    assert room.answers() == [(0, 4, [Verdict.RECOVERED, "e", 0])]


def test_a_slow_client_that_goes_or_leaves_is_waited_for_no_longer(room: Room):
    slow = Slow(room)
    room.leave(0)
    assert room.answers() == [(0, 4, None)]
    slow.read()
    assert Mail.FOLLOW not in [mail for mail, _, _ in slow.engine.asked()]
    room.follow(0, "b", ("e", 0), question=5)
    slow.engine.found(2, 0, slow.large, top=3)
    room.gone(0)
    assert room.answers() == [(0, 5, None)]
    assert room.topics._topics == {}


def test_a_slow_client_waits_until_the_others_have_caught_up(room: Room):
    slow = Slow(room)
    room.follow(1, "a")
    slow.engine.found(2, 3)
    slow.engine.end()
    engine = room.engine()
    assert engine.asked() == [(Mail.FOLLOW, 3, Ask("a", "e", 3))]
    slow.read()
    assert engine.asked() == []
    engine.found(3, 3, b"4", top=5)
    engine.found(4, 4, b"5")
    assert [letter for mail, _, letter in engine.asked() if letter.offset < 4] == [Ask("a", "e", 1)]
    assert room.heard(1) == [b"4", b"5"]


# ------------------------------------------------------------------ the engine's lives


def test_who_comes_while_there_is_no_engine_is_asked_for_when_there_is(room: Room):
    room.follow(0, "a", ("e", 3), question=5)
    room.follow(1, "a")
    room.follow(2, "a")
    room.leave(2)
    engine = room.engine()
    (_, one, asked), (_, other, from_now_on) = engine.asked()
    assert (asked, from_now_on) == (Ask("a", "e", 3), Ask("a"))
    engine.found(one, 3, b"4")
    engine.found(other, 4)
    assert (room.heard(0), room.heard(1), room.heard(2)) == ([b"4"], [], [])
    assert room.answers() == [(0, 5, [Verdict.RECOVERED, "e", 3])]


def test_a_new_engine_is_asked_for_all_from_where_they_stood_and_then_for_those_who_come(room: Room):
    first = room.engine()
    for who, topic in enumerate("ab"):
        room.follow(who, topic)
        first.found(who + 1, 5)
    first.publish(6, b"6")
    room.follow(2, "a", ("e", 2), question=8)
    room.follow(3, "c", ("e", 0))
    first.end()
    second = room.engine()
    asked = second.asked()
    assert [letter for _, _, letter in asked] == [Ask("a", "e", 6), Ask("b", "e", 5), Ask("c", "e", 0)]
    numbers = [number for _, number, _ in asked]
    assert min(numbers) > 4, "an answer of the first one can't be taken for the second one's"
    second.found(3, 2, b"old")
    assert room.heard(2) == []
    second.found(numbers[0], 6, b"7", b"8")
    second.found(numbers[1], 5)
    [(_, number, letter)] = second.asked()
    assert letter == Ask("a", "e", 2), "it comes behind the others"
    second.found(number, 2, *b"3 4 5 6 7 8".split())
    second.publish(9, b"9")
    assert room.heard(0) == [b"6", b"7", b"8", b"9"]
    assert room.heard(1) == []
    assert room.heard(2) == b"3 4 5 6 7 8 9".split()
    assert (room.gaps, room.said) == (0, [])
    assert second.asked() == []


def test_what_is_asked_of_one_that_ends_at_once_is_asked_of_the_next(room: Room):
    first = room.engine()
    room.follow(0)
    first.found(1, 5)
    room.follow(1, "a", ("e", 5))
    for _ in range(3):
        room.engine().end()
    last = room.engine()
    [(_, number, letter)] = last.asked()
    assert letter == Ask("a", "e", 5)
    last.found(number, 5)
    assert last.follows() == [Ask("a", "e", 5)]


@pytest.mark.parametrize("positions", [False, True])
@pytest.mark.parametrize("verdict", [Verdict.TRIMMED, Verdict.ROLLED_BACK, Verdict.UNKNOWN_EPOCH])
def test_if_the_new_one_does_not_know_the_place_it_is_said_and_they_get_what_there_is(
    room: Room, verdict: Verdict, positions: bool
):
    first = room.engine()
    room.follow(0, positions=positions)
    first.found(1, 5)
    first.end()
    second = room.engine()
    [(_, number, _)] = second.asked()
    second.found(number, 2, b"3", verdict=verdict, epoch="f")
    second.say(Mail.PUBLISHED, 4, Published("a", "f", 1, b"4", b""))
    *told, third, fourth = room.heard(0)
    assert (third, fourth) == (b"3", b"4")
    named = {"topic": "a", "epoch": "f", "offset": 2, "verdict": verdict.name.lower()}
    assert [msgspec.json.decode(one) for one in told] == [named] * positions
    assert room.gaps == 1
    [line] = room.said
    assert line == f"subscribers of a may have missed something that the engine has lost ({verdict.name.lower()})"
    second.end()
    assert room.engine().follows() == [Ask("a", "f", 4)]


def test_who_comes_while_all_catch_up_comes_behind_them(room: Room):
    first = room.engine()
    room.follow(0)
    first.found(1, 5)
    first.end()
    room.follow(1, "a", ("e", 4), question=3)
    second = room.engine()
    room.follow(2)
    room.follow(3, "a", ("e", 1))
    room.leave(3)
    assert second.asked() == [(Mail.FOLLOW, 3, Ask("a", "e", 5))]
    second.publish(99, b"nobody is told that: it follows nothing yet")
    second.found(3, 5, b"6", top=7)
    second.found(4, 6, b"7")
    asked = second.asked()
    assert [letter for _, _, letter in asked] == [Ask("a", "e", 6), Ask("a", "e", 4), Ask("a")]
    second.publish(8, b"8")
    second.found(asked[1][1], 4, *b"5 6 7 8".split())
    second.found(asked[2][1], 8)
    second.publish(9, b"9")
    assert room.heard(0) == b"6 7 8 9".split()
    assert room.heard(1) == b"5 6 7 8 9".split()
    assert (room.heard(2), room.heard(3)) == ([b"9"], [])
    assert room.answers() == [(1, 3, [Verdict.RECOVERED, "e", 4])]


def test_all_that_catch_up_go_on_from_where_they_are_with_the_next_engine(room: Room):
    first = room.engine()
    room.follow(0)
    first.found(1, 5)
    first.end()
    second = room.engine()
    second.found(2, 5, b"6", b"7", top=9)
    second.end()
    third = room.engine()
    assert third.follows() == [Ask("a", "e", 7)]
    third.found(4, 7, b"8", b"9")
    third.end()
    assert room.engine().follows() == [Ask("a", "e", 9)]
    assert room.heard(0) == b"6 7 8 9".split()


def test_if_the_last_one_leaves_while_all_catch_up_the_engine_hears_of_it_in_the_end(room: Room):
    first = room.engine()
    room.follow(0)
    first.found(1, 5)
    first.end()
    second = room.engine()
    room.leave(0)
    second.found(2, 5, b"6", top=7)
    second.found(3, 6, b"7")
    assert second.asked()[-1] == (Mail.UNFOLLOW, 0, "a")
    assert (room.topics._topics, room.topics._asked) == ({}, {})


def test_who_had_a_first_part_goes_on_behind_it_with_the_next_engine(room: Room):
    first = room.engine()
    room.follow(1)
    first.found(1, 5)
    room.follow(0, "a", ("e", 1))
    first.found(2, 1, b"2", b"3", top=5)
    first.end()
    second = room.engine()
    [(_, number, _)] = second.asked()
    second.found(number, 5)
    assert second.follows() == [Ask("a", "e", 3)]


def test_who_had_a_first_part_goes_on_behind_it_if_nobody_else_is_there(room: Room):
    first = room.engine()
    room.follow(0, "a", ("e", 1))
    first.found(1, 1, b"2", b"3", top=5)
    first.end()
    assert room.engine().follows() == [Ask("a", "e", 3)]


def test_who_waits_behind_others_that_go_is_not_forgotten_with_the_next_engine(room: Room):
    first = room.engine()
    room.follow(0)
    first.found(1, 5)
    first.end()
    second = room.engine()
    room.follow(1, "a", ("e", 2), question=5)
    room.gone(0)
    second.end()
    third = room.engine()
    assert [letter for _, _, letter in third.asked()] == [Ask("a", "e", 2)]


def test_if_all_go_while_they_catch_up_the_next_engine_is_asked_for_nothing(room: Room):
    first = room.engine()
    room.follow(0)
    first.found(1, 5)
    first.end()
    second = room.engine()
    room.gone(0)
    second.end()
    assert [mail for mail, _, _ in room.engine().asked() if mail == Mail.FOLLOW] == []
    assert (room.topics._topics, room.topics._asked) == ({}, {})


def test_the_next_engine_is_not_asked_for_who_has_left(room: Room):
    first = room.engine()
    room.follow(0, "a", ("e", 2))
    room.leave(0)
    first.end()
    assert room.engine().asked() == []


def test_one_that_was_too_slow_asks_again_for_all_it_follows(room: Room):
    engine = room.engine()
    for who, topic in enumerate("ab"):
        room.follow(who, topic)
        engine.found(who + 1, 5)
    engine.publish(6, b"6")
    engine.asked()
    engine.behind()
    asked = engine.asked()
    assert [letter for _, _, letter in asked] == [Ask("a", "e", 6), Ask("b", "e", 5)]
    engine.found(asked[0][1], 6, b"7")
    engine.found(asked[1][1], 5)
    assert (room.heard(0), room.heard(1)) == ([b"6", b"7"], [])
    assert room.gaps == 0


def test_what_comes_while_all_catch_up_is_in_what_they_get_then(room: Room):
    """Somebody has come just before the gateway heard that it is behind: the engine follows for that question."""
    engine = room.engine()
    room.follow(1)
    engine.found(1, 5)
    room.follow(0, "a", ("e", 5), question=4)
    engine.asked()
    engine.behind()
    engine.found(2, 5, b"6")
    engine.publish(7, b"7")
    assert room.heard(1) == []
    engine.found(3, 5, b"6", b"7")
    assert room.heard(1) == [b"6", b"7"]
    engine.found(4, 5, b"6", b"7")
    assert room.heard(0) == [b"6", b"7"]
    engine.publish(8, b"8")
    assert (room.heard(0), room.heard(1)) == ([b"8"], [b"8"])


def test_if_nobody_is_left_who_hears_it_nothing_is_missed(room: Room):
    first = room.engine()
    room.follow(0)
    first.found(1, 5)
    first.end()
    room.gone(0)
    second = room.engine()
    assert second.asked() == []
    assert (room.gaps, room.said, room.topics._topics) == (0, [], {})


def test_who_leaves_while_there_is_no_engine_is_not_asked_for(room: Room):
    first = room.engine()
    room.follow(0)
    first.found(1, 5)
    first.end()
    room.leave(0)
    assert room.engine().asked() == []


def test_a_client_with_a_verdict_does_not_change_where_the_others_stand(room: Room):
    first = room.engine()
    room.follow(0)
    first.found(1, 5)
    first.publish(6, b"6")
    room.follow(1, "a", ("e", 1), question=1)
    first.found(2, 3, b"4", verdict=Verdict.TRIMMED, top=6)
    assert room.topics._topics["a"].position == Position("e", 6)
    first.found(3, 4, b"5", b"6")
    assert room.answers() == [(1, 1, [Verdict.TRIMMED, "e", 3])]
    first.end()
    assert room.engine().follows() == [Ask("a", "e", 6)]


# ------------------------------------------------------------------ at the end


@pytest.mark.parametrize("asked", ["before", "behind"])
def test_in_a_drain_nobody_waits_until_somebody_has_caught_up(room: Room, asked: str):
    """The engine has ended, and no other one comes: the handler that waits would hold the stop up to its limit."""
    engine = room.engine()
    if asked == "before":
        room.follow(0, "a", ("e", 1), question=4)
        engine.end()
        assert room.answers() == []
    room.front.gateway.drain(5.0, 1001, lambda _counts: None)
    if asked == "behind":
        room.follow(0, "a", ("e", 1), question=4)
    assert room.answers() == [(0, 4, None)]
    room.topics.on_engine()
    assert room.topics._topics == {}
