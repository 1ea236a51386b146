"""Whatever a client sends, and in whatever order things happen: no exception, one reply per command, nothing after the
end.

Frames are garbage, garbage with a good beginning, and good commands in any order; the application and the engine answer
late, in any order, with anything that they may answer."""

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
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
    Unfollow,
)
from mooring.centrifuge.codes import Violation
from mooring.centrifuge.commands import (
    ClientInfo,
    Disconnect,
    HistoryResult,
    Position,
    PresenceResult,
    PresenceStatsResult,
    Publication,
)
from mooring.centrifuge.core import State
from mooring.centrifuge.delivery import joined, published
from mooring.centrifuge.limits import Limits
from mooring.centrifuge.session import Session
from support.centrifuge_oracle import ORACLES, prefixed

CHANNELS = ["a", "b", "c"]
KINDS = ["connect", "subscribe", "unsubscribe", "publish", "presence", "presence_stats", "history", "ping", "rpc"]
KINDS += ["refresh", "sub_refresh"]

values = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5)


def requests(kind):
    fields = {}
    if kind not in ("connect", "ping", "rpc", "refresh"):
        fields["channel"] = st.sampled_from([*CHANNELS, "", "x" * 300])
    if kind in ("connect", "subscribe", "refresh", "sub_refresh"):
        fields["token"] = st.sampled_from(["", "t"])
    if kind in ("connect", "subscribe", "publish", "rpc"):
        fields["data"] = values
    if kind == "subscribe":
        fields |= {"recover": st.booleans(), "offset": st.integers(0, 9), "epoch": st.sampled_from(["", "one", "two"])}
        fields |= {"flag": st.integers(0, 3), "join_leave": st.booleans()}
    return st.fixed_dictionaries(fields)


commands = st.one_of(
    st.sampled_from(KINDS).flatmap(
        lambda kind: st.builds(lambda id, request: {"id": id, kind: request}, st.integers(1, 2**32 - 1), requests(kind))
    ),
    st.just({"send": {"data": 1}}),
)
infos = st.builds(ClientInfo, st.text(max_size=3), st.text(max_size=3))
subscribe_answers = st.builds(
    SubscribeAnswer,
    ttl=st.none() | st.floats(0, 100),
    recoverable=st.booleans(),
    positioned=st.booleans(),
    join_leave=st.booleans(),
)
refusals = st.sampled_from([codes.PERMISSION_DENIED, codes.INTERNAL, Disconnect(4000, ""), Disconnect(3500, "17")]).map(
    Refusal
)
publications = st.builds(lambda offset: Publication(Raw(b"1"), offset=offset), st.integers(0, 12))
positions = st.builds(Position, st.integers(0, 9), st.sampled_from(["one", "two"]))
ANSWERS = {
    "ConnectRequest": st.builds(
        ConnectAnswer,
        ttl=st.none() | st.floats(0, 100),
        subs=st.dictionaries(st.sampled_from(CHANNELS), subscribe_answers),
    ),
    "SubscribeRequest": subscribe_answers,
    "PublishRequest": st.just(Done()),
    "PresenceRequest": st.builds(PresenceResult, st.dictionaries(st.text(max_size=3), infos)),
    "PresenceStatsRequest": st.builds(PresenceStatsResult, st.integers(0, 9), st.integers(0, 9)),
    "HistoryRequest": st.builds(HistoryResult, st.lists(publications, max_size=3), st.just("one"), st.integers(0, 9)),
    "RpcRequest": st.sampled_from([b"", b"1", b"\xff", b"{"]).map(lambda data: RpcAnswer(Raw(data))),
    "RefreshRequest": st.builds(RefreshAnswer, st.none() | st.floats(0, 100)),
    "SubRefreshRequest": st.builds(RefreshAnswer, st.none() | st.floats(0, 100)),
}
followeds = st.builds(Followed, st.none() | positions, st.booleans(), st.lists(publications, max_size=3))


class Watched:
    """A session, and what must hold whatever happens to it."""

    def __init__(self, name):
        self.oracle = ORACLES[name]
        self.session = Session(
            self.oracle.codec, "c1", 0.0, limits=Limits(unanswered=4, unanswered_most=40, channels=2)
        )
        self.now = 0.0
        self.open = []  # what waits for an answer
        self.asked = {}  # commands that have no reply yet, by their ids
        self.ids = itertools.count(1)
        self.followed = set()
        self.told = set()  # channels whose subscription has begun, as the client sees it
        self.closed = False

    def look(self):
        for action in self.session.take():
            assert not self.closed
            match action:
                case Send(frame):
                    assert frame
                    for reply in self.oracle.replies(frame):
                        self._reply(reply)
                case Close(code, reason):
                    assert 3000 <= code < 5000
                    assert reason == codes.as_reason(reason)
                    assert not self.followed
                    self.closed = True
                case Ask() | Follow():
                    self.open.append(action)
                    if isinstance(action, Follow):
                        assert action.channel not in self.followed
                        self.followed.add(action.channel)
                case Unfollow(channel):
                    self.followed.remove(channel)
        assert self.closed == (self.session.state is State.CLOSED)
        assert self.closed or len(self.session.channels) <= 3

    def _reply(self, reply):
        if "id" in reply:
            command = self.asked.pop(reply["id"])
            self.told |= set(reply.get("connect", {}).get("subs", ()))
            if "subscribe" in reply:
                self.told.add(command["subscribe"]["channel"])
            if "unsubscribe" in reply:
                self.told.discard(command["unsubscribe"]["channel"])
        elif "push" in reply:
            push = reply["push"]
            if "pub" in push or "join" in push:
                assert push["channel"] in self.told
            if "unsubscribe" in push:
                self.told.remove(push["channel"])
            if "subscribe" in push:
                self.told.add(push["channel"])

    def say(self, commands):
        for command in commands:
            if "id" in command:
                command["id"] = next(self.ids)
                self.asked[command["id"]] = command
        self.session.receive(self.oracle.commands(commands), self.now)
        self.look()

    def settle(self, at, answer):
        action = self.open.pop(at)
        self.session.answer(action.ticket, answer, self.now)
        self.look()


