"""Topics with a history, as a worker sees them: what it publishes, who shall hear them, what was published before."""

import asyncio
import contextlib
import itertools
import logging
import threading
from collections.abc import Generator, Iterable
from typing import Any

import msgspec

from mooring._core.gateway_end import Outbox, fds_of, message_of, topic_name
from mooring._core.wire import Mail
from mooring.app.topics import TopicRule, TopicRules
from mooring.engine.letters import MOST, Append, Appended, Ask, Follow, Form, Found
from mooring.errors import PublishRefused, PublishUncertain, StateError
from mooring.link.engine import UNSENT_LIMIT, EngineLink
from mooring.net.refusals import RefusalLog
from mooring.types import Opcode, Past, Position, Publication, Recovery, Verdict

Exclude = int | Iterable[int] | None
LONGEST = 16 << 20  # bytes of a publication; so many that JSON makes of it can be sent, too
GONE = "nothing was published: the engine is being started again"
ANSWER_LIMIT = 5.0  # seconds for which a question for a history waits, and a worker at its end for what it published

_appended = msgspec.msgpack.Decoder(Appended)
_found = msgspec.msgpack.Decoder(Found)
_followed = msgspec.msgpack.Decoder(tuple[int, str, int])
_encode = msgspec.msgpack.Encoder().encode


class Publishing:
    """What publish() gives: awaited, the Position of the publication, or None in a topic without a history. It need not
    be awaited; a failure that nobody has seen is logged."""

    __slots__ = ("_desk", "_failure", "_position", "_seen", "_topic", "_waiting")

    def __init__(self, desk: "TopicDesk | None", topic: str) -> None:
        self._desk = desk
        self._topic = topic
        self._position: Position | None = None
        self._failure: Exception | None = None
        self._waiting: list[asyncio.Future[None]] | None = [] if desk is not None else None
        self._seen = False

    def __await__(self) -> Generator[Any, None, Position | None]:
        yield from self.over().__await__()
        if self._failure is not None:
            self._seen = True
            raise self._failure
        return self._position

    async def over(self) -> None:
        """Waits until it is known what became of it, and does not look."""
        waiting = self._waiting
        if waiting is not None:
            future = asyncio.get_running_loop().create_future()
            waiting.append(future)
            if self._waiting is waiting:  # else it was over meanwhile, in another thread
                await future

    def _over(self, position: Position | None, failure: Exception | None = None) -> None:
        self._position, self._failure = position, failure
        waiting, self._waiting = self._waiting, None
        for future in waiting or ():
            loop = future.get_loop()
            if loop is running_loop():
                _wake(future)
            else:
                with contextlib.suppress(RuntimeError):  # that loop has ended, and nobody waits in it
                    loop.call_soon_threadsafe(_wake, future)

    def __del__(self) -> None:
        if self._failure is not None and not self._seen and self._desk is not None:
            self._desk._log_unseen(self._topic, self._failure)


