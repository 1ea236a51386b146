"""The engine's process: what workers and gateways ask, in which order they hear of it, and who goes."""

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from mooring._core.reactor import Reactor
from mooring._core.records import MailContract, RecordChannel
from mooring._core.wire import TO_ENGINE, VERSION, Mail, Notice
from mooring.counters import TABLE, Part
from mooring.engine import service as module
from mooring.engine.letters import MOST, Append, Appended, Ask, Form, Found, Published
from mooring.engine.local import FULL, SWEEP, LocalEngine
from mooring.engine.memory import PUBLICATION_BYTES, TOPIC_BYTES, MemoryEngine
from mooring.engine.service import EngineService
from mooring.types import Verdict
from support.ticking import Ticking

ANSWERS: dict[Mail, Any] = {
    Mail.APPENDED: Appended,
    Mail.PAST: Found,
    Mail.FOLLOWED: Found,
    Mail.PUBLISHED: Published,
}
encode = msgspec.msgpack.encode


class Process(MailContract):
    """A worker, or a gateway (without a number), at the other end of its link."""

    def __init__(self, server: "Server", worker: int | None, generation: int) -> None:
        self.heard: list[tuple[Mail, int, Any]] = []
        self._server = server
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setblocking(False)
        self.channel = RecordChannel(server.reactor, ours.detach(), self)
        server.service.attach(theirs.detach(), worker=worker, generation=generation)
        self.send(Notice(Mail.ENGINE_HELLO, 1000 if worker is None else 1001 + worker, arg=VERSION))

    def send(self, *notices: Notice) -> None:
        for notice in notices:
            self.channel.send(notice)
        self._server.turn()

    def append(
        self,
        number: int,
        topic: str,
        data: bytes,
        *,
        size: int = 10,
        ttl: float = 0.0,
        form: int = Form.BARE,
        **more: Any,
    ) -> None:
        letter = Append(topic, form, more.get("opcode", 1), data, size, ttl, more.get("exclude", b""))
        self.send(Notice(Mail.APPEND, number, encode(letter)))

    def follow(self, number: int, topic: str, epoch: str | None = None, offset: int = 0) -> None:
        self.send(Notice(Mail.FOLLOW, number, encode(Ask(topic, epoch, offset))))

    def past(self, number: int, topic: str, limit: int = MOST, since: tuple[str, int] | None = None) -> None:
        self.send(Notice(Mail.PAST, number, encode(Ask(topic, *since or (None, 0), limit))))

    def unfollow(self, topic: str) -> None:
        self.send(Notice(Mail.UNFOLLOW, 0, topic.encode()))

    def end(self) -> None:
        self.channel.close()
        self._server.turn()

    def take(self) -> list[tuple[Mail, int, Any]]:
        """What has come since: the kind, the number and the letter of each."""
        heard, self.heard = self.heard, []
        return heard

    def one(self) -> Any:
        """The letter that has come."""
        [(_, _, letter)] = self.take()
        return letter

    def on_record(self, channel: RecordChannel, notice: Notice) -> None:
        mail = Mail(notice.kind)
        self.heard.append((mail, notice.number, msgspec.msgpack.decode(notice.payload, type=ANSWERS[mail])))

    def on_lost(self, channel: RecordChannel, why: str) -> None:
        pass


class Server:
    """The engine, and those who have a link to it."""

    def __init__(self, memory: int = 1 << 20) -> None:
        self.now = 1000.0
        self.reactor = Reactor()
        self.broken: list[tuple[int, str]] = []
        self.engine = MemoryEngine(lambda: self.now, memory)
        told = lambda peer, why: self.broken.append((peer.worker, why))  # noqa: E731
        self.service = EngineService(self.reactor, LocalEngine(self.engine, self.reactor.call_later), told)
        self.service.start()
        self.processes: list[Process] = []

    def process(self, worker: int | None = None, generation: int = 1) -> Process:
        made = Process(self, worker, generation)
        self.processes.append(made)
        return made

    def turn(self) -> None:
        for _ in range(6):
            self.reactor.poll(0)

    def counted(self, *names: str) -> tuple[int, ...]:
        stats = self.service.stats()
        return tuple(stats[name] for name in names)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    for process in made.processes:
        process.end()
    assert made.service._channels == {}
    assert made.service._followers == {}, "who is gone follows nothing"


