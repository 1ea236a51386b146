"""The drain of a gateway: who is heard, who is closed when, and when it is over."""

from types import SimpleNamespace
from typing import Any

import pytest

from mooring._core.registry import Cause
from mooring.gateway.drain import HEAR_LIMIT, LOOK, RESTARTS, STOPS, Drain
from support.ticking import Ticking

WORKER = SimpleNamespace(serves=True)


class Clients:
    """Connections of a gateway: open WebSockets, and those that speak HTTP, idle or not."""

    def __init__(self) -> None:
        self.open: set[int] = set()
        self.idle: set[int] = set()
        self.busy: set[int] = set()
        self.unheard = False
        self.closes: list[tuple[int, int, bytes]] = []
        self.cuts: list[int] = []
        self.looks = 0
        self.table = SimpleNamespace(connections=self.connections, is_open=lambda fd: fd in self.open)

    def connections(self) -> list[int]:
        return sorted(self.open | self.idle | self.busy)

    @property
    def count(self) -> int:
        return len(self.connections())

    def is_unheard(self) -> bool:
        return self.unheard

    def idle_http(self) -> list[int]:
        self.looks += 1
        return sorted(self.idle)

    def disconnect(self, fd: int, code: int, reason: bytes, cause: int) -> None:
        assert cause == Cause.SHUTDOWN
        self.closes.append((fd, code, reason))

    def cut(self, fd: int, reason: bytes, cause: int) -> None:
        assert (reason, cause) == (STOPS, Cause.SHUTDOWN)
        self.cuts.append(fd)
        for group in (self.open, self.idle, self.busy):
            group.discard(fd)


class Relay:
    """The works that clients own, and whether events are in flight."""

    def __init__(self) -> None:
        self.works: set[int] = set()
        self.worker_ends: list[Any] = [None, WORKER]
        self.idles = True
        self.ends: list[int] = []
        self.woken = 0
        self.waiting: list[int] = []

    def refuse_waiting(self, reason: str) -> list[int]:
        assert reason == "shutdown"
        refused, self.waiting = self.waiting, []
        return refused

    def idle(self) -> bool:
        return self.idles

    def end_streams(self, milliseconds: int) -> None:
        self.ends.append(milliseconds)

    def wake_asking(self) -> None:
        self.woken += 1


class Gateway:
    """What a drain is made for."""

    def __init__(self, clock: list[float]) -> None:
        self.reactor: Any = Ticking(clock)
        self.clients: Any = Clients()
        self.relay: Any = Relay()
        self.done = 0
        self.refused: list[int] = []

    def _refuse(self, fd: int) -> None:
        self.refused.append(fd)
        self.clients.busy.discard(fd)

    def drain(self, timeout: float = 30.0, code: int = 1001) -> Drain:
        drain = Drain(self.reactor, self.clients, self.relay, timeout, code, self._refuse, self._over)
        drain.begin()
        return drain

    def _over(self) -> None:
        self.done += 1


@pytest.fixture
def gateway(clock: list[float]) -> Gateway:
    return Gateway(clock)


def test_where_nobody_is_it_is_over_at_once_and_once(gateway: Gateway):
    gateway.drain()
    assert not gateway.done, "whoever begins it is not told from within"
    gateway.reactor.wait()
    assert gateway.done == 1
    gateway.reactor.wait(60.0)
    assert gateway.done == 1
    assert gateway.reactor.timers == 0


@pytest.mark.parametrize(("code", "reason"), [(1001, STOPS), (1012, RESTARTS)])
def test_websockets_are_closed_with_the_code_and_waited_for(gateway: Gateway, code: int, reason: bytes):
    gateway.clients.open = {1, 2}
    drain = gateway.drain(code=code)
    assert drain.refuses
    assert gateway.clients.closes == [(1, code, reason), (2, code, reason)]
    assert gateway.relay.woken == 1
    assert gateway.relay.ends == [30_000], "workers hear how long they have"
    gateway.reactor.wait(5.0)
    assert not gateway.done
    gateway.clients.open.clear()
    drain.on_gone()
    gateway.reactor.wait()
    assert gateway.done == 1


