"""What the Centrifuge client protocol says, as typed values, and on which number protobuf carries each field.

This is the one table of the protocol. A field's annotation has its number, and for a whole number its kind as well;
JSON reads the annotation as bounds, and `protobuf.py` makes its descriptor of it. Two things are special:

* `data`, `info` and the like are any JSON value. They stay the bytes that came (`Raw`): what nobody looks at is neither
  parsed nor built again. In protobuf they are bytes, and need not be JSON.
* A field without default is written even if it is zero or empty, because a client's library fails without it. All
  others are left out when they are as their default says.

What is not here (delta, maps, shared polls, compression) a client asks for, and goes without when it is not confirmed.
"""

from typing import Annotated

from msgspec import Meta, Raw, Struct

#: No data. The encoders leave out this object, not whatever equals it.
EMPTY = Raw(b"")

MOST = 2**63 - 1  # what msgspec can bound, and more than any offset


def field(number: int) -> Meta:
    """The number of a field whose kind follows from its type."""
    return Meta(extra={"number": number})


def uint32(number: int) -> Meta:
    return Meta(ge=0, le=2**32 - 1, extra={"number": number, "kind": "uint32"})


def uint64(number: int) -> Meta:
    return Meta(ge=0, le=MOST, extra={"number": number, "kind": "uint64"})


def int32(number: int) -> Meta:
    return Meta(ge=-(2**31), le=2**31 - 1, extra={"number": number, "kind": "int32"})


def int64(number: int) -> Meta:
    return Meta(ge=-MOST - 1, le=MOST, extra={"number": number, "kind": "int64"})


class Message(Struct, frozen=True, omit_defaults=True):
    """A message of the protocol, whole or as a part of another one."""


# ------------------------------------------------------------------------------------------------ parts of others


class Error(Message, frozen=True):
    """Why a command has failed. A client asks again only if `temporary`, whatever the code."""

    code: Annotated[int, uint32(1)]
    message: Annotated[str, field(2)]
    temporary: Annotated[bool, field(3)] = False


class ClientInfo(Message, frozen=True):
    """Who a client is: `conn_info` goes with the connection, `chan_info` with one subscription."""

    user: Annotated[str, field(1)]
    client: Annotated[str, field(2)]
    conn_info: Annotated[Raw, field(3)] = EMPTY
    chan_info: Annotated[Raw, field(4)] = EMPTY


class Position(Message, frozen=True):
    """A place in a channel: the last publication that was seen (0: none), and the line of offsets it belongs to."""

    offset: Annotated[int, uint64(1)] = 0
    epoch: Annotated[str, field(2)] = ""


class Publication(Message, frozen=True):
    """What was published. An `offset` of 0 means that the channel keeps no history; `time` is in ms since 1970."""

    data: Annotated[Raw, field(4)] = EMPTY
    info: Annotated[ClientInfo | None, field(5)] = None
    offset: Annotated[int, uint64(6)] = 0
    tags: Annotated[dict[str, str], field(7)] = {}
    time: Annotated[int, int64(9)] = 0


# ------------------------------------------------------------------------------------------------ requests


class SubscribeRequest(Message, frozen=True):
    """`positioned`, `recoverable` and `join_leave` are wishes. `tf` filters by tags, `type` is 0 but for maps, polls.
    `flag` has bits: 1, the client takes numbers for names of channels; 2, it wants error 112 where it can't recover."""

    channel: Annotated[str, field(1)] = ""
    token: Annotated[str, field(2)] = ""
    recover: Annotated[bool, field(3)] = False
    epoch: Annotated[str, field(6)] = ""
    offset: Annotated[int, uint64(7)] = 0
    data: Annotated[Raw, field(8)] = EMPTY
    positioned: Annotated[bool, field(9)] = False
    recoverable: Annotated[bool, field(10)] = False
    join_leave: Annotated[bool, field(11)] = False
    tf: Annotated[Raw, field(13)] = EMPTY
    flag: Annotated[int, int64(14)] = 0
    type: Annotated[int, int32(15)] = 0


class ConnectRequest(Message, frozen=True):
    """`subs` are the recoverable server-side subscriptions that the client has had, by channel."""

    token: Annotated[str, field(1)] = ""
    data: Annotated[Raw, field(2)] = EMPTY
    subs: Annotated[dict[str, SubscribeRequest], field(3)] = {}
    name: Annotated[str, field(4)] = ""
    version: Annotated[str, field(5)] = ""
    headers: Annotated[dict[str, str], field(6)] = {}