def fill(worker: Process, topic: str, count: int, size: int = 10) -> str:
    """That many publications, "1", "2", ...; the epoch."""
    for number in range(1, count + 1):
        worker.append(number, topic, f"{number}".encode(), size=size)
    *_, (_, _, last) = worker.take()
    epoch: str = last.epoch
    return epoch


# ------------------------------------------------------------------ publishing


def test_a_publication_has_a_number_and_goes_to_who_follows_the_topic(server: Server):
    worker, follower, stranger = server.process(0), server.process(), server.process()
    follower.follow(1, "a")
    stranger.follow(1, "b")
    follower.take(), stranger.take()
    worker.append(7, "a", b"\xff", opcode=2, exclude=b"8 bytes.")
    [(mail, number, appended)] = worker.take()
    assert (mail, number, appended) == (Mail.APPENDED, 7, Appended(appended.epoch, 1))
    assert follower.take() == [(Mail.PUBLISHED, 1, Published("a", appended.epoch, 2, b"\xff", b"8 bytes."))]
    assert stranger.take() == []
    worker.append(8, "a", b"x")
    assert [one[1] for one in follower.take()] == [2]
    assert server.counted("publications", "history_topics", "publications_refused") == (2, 1, 0)
    assert server.counted("history_bytes") == (server.engine.bytes,)


def test_of_two_workers_each_gets_its_answers_and_all_followers_hear_the_same_order(server: Server):
    workers, followers = [server.process(0), server.process(1)], [server.process(), server.process()]
    for one in followers:
        one.follow(1, "a")
        one.take()
    for number in range(6):
        workers[number % 2].append(number, "a", f"{number}".encode())
    heard = [[(offset, letter.data) for _, offset, letter in one.take()] for one in followers]
    assert heard[0] == heard[1] == [(number + 1, f"{number}".encode()) for number in range(6)]
    assert [[(number, letter.offset) for _, number, letter in one.take()] for one in workers] == [
        [(0, 1), (2, 3), (4, 5)],
        [(1, 2), (3, 4), (5, 6)],
    ]


@pytest.mark.parametrize(
    ("form", "data", "gets"),
    [
        (Form.BARE, b'"x', b'"x'),
        (Form.TEXT, 'a "text" \u20ac'.encode(), 'a "text" \u20ac'),
        (Form.TEXT, b"", ""),
        (Form.TEXT, b"5", "5"),
        (Form.JSON, b'{"value":[1,null]}', {"value": [1, None]}),
    ],
)
def test_clients_get_it_as_its_form_says_be_it_new_or_missed_and_a_history_has_it_bare(
    server: Server, form: Form, data: bytes, gets: Any
):
    worker, gateway = server.process(0), server.process()
    gateway.follow(1, "ä")
    gateway.take()
    worker.append(1, "ä", data, form=form)
    epoch = worker.one().epoch
    new = gateway.one()
    gateway.follow(2, "ä", epoch, 0)
    [(offset, opcode, missed)] = gateway.one().publications
    assert (offset, opcode) == (1, new.opcode)
    assert missed == new.data
    if form == Form.BARE:
        assert new.data == gets
    else:
        assert msgspec.json.decode(new.data) == {"topic": "ä", "epoch": epoch, "offset": 1, "data": gets}
    worker.past(2, "ä", MOST, (epoch, 0))
    assert worker.one().publications == ((1, 1, data),)


def test_what_there_is_no_room_for_is_refused_and_nobody_hears_of_it():
    server = Server(TOPIC_BYTES + 2 * PUBLICATION_BYTES + 1000)
    worker, gateway = server.process(0), server.process()
    gateway.follow(1, "a")
    gateway.take()
    worker.append(1, "a", bytes(5000))
    assert worker.take() == [(Mail.APPENDED, 1, Appended("", 0, FULL))]
    assert "history_memory_limit" in FULL
    assert gateway.take() == []
    worker.append(2, "a", b"x")
    assert worker.one().offset == 1, "the refused one has no number"
    assert [one[1] for one in gateway.take()] == [1]
    assert server.counted("publications", "publications_refused", "bad_records") == (1, 1, 0)
    for one in server.processes:
        one.end()


