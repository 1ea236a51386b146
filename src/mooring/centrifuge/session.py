"""One client of the Centrifuge protocol, from its first command to its end. Sans-IO: it is told what happens
(`receive`, `answer`, `deliver`, `tick`, ...), and what is to be done stands in `take()`. A clock is handed in with each
call, in s; it may be any that only goes forward.

    NEW --connect--> CONNECTING --answer--> CONNECTED ----> CLOSED
                         '--------refusal--> REFUSED -------'

* `connect` comes first and once. A client may send its subscriptions in the same frame: they wait for the answer, and
  are dropped without a word if it is a refusal, as the client begins anew then.
* Other commands take turns as `core.py` says; each has one reply.
* A subscription's result goes out ahead of the first publication of the channel (`subscription.py`).
* What breaks the protocol ends the connection. What is asked for and can't be had is an error in the reply.
* After the end nothing is done any more, whatever comes late.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

from msgspec import Raw

from mooring.centrifuge import codes
from mooring.centrifuge.actions import (
    Action,
    Answer,
    ConnectAnswer,
    Done,
    RefreshAnswer,
    RpcAnswer,
    SubscribeAnswer,
    Tell,
)
from mooring.centrifuge.channels import Channels, Identity, whole
from mooring.centrifuge.claims import TokenError, TokenExpired, Verifier
from mooring.centrifuge.codec import Codec
from mooring.centrifuge.commands import (
    Command,
    ConnectRequest,
    ConnectResult,
    Disconnect,
    Error,
    HistoryRequest,
    HistoryResult,
    PingRequest,
    PingResult,
    PresenceRequest,
    PresenceResult,
    PresenceStatsRequest,
    PresenceStatsResult,
    PublishRequest,
    PublishResult,
    Push,
    RefreshRequest,
    RefreshResult,
    Request,
    RpcRequest,
    RpcResult,
    SendRequest,
    ServerMessage,
    SubRefreshRequest,
    SubscribeRequest,
    SubscribeResult,
    Unsubscribe,
    UnsubscribeRequest,
)
from mooring.centrifuge.core import Core, State
from mooring.centrifuge.delivery import Delivery
from mooring.centrifuge.heartbeat import Beat, Heartbeat
from mooring.centrifuge.limits import DEFAULT, DEFAULT_TIMING, Limits, Timing
from mooring.errors import StateError


class Session:
    """One client. `client` is its id, by which others see it; nobody may be able to guess `session`, which with `node`
    is for clients whose commands come by requests of their own. With `tokens` the session reads tokens itself; without,
    the application is asked. `spread` (0 to 1) chooses when the first ping goes out. `version` is the server's, as the
    client is told. `push_disconnect`: the client is told of the end in a frame as well, which is all that one without
    WebSocket has."""

    def __init__(
        self,
        codec: Codec,
        client: str,
        now: float,
        *,
        tokens: Verifier | None = None,
        limits: Limits = DEFAULT,
        timing: Timing = DEFAULT_TIMING,
        spread: float = 0.5,
        version: str = "",
        session: str = "",
        node: str = "",
        push_disconnect: bool = True,
    ) -> None:
        self._core = Core(codec, now, push_disconnect)
        self._identity = Identity(client)
        self._channels = Channels(self._core, self._identity, tokens, limits, timing)
        self._core.run = self._run
        self._core.leave = self._leave
        self._tokens = tokens
        self._limits = limits
        self._timing = timing
        self._spread = spread
        self._version = version
        self._session, self._node = session, node
        self._connect: tuple[int, ConnectRequest] = (0, ConnectRequest())
        self._early: deque[tuple[int, Request]] = deque()  # what came behind `connect`, until that is answered
        self._heartbeat = Heartbeat(timing)
        self._stale_at: float | None = now + timing.connect_timeout
        self._expires_at: float | None = None

    @property
    def state(self) -> State:
        return self._core.state

    @property
    def user(self) -> str:
        return self._identity.user

    @property
    def channels(self) -> Channels:
        """What the client is subscribed to, or is about to be."""
        return self._channels

    # -------------------------------------------------------------------------------------------- what happens

    def receive(self, frame: bytes, now: float) -> None:
        """A frame of the client."""
        self._core.now = now
        if self.state is State.CLOSED:
            return
        if self.state is State.REFUSED:
            self._core.close(Disconnect(codes.BAD_COMMAND, "a command after connect was refused"))
            return
        try:
            for command in self._core.codec.commands(frame):
                self._take(command)
                if self.state in (State.REFUSED, State.CLOSED):
                    return
        except codes.Violation as violation:
            self._core.close(violation.disconnect)

    def answer(self, ticket: int, answer: Answer, now: float) -> None:
        """What came of an `Ask` or a `Follow`. A ticket that is not open any more is let pass. Raises `TypeError` for
        an answer that is none to the question."""
        self._core.now = now
        self._core.settle(ticket, answer)

    def deliver(self, delivery: Delivery, now: float) -> None:
        """Something that all subscribers of a channel get."""
        self._core.now = now
        self._channels.deliver(delivery)

    def tick(self, now: float) -> None:
        """Call it at `deadline`, when what the client has sent until then has been received."""
        self._core.now = now
        if self.state is State.CLOSED:
            return
        if self._stale_at is not None and now >= self._stale_at:
            self._core.close(codes.STALE)
        if self._expires_at is not None and now >= self._expires_at:
            self._core.close(codes.CONNECTION_EXPIRED)
        self._channels.expire()
        beat = self._heartbeat.due(now, self.holding) if self.state is State.CONNECTED else None
        if beat is Beat.PING:
            self._core.send(self._core.codec.ping)
        elif beat is Beat.NO_PONG:
            self._core.close(codes.NO_PONG)

    def lost(self) -> None:
        """The client is gone."""
        if self.state is not State.CLOSED:
            self._core.lost()

    # -------------------------------------------------------------------------------------------- what the server does

    def subscribe(self, channel: str, answer: SubscribeAnswer, now: float) -> None:
        """Begins a server-side subscription. A channel that the client has already stays as it is. Like all of these it
        does nothing after the end, and raises `StateError` ahead of the answer to `connect`."""
        if self._begun(now):
            self._channels.add(channel, answer)

    def unsubscribe(self, channel: str, now: float, why: Unsubscribe = codes.UNSUBSCRIBED) -> None:
        """Ends a subscription, whoever began it."""
        if self._begun(now):
            self._channels.end(channel, why)

    def gap(self, channel: str, now: float) -> None:
        """Something that was published in a channel is lost for this client: it comes back, and recovers."""
        if self._begun(now):
            self._channels.gap(channel)

    def message(self, data: Raw, now: float) -> None:
        """Sends data to this client, in no channel."""
        if self._begun(now):
            self._core.push(Push(message=ServerMessage(data)))

    def extend(self, ttl: float | None, now: float) -> None:
        """The connection lasts so many s from now on; None: for ever."""
        if self._begun(now):
            self._expires_at = None if ttl is None else now + ttl

    def disconnect(self, now: float, why: Disconnect = codes.FORCED) -> None:
        """Ends the connection, at any time."""
        self._core.now = now
        self._core.close(why)

    def _begun(self, now: float) -> bool:
        self._core.now = now
        if self.state in (State.NEW, State.CONNECTING):
            raise StateError("the client is not connected yet: wait until `connect` has been answered")
        return self.state is State.CONNECTED

    # -------------------------------------------------------------------------------------------- what is to be done

    def take(self) -> list[Action]:
        """What is to be done now, in this order; each thing is here once."""
        return self._core.take()

    @property
    def deadline(self) -> float | None:
        """When to call `tick`, None: no need to."""
        times = (self._stale_at, self._expires_at, self._heartbeat.deadline, self._channels.deadline)
        known = [at for at in times if at is not None]
        return min(known) if known and self.state is not State.CLOSED else None

    @property
    def holding(self) -> bool:
        """Whether the client has asked so much that nothing more should be read until something is answered."""
        return self._core.unanswered >= self._limits.unanswered

    # -------------------------------------------------------------------------------------------- commands

    def _take(self, command: Command) -> None:
        requests = command.requests()
        if not requests:
            if self.state is not State.CONNECTED or not self._heartbeat.pong():
                raise codes.Violation("a pong without a ping")
            return
        request = requests[0]
        if len(requests) > 1:
            raise codes.Violation("a command with more than one request")
        if not command.id and not isinstance(request, SendRequest):
            raise codes.Violation("a command without an id")
        if self.state is State.NEW and not isinstance(request, ConnectRequest):
            raise codes.Violation("a command before connect")
        if self.state is not State.NEW and isinstance(request, ConnectRequest):
            raise codes.Violation("a second connect")
        self._core.unanswered += not isinstance(request, SendRequest)
        if max(self._core.unanswered, len(self._early)) > self._limits.unanswered_most:
            self._core.close(codes.TOO_MANY_COMMANDS)
        elif isinstance(request, ConnectRequest):
            self._on_connect(command.id, request)
        elif self.state is State.CONNECTING:
            self._early.append((command.id, request))
        else:
            self._core.queue(command.id, request)

    def _run(self, id: int, request: Request) -> None:
        channel = getattr(request, "channel", None)
        if channel is None or 0 < len(channel.encode()) <= self._limits.channel:
            RUN[type(request)](self, id, request)
        elif channel:
            text = f"the name of a channel has at most {self._limits.channel} bytes"
            self._core.reply(id, error=Error(codes.LIMIT_EXCEEDED.code, text))
        else:
            self._core.reply(id, error=codes.BAD_REQUEST)

    # -------------------------------------------------------------------------------------------- connect

    def _on_connect(self, id: int, request: ConnectRequest) -> None:
        self._core.enter(State.CONNECTING)
        self._connect = (id, request)
        claims = None
        if self._tokens is not None and request.token:
            try:
                claims = self._tokens.connection(request.token)
            except TokenExpired:
                self._refuse(codes.TOKEN_EXPIRED)
                return
            except TokenError:
                self._core.close(codes.INVALID_TOKEN)
                return
        self._core.ask(request, ConnectAnswer, self._admit, self._refuse, claims)

    def _refuse(self, error: Error) -> None:
        self._leave()
        self._core.forget()
        self._core.reply(self._connect[0], error=error)
        self._core.enter(State.REFUSED)
        self._stale_at = self._core.now + self._timing.connect_timeout

    def _admit(self, answer: ConnectAnswer) -> None:
        self._identity.user, self._identity.info = answer.user, answer.info
        if len(answer.subs) > self._limits.channels:
            self._core.close(codes.CHANNEL_LIMIT)
        else:
            asked = self._connect[1].subs
            self._channels.begin(answer.subs, asked, self._refuse, lambda subs: self._greet(answer, subs))

    def _greet(self, answer: ConnectAnswer, subs: dict[str, SubscribeResult]) -> None:
        ttl = None if answer.refreshed_here else answer.ttl
        result = ConnectResult(
            self._identity.client,
            self._version,
            expires=ttl is not None,
            ttl=0 if ttl is None else whole(ttl),
            data=answer.data,
            subs=subs,
            ping=self._timing.ping_interval,
            pong=self._timing.pong and self._timing.ping_interval > 0,
            session=self._session,
            node=self._node,
        )
        if answer.ttl is not None:
            self._expires_at = self._core.now + answer.ttl + (0 if answer.refreshed_here else self._timing.grace)
        self._stale_at = None
        self._core.enter(State.CONNECTED)
        self._heartbeat.start(self._core.now, self._spread)
        self._core.reply(self._connect[0], connect=result)
        self._channels.all_live()
        while self._early and self.state is State.CONNECTED:
            self._core.queue(*self._early.popleft())

    def _leave(self) -> None:
        self._channels.leave()
        self._early.clear()

    # -------------------------------------------------------------------------------------------- other commands

    def _on_publish(self, id: int, request: PublishRequest) -> None:
        if request.type:
            self._core.reply(id, error=codes.NOT_AVAILABLE)
        elif not request.data:
            self._core.reply(id, error=codes.BAD_REQUEST)
        else:
            self._hand_on(id, request, Done, lambda _: {"publish": PublishResult()})

    def _on_presence(self, id: int, request: PresenceRequest) -> None:
        self._hand_on(id, request, PresenceResult, lambda answer: {"presence": answer})

    def _on_presence_stats(self, id: int, request: PresenceStatsRequest) -> None:
        self._hand_on(id, request, PresenceStatsResult, lambda answer: {"presence_stats": answer})

    def _on_history(self, id: int, request: HistoryRequest) -> None:
        self._hand_on(id, request, HistoryResult, lambda answer: {"history": answer})

    def _on_rpc(self, id: int, request: RpcRequest) -> None:
        self._hand_on(id, request, RpcAnswer, lambda answer: {"rpc": RpcResult(answer.data)})

    def _on_refresh(self, id: int, request: RefreshRequest) -> None:
        if not request.token:
            self._core.reply(id, error=codes.BAD_REQUEST)
        elif self._tokens is None:
            self._hand_on(id, request, RefreshAnswer, lambda answer: {"refresh": self._refreshed(answer.ttl)})
        else:
            try:
                claims = self._tokens.connection(request.token)
            except TokenExpired:
                self._core.reply(id, error=codes.TOKEN_EXPIRED)
                return
            except TokenError:
                self._core.close(codes.INVALID_TOKEN)
                return
            if claims.user != self._identity.user:
                self._core.close(codes.INVALID_TOKEN)
            else:
                self._core.reply(id, refresh=self._refreshed(claims.ttl))

    def _refreshed(self, ttl: float | None) -> RefreshResult:
        self._expires_at = None if ttl is None else self._core.now + ttl + self._timing.grace
        return RefreshResult(
            self._identity.client, self._version, expires=ttl is not None, ttl=0 if ttl is None else whole(ttl)
        )

    def _on_send(self, id: int, request: SendRequest) -> None:
        self._core.act(Tell(request))

    def _on_ping(self, id: int, request: PingRequest) -> None:
        self._core.reply(id, ping=PingResult())

    def _hand_on(
        self,
        id: int,
        request: PublishRequest | PresenceRequest | PresenceStatsRequest | HistoryRequest | RpcRequest | RefreshRequest,
        expects: type,
        as_reply: Callable[[Any], dict[str, Any]],
    ) -> None:
        channel = getattr(request, "channel", "")

        def accepted(answer: Any) -> None:
            self._core.reply(id, **as_reply(answer))
            self._core.done(channel)

        def refused(error: Error) -> None:
            self._core.reply(id, error=error)
            self._core.done(channel)

        self._core.ask(request, expects, accepted, refused, subscribed=channel in self._channels)


RUN: dict[type, Callable[[Session, int, Any], None]] = {
    SubscribeRequest: lambda session, id, request: session.channels.on_subscribe(id, request),
    UnsubscribeRequest: lambda session, id, request: session.channels.on_unsubscribe(id, request),
    SubRefreshRequest: lambda session, id, request: session.channels.on_sub_refresh(id, request),
    PublishRequest: Session._on_publish,
    PresenceRequest: Session._on_presence,
    PresenceStatsRequest: Session._on_presence_stats,
    HistoryRequest: Session._on_history,
    RpcRequest: Session._on_rpc,
    SendRequest: Session._on_send,
    PingRequest: Session._on_ping,
    RefreshRequest: Session._on_refresh,
}
