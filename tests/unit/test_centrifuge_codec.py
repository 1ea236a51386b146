"""What holds for both encodings, against what others make of the same messages."""

import json

import pytest
from msgspec import Raw

from mooring.centrifuge.codec import encode_publication
from mooring.centrifuge.codes import Violation
from mooring.centrifuge.commands import (
    EMPTY,
    ClientInfo,
    Command,
    ConnectRequest,
    ConnectResult,
    Disconnect,
    Error,
    HistoryRequest,
    HistoryResult,
    Join,
    Leave,
    PingRequest,
    PingResult,
    Position,
    PresenceRequest,
    PresenceResult,
    PresenceStatsRequest,
    PresenceStatsResult,
    Publication,
    PublishRequest,
    PublishResult,
    Push,
    RefreshRequest,
    RefreshResult,
    Reply,
    RpcRequest,
    RpcResult,
    SendRequest,
    ServerMessage,
    SubRefreshRequest,
    SubRefreshResult,
    Subscribe,
    SubscribeRequest,
    SubscribeResult,
    Unsubscribe,
    UnsubscribeRequest,
    UnsubscribeResult,
)
from mooring.centrifuge.json import JsonCodec
from mooring.centrifuge.limits import Limits
from mooring.centrifuge.protobuf import ProtobufCodec
from support.centrifuge_oracle import ORACLES

DATA = Raw(b'{"a": [1, null, "\xe2\x9c\x93"]}')
VALUE = {"a": [1, None, "✓"]}

COMMANDS = [
    ({}, Command()),
    (
        {
            "id": 7,
            "connect": {
                "token": "t",
                "data": VALUE,
                "subs": {"news": {"recover": True, "offset": 5, "epoch": "one"}, "more": {}},
                "name": "js",
                "version": "1.2",
                "headers": {"a": "b"},
            },
        },
        Command(
            7,
            connect=ConnectRequest(
                "t",
                DATA,
                {"news": SubscribeRequest(recover=True, offset=5, epoch="one"), "more": SubscribeRequest()},
                "js",
                "1.2",
                {"a": "b"},
            ),
        ),
    ),
    ({"id": 4294967295, "connect": {}}, Command(4294967295, connect=ConnectRequest())),
    (
        {
            "id": 2,
            "subscribe": {
                "channel": "tschüß",
                "token": "t",
                "recover": True,
                "epoch": "e",
                "offset": 2**63 - 1,
                "data": VALUE,
                "positioned": True,
                "recoverable": True,
                "join_leave": True,
                "flag": 3,
            },
        },
        Command(2, subscribe=SubscribeRequest("tschüß", "t", True, "e", 2**63 - 1, DATA, True, True, True, EMPTY, 3)),
    ),
    ({"id": 3, "unsubscribe": {"channel": "news"}}, Command(3, unsubscribe=UnsubscribeRequest("news"))),
    ({"id": 4, "publish": {"channel": "news", "data": VALUE}}, Command(4, publish=PublishRequest("news", DATA))),
    ({"id": 5, "presence": {"channel": "news"}}, Command(5, presence=PresenceRequest("news"))),
    ({"id": 6, "presence_stats": {"channel": "news"}}, Command(6, presence_stats=PresenceStatsRequest("news"))),
    (
        {"id": 8, "history": {"channel": "news", "limit": -1, "since": {"offset": 5, "epoch": "e"}, "reverse": True}},
        Command(8, history=HistoryRequest("news", -1, Position(5, "e"), True)),
    ),
    ({"id": 8, "history": {"since": {}}}, Command(8, history=HistoryRequest(since=Position()))),
    ({"id": 9, "ping": {}}, Command(9, ping=PingRequest())),
    ({"send": {"data": VALUE}}, Command(send=SendRequest(DATA))),
    ({"id": 10, "rpc": {"method": "m", "data": VALUE}}, Command(10, rpc=RpcRequest(DATA, "m"))),
    ({"id": 11, "refresh": {"token": "t"}}, Command(11, refresh=RefreshRequest("t"))),
    ({"id": 12, "sub_refresh": {"channel": "c", "token": "t"}}, Command(12, sub_refresh=SubRefreshRequest("c", "t"))),
]

INFO = ClientInfo("ann", "c1", DATA, Raw(b"3"))
INFO_VALUE = {"user": "ann", "client": "c1", "conn_info": VALUE, "chan_info": 3}
PUBLICATION = Publication(DATA, INFO, 12, {"k": "v"}, 1700000000000)
PUBLICATION_VALUE = {"data": VALUE, "info": INFO_VALUE, "offset": 12, "tags": {"k": "v"}, "time": 1700000000000}

