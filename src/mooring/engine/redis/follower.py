"""What a node follows: hears it, notices what it has missed, asks for it, and tells all of it in order.

Theory
    A topic that is followed has a position: up to there everything was told. A message goes on from it or it does
    not; what does not is a gap, and the topic is `behind`. Then what arrives is set aside, what is missing is asked
    for, and what was set aside follows, without what was in the answer. It is behind as well while somebody new asks
    for what is behind a position of his own: both answers are of one moment, so they end at the same place, and there
    is one line for all.

    A message that is lost and followed by none would not be missed. So every message counts its channel on, and a
    heartbeat compares: see beat.lua. A counter that jumps puts all topics of the channel behind. The same do
    connections that are new, and a server of another generation.

    When the server has lost its end, the line goes on under another epoch, with publications that were told already
    and are sent again. Who has published it, and its number there, tell: `seen` has for each publisher the highest
    one.
"""

import asyncio
from collections.abc import Callable, Iterable
from itertools import islice
from typing import NamedTuple

from redis.exceptions import ReadOnlyError, ResponseError

from mooring.engine.contract import Answer, Listener, Refused
from mooring.engine.history import Kept
from mooring.engine.letters import MOST
from mooring.engine.redis.connections import Lost, Pair
from mooring.engine.redis.options import Options
from mooring.engine.redis.packing import Head, Names, head_of, topic_of, unpack
from mooring.engine.redis.reading import NOWHERE, Found, Numbered, Question, ask
from mooring.journal import own_logger
from mooring.types import Position, Verdict

__all__ = ["Follower"]

log = own_logger("mooring.engine")

TOPICS = 100  # asked for in one call
PART = 1 << 20  # bytes of one topic that are caught up with in one call, about
ASIDE = 16 << 20  # bytes of messages that are set aside, of all topics; one that has no room is asked for again
PUBLISHERS = 256  # that a topic remembers; then those that were silent for longest are forgotten
LIVES = 16 * PUBLISHERS  # of publishers of which it is known when they were heard
PAUSE = 0.1  # seconds until a question is asked again that the server has refused
GONE = "nobody follows the topic any more"
CLOSED = "the engine is closed"


class _Asked(NamedTuple):
    """Somebody wants to follow, from a position on."""

    position: Position | None
    most_bytes: int
    answer: Answer
    deadline: float


class _Topic:
    """One that is followed."""

    __slots__ = ("aside", "asked", "behind", "partition", "position", "seen")

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.position: Position | None = None  # None: nothing was told yet
        self.behind = False
        self.aside: list[tuple[Head, bytes]] | None = []  # since it was asked for; None: there was no room
        self.asked: list[_Asked] = []
        self.seen: dict[str, int] = {}


class _Partition:
    """A channel, and what is followed there."""

    __slots__ = ("counter", "generation", "subscribed", "topics")

    def __init__(self) -> None:
        self.topics: dict[str, _Topic] = {}
        self.subscribed = False  # and confirmed
        self.generation = b""
        self.counter: int | None = None  # of the last message; None: there was none, on these connections


