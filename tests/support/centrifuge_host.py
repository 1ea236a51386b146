"""A host for sessions of the Centrifuge protocol: WebSockets by the library `websockets`, and as the application and
the engine a dictionary of topics. It does what a session asks for in the plainest way, so that a test sees the session.

    async with Host() as host:
        client = Client(host.url)

What a channel can do, its name says: `plain` keeps nothing; any other one keeps what is published, and who is there.
"""

import asyncio
import contextlib
import itertools
import json
from dataclasses import dataclass, field
from typing import Any

from msgspec import Raw
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

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
from mooring.centrifuge.claims import ConnectionClaims, SubscriptionClaims
from mooring.centrifuge.codec import PROTOBUF_SUBPROTOCOL, Codec
from mooring.centrifuge.codes import METHOD_NOT_FOUND, PERMISSION_DENIED
from mooring.centrifuge.commands import (
    EMPTY,
    ClientInfo,
    Disconnect,
    Error,
    HistoryRequest,
    HistoryResult,
    Position,
    PresenceResult,
    PresenceStatsResult,
    Publication,
)
from mooring.centrifuge.delivery import Delivery, joined, left, published
from mooring.centrifuge.json import JsonCodec
from mooring.centrifuge.limits import DEFAULT_TIMING
from mooring.centrifuge.protobuf import ProtobufCodec
from mooring.centrifuge.session import Session


def raw(value: object) -> Raw:
    return Raw(json.dumps(value).encode())


@dataclass
class Topic:
    name: str
    epoch: str = "one"
    offset: int = 0
    log: list[Publication] = field(default_factory=list)
    followers: "dict[Connection, Follow]" = field(default_factory=dict)

    @property
    def keeps(self) -> bool:
        return not self.name.startswith("plain")

    def since(self, position: Position) -> list[Publication] | None:
        """What came after it; None: that can't be said."""
        first = self.log[0].offset if self.log else self.offset + 1
        if position.epoch not in ("", self.epoch) or not first - 1 <= position.offset <= self.offset:
            return None
        return [one for one in self.log if one.offset > position.offset]

    def members(self) -> dict[str, ClientInfo]:
        return {follow.info.client: follow.info for follow in self.followers.values() if follow.presence}