REPLIES = [
    (Reply(), {}),
    (Reply(1, error=Error(100, "why", True)), {"id": 1, "error": {"code": 100, "message": "why", "temporary": True}}),
    (
        Reply(
            2,
            connect=ConnectResult(
                "c1",
                "v",
                True,
                60,
                DATA,
                {"news": SubscribeResult(epoch="e", publications=[PUBLICATION])},
                25,
                True,
                "s",
                "n",
            ),
        ),
        {
            "id": 2,
            "connect": {
                "client": "c1",
                "version": "v",
                "expires": True,
                "ttl": 60,
                "data": VALUE,
                "subs": {"news": {"epoch": "e", "publications": [PUBLICATION_VALUE]}},
                "ping": 25,
                "pong": True,
                "session": "s",
                "node": "n",
            },
        },
    ),
    (
        Reply(
            3, subscribe=SubscribeResult(True, 60, True, "e", [PUBLICATION, PUBLICATION], True, 10, True, DATA, True)
        ),
        {
            "id": 3,
            "subscribe": {
                "expires": True,
                "ttl": 60,
                "recoverable": True,
                "epoch": "e",
                "publications": [PUBLICATION_VALUE, PUBLICATION_VALUE],
                "recovered": True,
                "offset": 10,
                "positioned": True,
                "data": VALUE,
                "was_recovering": True,
            },
        },
    ),
    (Reply(4, subscribe=SubscribeResult()), {"id": 4, "subscribe": {}}),
    (Reply(5, unsubscribe=UnsubscribeResult()), {"id": 5, "unsubscribe": {}}),
    (Reply(6, publish=PublishResult()), {"id": 6, "publish": {}}),
    (Reply(7, presence=PresenceResult({"c1": INFO})), {"id": 7, "presence": {"presence": {"c1": INFO_VALUE}}}),
    (
        Reply(8, presence_stats=PresenceStatsResult(3, 2)),
        {"id": 8, "presence_stats": {"num_clients": 3, "num_users": 2}},
    ),
    (
        Reply(9, history=HistoryResult([PUBLICATION], "e", 12)),
        {"id": 9, "history": {"publications": [PUBLICATION_VALUE], "epoch": "e", "offset": 12}},
    ),
    (Reply(10, ping=PingResult()), {"id": 10, "ping": {}}),
    (Reply(11, rpc=RpcResult(DATA)), {"id": 11, "rpc": {"data": VALUE}}),
    (Reply(12, rpc=RpcResult()), {"id": 12, "rpc": {}}),
    (Reply(12, rpc=RpcResult(Raw(b""))), {"id": 12, "rpc": {}}),
    (
        Reply(13, refresh=RefreshResult("c1", "v", True, 60)),
        {"id": 13, "refresh": {"client": "c1", "version": "v", "expires": True, "ttl": 60}},
    ),
    (Reply(14, sub_refresh=SubRefreshResult(True, 60)), {"id": 14, "sub_refresh": {"expires": True, "ttl": 60}}),
    (Reply(push=Push("news", pub=PUBLICATION)), {"push": {"channel": "news", "pub": PUBLICATION_VALUE}}),
    (Reply(push=Push("news", join=Join(INFO))), {"push": {"channel": "news", "join": {"info": INFO_VALUE}}}),
    (Reply(push=Push("news", leave=Leave(INFO))), {"push": {"channel": "news", "leave": {"info": INFO_VALUE}}}),
    (
        Reply(push=Push("news", unsubscribe=Unsubscribe(2500, "why"))),
        {"push": {"channel": "news", "unsubscribe": {"code": 2500, "reason": "why"}}},
    ),
    (Reply(push=Push(message=ServerMessage(DATA))), {"push": {"message": {"data": VALUE}}}),
    (
        Reply(push=Push("news", subscribe=Subscribe(True, "e", 12, True, DATA))),
        {
            "push": {
                "channel": "news",
                "subscribe": {"recoverable": True, "epoch": "e", "offset": 12, "positioned": True, "data": VALUE},
            }
        },
    ),
    (
        Reply(push=Push(disconnect=Disconnect(3001, "why"))),
        {"push": {"disconnect": {"code": 3001, "reason": "why"}}},
    ),
]


@pytest.fixture(params=ORACLES)
def oracle(request):
    return ORACLES[request.param]


@pytest.fixture(params=[JsonCodec, ProtobufCodec], ids=lambda codec: codec.name)
def kind(request):
    return request.param


@pytest.mark.parametrize(("given", "command"), COMMANDS, ids=lambda one: "-".join(one) if isinstance(one, dict) else "")
def test_a_command(oracle, given, command):
    assert oracle.codec.commands(oracle.commands([given])) == [command]


@pytest.mark.parametrize(("reply", "expected"), REPLIES)
def test_a_reply(oracle, reply, expected):
    assert oracle.replies(oracle.codec.encode([reply])) == [expected]


