"""One channel of one client: what it has been given, what it may be given next.

A client's library takes every publication as its new position, and checks neither gaps nor order. So it is checked
here. There are two sources: the answer to `Follow` (what came before) and deliveries (what comes now). They overlap, as
deliveries begin before the answer is there; those wait, and go out behind the answer, without what the answer had.

    asked for, following -> live
    the answer's last offset is 14; held back: 13, 14, 15, 16 -> 15 and 16 go out, and 17 is expected
"""

from collections.abc import Sequence
from enum import Enum

from mooring.centrifuge.actions import Followed, SubscribeAnswer
from mooring.centrifuge.commands import EMPTY, Position, Publication, SubscribeRequest, SubscribeResult
from mooring.centrifuge.delivery import Delivery


class Verdict(Enum):
    """What becomes of a delivery."""

    SEND = "send"
    DROP = "drop"  # the client has it, or has not asked for it
    HOLD = "hold"  # it waits for what came before
    GAP = "gap"  # something before it is missing


class Subscription:
    """`expires_at` on the session's clock, None: it does not expire. `since` is what the client asked to go on from."""

    __slots__ = (
        "_epoch",
        "_held",
        "_next",
        "answer",
        "by_server",
        "channel",
        "expires_at",
        "followed",
        "live",
        "request",
        "since",
    )

    def __init__(self, channel: str, request: SubscribeRequest, by_server: bool = False) -> None:
        self.channel = channel
        self.request = request
        self.by_server = by_server
        self.answer = SubscribeAnswer()
        self.since: Position | None = None
        self.expires_at: float | None = None
        self.followed = False  # the engine has been asked
        self.live = False
        self._held: list[Delivery] = []
        self._next = 0  # the offset that is expected, 0: any
        self._epoch = ""

    @property
    def hears_joins(self) -> bool:
        return self.answer.join_leave and (self.answer.force_join_leave or self.request.join_leave)

    def accept(self, answer: SubscribeAnswer) -> None:
        """The application agrees: from here on it is known what is asked of the engine."""
        self.answer = answer
        if self.request.recover and answer.recoverable:
            self.since = Position(self.request.offset, self.request.epoch)

    def judge(self, delivery: Delivery) -> Verdict:
        if not delivery.push.pub and not self.hears_joins:
            return Verdict.DROP
        if not self.live:
            self._held.append(delivery)
            return Verdict.HOLD
        return self._place(delivery)

    @property
    def held(self) -> int:
        return len(self._held)

    def _place(self, delivery: Delivery) -> Verdict:
        if not delivery.offset or not self._next:
            return Verdict.SEND
        if delivery.epoch and delivery.epoch != self._epoch:
            return Verdict.GAP
        if delivery.offset < self._next:
            return Verdict.DROP
        if delivery.offset > self._next:
            return Verdict.GAP
        self._next += 1
        return Verdict.SEND

    def result(self, followed: Followed, ttl: int) -> SubscribeResult:
        """What the client is told. `ttl` in s, 0: it does not expire."""
        answer, position, since = self.answer, followed.position, self.since
        positioned = position is not None and (answer.positioned or answer.recoverable)
        if position is None:
            position = Position()
        recovered = since is not None and followed.recovered and _complete(since, followed.publications, position)
        if positioned:
            self._next, self._epoch = position.offset + 1, position.epoch
        return SubscribeResult(
            expires=ttl > 0,
            ttl=ttl,
            recoverable=positioned and answer.recoverable,
            positioned=positioned,
            epoch=position.epoch if positioned else "",
            offset=since.offset if recovered and since else position.offset if positioned else 0,
            publications=list(followed.publications) if recovered else [],
            recovered=recovered,
            was_recovering=since is not None,
            data=answer.data or EMPTY,
        )

    def go_live(self) -> list[tuple[Verdict, Delivery]]:
        """Call it when the result is on its way: what has been held back, as it is to be sent now."""
        self.live = True
        held, self._held = self._held, []
        return [(self._place(delivery), delivery) for delivery in held]


def _complete(since: Position, publications: Sequence[Publication], last: Position) -> bool:
    """Whether these are all between the two. What an engine says is not believed blindly: a gap would be silent."""
    if since.epoch not in ("", last.epoch) or len(publications) != last.offset - since.offset:
        return False
    return all(publication.offset == at for at, publication in enumerate(publications, since.offset + 1))
