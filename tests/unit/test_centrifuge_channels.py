"""The channels of a session, in both encodings."""

import pytest
from msgspec import Raw

from mooring.centrifuge import codes
from mooring.centrifuge.actions import (
    Ask,
    ConnectAnswer,
    Follow,
    Followed,
    Refusal,
    SubscribeAnswer,
    Unfollow,
)
from mooring.centrifuge.commands import (
    ClientInfo,
    Error,
    Position,
    Publication,
    Unsubscribe,
)
from mooring.centrifuge.delivery import joined, published
from mooring.centrifuge.limits import Limits
from mooring.errors import StateError
from support.centrifuge_talk import KEEPS, PING, Talk, news, pushed


@pytest.fixture(params=["json", "protobuf"])
def name(request):
    return request.param


@pytest.fixture
def talk(name):
    return Talk(name)


# ------------------------------------------------------------------------------------------------ begun by the server


def test_server_side_subscriptions_are_in_the_result(talk):
    talk.say(
        {"id": 1, "connect": {"subs": {"news": {"recover": True, "offset": 3, "epoch": "one"}, "gone": {"offset": 1}}}}
    )
    assert talk.answer(ConnectAnswer("ann", subs={"news": KEEPS, "plain": SubscribeAnswer()})) == []
    first, second = talk.rest
    assert (first.channel, first.since) == ("news", Position(3, "one"))
    assert (second.channel, second.since) == ("plain", None)
    talk.session.deliver(news(5), talk.now)
    assert talk.heard() == []
    assert talk.answer(Followed(Position(4, "one"), True, [Publication(Raw(b"1"), offset=4)]), Follow) == []
    reply, push = talk.answer(Followed(), Follow)
    result = reply["connect"]["subs"]
    assert result["plain"] == {}
    assert result["news"] == {
        "recoverable": True,
        "positioned": True,
        "epoch": "one",
        "offset": 3,
        "recovered": True,
        "was_recovering": True,
        "publications": [{"data": 1, "offset": 4}],
    }
    assert push == pushed(5)


def test_one_that_the_engine_refuses_refuses_connect(talk):
    talk.say({"id": 1, "connect": {}})
    talk.answer(ConnectAnswer(subs={"a": KEEPS, "b": KEEPS}))
    [reply] = talk.answer(Refusal(codes.INTERNAL), Follow)
    assert reply["error"]["temporary"]
    assert talk.rest[1:] == [Unfollow("a"), Unfollow("b")]
    talk.session.answer(talk.rest[0].ticket, Refusal(codes.INTERNAL), talk.now)
    assert talk.heard() == []


def test_too_many_of_them(name):
    talk = Talk(name, limits=Limits(channels=1))
    talk.say({"id": 1, "connect": {}})
    talk.answer(ConnectAnswer(subs={"a": KEEPS, "b": KEEPS}))
    assert talk.ended()[0] == 3505


def test_one_more_later(talk):
    talk.connect()
    talk.session.subscribe("news", SubscribeAnswer(recoverable=True, data=Raw(b"5")), talk.now)
    assert talk.heard() == []
    talk.session.deliver(news(8), talk.now)
    told, push = talk.answer(Followed(Position(7, "one")), Follow)
    assert told["push"]["channel"] == "news"
    assert told["push"]["subscribe"] == {
        "recoverable": True, "positioned": True, "epoch": "one", "offset": 7, "data": 5,
    }  # fmt: skip
    assert push == pushed(8)
    talk.session.subscribe("news", KEEPS, talk.now)
    assert (talk.heard(), talk.rest) == ([], [])
    assert talk.say({"id": 2, "subscribe": {"channel": "news"}})[0]["error"]["code"] == 105


def test_a_gap_in_one_ends_the_connection(talk):
    talk.connect()
    talk.session.subscribe("news", KEEPS, talk.now)
    talk.heard()
    talk.answer(Followed(Position(7, "one")), Follow)
    talk.session.deliver(news(9), talk.now)
    talk.heard()
    assert talk.ended()[0] == 3010


def test_it_expires_with_the_connection(talk):
    talk.say({"id": 1, "connect": {}})
    talk.answer(ConnectAnswer(subs={"a": SubscribeAnswer(ttl=30)}))
    [reply] = talk.answer(Followed(), Follow)
    assert reply["connect"]["subs"] == {"a": {}}
    talk.tick(130)
    assert talk.ended()[0] == 3006


