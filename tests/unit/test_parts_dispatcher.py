"""The dispatcher as a part of a process: links of workers, one that retires, a drain."""

import socket
from types import SimpleNamespace

from mooring._core.reactor import Reactor
from mooring._core.records import MailContract, RecordChannel
from mooring._core.wire import Fate, Mail, Notice
from mooring.boot import LinkEnd
from mooring.config import Settings
from mooring.dispatcher.dispatcher import Dispatcher
from mooring.parts.dispatcher import DispatcherPart


class Worker(MailContract):
    """The other end of a link."""

    def __init__(self):
        self.heard = []

    def on_record(self, channel, notice):
        self.heard.append(Mail(notice.kind))

    def on_lost(self, channel, why):
        self.heard.append("lost")


def test_a_worker_has_a_link_retires_and_is_told_of_the_end():
    retired, drained, reactor = [], [], Reactor()
    controller = SimpleNamespace(retired=lambda peer: retired.append((peer.worker, peer.pid)), broken=None)
    part = DispatcherPart(SimpleNamespace(reactor=reactor, controller=controller, settings=Settings.from_options({})))
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setblocking(False)
    worker = Worker()
    channel = RecordChannel(reactor, theirs.detach(), worker)
    opened = part.link(LinkEnd(worker=3, gateway=None, peer_generation=1, channel=ours.detach()))
    assert opened is not None
    channel.send(Notice(Mail.HELLO, 4711))
    channel.send(Notice(Mail.TASK, 1, b"\xc0", opcode=1))
    for _ in range(3):
        reactor.poll(0.01)
    part.retire(3, 2)  # another generation
    part.drain(0.0, 1001, drained.append)
    assert drained == [{"tasks": 1, "tasks_left": 1}] == [part.counts()]
    part.retire(3, 1)
    assert retired == [], "it has handed over a task"
    while not worker.heard:
        reactor.poll(0.01)
    assert worker.heard == [Mail.RESULT], "nobody is there to do it, and nobody will come"
    assert retired == [(3, 4711)]
    part.depart()
    for _ in range(3):
        reactor.poll(0.01)
    opened.hang_up()
    for _ in range(3):
        reactor.poll(0.01)
    assert worker.heard == [Mail.RESULT, Mail.DEPART, "lost"]
    assert retired == [(3, 4711)]


def test_a_worker_that_may_go_has_its_last_result_before_the_supervisor_hears_of_it():
    reactor, there = Reactor(), []
    (ours, theirs), (bench, benchs) = socket.socketpair(), socket.socketpair()
    for end in (ours, theirs, bench, benchs):
        end.setblocking(False)
    with ours, bench:
        dispatcher = Dispatcher(reactor, lambda _peer: there.append(ours.recv(1 << 10)[4]), print, 1 << 20)
        channels = [
            dispatcher.attach(end.detach(), worker=number, generation=1) for number, end in enumerate((theirs, benchs))
        ]
        worker, task_worker = [channel.owner for channel in channels]
        worker.on_record(channels[0], Notice(Mail.HELLO, 5))
        task_worker.on_record(channels[1], Notice(Mail.HELLO, 6, opcode=1))
        worker.on_record(channels[0], Notice(Mail.TASK, 1, b"\xc0"))
        dispatcher.retire(0, 1)
        assert there == [], "its task is being done"
        task_worker.on_record(channels[1], Notice(Mail.RESULT, 1, b"\xc0", opcode=Fate.DONE))
        assert there == [Mail.RESULT]
        for channel in channels:
            channel.close()
