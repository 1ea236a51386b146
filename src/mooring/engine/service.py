"""The engine's process: workers and gateways ask, and it has the engine answer.

Theory
    A star, as the dispatcher is one: each worker and each gateway has one channel, to this process. A publication in a
    topic with a history comes from a worker, is numbered and kept, and goes to the gateways that follow the topic.

    A gateway follows a topic while anybody there hears it. It asks to (FOLLOW, with a position), is told what there is
    behind the position (FOLLOWED), and from then on what is new (PUBLISHED). All of that comes on one channel, in
    order, and this process does one thing after the other; so what was missed and what is new have no gap between them
    and nothing in common, and nobody has to hold anything back and compare. What is more than a part comes in parts,
    each for a question of its own; with the last one the gateway follows. One that takes what is new too slowly is told
    that it is behind, and follows nothing any more: it asks again, from where it stands; no memory is held for it.

    What numbers and keeps is the engine (contract.py): one in memory, which is gone with this process and says so by
    other epochs, or a broker. It answers later. Who asks to follow while it can't be reached waits; who publishes is
    told.

    It runs nothing of the application and outlives workers, gateways and reloads.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial

import msgspec

from mooring._core.channel import BadRecord
from mooring._core.reactor import Reactor
from mooring._core.records import MailContract, RecordChannel
from mooring._core.wire import TO_ENGINE, VERSION, Mail, Notice
from mooring.counters import Part, zeros
from mooring.engine.contract import Engine, Listener, PublishOutcome, Refused, Uncertain
from mooring.engine.history import Kept, Since
from mooring.engine.letters import Append, Appended, Ask, Form, Found, Judged, Published
from mooring.journal import own_logger
from mooring.net.refusals import RefusalLog, say_bad
from mooring.types import Position, Verdict

log = own_logger("mooring.engine")

SLICE = 64 << 10  # bytes of publications in one answer: as much as a client may have waiting by default
UNSENT_LIMIT = 16 << 20  # bytes of publications that a gateway has not taken yet
AGAIN = 0.25  # seconds until the engine is asked again which could not be reached

_append = msgspec.msgpack.Decoder(Append)
_ask = msgspec.msgpack.Decoder(Ask)
_encode = msgspec.msgpack.Encoder().encode
_json = msgspec.json.Encoder()


class Peer(MailContract):
    """A worker or a gateway, from its link on; a process that is both is one."""

    def __init__(self, service: "EngineService", worker: int | None, generation: int) -> None:
        self.worker = -1 if worker is None else worker
        self.generation = generation
        self.pid = 0
        self.topics: set[str] = set()  # that it follows
        self._service = service

    @property
    def name(self) -> str:
        """For the log."""
        return f"process {self.pid}" if self.worker < 0 else f"worker {self.worker} (pid {self.pid})"

    def on_record(self, channel: RecordChannel, notice: Notice) -> None:
        self._service.take(self, notice)

    def on_lost(self, channel: RecordChannel, why: str) -> None:
        self._service.on_lost(self)

    def on_bad(self, channel: RecordChannel, problem: Exception) -> None:
        self._service.on_bad(self, problem)

    def on_broken(self, channel: RecordChannel, why: str) -> None:
        self._service.on_broken(self, why)


class EngineService(Listener):
    """See the module's text. `on_broken` is called when a worker has to be replaced because it speaks nonsense."""

    def __init__(self, reactor: Reactor, engine: Engine, on_broken: Callable[[Peer, str], None]) -> None:
        self._reactor = reactor
        self._call_later = reactor.call_later
        self._engine = engine
        self._tell_broken = on_broken
        self._refusals = RefusalLog(reactor.call_later, log)
        self._channels: dict[Peer, RecordChannel] = {}
        self._followers: dict[str, dict[Peer, None]] = {}  # in the order in which they came
        self._asking: Counter[str] = Counter()  # questions of gateways that wait for an answer, by topic
        self._counters = zeros(Part.ENGINE)
        self._is_connected = False
        self._taken: dict[int, Callable[[Peer, Notice], None]] = {
            mail: getattr(self, f"_on_{mail.name.lower()}") for mail in TO_ENGINE
        }

    def start(self) -> None:
        """The engine begins; what was asked before waits for that."""
        self._engine.start(self)

    async def close(self) -> None:
        """What waits for an answer gets it."""
        await self._engine.close()

    def attach(self, channel: int, *, worker: int | None, generation: int) -> RecordChannel:
        """A link to a worker or gateway; takes the descriptor over."""
        peer = Peer(self, worker, generation)
        opened = self._channels[peer] = RecordChannel(self._reactor, channel, peer)
        return opened

    def peers(self, worker: int, generation: int) -> list[Peer]:
        """Those of that worker."""
        return [peer for peer in self._channels if (peer.worker, peer.generation) == (worker, generation)]

    def stats(self) -> dict[str, int]:
        """What it counts."""
        return {**self._counters, **self._engine.stats(), "engine_connected": self._is_connected}

    # ------------------------------------------------------------------ what they say

    def take(self, peer: Peer, notice: Notice) -> None:
        """A record comes to the function of its name. Raises ValueError for one that makes no sense."""
        taken = self._taken.get(notice.kind)
        if taken is None:
            raise BadRecord(f"unknown kind {notice.kind}")
        taken(peer, notice)

    def _on_engine_hello(self, peer: Peer, notice: Notice) -> None:
        if peer.pid:
            raise BadRecord("a second HELLO")
        if notice.arg != VERSION:
            raise BadRecord(f"it speaks version {notice.arg} of the channel, not {VERSION}: restart the server")
        peer.pid = notice.number

    def _on_append(self, peer: Peer, notice: Notice) -> None:
        asked = _append.decode(notice.payload)
        if Form(asked.form) is Form.TEXT:
            asked.data.decode()  # what could not be sent must not be kept
        self._engine.publish(asked, partial(self._appended, peer, notice.number))

    def _appended(self, peer: Peer, number: int, outcome: PublishOutcome) -> None:
        match outcome:
            case Position(epoch, offset):
                answer = Appended(epoch, offset)
            case Uncertain(reason):
                answer = Appended(uncertain=reason)
            case Refused(reason):
                answer = Appended(refused=reason)
        self._answer(peer, Mail.APPENDED, number, answer)

    def published(self, topic: str, epoch: str, kept: Kept, exclude: bytes) -> None:
        """As Listener has it."""
        if followers := self._followers.get(topic):
            new = Published(topic, epoch, kept.opcode, _dressed(topic, epoch, kept), exclude)
            self._spread(followers, Notice(Mail.PUBLISHED, kept.offset, _encode(new)))

    def judged(self, topic: str, verdict: Verdict, position: Position) -> None:
        """As Listener has it."""
        if followers := self._followers.get(topic):
            self._spread(followers, Notice(Mail.JUDGED, 0, _encode(Judged(topic, verdict, *position))))

    def connected(self) -> None:
        """As Listener has it."""
        self._is_connected = True

    def disconnected(self, why: str) -> None:
        """As Listener has it."""
        self._is_connected = False

    def _spread(self, followers: Iterable[Peer], notice: Notice) -> None:
        for one in tuple(followers):
            channel = self._channels[one]
            channel.send(notice)
            if channel.waiting > UNSENT_LIMIT:
                self._counters["gateways_behind"] += 1
                self._unfollow_all(one)
                channel.send(Notice(Mail.BEHIND, 0))

    def _on_follow(self, peer: Peer, notice: Notice) -> None:
        self._follow(peer, notice.number, _ask.decode(notice.payload))

    def _follow(self, peer: Peer, number: int, asked: Ask) -> None:
        if peer in self._channels:
            self._asking[asked.topic] += 1
            self._engine.follow(asked.topic, asked.position, SLICE, partial(self._followed, peer, number, asked))

    def _followed(self, peer: Peer, number: int, asked: Ask, since: Since | Refused) -> None:
        topic = asked.topic
        self._asking[topic] -= 1
        if isinstance(since, Refused):
            self._call_later(AGAIN, lambda: self._follow(peer, number, asked))
        elif peer in self._channels:
            found = _found(asked, since)
            if found.is_all:
                peer.topics.add(topic)
                self._followers.setdefault(topic, {})[peer] = None
                if asked.epoch is not None:
                    self._counters[_JUDGED[since.verdict]] += 1
            self._answer(peer, Mail.FOLLOWED, number, found)
        self._look(topic)

    def _look(self, topic: str) -> None:
        """Whether anybody follows it, or will."""
        if not self._asking[topic]:
            del self._asking[topic]
            if topic not in self._followers:
                self._engine.unfollow(topic)

    def _on_unfollow(self, peer: Peer, notice: Notice) -> None:
        self._unfollow(peer, notice.payload.decode())

    def _on_past(self, peer: Peer, notice: Notice) -> None:
        asked = _ask.decode(notice.payload)
        answer = partial(self._past, peer, notice.number, asked)
        self._engine.since(asked.topic, asked.position, asked.most, SLICE, answer)

    def _past(self, peer: Peer, number: int, asked: Ask, since: Since | Refused) -> None:
        if isinstance(since, Refused):
            found = Found(Verdict.RECOVERED, "", 0, 0, (), since.reason)
        else:
            found = _found(asked, since, dressed=False)
        self._answer(peer, Mail.PAST, number, found)

    def _answer(self, peer: Peer, mail: Mail, number: int, answer: object) -> None:
        channel = self._channels.get(peer)
        if channel is not None:  # else it has ended meanwhile
            channel.send(Notice(mail, number, _encode(answer)))

    def _unfollow_all(self, peer: Peer) -> None:
        for topic in list(peer.topics):
            self._unfollow(peer, topic)

    def _unfollow(self, peer: Peer, topic: str) -> None:
        peer.topics.discard(topic)
        followers = self._followers.get(topic, {})
        followers.pop(peer, None)
        if not followers:
            self._followers.pop(topic, None)
            self._look(topic)

    def on_lost(self, peer: Peer) -> None:
        """The process is gone."""
        self._unfollow_all(peer)
        del self._channels[peer]

    def on_bad(self, peer: Peer, problem: Exception) -> None:
        """A record had no effect."""
        self._counters["bad_records"] += 1
        say_bad(self._refusals, peer.name, problem)

    def on_broken(self, peer: Peer, why: str) -> None:
        """It speaks nonsense."""
        self._counters["bad_records"] += 1
        log.error("%s: %s", peer.name, why)
        if peer.worker >= 0:
            self._tell_broken(peer, why)
        else:
            self._channels[peer].hang_up()  # a gateway keeps its clients; they hear nothing new until a restart


def _found(asked: Ask, since: Since, *, dressed: bool = True) -> Found:
    epoch, offset = since.position
    publications = tuple(
        (one.offset, one.opcode, _dressed(asked.topic, epoch, one) if dressed else one.data)
        for one in since.publications
    )
    return Found(since.verdict, epoch, offset, since.end.offset, publications)


_JUDGED = {verdict: f"subscriptions_{verdict.name.lower()}" for verdict in Verdict}


def _dressed(topic: str, epoch: str, kept: Kept) -> bytes:
    """What clients get."""
    if kept.form == Form.BARE:
        return kept.data
    data = msgspec.Raw(kept.data) if kept.form == Form.JSON else kept.data.decode()
    return _json.encode({"topic": topic, "epoch": epoch, "offset": kept.offset, "data": data})