def running_loop() -> asyncio.AbstractEventLoop | None:
    """That of this thread."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


SENT = Publishing(None, "")  # what is published in a topic without a history: nobody answers


class Held:
    """What waits until connections hear the topic, which were subscribed before."""

    def __init__(self) -> None:
        self.joining: dict[int, int] = {}  # number of the question -> fd
        self.appends: list[tuple[int, bytes]] = []


class TopicDesk:
    """Of one worker."""

    def __init__(self, rules: TopicRules, outbox: Outbox, refusals: RefusalLog) -> None:
        self._rules = rules
        self.any = bool(rules)
        """Whether there are topics with a history; if not, nobody need ask here."""
        self._outbox = outbox
        self._refusals = refusals
        self._link: EngineLink | None = None
        self._numbers = itertools.count(1)
        self._published: dict[int, Publishing] = {}
        self._lock = threading.Lock()  # of _held and _held_bytes: other threads publish, too
        self._held: dict[str, Held] = {}
        self._held_bytes = 0
        self._joining: dict[int, str] = {}
        self._asked: dict[int, asyncio.Future[Found]] = {}
        self._follows: dict[int, tuple[int, asyncio.Future[Recovery | None]]] = {}  # the connection, and who waits

    def use(self, link: EngineLink) -> None:
        """The way to the engine of this process."""
        self._link = link
        link.asker = self

    # ------------------------------------------------------------------ publishing

    def publish(
        self, topic: str, data: Any, opcode: int | None, exclude: Exclude, *, is_json: bool = False
    ) -> Publishing:
        """A publication in any topic. Raises ValueError and TypeError for what can't be sent."""
        topic_name(topic)
        rule = self._rules.of(topic)
        if rule is None:
            self._outbox.publish(topic, data, opcode, exclude)
            return SENT
        return self._append(rule, topic, data, opcode, exclude, is_json)

    def _append(
        self, rule: TopicRule, topic: str, data: Any, opcode: int | None, exclude: Exclude, is_json: bool
    ) -> Publishing:
        code, payload = message_of(data, opcode)
        if len(payload) > LONGEST:
            raise ValueError(f"{len(payload)} bytes: at most {LONGEST} can be published in a topic with a history")
        excluded = b"" if exclude is None else fds_of(exclude)
        if rule.positions and code != Opcode.TEXT:
            raise ValueError(
                f"{topic!r} has positions=True, and what its clients get is JSON: publish text or JSON there"
            )
        form = Form.BARE if not rule.positions else Form.JSON if is_json else Form.TEXT
        published = Publishing(self, topic)
        if self._link is None or not self._link.is_open:
            published._over(None, PublishRefused(GONE))
        elif self._link.is_full or self._held_bytes > UNSENT_LIMIT:
            published._over(None, PublishRefused("nothing was published: the engine does not take it fast enough"))
        else:
            number = next(self._numbers)
            self._published[number] = published
            append = Append(topic, form, code, payload, rule.history_size, rule.history_ttl, excluded)
            self._send(topic, number, _encode(append))
        return published

    def _send(self, topic: str, number: int, append: bytes) -> None:
        with self._lock:
            held = self._held.get(topic)
            if held is None:
                self._hand_over(number, append)
            else:
                held.appends.append((number, append))
                self._held_bytes += len(append)

    def _hand_over(self, number: int, append: bytes) -> None:
        if self._link is None or not self._link.send(Mail.APPEND, number, append):
            self._published.pop(number)._over(None, PublishRefused(GONE))

    def on_appended(self, number: int, payload: bytes) -> None:
        answer = _appended.decode(payload)
        published = self._published.pop(number, None)
        if published is None:
            return
        if answer.refused:
            published._over(None, PublishRefused(f"nothing was published: {answer.refused}"))
        elif answer.uncertain:
            published._over(None, PublishUncertain(f"it may have been published or not: {answer.uncertain}"))
        else:
            published._over(Position(answer.epoch, answer.offset))

    def _log_unseen(self, topic: str, failure: Exception) -> None:
        self._refusals.say(logging.ERROR, "a publication in %s that nobody awaits has failed: %s", topic, failure)

    async def finish(self) -> None:
        """Before the worker ends: waits until the engine has told of all that was published."""
        try:
            async with asyncio.timeout(ANSWER_LIMIT):
                while self._published:
                    await next(iter(self._published.values())).over()
        except TimeoutError:
            text = "%d publications may be lost: the engine has not told of them within %g s, and this worker ends"
            self._refusals.say(logging.ERROR, text, len(self._published), ANSWER_LIMIT)

    # ------------------------------------------------------------------ subscribing

    def subscribe(self, fd: int, topic: str) -> bool:
        """From now on: what this worker publishes behind it waits until the connection hears the topic."""
        topic_name(topic)
        rule = self._rules.of(topic)
        if rule is None:
            return self._outbox.subscribe(fd, topic)
        number = self._question()
        with self._lock:
            self._held.setdefault(topic, Held()).joining[number] = fd
        self._joining[number] = topic
        there = self._outbox.follow(fd, number, _encode(Follow(topic, positions=rule.positions)))
        if not there:
            self._joined(number)
        elif (loop := running_loop()) is not None:
            loop.call_later(ANSWER_LIMIT, self._joined, number)  # a gateway that stands still holds nobody for ever
        return there

    def _question(self) -> int:
        return next(self._numbers) % 0xFFFFFFFF + 1  # 0: nobody waits

    def _joined(self, number: int) -> bool:
        """It hears the topic, or never will. False: it is not known."""
        topic = self._joining.pop(number, None)
        if topic is None:
            return False
        with self._lock:
            held = self._held[topic]
            del held.joining[number]
            if not held.joining:
                del self._held[topic]
                for append in held.appends:
                    self._held_bytes -= len(append[1])
                    self._hand_over(*append)
        return True

    def unsubscribe(self, fd: int, topic: str) -> bool:
        topic_name(topic)
        if self._rules.of(topic) is None:
            return self._outbox.subscribe(fd, topic, leave=True)
        return self._outbox.follow(fd, 0, _encode(Follow(topic)), leave=True)

    async def recover(self, fd: int, topic: str, since: tuple[str, int]) -> Recovery | None:
        """From a position on. None: it is no open WebSocket, or no longer, or is in too many topics."""
        rule = self._demand(topic)
        asked = _encode(Follow(topic, *_position(since), rule.positions))
        number = self._question()
        if not self._outbox.follow(fd, number, asked):
            return None
        future: asyncio.Future[Recovery | None] = asyncio.get_running_loop().create_future()
        self._follows[number] = fd, future
        try:
            return await future
        finally:
            self._follows.pop(number, None)

    def on_followed(self, number: int, payload: bytes) -> None:
        _, future = self._follows.get(number, (0, None))
        if self._joined(number) or future is None or future.done():
            return
        if not payload:
            future.set_result(None)
        else:
            verdict, epoch, offset = _followed.decode(payload)
            future.set_result(Recovery(Verdict(verdict), Position(epoch, offset)))

    def gateway_lost(self) -> None:
        """The connections of one are gone."""
        for fd, future in list(self._follows.values()):
            if self._outbox.find(fd) is None and not future.done():
                future.set_result(None)
        joining = [one for held in list(self._held.values()) for one in list(held.joining.items())]
        for number, fd in joining:
            if self._outbox.find(fd) is None:
                self._joined(number)

    # ------------------------------------------------------------------ asking

    async def past(self, topic: str, since: tuple[str, int] | None, limit: int, *, newest_first: bool) -> Past:
        """A part of a history, in as many answers as it takes."""
        self._demand(topic)
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:
            raise ValueError(f"limit={limit!r}: a number of publications is wanted")
        limit = min(limit, MOST)
        if since is None:
            end = (await self._find(Ask(topic))).end
            asked = Ask(topic, end.epoch, max(0, end.offset - limit), limit)
        else:
            asked = Ask(topic, *_position(since), limit)
        first = found = await self._find(asked)
        publications = list(found.publications)
        while not found.is_all and found.publications and len(publications) < limit:
            more = await self._find(Ask(topic, *found.end, limit - len(publications)))
            if more.judged is not Verdict.RECOVERED:
                break  # it was trimmed meanwhile; what is here already is in order
            found = more
            publications += found.publications
        verdict = first.judged if since is not None else Verdict.RECOVERED
        if newest_first:
            publications.reverse()
        return Past(verdict, tuple(_publication(*one) for one in publications), found.end)

    async def _find(self, ask: Ask) -> Found:
        number = next(self._numbers)
        if self._link is None or not self._link.send(Mail.PAST, number, _encode(ask)):
            raise StateError("the engine, which keeps histories, is being started again")
        future: asyncio.Future[Found] = asyncio.get_running_loop().create_future()
        self._asked[number] = future
        try:
            async with asyncio.timeout(ANSWER_LIMIT):
                found = await future
        except TimeoutError:
            raise StateError(f"the engine has not answered within {ANSWER_LIMIT:g} s") from None
        finally:
            self._asked.pop(number, None)
        if found.refused:
            raise StateError(f"the engine, which keeps histories, has no answer: {found.refused}")
        return found

    def on_past(self, number: int, payload: bytes) -> None:
        future = self._asked.get(number)
        if future is not None and not future.done():
            future.set_result(_found.decode(payload))

    def on_engine_lost(self, why: str) -> None:
        """What was on its way may have been published or not; nobody can say."""
        with self._lock:
            held = {number for one in self._held.values() for number, _ in one.appends}  # these were not sent
        sent = {number: one for number, one in self._published.items() if number not in held}
        for number, one in sent.items():
            del self._published[number]
            one._over(None, PublishUncertain(f"it may have been published or not: the engine has ended: {why}"))
        for future in self._asked.values():
            if not future.done():
                future.set_exception(StateError(f"the engine, which keeps histories, has ended: {why}"))

    def _demand(self, topic: str) -> TopicRule:
        topic_name(topic)
        rule = self._rules.of(topic)
        if rule is None:
            raise StateError(f"the topic {topic!r} has no history: call server.topic({topic!r}, history_size=...)")
        return rule


def _position(since: tuple[str, int]) -> tuple[str, int]:
    try:
        epoch, offset = since
        epoch.encode()  # what JSON can name may not be UTF-8
    except (TypeError, ValueError, AttributeError):
        epoch, offset = None, None
    if (
        not isinstance(epoch, str)
        or isinstance(offset, bool)
        or not isinstance(offset, int)
        or not 0 <= offset < 1 << 63
    ):
        raise ValueError(f"since={since!r}: a position is an epoch and an offset, such as came with what was read")
    return epoch, offset


def _publication(offset: int, opcode: int, data: bytes) -> Publication:
    return Publication(offset, data.decode() if opcode == Opcode.TEXT else data)