class Host:
    """Use it as an async context manager. `clients` are the connections that are open."""

    def __init__(self, tokens: Any = None, timing: Any = DEFAULT_TIMING, subs: tuple[str, ...] = (), **options: Any):
        self.topics: dict[str, Topic] = {}
        self.clients: list[Connection] = []
        self.told: list[bytes] = []  # what clients have sent without wanting an answer
        self.asked: list[Ask] = []
        self.questions: asyncio.Queue[Ask] = asyncio.Queue()  # the same, to wait for
        self.ended: asyncio.Queue[tuple[int, str]] = asyncio.Queue()  # how connections were ended by their sessions
        self.joined: asyncio.Queue[Connection] = asyncio.Queue()
        self.ttl: float | None = None
        self.sub_ttl: float | None = None
        self.subs = subs
        self.tokens = tokens
        self.timing = timing
        self.options = options
        self.ids = itertools.count(1)

    async def __aenter__(self) -> "Host":
        self._server = await serve(
            self._serve,
            "127.0.0.1",
            0,
            subprotocols=[PROTOBUF_SUBPROTOCOL],
            select_subprotocol=chosen,
            ping_interval=None,
            close_timeout=1,
        )
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"ws://127.0.0.1:{self.port}/connection/websocket"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, socket: ServerConnection) -> None:
        connection = WebSocketConnection(self, socket)
        self.clients.append(connection)
        try:
            await connection.carry()
        finally:
            self.clients.remove(connection)

    def topic(self, name: str) -> Topic:
        return self.topics.setdefault(name, Topic(name))

    def publish(self, name: str, data: object, info: ClientInfo | None = None, *, lost: bool = False) -> None:
        """`lost`: the engine takes it, and subscribers are not told."""
        topic = self.topic(name)
        kept = topic.keeps
        topic.offset += kept
        publication = Publication(data if isinstance(data, Raw) else raw(data), info, topic.offset if kept else 0)
        if kept:
            topic.log.append(publication)
        if not lost:
            self.deliver(published(name, publication, topic.epoch))

    def deliver(self, delivery: Delivery) -> None:
        for connection in list(self.topic(delivery.channel).followers):
            connection.session.deliver(delivery, now())
            connection.work()

    def cut(self) -> None:
        """Every connection is gone, as by a network that has failed."""
        for connection in list(self.clients):
            connection.cut()

    async def turn(self, count: int) -> None:
        """Lets others have so many turns of the loop."""
        for _ in range(count):
            await asyncio.sleep(0)

    # -- the application

    def answer(self, connection: "Connection", ask: Ask) -> Any:
        request, channel = ask.request, getattr(ask.request, "channel", "")
        self.asked.append(ask)
        self.questions.put_nowait(ask)
        if channel.startswith("forbidden"):
            return Refusal(PERMISSION_DENIED)
        return getattr(self, "on_" + type(request).__name__)(connection, ask, request)

    def on_ConnectRequest(self, connection: "Connection", ask: Ask, request: Any) -> Any:
        said = json.loads(bytes(request.data) or b"{}")
        if "refuse" in said:
            return Refusal(Error(said["refuse"], "refused as asked", said.get("temporary", False)))
        if "end" in said:
            return Refusal(Disconnect(said["end"], "ended as asked"))
        claims = ask.claims if isinstance(ask.claims, ConnectionClaims) else ConnectionClaims(said.get("user", ""))
        ttl = claims.ttl if ask.claims else self.ttl
        subs = {name: self.options_of(name) for name in (*self.subs, *claims.subs)}
        return ConnectAnswer(claims.user, claims.info, raw({"hello": claims.user}), ttl, subs=subs)

    def options_of(self, channel: str, info: Raw = EMPTY, ttl: float | None = None) -> SubscribeAnswer:
        keeps = Topic(channel).keeps
        return SubscribeAnswer(info, EMPTY, ttl, keeps, keeps, keeps, keeps, keeps)

    def on_SubscribeRequest(self, connection: "Connection", ask: Ask, request: Any) -> Any:
        claims = ask.claims if isinstance(ask.claims, SubscriptionClaims) else None
        return self.options_of(
            request.channel, claims.info if claims else EMPTY, claims.ttl if claims else self.sub_ttl
        )

    def on_PublishRequest(self, connection: "Connection", ask: Ask, request: Any) -> Any:
        self.publish(request.channel, request.data, ClientInfo(connection.session.user, connection.id))
        return Done()

    def on_PresenceRequest(self, connection: "Connection", ask: Ask, request: Any) -> Any:
        return PresenceResult(self.topic(request.channel).members())

    def on_PresenceStatsRequest(self, connection: "Connection", ask: Ask, request: Any) -> Any:
        members = self.topic(request.channel).members().values()
        return PresenceStatsResult(len(members), len({member.user for member in members}))

    def on_HistoryRequest(self, connection: "Connection", ask: Ask, request: HistoryRequest) -> Any:
        topic = self.topic(request.channel)
        found = topic.log
        if request.since is not None:
            way = (lambda at: at < request.since.offset) if request.reverse else (lambda at: at > request.since.offset)
            found = [one for one in found if way(one.offset)]
        found = list(reversed(found)) if request.reverse else list(found)
        return HistoryResult(found if request.limit < 0 else found[: request.limit], topic.epoch, topic.offset)

    def on_RpcRequest(self, connection: "Connection", ask: Ask, request: Any) -> Any:
        if request.method == "echo":
            return RpcAnswer(request.data)
        return Refusal(METHOD_NOT_FOUND)

    def on_RefreshRequest(self, connection: "Connection", ask: Ask, request: Any) -> Any:
        return RefreshAnswer(self.ttl)

    def on_SubRefreshRequest(self, connection: "Connection", ask: Ask, request: Any) -> Any:
        return RefreshAnswer(self.sub_ttl)


