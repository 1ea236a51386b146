"""Publishers, followers and a fault; and what must hold afterwards.

Every publication says who has published it and is numbered in its topic. Two nodes publish and two only follow; a third
one follows, goes away before the fault and comes back after it with the position it had, because a loss that everybody
has seen live shows only to who was away. At the end the histories are read as well.

async with Trial(broker.path) as trial:
    await trial.goes_on(0.5)
    ... a fault ...
    await trial.ends()
assert trial.faults() == []
"""

import asyncio
import itertools
from collections import defaultdict
from contextlib import AsyncExitStack

from mooring.engine.contract import Refused, Uncertain
from mooring.engine.letters import Append
from mooring.engine.redis.engine import RedisEngine
from mooring.engine.redis.options import Options
from mooring.engine.redis.servers import OneServer
from mooring.types import Position, Verdict
from support.middle import Middle
from support.nodes import LIMIT, START, Node

TOPICS = [f"topic {i}" for i in range(5)]
SIZE = 1_000_000  # nothing is trimmed
QUICK = Options(
    beat_every=0.1, beat_limit=0.6, call_limit=0.5, patience=20.0, keep=60.0, backoff=(0.02, 0.1), partitions=8
)
_numbers = itertools.count()


class Place:
    """A node with a proxy before each of its two connections."""

    def __init__(self, target, options):
        self.asks, self.listens = Middle(target), Middle(target)
        self._turns = itertools.cycle([OneServer(self.asks.url), OneServer(self.listens.url)])
        self.node = Node(RedisEngine(self, options))

    async def connection(self):
        """As a resolver: the first one asks, the second one listens."""
        return await next(self._turns).connection()

    async def has_moved(self):
        return False

    def both(self, way):
        self.asks.both(way)
        self.listens.both(way)

    def cut(self):
        self.asks.cut()
        self.listens.cut()

    def leads_to(self, target):
        """From now on; the connections of before stay."""
        self.asks.target = self.listens.target = target

    async def __aenter__(self):
        await self.asks.__aenter__()
        await self.listens.__aenter__()
        await self.node.__aenter__()
        return self

    async def __aexit__(self, *problem):
        await self.node.__aexit__()
        await self.listens.__aexit__()
        await self.asks.__aexit__()


