"""The channels of one client: how it gets them, keeps them and loses them. `subscription.py` has each of them."""

from collections.abc import Callable, Mapping

from msgspec import Raw, Struct

from mooring.centrifuge import codes
from mooring.centrifuge.actions import Follow, Followed, RefreshAnswer, SubscribeAnswer, Unfollow
from mooring.centrifuge.claims import SubscriptionClaims, TokenError, TokenExpired, Verifier
from mooring.centrifuge.commands import (
    EMPTY,
    ClientInfo,
    Error,
    Push,
    SubRefreshRequest,
    SubRefreshResult,
    Subscribe,
    SubscribeRequest,
    SubscribeResult,
    Unsubscribe,
    UnsubscribeRequest,
    UnsubscribeResult,
)
from mooring.centrifuge.core import Core, Refused, State
from mooring.centrifuge.delivery import Delivery
from mooring.centrifuge.limits import Limits, Timing
from mooring.centrifuge.subscription import Subscription, Verdict

LONGEST_TTL = 2**31 - 1  # s; a token whose time is in ms says more
WANTS_UNRECOVERABLE = 2  # the bit of `flag` by which a client asks for error 112


class Identity(Struct):
    """Who the client is, once `connect` has been answered."""

    client: str
    user: str = ""
    info: Raw = EMPTY


