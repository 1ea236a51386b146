"""A process that hears from a supervisor on its child socket, with a part that notes what it is asked to do."""

import gc
import os
import signal
import warnings

import pytest

from mooring import process_host
from mooring.boot import Boot
from mooring.net import messages
from mooring.net.child_socket import ChildSocket
from mooring.parts import Part
from mooring.roles import ROLES, Role
from mooring.supervised import Supervised
from support.descriptors import open_descriptors

LIMIT = 10.0  # seconds


class Noted(Part):
    """Notes, and drains until it is hurried."""

    def __init__(self, host):
        super().__init__(host)
        self.notes = []
        self.drained = None

    def link(self, end):
        self.notes.append(end)
        for fd in (end.channel,):
            os.close(fd)

    def serve(self):
        self.notes.append("serve")

    def hear(self, message):
        self.notes.append(message)

    def retire(self, worker, generation):
        self.notes.append(("retire", worker, generation))

    def drain(self, timeout, code, drained):
        self.notes.append(("drain", timeout, code))
        self.drained = drained

    def hurry(self):
        self.notes.append("hurry")

    def counts(self):
        return {"accepted": 7}

    def depart(self):
        self.notes.append("depart")


@pytest.fixture
def ends(monkeypatch):
    """The supervisor's end, and the process."""
    monkeypatch.setitem(ROLES, "toy", Role("toy", ("x:Noted",), lambda *_: 1))
    monkeypatch.setattr(process_host, "resolve_name", lambda _: Noted)
    wakeup, handler = signal.set_wakeup_fd(-1), signal.getsignal(signal.SIGTERM)
    ours, theirs = ChildSocket.pair()
    supervised = Supervised(Boot("toy", None, {}, control=os.dup(theirs.fileno())), None)
    theirs.close()
    yield ours, supervised
    ours.close()
    supervised.abandon()
    signal.set_wakeup_fd(wakeup)
    signal.signal(signal.SIGTERM, handler)
    del supervised  # its descriptors are those of a process that ends
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):
        gc.collect()


def said(ours):
    """Everything that has come."""
    heard = []
    while True:
        try:
            received = ours.receive()
        except BlockingIOError:
            return heard
        if received is None:
            return [*heard, None]
        heard.append(received[0])


def notes(supervised):
    return supervised.host.parts[0].notes


def test_it_does_what_it_is_told(ends):
    ours, supervised = ends
    file = os.memfd_create("channel")
    ours.send(messages.Attach(worker=3, gateway=None, generation=2, pid=1, link=9), [file])
    ours.send(messages.Serve())
    ours.send(messages.Degraded(True))
    ours.send(messages.Retire(3, 2))
    ours.send(messages.Stop("enough", last=False))
    os.close(file)
    supervised.host.run()
    link, *rest = notes(supervised)
    assert (link.worker, link.gateway, link.peer_generation, link.number) == (3, None, 2, 9)
    assert rest == ["serve", messages.Degraded(True), ("retire", 3, 2), "depart"]
    assert said(ours) == [messages.Ready()]


def test_the_first_serve_is_the_start_of_the_server(ends):
    ours, supervised = ends
    ours.send(messages.Serve(started=True))
    ours.send(messages.Stop("enough", last=False))
    supervised.host.run()
    assert notes(supervised)[:2] == ["serve", messages.Event("start", [], 0)]
    supervised.handled(0)
    supervised.handled(-1)
    assert said(ours) == [messages.Ready(), messages.Handled(-1)], "nobody waits for the handler of `start`"


def test_who_is_stopped_in_a_drain_says_what_is_left(ends):
    ours, supervised = ends
    ours.send(messages.Drain(5.0, 1012))
    ours.send(messages.Stop("enough", last=False))
    supervised.host.run()
    assert notes(supervised) == [("drain", 5.0, 1012), "hurry", "depart"]
    assert said(ours) == [messages.Ready(), messages.Drained({"accepted": 7})]


def test_what_makes_no_sense_is_refused_and_the_next_message_heard(ends, caplog):
    ours, supervised = ends
    before = open_descriptors()
    file = os.memfd_create("sent along")
    ours.send(messages.Attach(worker=3, gateway=0, generation=2, pid=1, link=9), [file])  # that has three descriptors
    ours.send(messages.Place("worker", 0, 0, 1, 1), [file])
    ours.send(messages.Ready(), [file])
    ours.send(messages.Stop("enough", last=False))
    os.close(file)
    supervised._hear()
    assert notes(supervised) == []
    assert open_descriptors() == before
    assert caplog.text.count("is refused") == 3


def test_without_its_supervisor_it_leaves_in_order(ends, caplog):
    ours, supervised = ends
    ours.close()
    reactor = supervised.host.reactor

    def drained():
        part = supervised.host.parts[0]
        if part.drained is None:
            reactor.call_later(0.01, drained)
        else:
            part.drained({})

    drained()
    supervised.host.run()
    assert "the supervisor is gone: ending" in caplog.text
    assert notes(supervised) == [("drain", 2.0, 1001), "depart"]


def test_sigterm_is_told_first(ends):
    """The supervisor says how it leaves, and has another one start."""
    ours, supervised = ends
    reactor = supervised.host.reactor

    def stop():
        heard = said(ours)
        if messages.Terminated() in heard:
            ours.send(messages.Stop("SIGTERM", last=False))
        else:
            reactor.call_later(0.01, stop)

    reactor.call_later(0.01, lambda: os.kill(os.getpid(), signal.SIGTERM))
    stop()
    supervised.host.run()
    assert notes(supervised) == ["depart"]


def test_what_it_asks_for(ends):
    ours, supervised = ends
    supervised.ask_reload()
    supervised.ask_shutdown()
    supervised.ask_replacement("it is old")
    assert said(ours) == [messages.Reload(), messages.Shutdown(), messages.Replace("it is old")]
    supervised._socket.close()
    supervised.ask_reload()  # nobody is there: nothing happens
