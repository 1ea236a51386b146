"""The topics with a history that clients of this gateway hear.

Theory
    The gateway follows a topic while anybody here hears it: the engine sends it what is new, on one channel, in order.

    Who comes with a position catches up first. The engine is asked for what is behind the position, and gives so much
    of it as a client may have waiting; when the client has taken that, the engine is asked for the rest. With the last
    part, which may be empty, the client enters the topic: what comes next on the engine's channel is what comes next
    in the topic. So nothing is held back and compared, and a slow client costs no more than one part.

    The same holds for all who hear the topic when the gateway has lost the engine, or has been too slow for it: they
    catch up together, from where the topic stood here. Who comes meanwhile waits until they have. What they can't have
    any more is said: to clients, in topics with positions, in the log and in a counter.
"""

import logging
from collections import deque
from collections.abc import Callable

import msgspec

from mooring._core.relay import Relay
from mooring._core.wire import Event, Mail, Notice
from mooring._core.worker_end import WorkerEnd
from mooring.engine.letters import Ask, Follow, Found, Judged, Published
from mooring.link.engine import EngineLink
from mooring.net.refusals import RefusalLog
from mooring.types import Opcode, Position, Verdict

_follow = msgspec.msgpack.Decoder(Follow)
_found = msgspec.msgpack.Decoder(Found)
_judged = msgspec.msgpack.Decoder(Judged)
_published = msgspec.msgpack.Decoder(Published)
_encode = msgspec.msgpack.Encoder().encode
_json = msgspec.json.Encoder()


class Coming:
    """A client that catches up."""

    __slots__ = ("asked", "fd", "question", "verdict", "worker_end")

    def __init__(self, asked: Follow, fd: int, worker_end: WorkerEnd, question: int) -> None:
        self.asked = asked
        self.fd = fd
        self.worker_end = worker_end  # who asked for it
        self.question = question  # its number there; 0: it does not wait
        self.verdict: tuple[Verdict, str, int] | None = None  # and where it goes on


class Topic:
    """One that clients here hear, or will."""

    __slots__ = ("coming", "name", "position", "positions", "queue", "title")

    def __init__(self, title: str, *, positions: bool) -> None:
        self.title = title
        self.name = title.encode()
        self.positions = positions  # its clients are told where they are
        self.position: Position | None = None  # what clients here have been sent up to; None: nobody hears it yet
        self.coming: dict[int, Coming] = {}  # by fd
        self.queue: deque[tuple[Coming, Position | None]] | None = None  # all catch up; these come behind them


