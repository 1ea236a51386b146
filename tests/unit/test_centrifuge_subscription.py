"""One channel of one client: no gap, no double, no other order, whatever comes when."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from mooring.centrifuge.actions import Followed, SubscribeAnswer
from mooring.centrifuge.commands import ClientInfo, Position, Publication, SubscribeRequest
from mooring.centrifuge.delivery import joined, published
from mooring.centrifuge.subscription import Subscription, Verdict

KEEPS = SubscribeAnswer(recoverable=True, positioned=True)


def pub(offset):
    return Publication(Raw(str(offset).encode()), offset=offset)


def news(offset, epoch="one"):
    return published("news", pub(offset), epoch)


def subscription(answer=KEEPS, **request):
    made = Subscription("news", SubscribeRequest("news", **request))
    made.accept(answer)
    return made


def sent(pairs):
    return [(verdict.name, delivery.offset) for verdict, delivery in pairs]


def test_without_history_everything_goes_out():
    plain = subscription(SubscribeAnswer(), recover=True, offset=4)
    assert plain.since is None
    result = plain.result(Followed(), 0)
    assert (result.recoverable, result.positioned, result.was_recovering, result.epoch) == (False, False, False, "")
    assert plain.go_live() == []
    assert [plain.judge(news(0)) for _ in range(3)] == [Verdict.SEND] * 3


def test_a_new_one_begins_at_the_end():
    new = subscription()
    result = new.result(Followed(Position(14, "one")), 0)
    assert (result.recoverable, result.positioned, result.epoch, result.offset) == (True, True, "one", 14)
    assert (result.recovered, result.was_recovering, result.publications) == (False, False, [])
    assert new.go_live() == []
    assert [new.judge(news(offset)) for offset in (14, 15, 15, 16, 18)] == [
        Verdict.DROP, Verdict.SEND, Verdict.DROP, Verdict.SEND, Verdict.GAP,
    ]  # fmt: skip


def test_recovery_and_what_comes_meanwhile():
    again = subscription(recover=True, offset=11, epoch="one")
    assert again.since == Position(11, "one")
    assert [again.judge(news(offset)) for offset in (13, 14, 15, 16)] == [Verdict.HOLD] * 4
    result = again.result(Followed(Position(14, "one"), True, [pub(12), pub(13), pub(14)]), 0)
    assert (result.recovered, result.was_recovering) == (True, True)
    assert result.offset == 11, "the publications carry it forward"
    assert [one.offset for one in result.publications] == [12, 13, 14]
    assert sent(again.go_live()) == [("DROP", 13), ("DROP", 14), ("SEND", 15), ("SEND", 16)]


def test_a_seam_with_a_gap():
    again = subscription(recover=True, offset=11, epoch="one")
    again.judge(news(14))
    again.result(Followed(Position(12, "one"), True, [pub(12)]), 0)
    assert sent(again.go_live()) == [("GAP", 14)]


@pytest.mark.parametrize(
    ("since", "followed"),
    [
        ((11, "one"), Followed(Position(14, "one"))),  # the engine says no
        ((11, "two"), Followed(Position(14, "one"), True, [pub(12), pub(13), pub(14)])),  # another line of offsets
        ((11, "one"), Followed(Position(14, "one"), True, [pub(12), pub(14)])),  # an engine that has lost one
        ((11, "one"), Followed(Position(14, "one"), True, [pub(13), pub(12), pub(14)])),
        ((11, "one"), Followed(Position(14, "one"), True, [pub(12), pub(12), pub(13)])),
        ((11, "one"), Followed(Position(14, "one"), True, [])),
        ((15, "one"), Followed(Position(14, "one"), True, [])),  # the client is ahead: the engine has lost its end
        ((2**62, "one"), Followed(Position(14, "one"), True, [])),
        ((0, ""), Followed(Position(2**62, "one"), True, [pub(1)])),
    ],
)
def test_what_was_not_recovered_is_said(since, followed):
    again = subscription(recover=True, offset=since[0], epoch=since[1])
    result = again.result(followed, 0)
    assert (result.recovered, result.was_recovering, result.publications) == (False, True, [])
    assert (result.offset, result.epoch) == (followed.position.offset, "one")


@pytest.mark.parametrize("epoch", ["", "one"])
def test_nothing_was_missed(epoch):
    again = subscription(recover=True, offset=14, epoch=epoch)
    result = again.result(Followed(Position(14, "one"), True), 0)
    assert (result.recovered, result.offset, result.epoch) == (True, 14, "one")


def test_another_epoch_is_a_gap():
    live = subscription()
    live.result(Followed(Position(3, "one")), 0)
    live.go_live()
    assert live.judge(news(4, "two")) is Verdict.GAP


@pytest.mark.parametrize(
    ("wanted", "allowed", "forced", "heard"),
    [(True, True, False, True), (False, True, False, False), (True, False, False, False), (False, True, True, True)],
)
def test_joins_are_for_those_who_want_them_and_may(wanted, allowed, forced, heard):
    answer = SubscribeAnswer(join_leave=allowed, force_join_leave=forced)
    live = subscription(answer, join_leave=wanted)
    live.result(Followed(), 0)
    live.go_live()
    assert live.judge(joined("news", ClientInfo("", ""))) is (Verdict.SEND if heard else Verdict.DROP)


def test_joins_wait_like_publications():
    new = subscription(SubscribeAnswer(recoverable=True, join_leave=True), join_leave=True)
    assert new.judge(joined("news", ClientInfo("", ""))) is Verdict.HOLD
    new.result(Followed(Position(3, "one")), 0)
    assert sent(new.go_live()) == [("SEND", 0)]


@given(
    asked=st.integers(0, 8),
    at_answer=st.integers(0, 12),
    more=st.integers(0, 6),
    kept=st.integers(0, 12),
    lost=st.sets(st.integers(1, 18), max_size=2),
    early=st.integers(0, 12),
    recover=st.booleans(),
)
def test_never_a_gap_that_is_not_said(asked, at_answer, more, kept, lost, early, recover):
    """An engine with a history of `kept`; its deliveries begin ahead of its answer, overlap, and some are lost. What
    the client is given is each publication once and in order, up to the point where it is told of a gap."""
    mine = subscription(recover=recover, offset=asked, epoch="one")
    given_to_client, told = [], False
    for offset in range(early + 1, at_answer + 1):
        if offset not in lost:
            mine.judge(news(offset))
    log = [pub(offset) for offset in range(max(1, at_answer - kept + 1), at_answer + 1)]
    found = asked <= at_answer and (not log or asked >= log[0].offset - 1 or asked == at_answer)
    missed = [one for one in log if one.offset > asked]
    answer = Followed(Position(at_answer, "one"), found, missed if found else [])
    result = mine.result(answer, 0)
    expected = asked + 1 if result.recovered else at_answer + 1
    if recover and not result.recovered:
        assert not found or len(missed) != at_answer - asked
    given_to_client += [one.offset for one in result.publications]
    for verdict, delivery in mine.go_live():
        assert verdict is not Verdict.HOLD
        if verdict is Verdict.GAP:
            told = True
            break
        given_to_client += [delivery.offset] * (verdict is Verdict.SEND)
    for offset in range(at_answer + 1, at_answer + more + 1):
        if told:
            break
        if offset not in lost:
            verdict = mine.judge(news(offset))
            told = verdict is Verdict.GAP
            given_to_client += [offset] * (verdict is Verdict.SEND)
    assert max(Counter(given_to_client).values(), default=1) == 1
    assert given_to_client == list(range(expected, expected + len(given_to_client)))
    last = at_answer + more
    if not told and given_to_client and last not in lost:
        assert given_to_client[-1] == last
