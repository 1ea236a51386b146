"""A session, told what happens and asked what is to be done, in both encodings."""

import pytest
from msgspec import Raw

from mooring.centrifuge import codes
from mooring.centrifuge.actions import (
    Ask,
    Close,
    ConnectAnswer,
    Done,
    Follow,
    Followed,
    RefreshAnswer,
    Refusal,
    RpcAnswer,
    Send,
    SubscribeAnswer,
    Tell,
    Unfollow,
)
from mooring.centrifuge.claims import ConnectionClaims, SubscriptionClaims, TokenError, TokenExpired
from mooring.centrifuge.commands import (
    ClientInfo,
    ConnectRequest,
    Disconnect,
    HistoryResult,
    PresenceResult,
    PresenceStatsResult,
    Publication,
)
from mooring.centrifuge.core import State
from mooring.centrifuge.delivery import published
from mooring.centrifuge.limits import Limits, Timing
from support.centrifuge_talk import PING, Talk, news


@pytest.fixture(params=["json", "protobuf"])
def name(request):
    return request.param


@pytest.fixture
def talk(name):
    return Talk(name)


# ------------------------------------------------------------------------------------------------ connect


def test_connect(talk):
    assert talk.say({"id": 7, "connect": {"token": "t", "data": {"a": 1}, "name": "js", "headers": {"h": "v"}}}) == []
    [ask] = talk.rest
    assert isinstance(ask, Ask)
    assert (ask.request.token, ask.request.name, ask.request.headers, ask.claims) == ("t", "js", {"h": "v"}, None)
    assert talk.session.state is State.CONNECTING
    assert talk.answer(ConnectAnswer("ann", data=Raw(b'"hi"'))) == [
        {"id": 7, "connect": {"client": "c1", "data": "hi", "ping": 25, "pong": True}}
    ]
    assert (talk.session.state, talk.session.user) == (State.CONNECTED, "ann")


def test_session_node_and_version_are_told():
    talk = Talk(session="secret", node="n1", version="mooring 1", timing=Timing(ping_interval=0))
    assert talk.connect() == {"client": "c1", "version": "mooring 1", "session": "secret", "node": "n1"}


@pytest.mark.parametrize(
    ("commands", "reason"),
    [
        ([{"id": 1, "subscribe": {"channel": "a"}}], "a command before connect"),
        ([{"send": {"data": 1}}], "a command before connect"),
        ([PING], "a command before connect"),
        ([{}], "a pong without a ping"),
        ([{"id": 1, "connect": {}}, {"id": 2, "connect": {}}], "a second connect"),
        ([{"connect": {}}], "a command without an id"),
        ([{"id": 1, "connect": {}, "rpc": {}}], "a command with more than one request"),
        ([{"id": 1, "connect": {}}, {}], "a pong without a ping"),
    ],
)
def test_what_breaks_the_protocol(talk, commands, reason):
    talk.say(*commands)
    assert talk.ended() == (3501, reason)
    assert talk.session.state is State.CLOSED


@pytest.mark.parametrize("command", [{"id": 3, "connect": {}}, {}, {"rpc": {}}, {"id": 3, "rpc": {}, "ping": {}}])
def test_what_breaks_it_later(talk, command):
    talk.connect()
    talk.say(command)
    assert talk.ended()[0] == 3501


def test_commands_that_come_with_connect_wait_for_it(talk):
    assert talk.say({"id": 1, "connect": {}}, {"id": 2, "subscribe": {"channel": "a"}}, PING) == []
    assert len(talk.rest) == 1
    replies = talk.answer(ConnectAnswer())
    assert [reply["id"] for reply in replies] == [1, 9]
    assert talk.next(Ask).request.channel == "a"


def test_a_refused_connect_is_the_only_reply(talk):
    talk.say({"id": 1, "connect": {}}, {"id": 2, "subscribe": {"channel": "a"}}, PING)
    assert talk.answer(Refusal(codes.UNAUTHORIZED)) == [
        {"id": 1, "error": {"code": 101, "message": "a valid token is needed"}}
    ]
    assert talk.rest == []
    assert talk.session.deadline == 110
    talk.say(PING)
    assert talk.ended()[0] == 3501


def test_who_stays_after_a_refusal_is_ended(talk):
    talk.say({"id": 1, "connect": {}})
    talk.now = 105
    talk.answer(Refusal(codes.UNAUTHORIZED))
    talk.tick(114.9)
    assert talk.rest == []
    talk.tick(115)
    assert talk.ended()[0] == 3502