class Topics:
    """Of one gateway."""

    def __init__(
        self,
        relay: Relay,
        link: EngineLink,
        refusals: RefusalLog,
        counters: dict[str, int],
        on_limit: Callable[[int, bytes], None],
    ) -> None:
        """`on_limit(fd, topic)` is told of a subscription too many."""
        self._asking = relay.asking
        self._hub = relay.hub
        self._link = link
        self._refusals = refusals
        self._counters = counters
        self._on_limit = on_limit
        self._hub.on_left = self._left
        self._topics: dict[str, Topic] = {}
        self._asked: dict[int, tuple[Topic, Coming | None, Position | None]] = {}  # None: all who hear it
        self._count = 0
        self._draining = False

    # ------------------------------------------------------------------ what workers want

    def take(self, worker_end: WorkerEnd, command: Notice) -> None:
        """FOLLOW: a connection shall hear a topic, or hear it no more."""
        asked = _follow.decode(command.payload)
        fd = command.fd
        topic = self._topics.get(asked.topic)
        if command.opcode:
            self._leave(fd, asked.topic.encode(), topic)
            return
        if self._draining:
            self._tell(Coming(asked, fd, worker_end, command.extra), b"")
            return
        if topic is None:
            topic = self._topics[asked.topic] = Topic(asked.topic, positions=asked.positions)
        before = topic.coming.get(fd)
        if before is not None:
            if asked.epoch is None:
                self._tell(Coming(asked, fd, worker_end, command.extra), b"")  # it is about to hear it
                return
            self._tell(before, b"")
        coming = topic.coming[fd] = Coming(asked, fd, worker_end, command.extra)
        if asked.epoch is not None:
            self._hub.leave(fd, topic.name)  # it begins again
        self._go_on(topic, coming, asked.position)

    def drain(self) -> None:
        """All connections are closed. Handlers that wait until one has caught up wait no more: an engine that ends now
        may have no successor."""
        self._draining = True
        for topic in list(self._topics.values()):
            for coming in list(topic.coming.values()):
                self._end(topic, coming, b"")
            self._look(topic)

    def _leave(self, fd: int, name: bytes, topic: Topic | None) -> None:
        self._hub.leave(fd, name)
        coming = None if topic is None else topic.coming.pop(fd, None)
        if topic is not None and coming is not None:
            self._tell(coming, b"")
            self._look(topic)

    def _left(self, name: bytes) -> None:
        """Nobody hears that topic any more."""
        topic = self._topics.get(name.decode())
        if topic is not None:
            self._look(topic)

    def _ask(self, topic: Topic, coming: Coming | None, position: Position | None) -> None:
        self._count += 1
        self._asked[self._count] = topic, coming, position
        question = Ask(topic.title) if position is None else Ask(topic.title, position.epoch, position.offset)
        self._link.send(Mail.FOLLOW, self._count, _encode(question))  # without an engine: see on_engine

    # ------------------------------------------------------------------ what the engine says

    def on_engine(self) -> None:
        """It is another one, or has left something out: it knows of nobody here who follows."""
        asked, self._asked = self._asked, {}
        for topic in list(self._topics.values()):
            if topic.position is not None and self._hub.has(topic.name):
                topic.queue = deque() if topic.queue is None else topic.queue
                self._ask(topic, None, topic.position)
            else:
                self._let_in(topic)
                self._look(topic)
        for topic, coming, position in asked.values():
            if coming is not None:
                self._go_on(topic, coming, position)

    def _go_on(self, topic: Topic, coming: Coming, position: Position | None) -> None:
        """The next part for a client, if it is still wanted; behind what all others catch up with."""
        if topic.coming.get(coming.fd) is not coming:
            return
        if topic.queue is not None:
            topic.queue.append((coming, position))
        else:
            self._ask(topic, coming, position)

    def _let_in(self, topic: Topic) -> None:
        """Those who came while all others caught up."""
        queue, topic.queue = topic.queue or (), None
        for coming, position in queue:
            self._go_on(topic, coming, position)

    def on_followed(self, number: int, payload: bytes) -> None:
        """What there is behind a position, or the first part of it."""
        found = _found.decode(payload)
        topic, coming, _ = self._asked.pop(number, (None, None, None))
        if topic is None:
            return
        if coming is None:
            self._all_go_on(topic, found)
        elif topic.coming.get(coming.fd) is coming:
            self._goes_on(topic, coming, found)
        self._look(topic)

    def _goes_on(self, topic: Topic, coming: Coming, found: Found) -> None:
        if coming.verdict is None or found.judged is not Verdict.RECOVERED:
            coming.verdict = found.judged, found.epoch, found.offset
        can_enter = self._hub.can_enter(coming.fd, topic.name)
        if can_enter is False:
            self._on_limit(coming.fd, topic.name)
        missed = found.publications
        if topic.positions and found.judged is not Verdict.RECOVERED:
            missed = ((0, Opcode.TEXT, _told(topic, found.judged, found.position)), *missed)
        has_room = self._hub.send(coming.fd, missed) if can_enter else None
        if has_room is None:
            self._end(topic, coming, b"")
        elif found.is_all:
            topic.position = found.end
            entered = self._hub.enter(coming.fd, topic.name)
            self._end(topic, coming, _encode(coming.verdict) if entered else b"")
        elif has_room:
            self._ask(topic, coming, found.end)
        else:
            self._asking.when_room(coming.fd, lambda is_there: self._on_room(topic, coming, found.end, is_there))

    def _on_room(self, topic: Topic, coming: Coming, position: Position, is_there: bool) -> None:
        """It has taken what it was sent, or is gone."""
        if is_there:
            self._go_on(topic, coming, position)
        elif topic.coming.get(coming.fd) is coming:
            self._end(topic, coming, b"")
            self._look(topic)

    def _end(self, topic: Topic, coming: Coming, answer: bytes) -> None:
        del topic.coming[coming.fd]
        self._tell(coming, answer)

    def _all_go_on(self, topic: Topic, found: Found) -> None:
        topic.position = found.end
        if found.judged is not Verdict.RECOVERED and self._hub.has(topic.name):
            self._say_gap(topic, found.judged, found.position)
        for _, opcode, data in found.publications:
            self._hub.spread(topic.name, opcode, data, b"")
        if not found.is_all:
            self._ask(topic, None, found.end)
            return
        self._let_in(topic)

    def _say_gap(self, topic: Topic, judged: Verdict, position: Position) -> None:
        self._counters["topic_gaps"] += 1
        self._refusals.say(
            logging.WARNING,
            "subscribers of %s may have missed something that the engine has lost (%s)",
            topic.title,
            judged.name.lower(),
        )
        if topic.positions:
            self._hub.spread(topic.name, Opcode.TEXT, _told(topic, judged, position), b"")

    def on_judged(self, _number: int, payload: bytes) -> None:
        """The line of a topic is broken."""
        told = _judged.decode(payload)
        topic = self._topics.get(told.topic)
        if topic is not None and topic.position is not None and topic.queue is None:
            topic.position = Position(told.epoch, told.offset)
            self._say_gap(topic, Verdict(told.verdict), topic.position)

    def on_published(self, offset: int, payload: bytes) -> None:
        """Something new."""
        new = _published.decode(payload)
        topic = self._topics.get(new.topic)
        if topic is None or topic.position is None or topic.queue is not None:
            return  # it is in what comes with the end of catching up
        topic.position = Position(new.epoch, offset)
        if not self._hub.spread(topic.name, new.opcode, new.data, new.exclude):
            self._look(topic)

    def _look(self, topic: Topic) -> None:
        """Whether anybody is left who hears it, or will."""
        if topic.coming or topic.queue is not None or self._hub.has(topic.name):
            return
        if self._topics.get(topic.title) is topic:
            del self._topics[topic.title]
            self._link.send(Mail.UNFOLLOW, 0, topic.name)

    def _tell(self, coming: Coming, answer: bytes) -> None:
        if coming.question:
            coming.worker_end.say(Event.FOLLOWED, coming.question, answer, coming.fd)


def _told(topic: Topic, judged: Verdict, position: Position) -> bytes:
    """What a client gets in place of what it can't have."""
    verdict = judged.name.lower()
    return _json.encode({"topic": topic.title, "epoch": position.epoch, "offset": position.offset, "verdict": verdict})