# ------------------------------------------------------------------ following


def test_who_follows_from_now_on_is_told_where_that_is(server: Server):
    worker, gateway = server.process(0), server.process()
    epoch = fill(worker, "a", 3)
    gateway.follow(9, "a")
    assert gateway.take() == [(Mail.FOLLOWED, 9, Found(Verdict.RECOVERED, epoch, 3, 3))]
    judged = [f"subscriptions_{verdict.name.lower()}" for verdict in Verdict]
    assert server.counted(*judged) == (0, 0, 0, 0), "it has asked for nothing"


def test_what_was_missed_comes_and_then_what_is_new(server: Server):
    worker, gateway = server.process(0), server.process()
    epoch = fill(worker, "a", 3)
    worker.channel.send(Notice(Mail.APPEND, 1, encode(Append("a", Form.BARE, 1, b"4", 10, 0.0))))
    gateway.follow(9, "a", epoch, 1)
    worker.append(2, "a", b"5")
    (mail, number, found), *new = gateway.take()
    assert (mail, number, found.judged, found.position) == (Mail.FOLLOWED, 9, Verdict.RECOVERED, (epoch, 1))
    offsets = [offset for offset, _, _ in found.publications] + [offset for _, offset, _ in new]
    assert offsets == [2, 3, 4, 5]
    assert [one[0] for one in new] == [Mail.PUBLISHED] * len(new)


@pytest.mark.parametrize("batch", [1, 2, 3, 7])
def test_follow_and_publish_in_one_turn_have_no_gap_and_nothing_in_common(server: Server, batch: int):
    """Both wait in their sockets, and the engine reads them in whatever order it likes."""
    worker, gateway = server.process(0), server.process()
    epoch = fill(worker, "a", 1)
    for lap in range(12):
        for number in range(batch):
            worker.channel.send(Notice(Mail.APPEND, number, encode(Append("a", Form.BARE, 1, b"x", 1000, 0.0))))
            if number == lap % batch:
                worker.channel.flush_now()
                gateway.channel.send(Notice(Mail.FOLLOW, lap, encode(Ask("a", epoch, 1))))
                gateway.channel.flush_now()
        server.turn()
        heard: list[int] = []
        for mail, number, letter in gateway.take():
            if mail == Mail.FOLLOWED:
                assert number == lap
                assert heard == [] or lap > 0
                heard = [offset for offset, _, _ in letter.publications]
            else:
                heard.append(number)
        assert heard == list(range(2, 2 + (lap + 1) * batch))


@pytest.mark.parametrize(
    ("offset", "verdict", "begins"),
    [
        (3, Verdict.RECOVERED, 3),
        (2, Verdict.TRIMMED, 3),
        (6, Verdict.ROLLED_BACK, 5),
        (None, Verdict.UNKNOWN_EPOCH, 5),
    ],
)
def test_each_verdict_is_told_and_counted_and_who_gets_it_hears_what_is_new(
    server: Server, offset: int | None, verdict: Verdict, begins: int
):
    worker, gateway = server.process(0), server.process()
    epoch = fill(worker, "a", 5, size=2)
    position = ("other", 3) if offset is None else (epoch, offset)
    gateway.follow(1, "a", *position)
    found = gateway.one()
    assert (found.judged, found.position) == (verdict, (epoch, begins))
    assert [one[0] for one in found.publications] == list(range(begins + 1, 6)), "all that is kept behind it"
    assert (found.top, found.is_all) == (5, True)
    worker.append(1, "a", b"x")
    assert [one[:2] for one in gateway.take()] == [(Mail.PUBLISHED, 6)]
    judged = [f"subscriptions_{one.name.lower()}" for one in Verdict]
    assert server.counted(*judged) == tuple(int(one is verdict) for one in Verdict)