@pytest.mark.parametrize("call", ["subscribe", "unsubscribe", "message", "extend", "gap"])
def test_too_early_and_too_late(talk, call):
    arguments = {
        "subscribe": ("a", KEEPS),
        "unsubscribe": ("a",),
        "message": (Raw(b"1"),),
        "extend": (5,),
        "gap": ("a",),
    }[call]
    with pytest.raises(StateError, match="not connected yet"):
        getattr(talk.session, call)(*arguments, talk.now)
    talk.connect()
    talk.session.disconnect(talk.now)
    talk.heard()
    getattr(talk.session, call)(*arguments, talk.now)
    assert talk.heard() == []
    assert talk.ended()[0] == 3503


# ------------------------------------------------------------------------------------------------ subscriptions


def test_subscribe_and_what_is_published(talk):
    talk.connect()
    talk.say({"id": 2, "subscribe": {"channel": "news", "token": "t", "data": 1}})
    assert talk.answer(SubscribeAnswer(Raw(b'"i"'), Raw(b'"d"'), presence=True, announced=True)) == []
    follow = talk.rest[0]
    assert follow.info == ClientInfo("ann", "c1", chan_info=Raw(b'"i"'))
    assert (follow.presence, follow.announced, follow.since) == (True, True, None)
    talk.session.deliver(news(0), talk.now)
    assert talk.heard() == [], "the reply comes first"
    reply, push = talk.answer(Followed(), Follow)
    assert reply == {"id": 2, "subscribe": {"data": "d"}}
    assert push["push"]["pub"] == {"data": 1}
    talk.session.deliver(published("other", Publication(Raw(b"1"))), talk.now)
    assert talk.heard() == []
    assert ("news" in talk.session.channels, len(talk.session.channels)) == (True, 1)


def test_a_gap_unsubscribes_with_a_code_that_recovers(talk):
    talk.connect()
    assert talk.subscribe("news", at=3) == {"recoverable": True, "positioned": True, "epoch": "one", "offset": 3}
    for offset in (4, 4, 5, 7, 8):
        talk.session.deliver(news(offset), talk.now)
    replies = talk.heard()
    assert replies[:2] == [pushed(4), pushed(5)]
    assert replies[2]["push"]["channel"] == "news"
    assert replies[2]["push"]["unsubscribe"]["code"] == 2500
    assert len(replies) == 3
    assert talk.rest == [Unfollow("news")]


def test_a_host_that_delivers_by_itself_says_when_there_is_a_gap(talk):
    talk.connect()
    talk.subscribe("news", at=3)
    talk.session.gap("other", talk.now)
    talk.session.gap("news", talk.now)
    [push] = talk.heard()
    assert push["push"]["unsubscribe"]["code"] == 2500
    assert talk.rest == [Unfollow("news")]
    talk.session.subscribe("mine", KEEPS, talk.now)
    talk.heard()
    talk.session.gap("mine", talk.now)
    talk.heard()
    assert talk.ended()[0] == 3010


@pytest.mark.parametrize("wanted", [True, False])
def test_a_host_is_told_who_hears_of_others(talk, wanted):
    talk.connect()
    talk.say({"id": 2, "subscribe": {"channel": "news", "join_leave": wanted}})
    talk.answer(SubscribeAnswer(join_leave=True))
    assert talk.next(Follow).hears is wanted


def test_recovery_that_fails_where_the_client_wants_to_know(talk):
    talk.connect()
    talk.say({"id": 2, "subscribe": {"channel": "news", "recover": True, "offset": 3, "epoch": "old", "flag": 3}})
    talk.answer(KEEPS)
    [reply] = talk.answer(Followed(Position(5, "one")), Follow)
    assert reply["error"]["code"] == 112
    assert talk.rest == [Unfollow("news")]


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({}, 107),
        ({"channel": "n" * 256}, 106),
        ({"channel": "é" * 128}, 106),
        ({"channel": "news", "tf": {"key": "a", "cmp": "eq", "val": "b"}}, 108),
    ],
)
def test_a_subscribe_that_can_not_be(talk, request_, code):
    talk.connect()
    [reply] = talk.say({"id": 2, "subscribe": request_})
    assert (reply["id"], reply["error"]["code"]) == (2, code)
    assert talk.rest == []
    assert talk.say(PING) == [{"id": 9, "ping": {}}]


@pytest.mark.parametrize("command", ["subscribe", "publish", "sub_refresh"])
def test_maps_and_polls_are_refused(command):
    talk = Talk()
    talk.connect()
    [reply] = talk.say({"id": 2, command: {"channel": "news", "type": 1}})
    assert reply["error"]["code"] == 108