class UnsubscribeRequest(Message, frozen=True):
    channel: Annotated[str, field(1)] = ""


class PublishRequest(Message, frozen=True):
    channel: Annotated[str, field(1)] = ""
    data: Annotated[Raw, field(2)] = EMPTY
    type: Annotated[int, int32(3)] = 0


class PresenceRequest(Message, frozen=True):
    channel: Annotated[str, field(1)] = ""


class PresenceStatsRequest(Message, frozen=True):
    channel: Annotated[str, field(1)] = ""


class HistoryRequest(Message, frozen=True):
    """`limit` of 0: no publications, only the position; less than 0: all."""

    channel: Annotated[str, field(1)] = ""
    limit: Annotated[int, int32(7)] = 0
    since: Annotated[Position | None, field(8)] = None
    reverse: Annotated[bool, field(9)] = False


class PingRequest(Message, frozen=True):
    pass


class SendRequest(Message, frozen=True):
    data: Annotated[Raw, field(1)] = EMPTY


class RpcRequest(Message, frozen=True):
    data: Annotated[Raw, field(1)] = EMPTY
    method: Annotated[str, field(2)] = ""


class RefreshRequest(Message, frozen=True):
    token: Annotated[str, field(1)] = ""


class SubRefreshRequest(Message, frozen=True):
    channel: Annotated[str, field(1)] = ""
    token: Annotated[str, field(2)] = ""
    type: Annotated[int, int32(3)] = 0


Request = (
    ConnectRequest
    | SubscribeRequest
    | UnsubscribeRequest
    | PublishRequest
    | PresenceRequest
    | PresenceStatsRequest
    | HistoryRequest
    | PingRequest
    | SendRequest
    | RpcRequest
    | RefreshRequest
    | SubRefreshRequest
)


class Command(Message, frozen=True):
    """From the client: an id and one request. Without any of them it is a pong; only `send` has no id."""

    id: Annotated[int, uint32(1)] = 0
    connect: Annotated[ConnectRequest | None, field(4)] = None
    subscribe: Annotated[SubscribeRequest | None, field(5)] = None
    unsubscribe: Annotated[UnsubscribeRequest | None, field(6)] = None
    publish: Annotated[PublishRequest | None, field(7)] = None
    presence: Annotated[PresenceRequest | None, field(8)] = None
    presence_stats: Annotated[PresenceStatsRequest | None, field(9)] = None
    history: Annotated[HistoryRequest | None, field(10)] = None
    ping: Annotated[PingRequest | None, field(11)] = None
    send: Annotated[SendRequest | None, field(12)] = None
    rpc: Annotated[RpcRequest | None, field(13)] = None
    refresh: Annotated[RefreshRequest | None, field(14)] = None
    sub_refresh: Annotated[SubRefreshRequest | None, field(15)] = None

    def requests(self) -> list[Request]:
        """What is asked: no request, one, or more than the protocol allows."""
        found = (
            self.connect,
            self.subscribe,
            self.unsubscribe,
            self.publish,
            self.presence,
            self.presence_stats,
            self.history,
            self.ping,
            self.send,
            self.rpc,
            self.refresh,
            self.sub_refresh,
        )
        return [request for request in found if request is not None]


# ------------------------------------------------------------------------------------------------ results


class SubscribeResult(Message, frozen=True):
    """`offset` is the channel's last one; when `recovered`, the one the client asked from, as `publications` carry it
    forward. `ttl` in s."""

    expires: Annotated[bool, field(1)] = False
    ttl: Annotated[int, uint32(2)] = 0
    recoverable: Annotated[bool, field(3)] = False
    epoch: Annotated[str, field(6)] = ""
    publications: Annotated[list[Publication], field(7)] = []
    recovered: Annotated[bool, field(8)] = False
    offset: Annotated[int, uint64(9)] = 0
    positioned: Annotated[bool, field(10)] = False
    data: Annotated[Raw, field(11)] = EMPTY
    was_recovering: Annotated[bool, field(12)] = False


class ConnectResult(Message, frozen=True):
    """`ttl` and `ping` in s. `session` and `node` are for clients whose commands come by requests of their own."""

    client: Annotated[str, field(1)]
    version: Annotated[str, field(2)] = ""
    expires: Annotated[bool, field(3)] = False
    ttl: Annotated[int, uint32(4)] = 0
    data: Annotated[Raw, field(5)] = EMPTY
    subs: Annotated[dict[str, SubscribeResult], field(6)] = {}
    ping: Annotated[int, uint32(7)] = 0
    pong: Annotated[bool, field(8)] = False
    session: Annotated[str, field(9)] = ""
    node: Annotated[str, field(10)] = ""