def test_the_application_may_end_it(talk):
    talk.say({"id": 1, "connect": {}})
    assert talk.answer(Refusal(Disconnect(4500, "no"))) == [{"push": {"disconnect": {"code": 4500, "reason": "no"}}}]
    assert talk.rest == [Close(4500, "no")]


def test_no_connect_in_time(talk):
    assert talk.session.deadline == 110
    talk.tick(109.9)
    assert talk.rest == []
    talk.tick(110)
    assert talk.ended()[0] == 3502
    assert talk.session.deadline is None


def test_an_answer_to_something_else(talk):
    talk.say({"id": 1, "connect": {}})
    ticket = talk.rest[0].ticket
    with pytest.raises(TypeError, match="give a ConnectAnswer or a Refusal"):
        talk.session.answer(ticket, Done(), talk.now)
    assert talk.answer(ConnectAnswer()), "it is still open"
    talk.session.answer(ticket, ConnectAnswer(), talk.now)
    assert talk.heard() == []


# ------------------------------------------------------------------------------------------------ turns


def test_commands_of_one_channel_wait_for_each_other(talk):
    """Others don't: a slow subscribe holds up what follows it in its channel, and nothing else."""
    talk.connect()
    replies = talk.say(
        {"id": 2, "subscribe": {"channel": "a"}},
        {"id": 3, "publish": {"channel": "a", "data": 1}},
        {"id": 4, "publish": {"channel": "b", "data": 2}},
        {"id": 5, "rpc": {"method": "m"}},
        {"id": 6, "unsubscribe": {"channel": "a"}},
        {"id": 7, "history": {"channel": "a"}},
        {"send": {"data": 3}},
        {"id": 8, "ping": {}},
    )
    assert [reply["id"] for reply in replies] == [8]
    asked = [type(action.request).__name__ for action in talk.rest]
    assert asked == ["SubscribeRequest", "PublishRequest", "RpcRequest", "SendRequest"]
    subscribe, publish, rpc, _ = talk.rest
    talk.rest = []
    talk.session.answer(rpc.ticket, RpcAnswer(Raw(b"5")), talk.now)
    assert talk.heard() == [{"id": 5, "rpc": {"data": 5}}]
    talk.session.answer(subscribe.ticket, SubscribeAnswer(), talk.now)
    assert talk.heard() == []
    [reply] = talk.answer(Followed(), Follow)
    assert reply["id"] == 2
    assert talk.rest[0].subscribed
    [third, sixth] = talk.answer(Done())
    assert (third, sixth) == ({"id": 3, "publish": {}}, {"id": 6, "unsubscribe": {}})
    assert talk.next(Unfollow).channel == "a"
    assert not talk.rest[0].subscribed
    assert talk.answer(HistoryResult([], "", 0))[0]["id"] == 7
    talk.session.answer(publish.ticket, Done(), talk.now)
    assert talk.heard() == [{"id": 4, "publish": {}}]


def test_a_session_is_holding_while_too_much_is_unanswered(name):
    talk = Talk(name, limits=Limits(unanswered=2, unanswered_most=4))
    talk.connect()
    talk.say({"id": 2, "rpc": {}})
    assert not talk.session.holding
    talk.say({"id": 3, "rpc": {}}, {"id": 4, "publish": {"channel": "a", "data": 1}})
    assert talk.session.holding
    while talk.rest:
        talk.answer(Refusal(codes.NOT_AVAILABLE))
    assert not talk.session.holding
    talk.say(*[{"id": n, "history": {"channel": "a"}} for n in range(1, 6)])
    assert talk.ended()[0] == 3013


def test_messages_that_come_with_connect_are_bounded(name):
    talk = Talk(name, limits=Limits(unanswered_most=4))
    talk.say({"id": 1, "connect": {}}, *[{"send": {"data": 1}}] * 6)
    assert talk.ended()[0] == 3013


