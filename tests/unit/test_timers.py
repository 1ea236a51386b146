"""Timers of a worker: when they are due, in which context they run, and which of them are once per server."""

import asyncio
import contextvars
import threading
from typing import Any

import pytest

from mooring.net.loop import HANDLING
from mooring.worker.timers import LONGEST, Timers
from support.loops import JumpingLoop, in_jumping_loop

WHO: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")


class Bench:
    """Timers in a loop, and what they have called: when, in seconds from the beginning, and with what."""

    def __init__(self, loop: JumpingLoop, *, has_shared: bool = True) -> None:
        self.loop = loop
        self.began = loop.time()
        self.calls: list[tuple[float, Any]] = []
        self.failures: list[str] = []
        self.timers = Timers(self.task_of, lambda _, error: self.failures.append(repr(error)), has_shared=has_shared)
        self.timers.open()

    def task_of(self, running: Any, context: contextvars.Context) -> "asyncio.Task[Any]":
        return self.loop.create_task(running, context=context)

    def call(self, what: Any = None) -> None:
        self.calls.append((round(self.loop.time() - self.began, 3), what))

    @property
    def times(self) -> list[float]:
        return [when for when, _ in self.calls]


@pytest.mark.parametrize(
    ("seconds", "function", "again", "error", "said"),
    [
        (True, print, False, TypeError, r"True is no number of seconds: write tick\(seconds, function, "),
        ("1", print, False, TypeError, "'1' is no number of seconds"),
        (1, "print", False, TypeError, "'print' can't be called: write tick.*without parentheses"),
        (-0.1, print, False, ValueError, "-0.1 s: a timer takes 0 s to 365 days"),
        (0, print, True, ValueError, "0 s: a timer takes 0.001 s to 365 days"),
        (LONGEST + 1, print, True, ValueError, "to 365 days"),
        (float("nan"), print, False, ValueError, "nan s: a timer"),
    ],
)
def test_what_is_no_timer(seconds: Any, function: Any, again: bool, error: type[Exception], said: str):
    async def test(loop: JumpingLoop) -> None:
        with pytest.raises(error, match=said):
            Bench(loop).timers.add(seconds, function, (), again=again)

    in_jumping_loop(test)


def test_a_tick_is_due_at_multiples_of_its_interval_however_late_it_is_called():
    async def test(loop: JumpingLoop) -> None:
        bench = Bench(loop)

        def slow() -> None:
            bench.call()
            loop.stand_still(0.3)

        bench.timers.add(1, slow, (), again=True)
        await asyncio.sleep(4.9)
        assert bench.times == [1, 2, 3, 4]

    in_jumping_loop(test)


def test_ticks_that_were_missed_are_left_out():
    async def test(loop: JumpingLoop) -> None:
        bench = Bench(loop)
        bench.timers.add(1, bench.call, (), again=True)
        await asyncio.sleep(1.5)
        loop.stand_still(3.2)
        await asyncio.sleep(1.5)
        assert bench.times == [1, 4.7, 5, 6]

    in_jumping_loop(test)


def test_a_tick_that_goes_on_is_not_called_again():
    async def test(loop: JumpingLoop) -> None:
        bench = Bench(loop)

        async def long() -> None:
            bench.call()
            await asyncio.sleep(2.5)

        bench.timers.add(1, long, (), again=True)
        await asyncio.sleep(6.5)
        assert bench.times == [1, 4]
        await bench.timers.finish()

    in_jumping_loop(test)


def test_after_calls_once_with_its_arguments():
    async def test(loop: JumpingLoop) -> None:
        bench = Bench(loop)
        number = bench.timers.add(2, bench.call, ("it",), again=False)
        await asyncio.sleep(9)
        assert bench.calls == [(2, "it")]
        assert not bench.timers.clear(number), "it is over"

    in_jumping_loop(test)


def test_what_is_cleared_is_not_called():
    async def test(loop: JumpingLoop) -> None:
        bench = Bench(loop)
        numbers: list[int] = []

        def once() -> None:
            bench.call()
            assert bench.timers.clear(numbers[0])

        numbers.append(bench.timers.add(1, once, (), again=True))
        other = bench.timers.add(2, bench.call, ("other",), again=False)
        assert bench.timers.clear(other)
        assert not bench.timers.clear(other)
        await asyncio.sleep(5)
        assert bench.times == [1]

    in_jumping_loop(test)


