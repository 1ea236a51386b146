"""What a node publishes, on its way to the server: in batches, in order, and again where it may be lost.

Theory
    The node gives each publication a number: 1, 2, 3, ... A batch is a run of numbers, and the server has stored
    either all of them or none. It takes only the batch that follows the last one it has, and answers one that it has
    with what it answered then. So a batch is sent until there is an answer, over any number of connections, and is
    there once. For this there is one batch on its way at a time, and a number belongs to its publication for ever as
    soon as it may have reached a server: what came to a server that stood still is carried out when it goes on.

    What is acknowledged is kept for a while. A server that answers `hole`, or a heartbeat that finds its number too
    low, has lost its end: all above that number is sent again, in order. The line of offsets is another one then, and
    whoever has seen a publication before knows it by its publisher and number.

    While no server answers, what was never sent is refused after its time, and what was sent is uncertain.
"""

import asyncio
import itertools
import math
from collections import deque
from collections.abc import Callable

from redis.exceptions import ReadOnlyError, ResponseError

from mooring.engine.contract import PublishOutcome, Refused, Uncertain
from mooring.engine.letters import Append
from mooring.engine.redis.connections import Lost, Pair
from mooring.engine.redis.options import Options
from mooring.engine.redis.packing import PUBLISHER_IDLE, Names, pack
from mooring.engine.redis.scripts import APPEND
from mooring.journal import own_logger
from mooring.types import Position

__all__ = ["COST", "Appender"]

log = own_logger("mooring.engine")

COST = 200  # bytes that a waiting publication costs beside its data
PAUSE = 0.1  # seconds until a batch is sent again that the server has refused and that may be there already
CLOSED = "the engine is closed"
FULL = "too much waits for Redis: publish less, or raise the limit of what may wait"


class _Waiting:
    """A publication that has no answer yet."""

    __slots__ = ("answer", "append", "deadline", "size")

    def __init__(self, append: Append, answer: Callable[[PublishOutcome], None] | None, deadline: float) -> None:
        self.append = append
        self.answer = answer  # None: it was given
        self.deadline = deadline
        self.size = len(append.data) + COST

    def say(self, outcome: PublishOutcome) -> None:
        if self.answer is not None:
            answer, self.answer = self.answer, None
            answer(outcome)


class _Batch:
    """A run of numbers, topic by topic: within a topic they are in the order in which they came."""

    def __init__(self, first: int, topics: dict[str, list[_Waiting]]) -> None:
        self.first = first
        self.topics = topics
        self.last = first + sum(map(len, topics.values())) - 1
        self.size = sum(one.size for many in topics.values() for one in many)
        self.keys: list[bytes] = []
        self.arguments: list[bytes | str | int] = []
        self.maybe_there = False  # it was sent, and there was no answer
        self.done_at = 0.0

    def waiting(self) -> itertools.chain[_Waiting]:
        return itertools.chain.from_iterable(self.topics.values())