def test_each_kind_of_question(talk):
    talk.connect()
    members = {"c1": ClientInfo("ann", "c1", Raw(b"1"))}
    shown = {"c1": {"user": "ann", "client": "c1", "conn_info": 1}}
    history = HistoryResult([Publication(Raw(b"1"), offset=1)], "one", 1)
    told = {"publications": [{"data": 1, "offset": 1}], "epoch": "one", "offset": 1}
    refreshed = {"client": "c1", "expires": True, "ttl": 60}
    for command, answer, expected in [
        ({"presence": {"channel": "a"}}, PresenceResult(members), {"presence": shown}),
        ({"presence_stats": {"channel": "a"}}, PresenceStatsResult(2, 1), {"num_clients": 2, "num_users": 1}),
        ({"history": {"channel": "a", "limit": 1}}, history, told),
        ({"publish": {"channel": "a", "data": 1}}, Done(), {}),
        ({"rpc": {"method": "m", "data": 1}}, RpcAnswer(), {}),
        ({"refresh": {"token": "t"}}, RefreshAnswer(60), refreshed),
        ({"refresh": {"token": "t"}}, RefreshAnswer(), {"client": "c1"}),
    ]:
        kind = next(iter(command))
        assert talk.say({"id": 5, **command}) == []
        assert talk.answer(answer) == [{"id": 5, kind: expected}]
        assert talk.say({"id": 5, **command}) == []
        [reply] = talk.answer(Refusal(codes.PERMISSION_DENIED))
        assert (reply["id"], reply["error"]["code"]) == (5, 103)
        assert talk.rest == []


@pytest.mark.parametrize(
    "command",
    [{"publish": {"data": 1}}, {"publish": {"channel": "a"}}, {"presence": {}}, {"history": {}}, {"refresh": {}}],
)
def test_requests_that_lack_something(talk, command):
    talk.connect()
    [reply] = talk.say({"id": 5, **command})
    assert reply["error"]["code"] == 107


def test_messages_both_ways(talk):
    talk.connect()
    assert talk.say({"send": {"data": {"a": 1}}}) == []
    assert talk.next(Tell).request.data
    talk.session.message(Raw(b"[1]"), talk.now)
    assert talk.heard() == [{"push": {"message": {"data": [1]}}}]


# ------------------------------------------------------------------------------------------------ time


def test_pings_pongs_and_no_pong(talk):
    talk.connect()
    assert talk.session.deadline == 100 + 25 * 0.75
    assert talk.tick(118.75) == [{}]
    assert talk.session.deadline == 126.75
    assert talk.say({}) == []
    assert talk.session.deadline == 143.75
    assert talk.tick(143.75) == [{}]
    talk.tick(151.75)
    assert talk.ended()[0] == 3012


def test_pings_go_on_beside_publications(talk):
    talk.connect()
    talk.subscribe("news")
    pings = 0
    for second in range(101, 200):
        talk.now = second
        talk.session.deliver(news(second - 100), second)
        if talk.session.deadline <= second:
            talk.session.tick(second)
        heard = talk.heard()
        pings += heard.count({})
        if {} in heard:
            talk.say({})
    assert pings == 4


def test_a_pong_behind_what_is_not_read(name):
    talk = Talk(name, limits=Limits(unanswered=1))
    talk.connect()
    talk.say({"id": 2, "rpc": {}})
    assert talk.tick(120) == [{}]
    talk.tick(130)
    assert talk.session.state is State.CONNECTED
    talk.answer(RpcAnswer())
    talk.tick(138)
    assert talk.ended()[0] == 3012


def test_a_connection_that_expires_unless_it_is_refreshed(name):
    talk = Talk(name, timing=Timing(ping_interval=0))
    result = talk.connect(ConnectAnswer(ttl=60))
    assert (result["expires"], result["ttl"]) == (True, 60)
    talk.now = 150
    talk.say({"id": 2, "refresh": {"token": "t"}})
    talk.answer(RefreshAnswer(60))
    assert talk.session.deadline == 235
    talk.tick(234.9)
    assert talk.session.state is State.CONNECTED
    talk.tick(235)
    assert talk.ended()[0] == 3005


def test_one_that_is_not_refreshed(talk):
    talk.connect(ConnectAnswer(ttl=2))
    talk.tick(126.9)
    assert talk.session.state is State.CONNECTED
    talk.tick(127)
    assert talk.ended()[0] == 3005


def test_time_that_the_server_gives(talk):
    result = talk.connect(ConnectAnswer(ttl=60, refreshed_here=True))
    assert "expires" not in result
    talk.session.extend(10, talk.now)
    talk.tick(110)
    assert talk.ended()[0] == 3005


@pytest.mark.parametrize(
    ("ttl", "told"), [(0, 1), (0.2, 1), (1.9, 1), (60, 60), (1e13, 2**31 - 1), (float("inf"), 2**31 - 1)]
)
def test_a_ttl_is_what_the_protocol_can_say(talk, ttl, told):
    assert talk.connect(ConnectAnswer(ttl=ttl))["ttl"] == told