def test_whatever_a_call_raises_is_reported_and_the_next_one_comes():
    async def test(loop: JumpingLoop) -> None:
        bench = Bench(loop)

        def fails() -> None:
            bench.call()
            raise SystemExit("no")

        async def fails_later() -> None:
            await asyncio.sleep(0)
            raise ValueError("later")

        bench.timers.add(1, fails, (), again=True)
        bench.timers.add(2.5, fails_later, (), again=False)
        bench.timers.add(2.7, lambda: (x for x in ()), (), again=False)
        await asyncio.sleep(3.5)
        assert bench.times == [1, 2, 3]
        assert bench.failures[:2] == ["SystemExit('no')"] * 2
        assert bench.failures[2] == "ValueError('later')"
        assert bench.failures[3].startswith("TypeError(")

    in_jumping_loop(test)


def test_each_call_has_a_context_of_its_own_made_of_the_one_that_made_the_timer():
    async def test(loop: JumpingLoop) -> None:
        bench = Bench(loop)

        def look() -> None:
            bench.call((WHO.get(), HANDLING.get()))
            WHO.set("an earlier call")

        WHO.set("the maker")
        HANDLING.set(True)  # a handler of a connection has made it; what it starts is no part of that handler
        bench.timers.add(1, look, (), again=True)
        WHO.set("somebody else")
        await asyncio.sleep(2.5)
        assert [what for _, what in bench.calls] == [("the maker", False)] * 2
        assert WHO.get() == "somebody else"

    in_jumping_loop(test)


def test_what_is_once_per_server_runs_from_when_this_worker_serves_until_its_successor_does():
    async def test(loop: JumpingLoop) -> None:
        bench = Bench(loop)
        bench.timers.add(1, bench.call, ("shared",), again=True, shared=True)
        bench.timers.add(1, bench.call, ("own",), again=True)
        await asyncio.sleep(2.5)
        bench.timers.serve()
        bench.timers.add(1, bench.call, ("late",), again=True, shared=True)
        await asyncio.sleep(1.7)
        bench.timers.retire()
        bench.timers.add(1, bench.call, ("too late",), again=True, shared=True)
        await asyncio.sleep(1)
        own = [(when, "own") for when in (1, 2, 3, 4, 5)]
        assert sorted(bench.calls) == sorted([*own, (3.5, "shared"), (3.5, "late")])

    in_jumping_loop(test)


def test_the_other_workers_have_none_of_these():
    async def test(loop: JumpingLoop) -> None:
        bench = Bench(loop, has_shared=False)
        number = bench.timers.add(1, bench.call, (), again=True, shared=True)
        bench.timers.serve()
        await asyncio.sleep(3)
        assert not bench.calls
        assert not bench.timers.clear(number)

    in_jumping_loop(test)


def test_in_the_end_no_call_begins_and_those_under_way_are_waited_for():
    async def test(loop: JumpingLoop) -> None:
        bench = Bench(loop)

        async def long() -> None:
            bench.call("begun")
            bench.timers.add(0, bench.call, ("of its own",), again=False)
            await asyncio.sleep(5)
            bench.call("ended")
            bench.timers.add(0, bench.call, ("too late",), again=False)

        bench.timers.add(1, long, (), again=True)
        await asyncio.sleep(1.5)
        await bench.timers.finish()
        bench.timers.add(1, bench.call, ("much too late",), again=True)
        await asyncio.sleep(3)
        assert bench.calls == [(1, "begun"), (1, "of its own"), (6, "ended")]

    in_jumping_loop(test)


def test_a_thread_may_make_and_clear_timers_which_run_in_the_loop():
    async def test(loop: JumpingLoop) -> None:
        loop.set_debug(True)  # it refuses timers of other threads
        bench, ready = Bench(loop), asyncio.Event()
        made: list[int] = []

        def elsewhere() -> None:
            made.append(bench.timers.add(1, lambda: bench.call(threading.get_ident()), (), again=False))
            made.append(bench.timers.add(1, bench.call, ("cleared",), again=False))
            bench.timers.clear(made[1])
            loop.call_soon_threadsafe(ready.set)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        await ready.wait()
        thread.join(10)
        await asyncio.sleep(1.5)
        assert bench.calls == [(1, threading.get_ident())]

    in_jumping_loop(test)


def test_a_thread_clears_what_is_due_already():
    async def test(loop: JumpingLoop) -> None:
        bench = Bench(loop)

        def first() -> None:
            thread = threading.Thread(target=bench.timers.clear, args=(second,))
            thread.start()
            thread.join(10)

        bench.timers.add(1, first, (), again=False)
        second = bench.timers.add(1.1, bench.call, (), again=True)
        loop.stand_still(1.2)
        await asyncio.sleep(3)
        assert not bench.calls

    in_jumping_loop(test)