def test_several_in_a_frame(oracle):
    found = oracle.codec.commands(oracle.commands(given for given, _ in COMMANDS))
    assert found == [command for _, command in COMMANDS]
    frame = oracle.codec.encode(reply for reply, _ in REPLIES)
    assert oracle.replies(frame) == [expected for _, expected in REPLIES]
    assert frame == oracle.codec.join([oracle.codec.encode([reply]) for reply, _ in REPLIES])


def test_a_publication_is_the_frame_of_its_push(oracle):
    frame = encode_publication(oracle.codec, "news", PUBLICATION)
    assert oracle.replies(frame) == [{"push": {"channel": "news", "pub": PUBLICATION_VALUE}}]


def test_a_ping_is_an_empty_message(oracle):
    assert oracle.replies(oracle.codec.ping) == [{}]
    assert oracle.codec.commands(oracle.codec.ping) == [Command()]


def test_what_is_needed_is_written_when_it_is_nothing():
    """JSON: libraries look these up without asking whether they are there."""
    replies = [
        Reply(1, connect=ConnectResult("")),
        Reply(2, error=Error(0, "")),
        Reply(3, presence=PresenceResult({})),
        Reply(4, presence_stats=PresenceStatsResult(0, 0)),
        Reply(5, history=HistoryResult([], "", 0)),
        Reply(push=Push(disconnect=Disconnect(0, ""))),
        Reply(push=Push(unsubscribe=Unsubscribe(0, ""))),
    ]
    assert [json.loads(JsonCodec().encode([reply])) for reply in replies] == [
        {"id": 1, "connect": {"client": ""}},
        {"id": 2, "error": {"code": 0, "message": ""}},
        {"id": 3, "presence": {"presence": {}}},
        {"id": 4, "presence_stats": {"num_clients": 0, "num_users": 0}},
        {"id": 5, "history": {"publications": [], "epoch": "", "offset": 0}},
        {"push": {"disconnect": {"code": 0, "reason": ""}}},
        {"push": {"unsubscribe": {"code": 0, "reason": ""}}},
    ]


def test_unknown_fields_are_let_pass(oracle):
    given = {"id": 1, "subscribe": {"channel": "a", "delta": "fossil"}}
    assert oracle.codec.commands(oracle.commands([given])) == [Command(1, subscribe=SubscribeRequest("a"))]


def test_a_filter_is_there_to_be_refused(oracle):
    given = {"id": 1, "subscribe": {"channel": "a", "tf": {"key": "k", "cmp": "eq", "val": "v"}}}
    [command] = oracle.codec.commands(oracle.commands([given]))
    assert command.subscribe.tf


def test_a_frame_that_is_too_large(kind):
    codec = kind(Limits(frame=100))
    oracle = ORACLES[codec.name]
    assert codec.commands(oracle.commands([{"id": 1, "rpc": {"method": "m" * 60}}]))
    with pytest.raises(Violation, match="100"):
        codec.commands(oracle.commands([{"id": 1, "rpc": {"method": "m" * 101}}]))


def test_a_frame_of_too_many_commands(kind):
    codec = kind(Limits(commands=3))
    oracle = ORACLES[codec.name]
    assert len(codec.commands(oracle.commands([{"id": 1, "ping": {}}] * 3))) == 3
    with pytest.raises(Violation, match="more than 3"):
        codec.commands(oracle.commands([{"id": 1, "ping": {}}] * 5))


def test_an_offset_that_is_too_large(oracle):
    frame = oracle.commands([{"id": 1, "subscribe": {"channel": "a", "offset": 2**63}}])
    with pytest.raises(Violation) as raised:
        oracle.codec.commands(frame)
    assert raised.value.disconnect.code == 3501
    assert "922337203685477580" in raised.value.disconnect.reason


@pytest.mark.parametrize("frame", [b"", b"\n", b" \n\n", b"{}x", b"[1]", b"\xff\xff", b"null", b'{"id":"1"}'])
def test_a_frame_of_nothing_or_of_something_else(oracle, frame):
    with pytest.raises(Violation) as raised:
        oracle.codec.commands(frame)
    assert raised.value.disconnect.code == 3501
    assert raised.value.disconnect.reason


def test_emulation(oracle):
    frame = oracle.commands([{"id": 1, "ping": {}}, {"send": {"data": 1}}])
    if oracle.codec.binary:
        from centrifuge.protocol import client_pb2

        body = client_pb2.EmulationRequest(session="s", node="n", data=frame).SerializeToString()
    else:
        body = json.dumps({"session": "s", "node": "n", "data": frame.decode()}).encode()
    found = oracle.codec.emulation(body)
    assert (found.session, found.node, found.data) == ("s", "n", frame)
    assert len(oracle.codec.commands(found.data)) == 2
    with pytest.raises(Violation):
        oracle.codec.emulation(body[:-1])
    with pytest.raises(Violation):
        oracle.codec.emulation(b" " * 200_000)
