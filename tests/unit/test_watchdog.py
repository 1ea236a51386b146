"""Processes whose loop stands still are ended step by step, and those that grow are replaced."""

import signal
from types import SimpleNamespace
from typing import Any

import pytest

from mooring.config.process import Process
from mooring.roles import ProcessSpec
from mooring.supervisor import watchdog
from mooring.supervisor.child import Child, ChildState
from mooring.supervisor.watchdog import LONGEST_PERIOD, STEP, Watchdog
from support.ticking import Ticking

WORKER, GATEWAY = ProcessSpec("worker", 0, worker=0), ProcessSpec("gateway", 0, gateway=0)
TASK_WORKER = ProcessSpec("task worker", 0, worker=2)


class Looping(Child):
    """One that serves and whose loop turns as long as the test lets it."""

    def __init__(self, spec: ProcessSpec, clock: list[float]) -> None:
        super().__init__(spec, 1, 0)
        self._clock = clock
        self.signals: list[int] = []
        self.turns = True
        self._stood: float = 0.0
        self.become(ChildState.READY)
        self.become(ChildState.SERVING)
        self.pulse: Any = self

    @property
    def last_beat(self) -> float:
        if self.turns:
            self._stood = self._clock[0]
        return self._stood

    begun = 0

    def signal(self, number: int) -> None:
        self.signals.append(number)


class Watch:
    """A watchdog, its tree, and what it tells."""

    def __init__(self, clock: list[float], *specs: ProcessSpec, **limits: Any) -> None:
        self.clock = clock
        self.reactor = Ticking(clock)
        self.children = [Looping(spec, clock) for spec in specs]
        self.hanging: list[Child] = []
        self.large: list[str] = []
        tree: Any = SimpleNamespace(children=self.children, deadlines=SimpleNamespace(after=self._after))
        settings = Process(**{"worker_hang_timeout": 20.0, "gateway_hang_timeout": 5.0, **limits})
        self.dog = Watchdog(tree, settings, self.hanging.append, lambda _child, why: self.large.append(why))
        self.dog.start()

    def _after(self, seconds: float, action: Any) -> Any:
        self.reactor.call_later(seconds, action)
        return SimpleNamespace(cancel=lambda: None)


def test_a_loop_that_stands_still_is_asked_for_its_stacks_then_aborted_then_killed(clock: list[float]):
    watch = Watch(clock, WORKER)
    [child] = watch.children
    child.turns = False
    watch.reactor.wait(19.0)
    assert child.signals == []
    watch.reactor.wait(1.0 + LONGEST_PERIOD)
    assert child.signals == [signal.SIGUSR2]
    assert watch.hanging == [child]
    watch.reactor.wait(STEP)
    assert child.signals == [signal.SIGUSR2, signal.SIGABRT]
    assert child.cause.startswith("its loop had not turned for 2")
    watch.reactor.wait(STEP)
    assert child.signals == [signal.SIGUSR2, signal.SIGABRT, signal.SIGKILL]
    watch.reactor.wait(60.0)
    assert watch.hanging == [child], "it is told once"


def test_one_that_turns_again_in_time_lives_on_and_may_hang_again(clock: list[float]):
    watch = Watch(clock, WORKER)
    [child] = watch.children
    child.turns = False
    watch.reactor.wait(20.0 + LONGEST_PERIOD)
    assert child.signals == [signal.SIGUSR2]
    child.turns = True
    watch.reactor.wait(10.0)
    assert child.signals == [signal.SIGUSR2]
    child.turns = False
    watch.reactor.wait(22.0)
    assert child.signals[:2] == [signal.SIGUSR2, signal.SIGUSR2]


def test_a_gateway_has_a_limit_of_its_own(clock: list[float]):
    watch = Watch(clock, WORKER, GATEWAY)
    for child in watch.children:
        child.turns = False
    watch.reactor.wait(5.0 + LONGEST_PERIOD)
    assert [child.spec for child in watch.hanging] == [GATEWAY]


def test_when_it_was_the_supervisor_that_stood_still_everybody_gets_the_whole_time_again(clock: list[float]):
    watch = Watch(clock, WORKER)
    watch.reactor.wait(2.0)
    watch.children[0].turns = False
    clock[0] += 60.0  # nobody had a CPU
    watch.reactor.wait(19.0)
    assert watch.hanging == []
    watch.reactor.wait(2.0)
    assert watch.hanging == watch.children


@pytest.mark.parametrize("spec", [TASK_WORKER, ProcessSpec("dispatcher", 0)], ids=str)
def test_who_may_block_is_not_looked_at(clock: list[float], spec: ProcessSpec):
    watch = Watch(clock, spec)
    watch.children[0].turns = False
    watch.reactor.wait(100.0)
    assert watch.hanging == []


def test_one_that_does_not_serve_any_more_has_its_time_for_that(clock: list[float]):
    watch = Watch(clock, WORKER)
    [child] = watch.children
    child.become(ChildState.RETIRING)
    child.turns = False
    watch.reactor.wait(100.0)
    assert watch.hanging == []


def test_a_worker_that_has_grown_is_to_be_replaced_and_a_gateway_is_not(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(watchdog, "resident_bytes", lambda _pid: 70 << 20)
    watch = Watch(clock, WORKER, GATEWAY, worker_memory_limit=64 << 20)
    watch.reactor.wait(LONGEST_PERIOD)
    assert watch.large == [f"it has {70 << 20} bytes in memory, more than worker_memory_limit={64 << 20}"]
    monkeypatch.setattr(watchdog, "resident_bytes", lambda _pid: None)  # it has just ended
    watch.reactor.wait(5.0)
    assert len(watch.large) == 1


def test_where_there_is_nothing_to_look_for_nobody_looks(clock: list[float]):
    watch = Watch(clock, WORKER, worker_hang_timeout=0.0, gateway_hang_timeout=0.0)
    assert watch.reactor.timers == 0