def test_who_has_just_come_is_heard_first_but_not_for_long(gateway: Gateway):
    gateway.clients.busy, gateway.clients.unheard = {1}, True
    drain = gateway.drain()
    gateway.reactor.wait(HEAR_LIMIT - 0.1)
    assert not drain.refuses
    gateway.reactor.wait(0.2)
    assert drain.refuses


def test_once_all_are_heard_they_are_sent_away(gateway: Gateway):
    gateway.clients.unheard = True
    drain = gateway.drain()
    gateway.clients.unheard = False
    gateway.reactor.wait(0.05)
    assert drain.refuses


def test_what_waits_for_a_worker_is_refused_when_there_is_none(gateway: Gateway):
    gateway.clients.busy, gateway.relay.waiting = {1, 2}, [1, 2]
    gateway.drain()
    gateway.reactor.wait(5.0)
    assert (gateway.refused, gateway.done) == ([], 0), "it may be handed over yet"
    gateway.relay.worker_ends = [None]
    gateway.reactor.wait(LOOK)
    assert (gateway.refused, gateway.done) == ([1, 2], 1)


def test_http_ends_when_it_is_idle(gateway: Gateway):
    gateway.clients.idle, gateway.clients.busy = {1}, {2}
    gateway.drain()
    gateway.reactor.wait()
    assert gateway.clients.cuts == [1]
    gateway.reactor.wait(5.0)
    assert not gateway.done
    gateway.clients.idle, gateway.clients.busy = {2}, set()
    gateway.reactor.wait(LOOK)
    assert gateway.clients.cuts == [1, 2]
    assert gateway.done == 1


def test_who_owns_work_is_closed_when_that_is_over(gateway: Gateway):
    gateway.clients.open, gateway.relay.works = {1, 2}, {2}
    gateway.drain()
    gateway.reactor.wait(5.0)
    assert [fd for fd, _, _ in gateway.clients.closes] == [1]
    gateway.relay.works.clear()
    gateway.reactor.wait(LOOK)
    assert [fd for fd, _, _ in gateway.clients.closes] == [1, 2]
    gateway.reactor.wait(LOOK)
    assert len(gateway.clients.closes) == 2


def test_handlers_are_waited_for_as_long_as_there_is_a_worker(gateway: Gateway):
    gateway.relay.idles = False
    gateway.drain()
    gateway.reactor.wait(5.0)
    assert not gateway.done
    gateway.relay.worker_ends = [None, SimpleNamespace(serves=False)]
    gateway.reactor.wait(LOOK)
    assert gateway.done == 1, "what waits for a worker waits in vain"


def test_when_the_time_is_over_everybody_is_cut_and_it_is_done(gateway: Gateway):
    gateway.clients.open, gateway.clients.busy, gateway.relay.idles = {1}, {2}, False
    gateway.drain(timeout=3.0)
    gateway.reactor.wait(2.9)
    assert not gateway.clients.cuts
    gateway.reactor.wait(0.2)
    assert gateway.clients.cuts == [1, 2]
    assert gateway.done == 1


def test_in_a_hurry_nobody_is_heard_and_all_are_closed_at_once(gateway: Gateway):
    gateway.clients.unheard, gateway.clients.open = True, set(range(1000))
    drain = gateway.drain()
    assert not gateway.clients.closes
    drain.hurry()
    assert len(gateway.clients.closes) == 1000
    assert gateway.relay.ends == [30_000, 0]
    drain.hurry()
    gateway.reactor.wait(5.0)
    assert len(gateway.clients.closes) == 1000


def test_many_that_end_in_one_turn_are_one_look_and_no_further_timers(gateway: Gateway):
    gateway.clients.busy = set(range(500))
    drain = gateway.drain()
    gateway.reactor.wait()
    looks, timers = gateway.clients.looks, gateway.reactor.timers
    for turn in range(10):
        for _ in range(50):
            drain.on_gone()
        gateway.reactor.wait()
        assert gateway.clients.looks == looks + turn + 1
    assert gateway.reactor.timers == timers == 1
