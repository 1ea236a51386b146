"""A session in a test, spoken to in dicts: what goes in is encoded, and what comes out decoded, by others."""

from typing import Any

from msgspec import Raw

from mooring.centrifuge.actions import Action, Ask, Close, ConnectAnswer, Follow, Followed, Send, SubscribeAnswer
from mooring.centrifuge.commands import Position, Publication
from mooring.centrifuge.delivery import published
from mooring.centrifuge.session import Session
from support.centrifuge_oracle import ORACLES

PING = {"id": 9, "ping": {}}
KEEPS = SubscribeAnswer(recoverable=True, positioned=True)


class Talk:
    """`now` is the clock of the session; it stands still until a test moves it."""

    def __init__(self, name: str = "json", **options: Any) -> None:
        self.oracle = ORACLES[name]
        self.now = 100.0
        self.session = Session(options.pop("codec", self.oracle.codec), "c1", self.now, **options)
        self.rest: list[Action] = []  # what is to be done besides sending, in order

    def say(self, *commands: dict[str, Any]) -> list[dict[str, Any]]:
        """One frame of the client; what it is sent then."""
        self.session.receive(self.oracle.commands(commands), self.now)
        return self.heard()

    def heard(self) -> list[dict[str, Any]]:
        found = []
        for action in self.session.take():
            if isinstance(action, Send):
                found += self.oracle.replies(action.frame)
            else:
                self.rest.append(action)
        return found

    def next(self, kind: type) -> Any:
        """The next thing to do; it must be of this kind."""
        action = self.rest.pop(0)
        assert isinstance(action, kind), action
        return action

    def answer(self, answer: Any, to: type = Ask) -> list[dict[str, Any]]:
        """Answers the next thing that is to be done."""
        self.session.answer(self.next(to).ticket, answer, self.now)
        return self.heard()

    def connect(self, answer: ConnectAnswer = ConnectAnswer("ann"), **request: Any) -> dict[str, Any]:
        """Connects, and gives back the result."""
        assert self.say({"id": 1, "connect": request}) == []
        [reply] = self.answer(answer)
        assert reply["id"] == 1
        result: dict[str, Any] = reply["connect"]
        return result

    def subscribe(self, channel: str, answer: SubscribeAnswer = KEEPS, at: int = 0, **request: Any) -> dict[str, Any]:
        """Subscribes to a channel whose last offset is `at`, and gives back the result."""
        assert self.say({"id": 2, "subscribe": {"channel": channel, **request}}) == []
        assert self.answer(answer) == []
        [reply] = self.answer(Followed(Position(at, "one")), Follow)
        result: dict[str, Any] = reply["subscribe"]
        return result

    def tick(self, now: float) -> list[dict[str, Any]]:
        self.now = now
        self.session.tick(now)
        return self.heard()

    def ended(self) -> tuple[int, str]:
        """How the session was ended, if that is the last thing it does."""
        action = self.rest[-1]
        assert isinstance(action, Close), action
        return action.code, action.reason


def news(offset, epoch="one", data=b"1"):
    return published("news", Publication(Raw(data), offset=offset), epoch)


def pushed(offset):
    return {"push": {"channel": "news", "pub": {"data": 1, "offset": offset}}}