class Appender:
    """See the module's text. `fresh` gives names for epochs, each once."""

    def __init__(
        self, options: Options, names: Names, publisher: str, clock: Callable[[], float], fresh: Callable[[], str]
    ) -> None:
        self._options = options
        self._names = names
        self._publisher = publisher
        self._clock = clock
        self._fresh = fresh
        self._queue: deque[_Waiting] = deque()
        self._queued = 0  # bytes
        self._wake = asyncio.Event()
        self.empty = asyncio.Event()  # nothing waits, as far as a server has answered
        self._flight: _Batch | None = None
        self._kept: deque[_Batch] = deque()
        self._kept_bytes = 0
        self._lost_above: int | None = None  # the server has nothing above this number, and should have
        self.last = 0  # number of the last publication that is acknowledged
        self.why = "Redis is not reachable"
        self.counted = {
            "publications": 0,
            "publications_refused": 0,
            "publications_uncertain": 0,
            "publications_sent_again": 0,
            "publications_lost": 0,
        }

    def publish(self, append: Append, answer: Callable[[PublishOutcome], None]) -> None:
        """Takes it into the next batch."""
        waiting = _Waiting(append, answer, self._clock() + self._options.patience)
        if self._queued + waiting.size > self._options.queue_bytes:
            self._refuse(waiting, FULL)
            return
        self.empty.clear()
        self._queue.append(waiting)
        self._queued += waiting.size
        self._wake.set()

    def expire(self) -> None:
        """Called now and then: answers whoever has waited for too long."""
        now = self._clock()
        while self._queue and self._queue[0].deadline <= now:
            self._refuse(self._pop(), self.why)
        if self._flight is not None:
            for one in self._flight.waiting():
                if one.deadline <= now:
                    self._leave(one, self.why)

    def close(self) -> None:
        """All that wait are told."""
        while self._queue:
            self._refuse(self._pop(), CLOSED)
        if self._flight is not None:
            for one in self._flight.waiting():
                self._leave(one, CLOSED)

    def compare(self, stored: int, expected: int) -> None:
        """What a heartbeat has found, and what was acknowledged when it was sent."""
        if stored < expected:
            self._lost_above = stored
            self._wake.set()
        else:
            self._forget()

    async def run(self, pair: Pair) -> None:
        """Sends, as long as the connections last. Raises Lost."""
        while True:
            if self._lost_above is not None:
                await self._repair(pair)
            elif self._flight is not None:
                await self._send(pair, self._flight)
            elif self._queue:
                self._flight = self._next()
            else:
                self.empty.set()
                self._wake.clear()
                await self._wake.wait()

    # ------------------------------------------------------------------ batches

    def _next(self) -> _Batch:
        topics: dict[str, list[_Waiting]] = {}
        many = size = 0
        while self._queue and many < self._options.batch and size < self._options.batch_bytes:
            waiting = self._pop()
            topics.setdefault(waiting.append.topic, []).append(waiting)
            many += 1
            size += waiting.size
        batch = _Batch(self.last + 1, topics)
        self._fill(batch)
        return batch

    def _fill(self, batch: _Batch) -> None:
        names, number = self._names, batch.first
        for topic, many in batch.topics.items():
            name, facts, stream, partition = names.topic(topic)
            newest = many[-1].append  # how much is kept is what was said last
            ttl = math.ceil(newest.history_ttl * 1000)
            data = pack(name, self._publisher, number, [one.append for one in many])
            number += len(many)
            batch.keys += (facts, stream)
            batch.arguments += (
                b"%d %d %d %d %d" % (partition, len(many), number - 1, newest.history_size, ttl),
                data,
            )

    async def _send(self, pair: Pair, batch: _Batch) -> None:
        """The batch whose turn it is."""
        again, batch.maybe_there = batch.maybe_there, True
        try:
            done, stored, places = await self._call(pair, batch)
        except ReadOnlyError as problem:
            batch.maybe_there = again
            raise _given_up(pair, problem) from problem
        except ResponseError as problem:
            if again:  # this time it was refused; the time before may still be to come
                self.why = str(problem)
                await asyncio.sleep(PAUSE)
                return
            self._flight = None
            for one in batch.waiting():
                self._refuse(one, str(problem))
            return
        if not done:
            batch.maybe_there = again
            self._lost_above = stored
            return
        self._flight = None
        self.last = batch.last
        self._keep(batch)
        self._answer(batch, places)
        batch.topics = {}  # to send it again its arguments are enough

    async def _call(self, pair: Pair, batch: _Batch) -> tuple[bool, int, list[bytes]]:
        """Whether the server has it; the number that it had before; epoch and offset of each topic's last one."""
        options = self._options
        base = self._kept[0].first if self._kept else batch.first
        arguments: list[bytes | str | int] = [
            self._publisher,
            batch.first,
            batch.last,
            base,
            self._fresh(),
            int(options.idle * 1000),
            int(PUBLISHER_IDLE * 1000),
            self._names.channels,
            *batch.arguments,
        ]
        keys = [self._names.publisher, self._names.counters, self._names.facts, *batch.keys]
        what, _, before, places = await pair.script(APPEND, keys, arguments)
        stored = int(before)
        if what == b"hole":
            return False, stored, []
        if stored + 1 < batch.first:
            lost = batch.first - stored - 1
            self.counted["publications_lost"] += lost
            log.warning("Redis has lost %d publications of this node that are too old to be sent again", lost)
        return True, stored, places.split()

    def _answer(self, batch: _Batch, places: list[bytes]) -> None:
        self.counted["publications"] += batch.last - batch.first + 1
        for i, many in enumerate(batch.topics.values()):
            epoch, offset = places[2 * i].decode(), int(places[2 * i + 1]) - len(many)
            for one in many:
                offset += 1
                one.say(Position(epoch, offset))

    def _pop(self) -> _Waiting:
        waiting = self._queue.popleft()
        self._queued -= waiting.size
        return waiting

    def _refuse(self, waiting: _Waiting, why: str) -> None:
        if waiting.answer is not None:
            self.counted["publications_refused"] += 1
            waiting.say(Refused(why))

    def _leave(self, waiting: _Waiting, why: str) -> None:
        if waiting.answer is not None:
            self.counted["publications_uncertain"] += 1
            waiting.say(Uncertain(why))

    # ------------------------------------------------------------------ what may be lost

    def _keep(self, batch: _Batch) -> None:
        batch.done_at = self._clock()
        self._kept.append(batch)
        self._kept_bytes += batch.size
        while self._kept_bytes > self._options.keep_bytes:
            self._kept_bytes -= self._kept.popleft().size

    def _forget(self) -> None:
        """What the server has, and has had for a while. Only a server that answers makes time pass: what was published
        before it went away is still here when it comes back."""
        old = self._clock() - self._options.keep
        while self._kept and self._kept[0].done_at < old:
            self._kept_bytes -= self._kept.popleft().size

    async def _repair(self, pair: Pair) -> None:
        stored = self._lost_above
        assert stored is not None
        for batch in [one for one in self._kept if one.last > stored]:
            try:
                done, stored, _ = await self._call(pair, batch)
            except ReadOnlyError as problem:
                raise _given_up(pair, problem) from problem
            except ResponseError as problem:
                self.why = str(problem)
                await asyncio.sleep(PAUSE)
                return  # begins anew
            if not done:
                self._lost_above = stored
                return
            self.counted["publications_sent_again"] += batch.last - batch.first + 1
        self._lost_above = None


def _given_up(pair: Pair, problem: Exception) -> Lost:
    """That server is no master, or not any more."""
    pair.give_up(str(problem))
    return Lost(str(problem))