def test_what_is_more_than_fits_comes_in_parts_and_it_hears_the_topic_with_the_last_one(
    server: Server, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "SLICE", 2)
    worker, gateway = server.process(0), server.process()
    epoch = fill(worker, "a", 5)
    heard: list[int] = []
    for number, tops in enumerate([5, 6, 7]):
        gateway.follow(number, "a", epoch, heard[-1] if heard else 0)
        found = gateway.one()
        assert [offset for offset, _, _ in found.publications] == [2 * number + 1, 2 * number + 2]
        assert (found.top, found.is_all) == (tops, False)
        heard += [offset for offset, _, _ in found.publications]
        worker.append(1, "a", b"x")
        assert gateway.take() == [], "it does not hear it yet"
        assert server.counted("subscriptions_recovered") == (0,)
    gateway.follow(3, "a", epoch, 6)
    assert gateway.one().is_all
    worker.append(1, "a", b"x")
    assert [one[:2] for one in gateway.take()] == [(Mail.PUBLISHED, 9)]
    assert server.counted("subscriptions_recovered") == (1,)


def test_one_that_is_larger_than_a_part_comes_alone(server: Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "SLICE", 2)
    worker, gateway = server.process(0), server.process()
    for number in range(3):
        worker.append(number, "a", b"large")
    gateway.follow(1, "a", "", 0)
    assert [offset for offset, _, _ in gateway.one().publications] == [1]


def test_who_follows_twice_hears_each_publication_once(server: Server):
    worker, gateway = server.process(0), server.process()
    for number in (1, 2):
        gateway.follow(number, "a", "", 0)
    assert [one[:2] for one in gateway.take()] == [(Mail.FOLLOWED, 1), (Mail.FOLLOWED, 2)]
    worker.append(1, "a", b"x")
    assert [one[0] for one in gateway.take()] == [Mail.PUBLISHED]
    gateway.unfollow("a")
    worker.append(2, "a", b"y")
    assert gateway.take() == []


def test_who_follows_no_longer_hears_nothing_and_others_do(server: Server):
    worker, gateway, other = server.process(0), server.process(), server.process()
    gateway.unfollow("a")  # it never has
    for one in (gateway, other):
        one.follow(1, "a")
        one.take()
    gateway.unfollow("a")
    gateway.unfollow("a")
    worker.append(1, "a", b"x")
    assert (gateway.take(), len(other.take())) == ([], 1)
    other.unfollow("a")
    assert server.service._followers == {}
    assert server.counted("bad_records") == (0,)


def test_a_follower_that_has_gone_is_forgotten_and_its_successor_gets_what_it_missed(server: Server):
    worker, gateway, other = server.process(0), server.process(), server.process()
    for one in (gateway, other):
        for topic in "ab":
            one.follow(1, topic)
    gateway.take(), other.take()
    gateway.end()
    assert {topic: len(followers) for topic, followers in server.service._followers.items()} == {"a": 1, "b": 1}
    epoch = fill(worker, "a", 2)
    assert len(other.take()) == 2
    again = server.process()
    again.follow(1, "a", epoch, 0)
    assert len(again.one().publications) == 2


# ------------------------------------------------------------------ asking


@pytest.mark.parametrize(
    ("since", "limit", "offsets"),
    [(None, MOST, []), (3, MOST, [4, 5]), (3, 1, [4]), (3, 0, []), (2, 2, [3, 4]), (5, MOST, [])],
)
def test_a_part_of_a_history(server: Server, since: int | None, limit: int, offsets: list[int]):
    worker = server.process(0)
    epoch = fill(worker, "a", 5, size=3)
    worker.past(4, "a", limit, None if since is None else (epoch, since))
    [(mail, number, found)] = worker.take()
    assert (mail, number, found.judged) == (Mail.PAST, 4, Verdict.RECOVERED)
    assert (found.position, found.top) == ((epoch, 5 if since is None else since), 5)
    assert [offset for offset, _, _ in found.publications] == offsets
    assert [data for _, _, data in found.publications] == [f"{offset}".encode() for offset in offsets]


@pytest.mark.parametrize(
    ("epoch", "offset", "verdict", "begins"), [(None, 1, 1, 2), (None, 9, 2, 5), ("other", 1, 3, 5)]
)
def test_what_is_not_there_any_more_has_a_verdict_and_what_there_is_with_it(
    server: Server, epoch: str | None, offset: int, verdict: int, begins: int
):
    worker = server.process(0)
    now = fill(worker, "a", 5, size=3)
    worker.past(4, "a", MOST, (epoch or now, offset))
    found = worker.one()
    assert (found.judged, found.position, found.top) == (Verdict(verdict), (now, begins), 5)
    assert [one[0] for one in found.publications] == list(range(begins + 1, 6))