class Connection:
    """One client of the host, whatever carries its frames: `carry` and `cut` know."""

    def __init__(self, host: Host, codec: Codec, **options: Any) -> None:
        self.host = host
        self.id = f"client-{next(host.ids)}"
        self.session = Session(codec, self.id, now(), tokens=host.tokens, timing=host.timing, **host.options, **options)
        self.codec = codec
        self.binary = codec.binary
        self.ponged: asyncio.Queue[None] = asyncio.Queue()
        self.outgoing: asyncio.Queue[Send | Close] = asyncio.Queue()
        self._timer: asyncio.TimerHandle | None = None

    def cut(self) -> None:
        raise NotImplementedError

    def receive(self, frame: bytes) -> None:
        if frame in (b"{}", b"\x00"):
            self.ponged.put_nowait(None)
        self.session.receive(frame, now())
        self.work()

    def lost(self) -> None:
        self.session.lost()
        self.work()

    def work(self) -> None:
        """Does what the session wants, until it wants nothing."""
        while actions := self.session.take():
            for action in actions:
                self._do(action)
        if self._timer is not None:
            self._timer.cancel()
        deadline = self.session.deadline
        if deadline is not None:
            self._timer = asyncio.get_running_loop().call_at(deadline, self._tick)

    def _tick(self) -> None:
        self.session.tick(now())
        self.work()

    def _do(self, action: Any) -> None:
        host = self.host
        match action:
            case Send():
                self.outgoing.put_nowait(action)
            case Close():
                host.ended.put_nowait((action.code, action.reason))
                self.outgoing.put_nowait(action)
            case Ask():
                answer = host.answer(self, action)
                if answer is not None:  # or it comes later
                    self.session.answer(action.ticket, answer, now())
            case Tell(request):
                host.told.append(bytes(request.data))
            case Follow():
                self._follow(host.topic(action.channel), action)
            case Unfollow(channel):
                topic = host.topic(channel)
                follow = topic.followers.pop(self)
                if follow.announced:
                    host.deliver(left(channel, follow.info))

    def _follow(self, topic: Topic, follow: Follow) -> None:
        topic.followers[self] = follow
        self.session.answer(follow.ticket, followed(topic, follow.since), now())
        self.host.joined.put_nowait(self)
        if follow.announced:
            self.host.deliver(joined(topic.name, follow.info))


class WebSocketConnection(Connection):
    """By the library `websockets`."""

    def __init__(self, host: Host, socket: ServerConnection) -> None:
        super().__init__(host, ProtobufCodec() if socket.subprotocol else JsonCodec())
        self._socket = socket

    def cut(self) -> None:
        self._socket.transport.abort()

    async def carry(self) -> None:
        self.work()
        async with asyncio.TaskGroup() as tasks:
            writer = tasks.create_task(self._write())
            with contextlib.suppress(ConnectionClosed):
                async for message in self._socket:
                    self.receive(message.encode() if isinstance(message, str) else message)
            self.lost()
            writer.cancel()

    async def _write(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                match await self.outgoing.get():
                    case Send(frame):
                        await self._socket.send(frame if self.binary else frame.decode())
                    case Close(code, reason):
                        await self._socket.close(code, reason)


def followed(topic: Topic, since: Position | None) -> Followed:
    if not topic.keeps:
        return Followed()
    missed = None if since is None else topic.since(since)
    return Followed(Position(topic.offset, topic.epoch), missed is not None, missed or ())


def chosen(connection: ServerConnection, offered: Any) -> Any:
    return PROTOBUF_SUBPROTOCOL if PROTOBUF_SUBPROTOCOL in offered else None


def now() -> float:
    return asyncio.get_running_loop().time()
