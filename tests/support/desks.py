"""The desk of a worker for topics with a history, with nothing behind it but what a test says."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import msgspec

from mooring._core.wire import Mail
from mooring.app.topics import TopicRules
from mooring.engine.letters import Append, Appended, Ask, Follow
from mooring.worker.topics import TopicDesk
from support.loops import in_jumping_loop

encode, decode = msgspec.msgpack.encode, msgspec.msgpack.decode
LETTERS: dict[Mail, Any] = {Mail.APPEND: Append, Mail.PAST: Ask}


class Link:
    """The way to the engine."""

    def __init__(self) -> None:
        self.asker: Any = None
        self.is_open = True
        self.is_full = False
        self.sent: list[tuple[Mail, int, Any]] = []

    def send(self, mail: Mail, number: int, payload: bytes) -> bool:
        if self.is_open:
            self.sent.append((mail, number, decode(payload, type=LETTERS[mail])))
        return self.is_open

    def take(self) -> list[tuple[Mail, int, Any]]:
        sent, self.sent = self.sent, []
        return sent


class Ways:
    """The way to the gateways; `fds` are the connections that there are."""

    def __init__(self) -> None:
        self.fds = {7, 8}
        self.told: list[tuple[Any, ...]] = []

    def publish(self, *what: Any) -> None:
        self.told.append(("publish", *what))

    def subscribe(self, fd: int, topic: str, *, leave: bool = False) -> bool:
        self.told.append(("subscribe", fd, topic, leave))
        return fd in self.fds

    def follow(self, fd: int, number: int, payload: bytes, *, leave: bool = False) -> bool:
        self.told.append(("follow", fd, number, decode(payload, type=Follow), leave))
        return fd in self.fds

    def find(self, fd: int) -> object | None:
        return object() if fd in self.fds else None

    def take(self) -> list[tuple[Any, ...]]:
        told, self.told = self.told, []
        return told


class World:
    """A worker with topics of three kinds: plain:*, kept:* and told:*, the last one with positions."""

    def __init__(self, *, rules: bool = True) -> None:
        made = TopicRules()
        if rules:
            made.add("kept:*", 10, 2.5, positions=False)
            made.add("told:*", 20, 0, positions=True)
        self.outbox, self.link = Ways(), Link()
        self.logged: list[str] = []
        self.desk = TopicDesk(made, self.outbox, self)
        self.desk.use(self.link)

    def say(self, level: int, message: str, *values: object) -> None:
        """As a RefusalLog does."""
        assert level == logging.ERROR
        self.logged.append(message % values)

    def appended(self, number: int, epoch: str = "e", offset: int = 1, refused: str = "") -> None:
        self.desk.on_appended(number, encode(Appended(epoch, offset, refused)))


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    in_jumping_loop(lambda _loop: test())


async def failure(awaited: Awaitable[Any]) -> str:
    """Of what is awaited, its kind and text."""
    try:
        found = await awaited
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    raise AssertionError(f"it has come to {found}")


async def turn() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def value_of(awaited: Awaitable[Any]) -> Any:
    return await awaited