@pytest.mark.parametrize("name", ORACLES)
@given(data=st.data())
@settings(max_examples=200)
def test_any_order_of_things(name, data):
    watched = Watched(name)
    if data.draw(st.booleans(), "connected"):
        watched.say([{"id": 1, "connect": {}}])
        watched.settle(0, ConnectAnswer("ann"))
    for _ in range(data.draw(st.integers(1, 25), "steps")):
        step = data.draw(st.sampled_from(["say", "answer", "answer", "deliver", "tick", "server"]))
        if step == "say":
            watched.say(data.draw(st.lists(commands, min_size=1, max_size=4)))
        elif step == "answer" and watched.open:
            at = data.draw(st.integers(0, len(watched.open) - 1))
            action = watched.open[at]
            fitting = followeds if isinstance(action, Follow) else ANSWERS[type(action.request).__name__]
            watched.settle(at, data.draw(fitting | refusals))
        elif step == "deliver":
            channel, epoch = data.draw(st.sampled_from(CHANNELS)), data.draw(st.sampled_from(["one", "two"]))
            made = joined(channel, data.draw(infos)) if data.draw(st.booleans()) else None
            watched.session.deliver(made or published(channel, data.draw(publications), epoch), watched.now)
            watched.look()
        elif step == "tick":
            watched.now += data.draw(st.floats(0, 30))
            watched.session.tick(watched.now)
            watched.look()
        elif step == "server" and watched.session.state not in (State.NEW, State.CONNECTING):
            channel = data.draw(st.sampled_from(CHANNELS))
            if data.draw(st.booleans()):
                watched.session.subscribe(channel, data.draw(subscribe_answers), watched.now)
            else:
                watched.session.unsubscribe(channel, watched.now)
            watched.look()
    # Everything is answered in the end, unless the end has come.
    while watched.open:
        watched.settle(0, Refusal(codes.NOT_AVAILABLE))
    assert watched.closed or watched.session.state in (State.NEW, State.REFUSED) or not watched.asked
    watched.session.lost()
    watched.session.take()
    assert watched.session.state is State.CLOSED


garbage = st.one_of(
    st.binary(max_size=300),
    st.text(max_size=100).map(str.encode),
    values.map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=200).map(prefixed),
    st.recursive(st.integers(-(2**70), 2**70) | st.text() | st.none(), lambda inner: st.dictionaries(
        st.sampled_from([*KINDS, "id", "send", "channel", "data", "subs", "since", "offset", "limit", "flag"]), inner
    ), max_leaves=8).map(lambda value: json.dumps(value).encode()),
)  # fmt: skip


@pytest.mark.parametrize("name", ORACLES)
@given(frame=garbage)
@settings(max_examples=500)
def test_garbage_is_refused_with_a_code(name, frame):
    codec = ORACLES[name].codec
    for decode in (codec.commands, codec.emulation):
        end = None
        try:
            decode(frame)
        except Violation as violation:
            end = violation.disconnect
        assert end is None or (end.code, end.reason) == (3501, codes.as_reason(end.reason))


@pytest.mark.parametrize("name", ORACLES)
@given(data=st.data(), frames=st.lists(st.lists(commands, min_size=1, max_size=3), min_size=1, max_size=3))
@settings(max_examples=200)
def test_good_frames_with_a_fault(name, data, frames):
    """Bytes of a good frame are changed, left out or added: the session goes on, or ends with a code."""
    watched = Watched(name)
    watched.say([{"id": 1, "connect": {}}])
    watched.settle(0, ConnectAnswer("ann"))
    for commands_ in frames:
        frame = bytearray(watched.oracle.commands(commands_))
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, max(0, len(frame) - 1)))
            end = at + data.draw(st.integers(0, 3))
            frame[at:end] = data.draw(st.binary(max_size=3))
        watched.session.receive(bytes(frame), 0.0)
        for action in watched.session.take():
            assert not watched.closed
            if isinstance(action, Close):
                watched.closed = True
                assert 3000 <= action.code < 4000