class Follower:
    """See the module's text."""

    def __init__(
        self, options: Options, names: Names, publisher: str, clock: Callable[[], float], fresh: Callable[[], str]
    ) -> None:
        self._options = options
        self._names = names
        self._publisher = publisher
        self._clock = clock
        self._fresh = fresh
        self._listener: Listener | None = None
        self._topics: dict[str, _Topic] = {}
        self._partitions: dict[int, _Partition] = {}
        self._behind: dict[str, None] = {}  # in the order in which they came to be
        self._aside = 0  # bytes of all that is set aside
        self._wake = asyncio.Event()
        self._heard_at: dict[str, float] = {}  # of publishers
        self._before: dict[int, int] = {}  # counters, as the last heartbeat has found them
        self._generation = b""
        self.why = "Redis is not reachable"
        self.counted = {
            "engine_messages": 0,
            "engine_gaps": 0,
            "engine_repairs": 0,
            "engine_doubles": 0,
            "engine_judged": 0,
        }

    def start(self, listener: Listener) -> None:
        self._listener = listener

    @property
    def partitions(self) -> list[int]:
        """Those where something is followed."""
        return list(self._partitions)

    def follow(self, topic: str, position: Position | None, most_bytes: int, answer: Answer) -> None:
        """As Engine has it."""
        followed = self._topics.get(topic)
        if followed is None:
            number = self._names.topic(topic).partition
            followed = self._topics[topic] = _Topic(number)
            self._partitions.setdefault(number, _Partition()).topics[topic] = followed
        followed.asked.append(_Asked(position, most_bytes, answer, self._clock() + self._options.patience))
        self._fall_behind(topic, followed)

    def unfollow(self, topic: str) -> None:
        """As Engine has it."""
        followed = self._topics.pop(topic, None)
        if followed is None:
            return
        self._behind.pop(topic, None)
        self._clear_aside(followed)
        del self._partitions[followed.partition].topics[topic]
        self._wake.set()  # the channel may be of no use any more
        for one in followed.asked:
            one.answer(Refused(GONE))

    def expire(self) -> None:
        """Called now and then: answers whoever has waited for too long."""
        now = self._clock()
        for topic in list(self._behind):
            followed = self._topics[topic]
            while followed.asked and followed.asked[0].deadline <= now:
                followed.asked.pop(0).answer(Refused(self.why))
            if followed.position is None and not followed.asked and self._topics.get(topic) is followed:
                self.unfollow(topic)

    def refresh(self) -> None:
        """Asks for all topics, so that the server does not forget them, and no position grows too old."""
        for topic, followed in self._topics.items():
            self._fall_behind(topic, followed)

    def close(self) -> None:
        """All that wait are told."""
        for followed in list(self._topics.values()):
            while followed.asked:
                followed.asked.pop(0).answer(Refused(CLOSED))

    # ------------------------------------------------------------------ what is heard

    def heard(self, channel: bytes, message: bytes) -> None:
        """A message of a partition. Raises ValueError for one that makes no sense."""
        partition = self._partitions.get(self._names.partition_at(channel))
        if partition is None:
            return
        self.counted["engine_messages"] += 1
        line, _, data = message.partition(b"\n")
        head = head_of(line)
        gap = partition.counter is not None and (
            head.counter != partition.counter + 1 or head.generation != partition.generation
        )
        partition.counter, partition.generation = head.counter, head.generation
        if gap:
            self._miss(partition)
        topic = topic_of(data)
        followed = partition.topics.get(topic)
        if followed is not None:
            self._take(topic, followed, head, data)

    def _take(self, topic: str, followed: _Topic, head: Head, data: bytes) -> None:
        if followed.behind:
            if followed.aside is not None:
                followed.aside.append((head, data))
                self._aside += len(data)
                if self._aside > ASIDE:
                    self._clear_aside(followed)
                    followed.aside = None
            return
        position = followed.position
        if position is None or head.epoch != position.epoch or head.top - head.many > position.offset:
            self.counted["engine_gaps"] += 1
            self._fall_behind(topic, followed)  # it is in what will be asked for
        elif head.top > position.offset:
            packed = unpack(data)
            offset = head.top - head.many
            for number, (form, opcode, payload, exclude) in enumerate(packed.publications, packed.first):
                offset += 1
                if offset > position.offset:
                    kept = Kept(offset, form, opcode, payload, head.at)
                    self._tell(topic, followed, head.epoch, Numbered(kept, packed.publisher, number, exclude))
            followed.position = Position(head.epoch, head.top)

    def _clear_aside(self, followed: _Topic) -> list[tuple[Head, bytes]]:
        """What was set aside, and is not any more."""
        aside, followed.aside = followed.aside or [], []
        self._aside -= sum(len(data) for _, data in aside)
        return aside

    def _tell(self, topic: str, followed: _Topic, epoch: str, one: Numbered) -> None:
        """The next one of the line; not if it was told in an earlier epoch."""
        assert self._listener is not None
        if one.number <= followed.seen.get(one.publisher, 0):
            self.counted["engine_doubles"] += 1
            return
        self._see(followed, one.publisher, one.number)
        self._listener.published(topic, epoch, one.kept, one.exclude if one.publisher == self._publisher else b"")

    def _see(self, followed: _Topic, publisher: str, number: int) -> None:
        seen = followed.seen
        self._heard_at[publisher] = self._clock()
        if number > seen.get(publisher, 0):
            seen[publisher] = number
        if len(seen) > PUBLISHERS:
            heard_at = self._heard_at
            for old in sorted(seen, key=lambda one: heard_at.get(one, 0.0))[: PUBLISHERS // 2]:
                del seen[old]
        if len(self._heard_at) > LIVES:
            for old in sorted(self._heard_at, key=self._heard_at.__getitem__)[: LIVES // 2]:
                del self._heard_at[old]

    # ------------------------------------------------------------------ what was missed

    def cut(self) -> None:
        """The connections are gone: whatever comes next, something may have been missed."""
        for partition in self._partitions.values():
            partition.subscribed = False
            partition.counter = None
            self._miss(partition)
        for followed in self._topics.values():
            self._clear_aside(followed)  # of connections that are no more

    def compare(self, generation: bytes, counters: dict[int, int]) -> None:
        """What a heartbeat has found, now that it was heard: everything told before it was heard or missed."""
        before, self._before = self._before, counters
        other, self._generation = generation != self._generation, generation
        for number, partition in self._partitions.items():
            if not partition.subscribed:
                continue
            counter = counters.get(number, 0)
            if other or counter < before.get(number, 0):
                partition.counter = None  # that of another line
                self._miss(partition)
            elif partition.counter is None:
                partition.counter, partition.generation = counter, generation
            elif partition.counter < counter:
                partition.counter = counter
                self._miss(partition)

    def _miss(self, partition: _Partition) -> None:
        self.counted["engine_gaps"] += 1
        for topic, followed in partition.topics.items():
            self._fall_behind(topic, followed)

    def _fall_behind(self, topic: str, followed: _Topic) -> None:
        if not followed.behind:
            followed.behind = True
            followed.aside = []
        self._behind[topic] = None
        self._wake.set()

    async def run(self, pair: Pair) -> None:
        """Catches up, as long as the connections last. Raises Lost."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._behind:
                await self._catch_up(pair, list(islice(self._behind, TOPICS)))
            await self._leave(pair)

    async def subscribe(self, pair: Pair, numbers: list[int]) -> None:
        """To the channels of these partitions, where it is not. Raises Lost."""
        new = [one for one in numbers if one in self._partitions and not self._partitions[one].subscribed]
        await pair.subscribe(self._names.channel(one) for one in new)
        for one in new:
            if one in self._partitions:
                self._partitions[one].subscribed = True

    async def _leave(self, pair: Pair) -> None:
        for number in [one for one, partition in self._partitions.items() if not partition.topics]:
            subscribed = self._partitions.pop(number).subscribed
            if subscribed:
                await pair.unsubscribe([self._names.channel(number)])

    async def _catch_up(self, pair: Pair, topics: list[str]) -> None:
        await self.subscribe(pair, [self._topics[one].partition for one in topics if one in self._topics])
        rounds: list[tuple[str, _Topic, list[_Asked]]] = []
        questions: list[Question] = []
        for topic in topics:
            followed = self._topics.get(topic)
            if followed is None:  # meanwhile
                continue
            self._clear_aside(followed)  # what has come until now will be in the answer
            rounds.append((topic, followed, list(followed.asked)))
            questions.append(Question(topic, followed.position, MOST, PART, begins=True))
            questions += (Question(topic, one.position, MOST, one.most_bytes) for one in followed.asked)
        try:
            answers = iter(await ask(pair, self._names, self._options, self._fresh(), questions))
        except ReadOnlyError as problem:
            pair.give_up(str(problem))
            raise Lost(str(problem)) from problem
        except ResponseError as problem:
            self.why = str(problem)
            await asyncio.sleep(PAUSE)
            return
        for topic, followed, asked in rounds:
            own, others = next(answers), list(islice(answers, len(asked)))
            if self._topics.get(topic) is not followed:
                continue
            if own.why:
                self.why = own.why
                self._behind.pop(topic, None)
                asyncio.get_running_loop().call_later(PAUSE, self._ask_again, topic, followed)
                continue
            self._settle(topic, followed, own, zip(asked, others, strict=True))
            if topic in self._behind:  # others come first
                self._behind[topic] = self._behind.pop(topic)

    def _ask_again(self, topic: str, followed: _Topic) -> None:
        if self._topics.get(topic) is followed:
            self._fall_behind(topic, followed)

    def _settle(self, topic: str, followed: _Topic, own: Found, others: Iterable[tuple[_Asked, Found]]) -> None:
        """All answers end at the same place; up to there all is told, and then what was set aside."""
        assert self._listener is not None
        if own.verdict is Verdict.UNKNOWN_EPOCH:
            followed.position = NOWHERE  # of another line all that is kept is told, but for what was told before
            return  # still behind
        verdict = Verdict.UNKNOWN_EPOCH if followed.position == NOWHERE else own.verdict
        if verdict is not Verdict.RECOVERED:
            self.counted["engine_judged"] += 1
            self._listener.judged(topic, verdict, own.begin)
        self.counted["engine_repairs"] += bool(own.publications)
        for one in own.publications:
            self._tell(topic, followed, own.end.epoch, one)
        followed.position = own.until
        if followed.position != own.end:
            return  # still behind
        for publisher, number in own.latest.items():
            self._see(followed, publisher, number)
        for one_asked, found in others:
            if one_asked not in followed.asked:
                continue  # it was refused meanwhile
            for one in found.publications:
                self._see(followed, one.publisher, one.number)
            followed.asked.remove(one_asked)
            one_asked.answer(found.since())
        if self._topics.get(topic) is not followed:
            return  # the answer has ended it
        if followed.asked or followed.aside is None:
            return  # still behind
        followed.behind = False
        self._behind.pop(topic, None)
        for head, data in self._clear_aside(followed):
            self._take(topic, followed, head, data)