def test_twice_and_too_many(name):
    talk = Talk(name, limits=Limits(channels=2))
    talk.connect()
    talk.subscribe("a")
    talk.subscribe("b")
    assert talk.say({"id": 2, "subscribe": {"channel": "a"}})[0]["error"]["code"] == 105
    assert talk.say({"id": 2, "subscribe": {"channel": "c"}})[0]["error"]["code"] == 106


@pytest.mark.parametrize("why", [codes.PERMISSION_DENIED, Error(404, "mine"), codes.INTERNAL])
def test_a_refused_subscribe(talk, why):
    talk.connect()
    talk.say({"id": 2, "subscribe": {"channel": "news"}})
    [reply] = talk.answer(Refusal(why))
    assert reply["error"]["code"] == why.code
    assert reply["error"].get("temporary", False) is why.temporary
    assert talk.rest == []
    talk.subscribe("news")


def test_unsubscribe(talk):
    talk.connect()
    talk.subscribe("news")
    assert talk.say({"id": 3, "unsubscribe": {"channel": "news"}}) == [{"id": 3, "unsubscribe": {}}]
    assert talk.next(Unfollow).channel == "news"
    assert talk.say({"id": 4, "unsubscribe": {"channel": "never"}}) == [{"id": 4, "unsubscribe": {}}]
    talk.subscribe("news")


def test_unsubscribed_by_the_server(talk):
    talk.connect()
    talk.subscribe("news")
    talk.session.unsubscribe("news", talk.now, Unsubscribe(2502, ""))
    assert talk.heard() == [{"push": {"channel": "news", "unsubscribe": {"code": 2502, "reason": "no reason given"}}}]
    assert talk.rest == [Unfollow("news")]
    talk.session.unsubscribe("news", talk.now)
    assert talk.heard() == []


@pytest.mark.parametrize("when", ["asked", "following"])
def test_unsubscribed_by_the_server_before_it_began(talk, when):
    talk.connect()
    talk.say({"id": 2, "subscribe": {"channel": "news"}}, {"id": 3, "presence": {"channel": "news"}})
    if when == "following":
        talk.answer(KEEPS)
    talk.session.unsubscribe("news", talk.now)
    assert talk.heard() == []
    [reply] = talk.answer(KEEPS) if when == "asked" else talk.answer(Followed(Position(1, "one")), Follow)
    assert (reply["id"], reply["error"]["code"]) == (2, 103)
    assert [type(action) for action in talk.rest] == [Unfollow] * (when == "following") + [Ask]
    assert not talk.rest[-1].subscribed


def test_what_is_ended_and_begun_again_meanwhile_stays(talk):
    """The client's own subscription was ended before it began; the one that the server began since is another one."""
    talk.connect()
    talk.say({"id": 2, "subscribe": {"channel": "news"}})
    ask = talk.next(Ask)
    talk.session.unsubscribe("news", talk.now)
    talk.session.subscribe("news", SubscribeAnswer(), talk.now)
    talk.heard()
    talk.answer(Followed(), Follow)
    talk.session.answer(ask.ticket, KEEPS, talk.now)
    assert talk.heard()[0]["error"]["code"] == 103
    assert talk.rest == []
    talk.session.deliver(news(0), talk.now)
    assert len(talk.heard()) == 1


def test_a_gap_between_the_answer_and_what_came_meanwhile(talk):
    talk.connect()
    talk.say({"id": 2, "subscribe": {"channel": "news"}})
    talk.answer(KEEPS)
    talk.session.deliver(news(9), talk.now)
    talk.session.deliver(news(10), talk.now)
    reply, push = talk.answer(Followed(Position(7, "one")), Follow)
    assert reply["id"] == 2
    assert push["push"]["disconnect"]["code"] == 3010
    assert talk.ended()[0] == 3010


def test_too_much_waits_for_the_engine(name):
    talk = Talk(name, limits=Limits(held_publications=3))
    talk.connect()
    talk.say({"id": 2, "subscribe": {"channel": "news"}})
    talk.answer(KEEPS)
    for offset in range(4):
        talk.session.deliver(news(offset + 1), talk.now)
    talk.heard()
    assert talk.ended()[0] == 3008


def test_joins(talk):
    talk.connect()
    talk.subscribe("news", SubscribeAnswer(join_leave=True), join_leave=True)
    talk.session.deliver(joined("news", ClientInfo("bob", "c2")), talk.now)
    [push] = talk.heard()
    assert push["push"]["join"] == {"info": {"user": "bob", "client": "c2"}}
