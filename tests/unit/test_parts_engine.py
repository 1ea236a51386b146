"""The engine as a part of a process: links of workers and gateways, one that retires, what it counts."""

import socket
from types import SimpleNamespace

import msgspec
import pytest

from mooring._core.reactor import Reactor
from mooring._core.records import MailContract, RecordChannel
from mooring._core.wire import VERSION, Mail, Notice
from mooring.boot import LinkEnd
from mooring.config import Settings
from mooring.engine.letters import Append, Appended, Ask, Form
from mooring.parts.engine import EnginePart

encode = msgspec.msgpack.encode


class Process(MailContract):
    """The other end of a link."""

    def __init__(self, part, reactor, worker, generation, pid):
        self.heard = []
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setblocking(False)
        self.channel = RecordChannel(reactor, theirs.detach(), self)
        end = LinkEnd(worker, None, generation, ours.detach(), service="engine")
        self.opened = part.link(end)
        self.channel.send(Notice(Mail.ENGINE_HELLO, pid, arg=VERSION))

    def on_record(self, channel, notice):
        self.heard.append((Mail(notice.kind), notice.payload))

    def on_lost(self, channel, why):
        self.heard.append(("lost", b""))


@pytest.fixture
def world():
    reactor, retired, broken = Reactor(), [], []
    controller = SimpleNamespace(
        retired=lambda peer: retired.append((peer.worker, peer.pid)),
        broken=lambda peer, why: broken.append((peer.worker, peer.pid)),
    )
    settings = Settings.from_options({"history_memory_limit": 1 << 20})
    part = EnginePart(SimpleNamespace(reactor=reactor, controller=controller, settings=settings))
    made = []

    def process(worker, generation, pid):
        made.append(Process(part, reactor, worker, generation, pid))
        return made[-1]

    def turn():
        for _ in range(6):
            reactor.poll(0)

    yield SimpleNamespace(part=part, process=process, turn=turn, retired=retired, broken=broken)
    for one in made:
        one.channel.close()
    turn()


def append(data, most=10):
    return Notice(Mail.APPEND, 1, encode(Append("a", Form.BARE, 1, data, most, 0.0)))


def test_what_a_worker_publishes_comes_to_a_gateway_that_has_no_worker(world):
    worker, gateway = world.process(0, 1, 4711), world.process(None, 1, 4712)
    gateway.channel.send(Notice(Mail.FOLLOW, 1, encode(Ask("a"))))
    world.turn()
    worker.channel.send(append(b"x"))
    world.turn()
    assert [mail for mail, _ in worker.heard] == [Mail.APPENDED]
    assert [mail for mail, _ in gateway.heard] == [Mail.FOLLOWED, Mail.PUBLISHED]
    assert world.part.stats()["publications"] == 1
    assert world.part.stats()["history_topics"] == 1


def test_the_limit_is_that_of_the_settings(world):
    worker = world.process(0, 1, 4711)
    worker.channel.send(append(bytes(1 << 20)))
    worker.channel.send(append(bytes(1 << 19)))
    for _ in range(20):
        world.turn()
    answers = [msgspec.msgpack.decode(payload, type=Appended) for _, payload in worker.heard]
    assert [bool(answer.refused) for answer in answers] == [True, False]


def test_a_worker_that_retires_may_go_at_once_and_it_alone(world):
    for worker, generation, pid in ((3, 1, 4711), (3, 2, 4712), (None, 1, 4713)):
        world.process(worker, generation, pid)
    world.turn()
    world.part.retire(3, 3)  # there is no such one
    assert world.retired == []
    world.part.retire(3, 1)
    assert world.retired == [(3, 4711)]


def test_a_worker_that_speaks_nonsense_is_told_of(world):
    worker = world.process(3, 1, 4711)
    worker.channel.send(Notice(99, 0))
    world.turn()
    assert world.broken == [(3, 4711)]


def test_the_supervisor_can_end_a_link(world):
    worker = world.process(3, 1, 4711)
    world.turn()
    worker.opened.hang_up()
    world.turn()
    assert worker.heard == [("lost", b"")]
    world.part.retire(3, 1)
    assert world.retired == []
