"""The worker as a part of a process: when peers hear of it, what it hears of the tree, and what it says at its end."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Coroutine, Iterator
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from mooring._core.pulse import Pulse
from mooring._core.reactor import Reactor
from mooring._core.records import MailContract, RecordChannel
from mooring._core.wire import Mail
from mooring.app.handlers import Handlers
from mooring.app.topics import TopicRules
from mooring.boot import Boot, LinkEnd
from mooring.config import Settings
from mooring.engine.letters import Appended
from mooring.link.engine import EngineLink
from mooring.net import messages
from mooring.parts import ORPHANED
from mooring.parts.worker import WorkerPart
from mooring.supervisor.links import new_pulse
from support.loops import in_loop

NUMBER, GENERATION = 1, 4


class Dispatcher(MailContract):
    """The other end of the link to the dispatcher."""

    def __init__(self, reactor: Reactor, channel: int) -> None:
        self.reactor = reactor
        self.heard: list[Mail] = []
        self.channel = RecordChannel(reactor, channel, self)

    def on_record(self, channel: Any, notice: Any) -> None:
        self.heard.append(Mail(notice.kind))

    def on_lost(self, channel: Any, why: str) -> None: ...

    def look(self) -> list[Mail]:
        """All that has come."""
        for _ in range(3):
            self.reactor.poll(0)
        return self.heard


class Bench:
    """The part in a process without gateways; handlers of the server's events note what they are called with."""

    def __init__(self, listeners: int = 0, bound: int = 0, **options: Any) -> None:
        self.calls: list[tuple[Any, ...]] = []
        handlers = Handlers()
        handlers.register("message", lambda server, frame: None)
        handlers.register("worker_start", lambda server, worker_id: self.calls.append(("worker_start", worker_id)))
        handlers.register("worker_exit", self._exit)
        handlers.register("worker_stop", lambda server, worker_id: self.calls.append(("worker_stop", worker_id)))
        handlers.register("shutdown", lambda server: self.calls.append(("shutdown",)))
        handlers.register("after_reload", self._after_reload)
        self.server = SimpleNamespace(
            _handlers=handlers,
            _listeners=[SimpleNamespace(_handlers=Handlers(handlers)) for _ in range(listeners)],
            _shared=SimpleNamespace(open=lambda declared: None),
            _topics=TopicRules(),
            _begin=lambda worker, settings: self.calls.append(("begin",)),
            _end=lambda: self.calls.append(("end",)),
        )
        options["listeners"] = [{"port": 1 + number} for number in range(bound)]
        self.handled: list[int] = []
        self.file = new_pulse()
        self.reactor = Reactor()
        self.go_on = asyncio.Event()
        self.host: Any = SimpleNamespace(
            boot=Boot("worker", None, {}, worker=NUMBER, generation=GENERATION),
            server=self.server,
            settings=Settings.from_options({"worker_num": 2, **options}),
            reactor=self.reactor,
            controller=SimpleNamespace(handled=self.handled.append),
            pulse=Pulse(self.file),
            relay=None,
            worker=None,
            engine=EngineLink(self.reactor),
        )
        self.part = WorkerPart(self.host)

    async def _exit(self, server: Any, worker_id: int, reason: str) -> None:
        self.calls.append(("worker_exit", worker_id, reason))
        if reason == "it waits":
            await asyncio.Event().wait()

    async def _after_reload(self, server: Any, succeeded: bool, reason: str) -> None:
        await self.go_on.wait()
        self.calls.append(("after_reload", succeeded, reason))

    def dispatcher(self) -> Dispatcher:
        """Linked with it."""
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setblocking(False)
        made = Dispatcher(self.reactor, theirs.detach())
        assert self.part.link(LinkEnd(NUMBER, None, 1, ours.detach())) is not None
        return made

    async def greet(self) -> None:
        self.host.ended = asyncio.get_running_loop().create_future()
        self.part.hear(messages.State({"workers": 2}))
        await self.part.greet()


@pytest.fixture
def make() -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def bench(*arguments: Any, **options: Any) -> Bench:
        made.append(Bench(*arguments, **options))
        return made[-1]

    yield bench
    for one in made:
        os.close(one.file)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    in_loop(test)


def test_the_server_enters_a_process_with_the_worker_that_its_number_says(make: Callable[..., Bench]):
    bench = make()
    assert bench.calls == [("begin",)]
    assert bench.host.worker is bench.part.worker
    assert (bench.part.worker.number, bench.part.worker.generation) == (NUMBER, GENERATION)


@pytest.mark.parametrize(("listeners", "bound"), [(1, 0), (0, 1)])
def test_listeners_that_the_application_has_changed_take_a_restart(
    make: Callable[..., Bench], caplog: pytest.LogCaptureFixture, listeners: int, bound: int
):
    make(listeners, bound)
    said = f"the application has {listeners} further listeners, the server {bound}: restart it to change that"
    assert [record.message for record in caplog.records] == [said]


@pytest.mark.parametrize("engine", [False, True])
def test_histories_take_a_restart_where_there_is_no_engine(
    make: Callable[..., Bench], caplog: pytest.LogCaptureFixture, engine: bool
):
    """Topics are as before then: nobody waits for an engine that never comes."""
    bench = make()
    bench.server._topics.add("news", 10, 0, positions=False)
    bench.host.boot.engine = engine
    part = WorkerPart(bench.host)
    assert part.worker.topics.any is engine
    said = "the application has topics with a history, the server no engine: restart it to have them kept"
    assert [record.message for record in caplog.records] == [said] * (not engine)