def test_a_subscription_that_expires(talk):
    talk.connect()
    result = talk.subscribe("news", SubscribeAnswer(ttl=10))
    assert (result["expires"], result["ttl"]) == (True, 10)
    talk.now = 105
    talk.say({"id": 3, "sub_refresh": {"channel": "news", "token": "t"}})
    assert talk.answer(RefreshAnswer(20)) == [{"id": 3, "sub_refresh": {"expires": True, "ttl": 20}}]
    talk.tick(120)
    talk.say({})
    talk.tick(149)
    talk.say({})
    assert talk.rest == []
    [push] = talk.tick(150)
    assert push["push"]["unsubscribe"]["code"] == 2501
    assert talk.rest == [Unfollow("news")]
    assert talk.say({"id": 3, "sub_refresh": {"channel": "news", "token": "t"}})[0]["error"]["code"] == 103


def test_a_refused_sub_refresh(talk):
    talk.connect()
    talk.subscribe("news", SubscribeAnswer(ttl=10))
    assert talk.say({"id": 3, "sub_refresh": {"channel": "news"}})[0]["error"]["code"] == 107
    talk.say({"id": 4, "sub_refresh": {"channel": "news", "token": "t"}})
    [reply] = talk.answer(Refusal(codes.EXPIRED))
    assert reply["error"]["code"] == 110
    talk.say({"id": 5, "history": {"channel": "news"}})
    assert talk.next(Ask).subscribed


# ------------------------------------------------------------------------------------------------ tokens


class Reader:
    """Reads "kind user ttl channel" as a token."""

    def __init__(self):
        self.clock = 0

    def connection(self, token):
        return ConnectionClaims(*self._read(token, "connection")[:2])

    def subscription(self, token):
        user, ttl, channel, *client = self._read(token, "subscription")
        return SubscriptionClaims(user, channel, "".join(client), ttl)

    def _read(self, token, kind):
        found, user, ttl, *rest = token.split()
        if ttl == "late":
            raise TokenExpired("late")
        if found != kind:
            raise TokenError("wrong kind")
        return user, None if ttl == "-" else float(ttl), *rest


@pytest.fixture
def reading(name):
    return Talk(name, tokens=Reader())


def test_a_token_is_read_and_handed_on(reading):
    reading.say({"id": 1, "connect": {"token": "connection ann 60"}})
    claims = reading.rest[0].claims
    assert (claims.user, claims.ttl) == ("ann", 60)
    reading.answer(ConnectAnswer(claims.user, ttl=claims.ttl))
    reading.say({"id": 2, "subscribe": {"channel": "news", "token": "subscription ann 30 news c1"}})
    claims = reading.rest[0].claims
    assert (claims.channel, claims.ttl) == ("news", 30)
    reading.answer(SubscribeAnswer(ttl=claims.ttl))
    [reply] = reading.answer(Followed(), Follow)
    assert reply["subscribe"]["ttl"] == 30
    assert reading.say({"id": 3, "refresh": {"token": "connection ann 90"}})[0]["refresh"]["ttl"] == 90
    sub_refresh = {"channel": "news", "token": "subscription ann - news"}
    assert reading.say({"id": 4, "sub_refresh": sub_refresh}) == [{"id": 4, "sub_refresh": {}}]


def test_without_a_token_the_application_decides(reading):
    assert reading.connect() == {"client": "c1", "ping": 25, "pong": True}
    reading.subscribe("news")


def test_a_connection_with_a_late_token_is_refused(name):
    talk = Talk(name, tokens=Reader())
    [reply] = talk.say({"id": 1, "connect": {"token": "connection ann late"}}, PING)
    assert reply["error"]["code"] == 109
    assert talk.session.state is State.REFUSED


def test_a_connection_with_a_wrong_token_is_ended(name):
    talk = Talk(name, tokens=Reader())
    talk.say({"id": 1, "connect": {"token": "subscription ann - news"}})
    assert talk.ended()[0] == 3500


@pytest.mark.parametrize("token", ["connection bob -", "subscription ann - news"])
def test_a_refresh_with_a_wrong_token_is_the_end(reading, token):
    reading.connect(token="connection ann -")
    assert reading.say({"id": 2, "refresh": {"token": "connection ann late"}})[0]["error"]["code"] == 109
    reading.say({"id": 2, "refresh": {"token": token}})
    assert reading.ended()[0] == 3500