class Channels:
    """Subscriptions by the name of their channel."""

    def __init__(self, core: Core, identity: Identity, tokens: Verifier | None, limits: Limits, timing: Timing) -> None:
        self._core = core
        self._identity = identity
        self._tokens = tokens
        self._limits = limits
        self._grace = timing.grace
        self._all: dict[str, Subscription] = {}

    def __contains__(self, channel: object) -> bool:
        return channel in self._all

    def __len__(self) -> int:
        return len(self._all)

    # -------------------------------------------------------------------------------------------- begun by the server

    def begin(
        self, answers: Mapping[str, SubscribeAnswer], asked: Mapping[str, SubscribeRequest], refused: Refused,
        begun: Callable[[dict[str, SubscribeResult]], None],
    ) -> None:  # fmt: skip
        """The subscriptions of a new connection; `begun` is called when the engine has answered for all of them."""
        results: dict[str, SubscribeResult] = {}

        def one_of(subscription: Subscription) -> Callable[[Followed], None]:
            def followed(found: Followed) -> None:
                results[subscription.channel] = subscription.result(found, 0)
                if len(results) == len(answers):
                    begun({channel: results[channel] for channel in answers})

            return followed

        for channel, answer in answers.items():
            request = asked.get(channel, SubscribeRequest(channel))
            subscription = self._enlist(Subscription(channel, request, by_server=True))
            subscription.accept(answer)
            self._follow(subscription, one_of(subscription), refused)
        if not answers:
            begun({})

    def all_live(self) -> None:
        """The client has been told of all of them."""
        for subscription in list(self._all.values()):
            self._expire_in(subscription, subscription.answer.ttl, grace=0)
            self._go_live(subscription)

    def add(self, channel: str, answer: SubscribeAnswer) -> None:
        """One more. A channel that the client has already stays as it is."""
        if channel in self._all:
            return
        subscription = self._enlist(Subscription(channel, SubscribeRequest(channel), by_server=True))

        def followed(found: Followed) -> None:
            if self._all.get(channel) is subscription:
                result = subscription.result(found, 0)
                position = (result.recoverable, result.epoch, result.offset, result.positioned, result.data)
                self._expire_in(subscription, answer.ttl, grace=0)
                self._core.push(Push(channel, subscribe=Subscribe(*position)))
                self._go_live(subscription)

        subscription.accept(answer)
        self._follow(subscription, followed, lambda _: self._drop(subscription))

    def end(self, channel: str, why: Unsubscribe) -> None:
        """Ends a subscription, whoever began it. One that has not begun yet is refused."""
        subscription = self._all.get(channel)
        if subscription is not None:
            self._drop(subscription)
            if subscription.live:
                self._core.push(Push(channel, unsubscribe=Unsubscribe(why.code, codes.as_reason(why.reason))))

    def leave(self) -> None:
        for subscription in list(self._all.values()):
            self._drop(subscription)

    # -------------------------------------------------------------------------------------------- begun by the client

    def on_subscribe(self, id: int, request: SubscribeRequest) -> None:
        channel = request.channel
        if channel in self._all:
            self._core.reply(id, error=codes.ALREADY_SUBSCRIBED)
        elif request.type or (request.tf and bytes(request.tf) != b"null"):
            self._core.reply(id, error=codes.NOT_AVAILABLE)
        elif len(self._all) >= self._limits.channels:
            text = f"a client has at most {self._limits.channels} channels"
            self._core.reply(id, error=Error(codes.LIMIT_EXCEEDED.code, text))
        elif self._tokens is None or not request.token:
            self._ask(id, request, None)
        else:
            claims = self._claims(id, channel, request.token, self._tokens)
            if claims is not None:
                self._ask(id, request, claims)

    def _ask(self, id: int, request: SubscribeRequest, claims: SubscriptionClaims | None) -> None:
        subscription = self._enlist(Subscription(request.channel, request))

        def refused(error: Error) -> None:
            self._drop(subscription)
            self._core.reply(id, error=error)
            self._core.done(request.channel)

        def agreed(answer: SubscribeAnswer) -> None:
            if self._all.get(request.channel) is not subscription:
                refused(codes.PERMISSION_DENIED)  # the server has ended it before it began
                return
            subscription.accept(answer)
            self._follow(subscription, followed, refused)

        def followed(found: Followed) -> None:
            if self._all.get(request.channel) is not subscription:
                refused(codes.PERMISSION_DENIED)
                return
            self._begun(id, subscription, found)
            self._core.done(request.channel)

        self._core.ask(request, SubscribeAnswer, agreed, refused, claims)

    def _begun(self, id: int, subscription: Subscription, found: Followed) -> None:
        ttl = subscription.answer.ttl
        result = subscription.result(found, 0 if ttl is None else whole(ttl))
        if result.was_recovering and not result.recovered and subscription.request.flag & WANTS_UNRECOVERABLE:
            self._drop(subscription)
            self._core.reply(id, error=codes.UNRECOVERABLE)
            return
        self._expire_in(subscription, ttl, self._grace)
        self._core.reply(id, subscribe=result)
        self._go_live(subscription)

    def on_unsubscribe(self, id: int, request: UnsubscribeRequest) -> None:
        subscription = self._all.get(request.channel)
        if subscription is not None:
            self._drop(subscription)
        self._core.reply(id, unsubscribe=UnsubscribeResult())  # an error would have the client drop the connection

    def _claims(self, id: int, channel: str, token: str, tokens: Verifier) -> SubscriptionClaims | None:
        """What a subscription's token says; None: it is not good, and the client knows. Unlike a connection's token it
        does not end the connection: other channels of the client may be well."""
        try:
            claims = tokens.subscription(token)
        except TokenExpired:
            self._core.reply(id, error=codes.TOKEN_EXPIRED)
            return None
        except TokenError:
            self._core.reply(id, error=codes.PERMISSION_DENIED)
            return None
        mine = (channel, self._identity.user)
        if (claims.channel, claims.user) != mine or claims.client not in ("", self._identity.client):
            self._core.reply(id, error=codes.PERMISSION_DENIED)
            return None
        return claims

    # -------------------------------------------------------------------------------------------- more time

    def on_sub_refresh(self, id: int, request: SubRefreshRequest) -> None:
        channel = request.channel
        if request.type:
            self._core.reply(id, error=codes.NOT_AVAILABLE)
        elif channel not in self._all:
            self._core.reply(id, error=codes.PERMISSION_DENIED)
        elif not request.token:
            self._core.reply(id, error=codes.BAD_REQUEST)
        elif self._tokens is None:

            def refreshed(answer: RefreshAnswer) -> None:
                self._refreshed(id, channel, answer.ttl)
                self._core.done(channel)

            def refused(error: Error) -> None:
                self._core.reply(id, error=error)
                self._core.done(channel)

            self._core.ask(request, RefreshAnswer, refreshed, refused, subscribed=True)
        else:
            claims = self._claims(id, channel, request.token, self._tokens)
            if claims is not None:
                self._refreshed(id, channel, claims.ttl)

    def _refreshed(self, id: int, channel: str, ttl: float | None) -> None:
        subscription = self._all.get(channel)
        if subscription is not None:
            self._expire_in(subscription, ttl, self._grace)
        self._core.reply(id, sub_refresh=SubRefreshResult(ttl is not None, 0 if ttl is None else whole(ttl)))

    def _expire_in(self, subscription: Subscription, ttl: float | None, grace: float) -> None:
        subscription.expires_at = None if ttl is None else self._core.now + ttl + grace

    def expire(self) -> None:
        """Ends those whose time is over."""
        for subscription in list(self._all.values()):
            if subscription.expires_at is None or self._core.now < subscription.expires_at:
                continue
            if subscription.by_server:
                self._core.close(codes.SUBSCRIPTION_EXPIRED)
            else:
                self.end(subscription.channel, codes.UNSUBSCRIBED_EXPIRED)

    @property
    def deadline(self) -> float | None:
        times = [one.expires_at for one in self._all.values() if one.expires_at is not None]
        return min(times) if times else None

    # -------------------------------------------------------------------------------------------- what is published

    def deliver(self, delivery: Delivery) -> None:
        subscription = self._all.get(delivery.channel)
        if subscription is None:
            return
        self._act(subscription, subscription.judge(delivery), delivery)
        if subscription.held > self._limits.held_publications:
            self._core.close(codes.SLOW)

    def _go_live(self, subscription: Subscription) -> None:
        for verdict, delivery in subscription.go_live():
            if self._core.state is State.CLOSED:
                return
            if verdict is Verdict.GAP:  # the place that the client was just told can't be had: it is to begin anew
                self._core.close(codes.INSUFFICIENT_STATE)
            else:
                self._act(subscription, verdict, delivery)

    def _act(self, subscription: Subscription, verdict: Verdict, delivery: Delivery) -> None:
        if verdict is Verdict.SEND:
            try:
                self._core.send(delivery.frame(self._core.codec))
            except codes.NotJson:
                self._core.close(codes.NOT_JSON)
        elif verdict is Verdict.GAP:
            self.gap(subscription.channel)

    def gap(self, channel: str) -> None:
        """Publications are missing: the client is to ask for them. It can, for a channel that it has asked for; one
        that it was given it gets again only by another connection."""
        subscription = self._all.get(channel)
        if subscription is not None and subscription.by_server:
            self._core.close(codes.INSUFFICIENT_STATE)
        elif subscription is not None:
            self.end(channel, codes.POSITION_LOST)

    def _enlist(self, subscription: Subscription) -> Subscription:
        self._all[subscription.channel] = subscription
        return subscription

    def _follow(self, subscription: Subscription, followed: Callable[[Followed], None], refused: Refused) -> None:
        subscription.followed = True
        ticket = self._core.ticket(Followed, followed, refused)
        me, answer = self._identity, subscription.answer
        info = ClientInfo(me.user, me.client, me.info, answer.info)
        how = (answer.presence, answer.announced, subscription.hears_joins)
        self._core.act(Follow(ticket, subscription.channel, subscription.since, info, *how))

    def _drop(self, subscription: Subscription) -> None:
        if self._all.get(subscription.channel) is subscription:
            del self._all[subscription.channel]
            if subscription.followed:
                self._core.act(Unfollow(subscription.channel))


def whole(ttl: float) -> int:
    """As the protocol says it, in whole s; not 0, which would say that there is no end, nor more than it can say."""
    return int(min(max(ttl, 1), LONGEST_TTL))