class UnsubscribeResult(Message, frozen=True):
    pass


class PublishResult(Message, frozen=True):
    pass


class PresenceResult(Message, frozen=True):
    """Who is there, by the id of the client."""

    presence: Annotated[dict[str, ClientInfo], field(1)]


class PresenceStatsResult(Message, frozen=True):
    """Clients without a user's name are one user together."""

    num_clients: Annotated[int, uint32(1)]
    num_users: Annotated[int, uint32(2)]


class HistoryResult(Message, frozen=True):
    publications: Annotated[list[Publication], field(1)]
    epoch: Annotated[str, field(2)]
    offset: Annotated[int, uint64(3)]


class PingResult(Message, frozen=True):
    pass


class RpcResult(Message, frozen=True):
    data: Annotated[Raw, field(1)] = EMPTY


class RefreshResult(Message, frozen=True):
    client: Annotated[str, field(1)]
    version: Annotated[str, field(2)] = ""
    expires: Annotated[bool, field(3)] = False
    ttl: Annotated[int, uint32(4)] = 0


class SubRefreshResult(Message, frozen=True):
    expires: Annotated[bool, field(1)] = False
    ttl: Annotated[int, uint32(2)] = 0


# ------------------------------------------------------------------------------------------------ pushes


class Join(Message, frozen=True):
    info: Annotated[ClientInfo, field(1)]


class Leave(Message, frozen=True):
    info: Annotated[ClientInfo, field(1)]


class Unsubscribe(Message, frozen=True):
    """The server has ended a subscription. From code 2500 on the client subscribes again at once."""

    code: Annotated[int, uint32(2)]
    reason: Annotated[str, field(3)]


class Subscribe(Message, frozen=True):
    """The server has begun a subscription."""

    recoverable: Annotated[bool, field(1)] = False
    epoch: Annotated[str, field(4)] = ""
    offset: Annotated[int, uint64(5)] = 0
    positioned: Annotated[bool, field(6)] = False
    data: Annotated[Raw, field(7)] = EMPTY


class ServerMessage(Message, frozen=True):
    """Data for this client alone, in no channel."""

    data: Annotated[Raw, field(1)] = EMPTY


class Disconnect(Message, frozen=True):
    """The server ends the connection. `reason` is never empty: one library stops for good without it."""

    code: Annotated[int, uint32(1)]
    reason: Annotated[str, field(2)]


class Push(Message, frozen=True):
    """What no command has asked for: one of these."""

    channel: Annotated[str, field(2)] = ""
    pub: Annotated[Publication | None, field(4)] = None
    join: Annotated[Join | None, field(5)] = None
    leave: Annotated[Leave | None, field(6)] = None
    unsubscribe: Annotated[Unsubscribe | None, field(7)] = None
    message: Annotated[ServerMessage | None, field(8)] = None
    subscribe: Annotated[Subscribe | None, field(9)] = None
    disconnect: Annotated[Disconnect | None, field(11)] = None


class Reply(Message, frozen=True):
    """To the client: an id with a result or an error, a push, or nothing at all, which is a ping."""

    id: Annotated[int, uint32(1)] = 0
    error: Annotated[Error | None, field(2)] = None
    push: Annotated[Push | None, field(4)] = None
    connect: Annotated[ConnectResult | None, field(5)] = None
    subscribe: Annotated[SubscribeResult | None, field(6)] = None
    unsubscribe: Annotated[UnsubscribeResult | None, field(7)] = None
    publish: Annotated[PublishResult | None, field(8)] = None
    presence: Annotated[PresenceResult | None, field(9)] = None
    presence_stats: Annotated[PresenceStatsResult | None, field(10)] = None
    history: Annotated[HistoryResult | None, field(11)] = None
    ping: Annotated[PingResult | None, field(12)] = None
    rpc: Annotated[RpcResult | None, field(13)] = None
    refresh: Annotated[RefreshResult | None, field(14)] = None
    sub_refresh: Annotated[SubRefreshResult | None, field(15)] = None


class Emulation(Message, frozen=True):
    """Commands of a client that has a stream only from the server to itself, by a request of their own."""

    node: Annotated[str, field(1)] = ""
    session: Annotated[str, field(2)] = ""
    data: Annotated[bytes, field(3)] = b""
