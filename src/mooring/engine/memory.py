"""The engine that needs nothing: the histories of all topics, in the memory of one process."""

import secrets
from collections.abc import Callable, Iterator
from itertools import islice

from mooring.engine.history import History, Kept, Since
from mooring.types import Position

__all__ = ["IDLE", "Full", "MemoryEngine"]

IDLE = 86400.0  # seconds after which a topic is forgotten of which nothing is kept and that nobody has asked for
TOPIC_BYTES = 500  # what one costs beside its publications
PUBLICATION_BYTES = 300  # likewise
NOTHING_READ = Position("", 0)  # whoever asks from there wants all there is
LOOK = 64  # topics that are looked at for each publication that finds no room: a look at all would hold everybody up
EPOCH_BYTES = 6  # of chance: two servers, or two lives of one, do not have the same


class Full(Exception):
    """There is no room for one more publication."""


class MemoryEngine:
    """Its epochs are new with each of its lives. A topic in which nothing was published costs nothing: whoever may
    choose the name of a topic to hear can't fill the memory."""

    def __init__(self, clock: Callable[[], float], memory_limit: int) -> None:
        self._clock = clock
        self._limit = memory_limit
        self._life = secrets.token_urlsafe(EPOCH_BYTES)
        self._swept = 0  # how often topics were forgotten: one that comes again has another epoch
        self._topics: dict[str, History] = {}
        self._unseen: Iterator[str] = iter(())  # topics that this round of sweeping has not come to
        self.bytes = 0
        """What all of it costs, by estimate."""

    def __len__(self) -> int:
        return len(self._topics)

    def publish(self, topic: str, form: int, opcode: int, data: bytes, most: int, ttl: float) -> tuple[str, Kept]:
        """Numbers it and keeps it. Its epoch, and what is kept. Raises Full, and nothing has happened then."""
        history = self._topics.get(topic)
        if self.bytes + self._growth(history, len(data), most) > self._limit:
            self.sweep(LOOK, idle=0.0)
            history = self._topics.get(topic)
            if self.bytes + self._growth(history, len(data), most) > self._limit:
                raise Full
        if history is None:
            history = self._topics[topic] = self._new()
            self.bytes += self._cost(history)
        before = self._cost(history)
        kept = history.append(form, opcode, data, self._clock(), most, ttl)
        self.bytes += self._cost(history) - before
        return history.epoch, kept

    def since(self, topic: str, position: Position | None, most: int, most_bytes: int) -> Since:
        """What comes behind a position, behind the end if there is none; see History.since."""
        history = self._topics.get(topic)
        if history is None:
            history = self._new()
        else:
            before = self._cost(history)
            history.used_at = self._clock()
            history.trim(history.used_at)
            self.bytes += self._cost(history) - before
        if position == NOTHING_READ:
            position = Position(history.epoch, history.top - len(history))
        return history.since(position, most, most_bytes)

    def sweep(self, most: int | None = None, idle: float = IDLE) -> bool:
        """Forgets what is too old, and topics of which nothing is kept and that nobody has asked for so many seconds,
        in the next so many topics; whether that was the end of a round. Called now and then: what is asked for is
        looked at in any case."""
        now = self._clock()
        before = len(self._topics)
        looked = [] if most is None else list(islice(self._unseen, most))
        if not looked:
            self._unseen = iter(list(self._topics))
            looked = list(islice(self._unseen, most))
        for topic in looked:
            history = self._topics.get(topic)
            if history is None:
                continue
            cost = self._cost(history)
            history.trim(now)
            self.bytes += self._cost(history) - cost
            if not history and now - history.used_at >= idle:
                del self._topics[topic]
                self.bytes -= self._cost(history)
        self._swept += len(self._topics) < before
        return most is None or len(looked) < most

    def _new(self) -> History:
        return History(f"{self._life}.{self._swept:x}", self._clock())

    @staticmethod
    def _growth(history: History | None, size: int, most: int) -> int:
        """What one more publication costs. Where as many are kept as shall be, the oldest one makes room for it."""
        if history is None:
            return TOPIC_BYTES + PUBLICATION_BYTES + size
        goes = history.room_of_next(most)
        return size - goes if goes >= 0 else PUBLICATION_BYTES + size

    @staticmethod
    def _cost(history: History) -> int:
        return TOPIC_BYTES + history.size + PUBLICATION_BYTES * len(history)
