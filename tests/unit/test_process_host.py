"""How parts live in their process: in order, each step once, whoever controls it."""

import asyncio
from functools import partial

import pytest

from mooring import process_host
from mooring.boot import Boot, LinkEnd
from mooring.config import Settings
from mooring.parts import Part
from mooring.process_host import ProcessHost
from mooring.roles import ROLES, Role


class Noted(Part):
    """Notes what it is asked to do."""

    name = "plain"

    def note(self, what):
        self.host.controller.notes.append((self.name, what))

    def link(self, end):
        return Open(self) if end.worker == self.takes else None

    takes = 0

    def serve(self):
        self.note("serve")

    def retire(self, worker, generation):
        self.note(("retire", worker, generation))

    def drain(self, timeout, code, drained):
        self.note("drain")
        self.host.reactor.call_later(0.001, partial(drained, {self.name: 1}))

    def counts(self):
        return {self.name: 2}

    def depart(self):
        self.note("depart")


class Looped(Noted):
    name = "looped"
    needs_asyncio = True
    takes = 1

    async def start(self):
        self.note("start")

    async def greet(self):
        self.note("greet")

    async def finish(self, reason, *, last):
        self.note(("finish", reason, last))


class Open:
    def __init__(self, part):
        self.part = part

    def hang_up(self):
        self.part.note("hang up")


class Notes:
    """A controller that drains at once, and ends when that is done."""

    can_reload = False

    def __init__(self, drains=1):
        self.notes = []
        self.drains = drains

    def starting(self):
        self.notes.append("starting")

    def started(self):
        self.notes.append("started")

    def ready(self):
        self.notes.append("ready")
        self.host.serve()
        self.host.drain(1.0, 1001)
        if self.drains:
            self.host.drain(1.0, 1001)  # as nobody drains twice

    def drained(self, counts):
        self.notes.append(("drained", counts))
        self.drains -= 1
        if self.drains:
            self.host.drain(1.0, 1001)
        else:
            self.host.end("over", last=True)
            self.host.end("over again")

    def departed(self):
        self.notes.append("departed")


@pytest.fixture
def host_of(monkeypatch):
    def make(*parts, controller=None):
        names = tuple(f"{__name__}:{part.__name__}" for part in parts)
        monkeypatch.setitem(ROLES, "toy", Role("toy", names, lambda *_: 1))
        classes = dict(zip(names, parts, strict=True))
        monkeypatch.setattr(process_host, "resolve_name", classes.get)
        controller = controller or Notes()
        controller.host = ProcessHost(Boot("toy", None, {}), Settings.from_options({}), None, controller)
        return controller

    return make


def test_without_asyncio(host_of):
    controller = host_of(Noted)
    controller.host.run()
    assert controller.notes == [
        "starting",
        "started",
        "ready",
        ("plain", "serve"),
        ("plain", "drain"),
        ("drained", {"plain": 1}),
        ("plain", "depart"),
        "departed",
    ]
    assert controller.host.loop is None


def test_with_asyncio_as_soon_as_one_part_needs_it(host_of):
    controller = host_of(Noted, Looped)
    controller.host.run()
    assert controller.notes == [
        "starting",
        ("looped", "start"),
        "started",
        ("looped", "greet"),
        "ready",
        ("plain", "serve"),
        ("looped", "serve"),
        ("plain", "drain"),
        ("looped", "drain"),
        ("drained", {"plain": 1, "looped": 1}),
        ("looped", ("finish", "over", True)),
        ("looped", "depart"),
        ("plain", "depart"),
        "departed",
    ]


def test_a_drain_that_is_over_is_told_again(host_of):
    """With the counts of that moment: whoever asks did not hear of it."""
    controller = host_of(Noted, controller=Notes(drains=2))
    controller.host.run()
    drained = [one for one in controller.notes if one[0] == "drained"]
    assert drained == [("drained", {"plain": 1}), ("drained", {"plain": 2})]


def test_what_a_part_raises_at_its_start_ends_the_process(host_of):
    class Broken(Looped):
        async def start(self):
            raise RuntimeError("no")

    controller = host_of(Broken, Looped)
    with pytest.raises(RuntimeError, match="no"):
        controller.host.run()
    assert controller.notes == ["starting"]


def test_a_link_goes_to_the_part_that_takes_it(host_of):
    controller = host_of(Noted, Looped)
    host = controller.host
    opened = []
    for part in host.parts:
        link = part.link
        part.link = lambda end, link=link: opened.append(link(end)) or opened[-1]
    for number in (0, 1, 2):
        host.link(LinkEnd(worker=number, gateway=None, peer_generation=1, channel=-1, number=10 + number))
    host.hang_up(11)
    host.hang_up(12)  # nobody has taken it
    host.hang_up(99)
    assert controller.notes == [("looped", "hang up")]
    opened.clear()
    host.hang_up(11)  # it is over, and forgotten
    assert controller.notes == [("looped", "hang up")]
    host.retire(1, 7)
    assert controller.notes[1:] == [("plain", ("retire", 1, 7)), ("looped", ("retire", 1, 7))]
    assert host.counts() == {"plain": 2, "looped": 2}


def test_a_part_may_leave_out_everything(host_of):
    controller = host_of(Part)
    controller.host.run()
    assert controller.notes == ["starting", "started", "ready", ("drained", {}), "departed"]
    asyncio.run(controller.host.parts[0].finish("over", last=False))