@pytest.mark.parametrize(
    ("token", "code"),
    [
        ("subscription ann late news", 109),
        ("subscription bob - news", 103),
        ("subscription ann - other", 103),
        ("subscription ann - news c2", 103),
        ("connection ann -", 103),
    ],
)
def test_a_subscription_with_a_token_that_is_not_good(reading, token, code):
    """That is about one channel: the connection stays."""
    reading.connect(token="connection ann -")
    assert reading.say({"id": 2, "subscribe": {"channel": "news", "token": token}})[0]["error"]["code"] == code
    assert reading.rest == []
    reading.subscribe("news")
    assert reading.say({"id": 2, "sub_refresh": {"channel": "news", "token": token}})[0]["error"]["code"] == code
    assert reading.session.state is State.CONNECTED


# ------------------------------------------------------------------------------------------------ the end


def test_the_end_gives_up_everything(talk):
    talk.connect()
    talk.subscribe("a")
    talk.subscribe("b")
    talk.say({"id": 5, "rpc": {}}, {"id": 6, "publish": {"channel": "a", "data": 1}})
    tickets = [action.ticket for action in talk.rest]
    talk.rest = []
    talk.session.disconnect(talk.now, Disconnect(3001, "bye"))
    assert talk.heard() == [{"push": {"disconnect": {"code": 3001, "reason": "bye"}}}]
    assert talk.rest == [Unfollow("a"), Unfollow("b"), Close(3001, "bye")]
    for ticket in tickets:
        talk.session.answer(ticket, Done(), talk.now)
    talk.session.deliver(published("a", Publication(Raw(b"1"))), talk.now)
    talk.say(PING)
    talk.tick(1000)
    talk.session.disconnect(talk.now)
    talk.session.lost()
    assert talk.heard() == []
    assert len(talk.rest) == 3


def test_frames_and_other_things_come_in_order(talk):
    """What is sent ahead of an action stands ahead of it, and replies that follow each other share a frame."""
    talk.connect()
    talk.subscribe("a")
    frame = talk.oracle.commands(
        [PING, PING, {"id": 3, "unsubscribe": {"channel": "a"}}, PING, {"id": 4, "ping": {}, "rpc": {}}]
    )
    talk.session.receive(frame, talk.now)
    actions = talk.session.take()
    assert [type(action) for action in actions] == [Send, Unfollow, Send, Close]
    assert talk.oracle.replies(actions[0].frame) == [PING, PING]
    unsubscribed, pong, told = talk.oracle.replies(actions[2].frame)
    assert (unsubscribed["id"], pong, told["push"]["disconnect"]["code"]) == (3, PING, 3501)


def test_a_client_that_is_gone(talk):
    talk.connect()
    talk.subscribe("a")
    talk.session.lost()
    assert talk.heard() == []
    assert talk.rest == [Unfollow("a")]
    assert talk.session.state is State.CLOSED


def test_without_the_push(name):
    talk = Talk(name, push_disconnect=False)
    talk.connect()
    talk.session.disconnect(talk.now)
    assert talk.heard() == []
    assert talk.ended()[0] == 3503


@pytest.mark.parametrize("reason", ["", "17", "x" * 500, '{"a":1}'])
def test_a_reason_is_always_one(talk, reason):
    talk.session.disconnect(talk.now, Disconnect(4000, reason))
    talk.heard()
    code, text = talk.ended()
    assert code == 4000
    assert text == codes.as_reason(reason)


def test_data_that_is_no_json():
    """Where data can't be sent, it is said: by an error for an answer, by the end for a channel."""
    for act in (
        lambda talk: talk.session.deliver(published("news", Publication(Raw(b"\xff"))), talk.now),
        lambda talk: talk.session.message(Raw(b"{"), talk.now),
    ):
        talk = Talk()
        talk.connect()
        talk.subscribe("news", SubscribeAnswer())
        act(talk)
        talk.heard()
        assert talk.ended()[0] == 3506
    talk = Talk()
    talk.connect()
    talk.say({"id": 3, "rpc": {}})
    [reply] = talk.answer(RpcAnswer(Raw(b"\xff")))
    assert reply["error"]["code"] == 108
    talk.say({"id": 4, "subscribe": {"channel": "news"}})
    talk.answer(SubscribeAnswer(data=Raw(b"\xff")))
    talk.answer(Followed(), Follow)
    assert talk.ended()[0] == 3506
    talk = Talk()
    talk.say({"id": 1, "connect": {}}, PING)
    talk.answer(ConnectAnswer(data=Raw(b"\xff")))
    assert talk.ended()[0] == 3506


def test_a_request_is_what_the_client_sent(talk):
    talk.say({"id": 1, "connect": {}})
    assert talk.rest[0].request == ConnectRequest()