class Trial:
    """See the module's text."""

    def __init__(self, target, options=QUICK, *, padding=0):
        self.target = target
        self._padding = b":" + b"x" * padding if padding else b""
        self.options = Options(**{**vars(options), "prefix": f"trial{next(_numbers)}"})
        self._stack = AsyncExitStack()
        self._stopped = asyncio.Event()
        self._publishing: list[asyncio.Task] = []
        self._asked = self._answered = 0
        self.acknowledged: dict[str, dict[bytes, Position]] = {topic: {} for topic in TOPICS}
        self.uncertain: list[str] = []
        self.refused: list[tuple[bytes, str]] = []
        self.away: dict[str, list[tuple[str, int, bytes]]] = {}
        self.returned: dict[str, Verdict] = {}
        self.histories: dict[str, list] = {}

    async def place(self):
        return await self._stack.enter_async_context(Place(self.target, self.options))

    async def __aenter__(self):
        self.places = [await self.place() for _ in range(4)]
        self.publishers, self.followers = self.places[:2], self.places[2:]
        self.gone = Place(self.target, self.options)
        async with self.gone:
            for place in (*self.places, self.gone):
                for topic in TOPICS:
                    assert (await place.node.follow(topic)).verdict is Verdict.RECOVERED
            for number, place in enumerate(self.publishers):
                self._publishing.append(asyncio.create_task(self._publish(number, place.node)))
            await self.goes_on(0.3)
            self.away = {topic: list(self.gone.node.told[topic]) for topic in TOPICS}
        return self

    async def __aexit__(self, *problem):
        for task in self._publishing:
            task.cancel()
        await asyncio.gather(*self._publishing, return_exceptions=True)
        await self._stack.aclose()

    async def goes_on(self, seconds):
        """Publications and time go by."""
        await asyncio.sleep(seconds)

    async def _publish(self, number, node):
        """Some tens of publications each few milliseconds, whatever becomes of them."""
        for i in itertools.count(1):
            if self._stopped.is_set():
                return
            for topic in TOPICS:
                self._send(node, topic, b"%d:%d%b" % (number, i, self._padding))
            await asyncio.sleep(0.004)

    def _send(self, node, topic, data):
        self._asked += 1

        def answered(outcome):
            self._answered += 1
            if isinstance(outcome, Position):
                self.acknowledged[topic][data] = outcome
            elif isinstance(outcome, Uncertain):
                self.uncertain.append(outcome.reason)
            else:
                assert isinstance(outcome, Refused)
                self.refused.append((topic.encode() + data, outcome.reason))

        node.engine.publish(Append(topic, 0, 1, data, SIZE, 0.0), answered)

    async def stops(self):
        """Nothing new is published; all that was has its answer."""
        self._stopped.set()
        async with asyncio.timeout(LIMIT):
            await asyncio.gather(*self._publishing)
            while self._answered < self._asked:
                await asyncio.sleep(0.01)

    async def ends(self, patience=3.0):
        """The same; then everybody has time to hear of it, who was away comes back, and the histories are read."""
        await self.stops()
        end = asyncio.get_running_loop().time() + patience
        while asyncio.get_running_loop().time() < end and any(
            len(set(place.node.data(topic)) & set(known)) < len(known)
            for place in self.places
            for topic, known in self.acknowledged.items()
        ):
            await asyncio.sleep(0.02)
        last = await self.place()
        for topic in TOPICS:
            await self._return(last.node, topic)
            found = await last.node.since(topic, START)
            self.histories[topic] = [(found.position.epoch, one.offset, one.data) for one in found.publications]

    async def _return(self, node, topic):
        told = self.away[topic]
        position = Position(*told[-1][:2]) if told else START
        found = await node.follow(topic, position)
        self.returned[topic] = found.verdict
        if found.verdict is not Verdict.RECOVERED:  # what such a client does: goes on where it can
            known = {data for _, _, data in told}
            start = START if found.verdict is Verdict.UNKNOWN_EPOCH else found.position
            found = await node.since(topic, start)
            assert found.verdict is Verdict.RECOVERED
            new = [one for one in found.publications if one.data not in known]
        else:
            new = list(found.publications)
        self.away[topic] = told + [(found.position.epoch, one.offset, one.data) for one in new]

    # ------------------------------------------------------------------ what must hold

    def faults(self):
        """In words; at most one of a kind for each topic and listener."""
        return list(self._faults())

    def _faults(self):
        lines = [
            (f"node {i}", topic, place.node.told[topic]) for i, place in enumerate(self.places) for topic in TOPICS
        ]
        lines += [("who was away", topic, self.away[topic]) for topic in TOPICS]
        lines += [("history", topic, self.histories[topic]) for topic in TOPICS]
        meaning: dict[tuple[str, str, int], bytes] = {}
        for topic, known in self.acknowledged.items():
            for data, position in known.items():
                if meaning.setdefault((topic, *position), data) != data:
                    yield f"{topic}: {position} was acknowledged twice"
        refused = {name for name, _ in self.refused}
        for who, topic, line in lines:
            told = [data for _, _, data in line]
            missing = set(self.acknowledged[topic]) - set(told)
            if missing:
                yield f"{who}, {topic}: {len(missing)} of {len(self.acknowledged[topic])} missing, {min(missing)!r}"
            if len(set(told)) < len(told):
                yield f"{who}, {topic}: {len(told) - len(set(told))} doubled"
            highest: dict[bytes, int] = defaultdict(int)
            for data in dict.fromkeys(told):
                publisher, number = data.split(b":")[:2]
                if int(number) < highest[publisher]:
                    yield f"{who}, {topic}: {data!r} out of order"
                    break
                highest[publisher] = int(number)
            for epoch, offset, data in line:
                if meaning.setdefault((topic, epoch, offset), data) != data:
                    yield f"{who}, {topic}: {epoch}, {offset} means {data!r} and {meaning[topic, epoch, offset]!r}"
                    break
            if any(topic.encode() + data in refused for data in told):
                yield f"{who}, {topic}: something was refused and told"

    @property
    def verdicts(self):
        """That followers were told, of any topic."""
        return {verdict for place in self.places for judged in place.node.judged_as.values() for verdict, _ in judged}

    def counted(self, name):
        return sum(place.node.engine.stats()[name] for place in self.places)
