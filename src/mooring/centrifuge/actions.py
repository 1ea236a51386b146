"""What a session wants done, and what it may be told of that.

A session asks by an action that has a `ticket`, and goes on when it is given an answer to that ticket: to `Ask` what
the application says, to `Follow` what the engine says. The other actions need no answer. Whoever hosts a session
carries them out in the order in which they come.
"""

from collections.abc import Mapping, Sequence

from msgspec import Raw, Struct

from mooring.centrifuge.claims import Claims
from mooring.centrifuge.commands import (
    EMPTY,
    ClientInfo,
    ConnectRequest,
    Disconnect,
    Error,
    HistoryRequest,
    HistoryResult,
    Position,
    PresenceRequest,
    PresenceResult,
    PresenceStatsRequest,
    PresenceStatsResult,
    Publication,
    PublishRequest,
    RefreshRequest,
    RpcRequest,
    SendRequest,
    SubRefreshRequest,
    SubscribeRequest,
)

# ------------------------------------------------------------------------------------------------ actions

Question = (
    ConnectRequest
    | SubscribeRequest
    | PublishRequest
    | PresenceRequest
    | PresenceStatsRequest
    | HistoryRequest
    | RpcRequest
    | RefreshRequest
    | SubRefreshRequest
)


class Send(Struct, frozen=True):
    """A frame to the client, a text or a binary message as its codec says."""

    frame: bytes


class Close(Struct, frozen=True):
    """The end: a close frame with this code and reason, or the end of the stream. Nothing follows."""

    code: int
    reason: str


class Ask(Struct, frozen=True):
    """A question to the application. What its answer may be is said at each class of answers below; a `Refusal` always.

    `claims` is what the token said, if there was one and the session knows how to read it. `subscribed` is whether this
    client has the channel it asks about."""

    ticket: int
    request: Question
    claims: Claims | None = None
    subscribed: bool = False


class Tell(Struct, frozen=True):
    """A message of the client to the application, which has no answer."""

    request: SendRequest


class Follow(Struct, frozen=True):
    """Be told of what is published in a channel, from now on (`deliver`), and answer with `Followed`.

    With `since`, the answer has what was published after that as well. `deliver` may be called ahead of the answer:
    what comes twice is sorted out by its offset. `info` is this client, to be shown to others where `presence` says
    so; with `announced` they are told that it comes and goes. `hears` is whether the client is told of others.

    A host that keeps a channel in order for all its clients need not call `deliver`: it can send the frames itself,
    behind what the session sends for the answer, and say `Session.gap` when it has lost the order."""

    ticket: int
    channel: str
    since: Position | None
    info: ClientInfo
    presence: bool = False
    announced: bool = False
    hears: bool = False


class Unfollow(Struct, frozen=True):
    """No more of this channel; this client is not there any more."""

    channel: str


Action = Send | Close | Ask | Tell | Follow | Unfollow

# ------------------------------------------------------------------------------------------------ answers


class Refusal(Struct, frozen=True):
    """No: the client gets this error, or its connection ends."""

    why: Error | Disconnect


class SubscribeAnswer(Struct, frozen=True):
    """To `subscribe`, and for each server-side subscription: yes. `ttl` in s, None: it does not expire.

    `recoverable` and `positioned` are as the channel is: a client can go on where it was; a gap is noticed.
    `join_leave` has the client told who comes and goes, if it wants that or `force_join_leave` is set."""

    info: Raw = EMPTY
    data: Raw = EMPTY
    ttl: float | None = None
    recoverable: bool = False
    positioned: bool = False
    presence: bool = False
    announced: bool = False
    join_leave: bool = False
    force_join_leave: bool = False


class ConnectAnswer(Struct, frozen=True):
    """To `connect`: yes, as this user. `ttl` in s, None: it does not expire; with `refreshed_here` the client is not to
    ask for more time, as the application gives it by `Session.extend`."""

    user: str = ""
    info: Raw = EMPTY
    data: Raw = EMPTY
    ttl: float | None = None
    refreshed_here: bool = False
    subs: Mapping[str, SubscribeAnswer] = {}


class Done(Struct, frozen=True):
    """To `publish`: it is published."""


class RpcAnswer(Struct, frozen=True):
    """To `rpc`."""

    data: Raw = EMPTY


class RefreshAnswer(Struct, frozen=True):
    """To `refresh` and `sub_refresh`: so long from now on, in s; None: for ever."""

    ttl: float | None = None


class Followed(Struct, frozen=True):
    """To `Follow`: the last publication of the channel, None where it keeps none. `recovered`: `publications` are all
    that came after `since`, oldest first."""

    position: Position | None = None
    recovered: bool = False
    publications: Sequence[Publication] = ()


#: To `presence`, `presence_stats` and `history` the answer is the result as the client gets it.
Answer = (
    Refusal
    | ConnectAnswer
    | SubscribeAnswer
    | Done
    | RpcAnswer
    | RefreshAnswer
    | Followed
    | PresenceResult
    | PresenceStatsResult
    | HistoryResult
)