def test_no_peer_hears_of_it_before_it_knows_the_tree(make: Callable[..., Bench]):
    """stats() says from the first event on how many processes there are."""
    bench = make()

    async def test() -> None:
        early = bench.dispatcher()
        bench.host.ended = asyncio.get_running_loop().create_future()
        await bench.part.start()
        assert bench.calls[1:] == [("worker_start", NUMBER)]
        greeting = asyncio.ensure_future(bench.part.greet())
        await asyncio.sleep(0)
        assert not greeting.done()
        assert early.look() == []
        bench.part.hear(messages.State({"workers": 2}))
        await greeting
        assert bench.part.worker.tree == {"workers": 2}
        assert early.look() == [Mail.HELLO]
        late = bench.dispatcher()
        assert late.look() == [Mail.HELLO], "one that came later hears of it at once"

    run(test)


def test_who_has_to_end_does_not_wait_for_the_tree(make: Callable[..., Bench]):
    bench = make()

    async def test() -> None:
        bench.host.ended = asyncio.get_running_loop().create_future()
        bench.host.ended.set_result((True, "shutdown"))
        await bench.part.greet()

    run(test)


def test_whoever_tells_of_an_event_of_the_tree_waits_for_its_handler(make: Callable[..., Bench]):
    bench = make()

    async def test() -> None:
        bench.part.hear(messages.Event("after_reload", [True, "asked for"], 17))
        bench.part.hear(messages.Event("before_reload", ["asked for"], 18))  # there is no handler
        while bench.handled != [18]:
            await asyncio.sleep(0)
        bench.go_on.set()
        while bench.handled != [18, 17]:
            await asyncio.sleep(0)
        assert bench.calls[1:] == [("after_reload", True, "asked for")]

    run(test)


def test_its_own_number_retires_it_and_no_other(make: Callable[..., Bench]):
    bench = make()
    bench.part.retire(NUMBER + 1, GENERATION)
    assert not bench.part.worker.stopping.is_set()
    bench.part.retire(NUMBER, GENERATION + 1)  # its successor's generation
    assert bench.part.worker.stopping.is_set()


def test_in_a_drain_it_has_nothing_to_say(make: Callable[..., Bench]):
    bench, drained = make(), []
    bench.part.drain(1.0, 1001, drained.append)
    assert drained == [{}]
    assert bench.part.worker.stopping.is_set()


@pytest.mark.parametrize("last", [True, False])
def test_at_its_end_the_application_hears_of_it_in_order(make: Callable[..., Bench], last: bool):
    bench = make()

    async def test() -> None:
        await bench.greet()
        await bench.part.finish("reload", last=last)
        order = [("worker_exit", NUMBER, "reload"), ("worker_stop", NUMBER)]
        assert bench.calls[1:] == order + [("shutdown",)] * last

    run(test)


def test_it_ends_when_the_engine_has_told_of_all_it_has_published(make: Callable[..., Bench]):
    """Its last handler's, too; what is in its own memory then is lost."""
    bench = make()

    async def test() -> None:
        await bench.greet()
        topics = bench.part.worker.topics
        topics._rules.add("news", 10, 0, positions=False)
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setblocking(False)
        bench.host.engine.open(ours.detach())
        with contextlib.closing(Dispatcher(bench.reactor, theirs.detach()).channel):
            topics.publish("news", "the last", None, None)
            ending = asyncio.ensure_future(bench.part.finish("shutdown", last=True))
            while bench.calls[-1] != ("shutdown",):
                await asyncio.sleep(0)
            for _ in range(10):
                await asyncio.sleep(0)
            assert not ending.done()
            topics.on_appended(1, msgspec.msgpack.encode(Appended("e", 1)))
            await ending

    run(test)


def test_an_exit_handler_that_does_not_end_is_not_waited_for(
    make: Callable[..., Bench], caplog: pytest.LogCaptureFixture
):
    bench = make(event_timeout=0.1)

    async def test() -> None:
        await bench.greet()
        await bench.part.finish("it waits", last=False)
        assert bench.calls[-1] == ("worker_stop", NUMBER)

    run(test)
    assert "did not end within event_timeout=0.1 s" in caplog.text


@pytest.mark.parametrize(
    ("reason", "relay", "stay"),
    [
        ("reload", None, True),
        ("max_request", None, True),
        ("shutdown: SIGTERM", None, False),
        (ORPHANED, None, False),
        ("reload", "its own gateway", False),
    ],
)
def test_whether_clients_stay_says_how_long_their_tasks_have(
    make: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch, reason: str, relay: Any, stay: bool
):
    bench, told = make(), []

    async def finish(*, clients_stay: bool) -> None:
        told.append(clients_stay)

    monkeypatch.setattr(bench.part.worker, "finish", finish)
    bench.host.relay = relay

    async def test() -> None:
        await bench.part.finish(reason, last=False)

    run(test)
    assert told == [stay]


def test_in_a_forked_child_the_server_is_not_there(make: Callable[..., Bench]):
    bench = make()
    bench.part.abandon()
    assert bench.calls[-1] == ("end",)
