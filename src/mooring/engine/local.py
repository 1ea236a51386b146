"""The engine in memory, by the contract of all engines: it answers at once."""

from collections.abc import Callable

from mooring.engine.contract import Answer, Listener, PublishOutcome, Refused
from mooring.engine.letters import MOST, Append
from mooring.engine.memory import Full, MemoryEngine
from mooring.types import Position

__all__ = ["FULL", "LocalEngine"]

SWEEP = 5.0  # seconds from one look for what is too old to the next,
SWEPT = 2000  # which is at so many topics at a time: meanwhile nothing is published,
PAUSE = 0.01  # and then for so many seconds what waited meanwhile
FULL = "the histories have no room for more: raise history_memory_limit, or have less kept"


class LocalEngine:
    """Of one process: nobody else publishes, and nothing is ever missed."""

    def __init__(self, memory: MemoryEngine, call_later: Callable[[float, Callable[[], None]], object]) -> None:
        self._memory = memory
        self._call_later = call_later
        self._published = self._refused = 0
        self._followed: set[str] = set()
        self._listener: Listener | None = None

    def start(self, listener: Listener) -> None:
        self._listener = listener
        listener.connected()
        self._sweep()

    def _sweep(self) -> None:
        if self._listener is not None:
            is_over = self._memory.sweep(SWEPT)
            self._call_later(SWEEP if is_over else PAUSE, self._sweep)

    async def close(self) -> None:
        self._listener = None

    def publish(self, append: Append, answer: Callable[[PublishOutcome], None]) -> None:
        topic = append.topic
        try:
            epoch, kept = self._memory.publish(
                topic, append.form, append.opcode, append.data, append.history_size, append.history_ttl
            )
        except Full:
            self._refused += 1
            answer(Refused(FULL))
            return
        if self._listener is not None and topic in self._followed:
            self._listener.published(topic, epoch, kept, append.exclude)
        self._published += 1
        answer(Position(epoch, kept.offset))

    def follow(self, topic: str, position: Position | None, most_bytes: int, answer: Answer) -> None:
        self._followed.add(topic)
        answer(self._memory.since(topic, position, MOST, most_bytes))

    def unfollow(self, topic: str) -> None:
        self._followed.discard(topic)

    def since(self, topic: str, position: Position | None, most: int, most_bytes: int, answer: Answer) -> None:
        answer(self._memory.since(topic, position, most, most_bytes))

    def stats(self) -> dict[str, int]:
        return {
            "publications": self._published,
            "publications_refused": self._refused,
            "history_topics": len(self._memory),
            "history_bytes": self._memory.bytes,
        }