def test_who_asks_for_the_past_is_counted_as_no_subscription(server: Server):
    worker = server.process(0)
    worker.past(4, "a", MOST, ("", 0))
    judged = [f"subscriptions_{one.name.lower()}" for one in Verdict]
    assert server.counted(*judged) == (0, 0, 0, 0)


def test_who_asks_follows_nothing(server: Server):
    worker = server.process(0)
    worker.past(1, "a", MOST, ("", 0))
    assert worker.one().publications == ()
    worker.append(2, "a", b"x")
    assert [one[0] for one in worker.take()] == [Mail.APPENDED]


# ------------------------------------------------------------------ time


def test_what_is_too_old_is_looked_for_now_and_then(clock: list[float]):
    ticking = Ticking(clock)
    engine = MemoryEngine(lambda: clock[0], 1 << 20)
    service = EngineService(ticking, LocalEngine(engine, ticking.call_later), print)
    service.start()
    for _ in range(3):
        engine.publish("a", 0, 1, b"x" * 100, 10, 2.0)
        ticking.wait(SWEEP - 0.1)
        assert service.stats()["history_bytes"] == TOPIC_BYTES + PUBLICATION_BYTES + 100, "nobody has looked yet"
        ticking.wait(0.1)
        assert service.stats()["history_bytes"] == TOPIC_BYTES
        assert ticking.timers == 1


def test_what_is_asked_for_is_never_too_old_even_between_two_looks(server: Server):
    worker, gateway = server.process(0), server.process()
    worker.append(1, "a", b"x", ttl=2.0)
    epoch = worker.one().epoch
    server.now += 2.0
    gateway.follow(1, "a", epoch, 0)
    assert gateway.one().judged is Verdict.TRIMMED
    worker.past(1, "a", MOST, ("", 0))
    assert worker.one().publications == ()


# ------------------------------------------------------------------ nonsense


@pytest.mark.parametrize(
    "nonsense",
    [
        Notice(Mail.APPEND, 1, b""),
        Notice(Mail.APPEND, 1, encode(["a", 0, 1, "a text", 10, 0.0])),
        Notice(Mail.APPEND, 1, encode(["a", 7, 1, b"x", 10, 0.0])),
        Notice(Mail.FOLLOW, 1, b"\xc1"),
        Notice(Mail.PAST, 1, encode(["a", None, 0, "many"])),
        Notice(Mail.UNFOLLOW, 0, b"\xff"),
        Notice(Mail.ENGINE_HELLO, 5, arg=VERSION),  # for the second time
        Notice(Mail.APPENDED, 1, b""),  # that is the engine's to say
        Notice(Mail.TASK, 1, b""),
    ],
    ids=["append", "data", "form", "follow", "limit", "topic", "hello", "direction", "dispatcher"],
)
def test_nonsense_has_no_effect_and_is_counted(server: Server, nonsense: Notice, caplog: pytest.LogCaptureFixture):
    worker = server.process(3)
    worker.send(nonsense)
    assert worker.take() == []
    assert server.counted("bad_records", "history_topics") == (1, 0)
    assert "worker 3 (pid 1004)" in caplog.text
    worker.append(1, "a", b"x")
    assert worker.one().offset == 1, "it can go on"
    assert server.broken == []


def test_a_text_that_is_none_is_refused_before_it_is_kept(server: Server):
    worker, gateway = server.process(0), server.process()
    gateway.follow(1, "a")
    gateway.take()
    worker.append(1, "a", b"\xff", form=Form.TEXT)
    worker.append(2, "a", b"x", form=Form.TEXT)
    assert [letter.offset for mail, number, letter in worker.take() if number == 2] == [1]
    gateway.take()
    gateway.follow(2, "a", "", 0)
    assert [(mail, number) for mail, number, _ in gateway.take()] == [(Mail.FOLLOWED, 2)]


def test_one_of_another_version_is_told_so(server: Server, caplog: pytest.LogCaptureFixture):
    worker = server.process(3)
    [peer] = server.service.peers(3, 1)
    peer.pid = 0
    worker.send(Notice(Mail.ENGINE_HELLO, 5, arg=VERSION + 1))
    assert f"it speaks version {VERSION + 1} of the channel, not {VERSION}" in caplog.text
    assert peer.pid == 0


def test_a_worker_that_can_not_be_followed_is_replaced_and_a_gateway_is_hung_up(
    server: Server, caplog: pytest.LogCaptureFixture
):
    server.process(3).send(Notice(99, 0))
    server.process().send(Notice(99, 0))
    assert [worker for worker, _ in server.broken] == [3]
    assert server.counted("bad_records") == (2,)
    assert "worker 3 (pid 1004): " in caplog.text
    assert "process 1000: " in caplog.text
    assert len(server.service.peers(3, 1)) == 1
    assert server.service.peers(-1, 1) == [], "whoever waits there is told"


def test_what_an_ended_one_has_left_in_its_channel_still_counts(server: Server):
    worker, gateway = server.process(0), server.process()
    gateway.follow(1, "a")
    gateway.take()
    worker.channel.send(Notice(Mail.APPEND, 1, encode(Append("a", Form.BARE, 1, b"x", 10, 0.0))))
    worker.channel.flush_now()
    worker.end()
    assert [one[0] for one in gateway.take()] == [Mail.PUBLISHED]
    assert server.service.peers(0, 1) == []


class Still:
    """A gateway that has followed some topics and reads nothing from then on."""

    def __init__(self, server: Server, topics: str) -> None:
        self.socket, theirs = socket.socketpair()
        self.socket.setblocking(False)
        theirs.setblocking(False)
        server.service.attach(theirs.detach(), worker=None, generation=1)
        for topic in topics:
            head = encode(Ask(topic))
            self.socket.send(len(head).to_bytes(4, "little") + bytes([Mail.FOLLOW]) + bytes(19) + head)
        server.turn()

    def kinds(self, server: Server) -> list[Mail]:
        """Of all records that it has got, at last."""
        data, kinds = b"", []
        for _ in range(100):
            with contextlib.suppress(BlockingIOError):
                data += self.socket.recv(1 << 20)
            server.reactor.poll(0)
        while data:
            kinds.append(Mail(data[4]))
            data = data[24 + int.from_bytes(data[:4], "little") :]
        return kinds


def test_a_follower_that_takes_nothing_keeps_nobody_waiting_and_is_told_to_ask_again(
    server: Server, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "UNSENT_LIMIT", 1 << 18)
    worker, gateway, still = server.process(0), server.process(), Still(server, "ab")
    with still.socket:
        gateway.follow(1, "a")
        gateway.take()
        for number in range(20):
            worker.append(number, "a", bytes(1 << 16))
        worker.append(20, "b", b"x")
        assert (len(worker.take()), len(gateway.take())) == (21, 20)
        assert server.counted("gateways_behind") == (1,)
        assert {topic: len(some) for topic, some in server.service._followers.items()} == {"a": 1}
        kinds = still.kinds(server)
        count = kinds.count(Mail.PUBLISHED)
        assert kinds == [Mail.FOLLOWED] * 2 + [Mail.PUBLISHED] * count + [Mail.BEHIND]
        assert 4 <= count < 20
    server.turn()


# ------------------------------------------------------------------ who is there


def test_each_incarnation_of_a_worker_is_known_by_its_number_and_generation(server: Server):
    for worker, generation in ((0, 1), (0, 2), (1, 1), (None, 1)):
        server.process(worker, generation)
    assert [(peer.worker, peer.generation, peer.pid) for peer in server.service.peers(0, 2)] == [(0, 2, 1001)]
    assert server.service.peers(5, 1) == []
    assert [peer.name for peer in server.service.peers(1, 1)] == ["worker 1 (pid 1002)"]
    assert [peer.name for peer in server.service.peers(-1, 1)] == ["process 1000"]


def test_every_kind_is_taken_and_every_counter_is_in_the_table(server: Server):
    assert set(server.service._taken) == set(TO_ENGINE)
    assert set(server.service.stats()) == {row.name for row in TABLE if Part.ENGINE in row.part}
    assert set(module._JUDGED) == set(Verdict)
