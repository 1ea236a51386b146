"""Timers of the application: `tick` and `after`.

A tick is due at whole multiples of its interval from its beginning, so it does not drift; those that were missed while
the loop stood still, or while the call before had not ended, are left out, not made up for. No timer reads the wall
clock. Each call has a context (contextvars) of its own, a copy of that in which the timer was made.

Once per server: the timer exists in worker 0 only. It runs from the moment that worker serves, and until it is told
that its successor does; so at a reload there is one at a time. When worker 0 dies, its successor begins anew.
"""

import asyncio
import contextvars
import math
import threading
from collections.abc import Callable
from itertools import count
from typing import Any

from mooring._core.steps import failure_of
from mooring.app.foreign import function_name, running_of
from mooring.net import forks
from mooring.net.loop import HANDLING

Function = Callable[..., Any]
_USAGE = "tick(seconds, function, *arguments)"
LONGEST = 365 * 86400.0  # seconds


class _Timer:
    def __init__(self, seconds: float, function: Function, arguments: tuple[object, ...], *, again: bool) -> None:
        self.seconds = seconds
        self.function = function
        self.arguments = arguments
        self.again = again
        self.context = contextvars.copy_context()
        self.context.run(HANDLING.set, False)  # what it starts is a timer's, also when a handler has made that
        self.shared = False
        self.due = 0.0
        self.handle: asyncio.TimerHandle | None = None
        self.running: asyncio.Task[Any] | None = None


class Timers:
    """The timers of one worker; `task_of` makes an asyncio task of a coroutine, `failed(function, error)` reports."""

    def __init__(
        self,
        task_of: Callable[[Any, contextvars.Context], "asyncio.Task[Any]"],
        failed: Callable[[Function, BaseException], None],
        *,
        has_shared: bool,
    ) -> None:
        self._task_of = task_of
        self._failed = failed
        self._has_shared = has_shared
        self._serving = False
        self._over = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._timers: dict[int, _Timer] = {}
        self._numbers = count(1)
        self._running: set[asyncio.Task[Any]] = set()

    def open(self) -> None:
        """Timers run in this loop."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    def add(
        self, seconds: float, function: Function, arguments: tuple[object, ...], *, again: bool, shared: bool = False
    ) -> int:
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            raise TypeError(f"{seconds!r} is no number of seconds: write {_USAGE}")
        if not callable(function):
            raise TypeError(f"{function!r} can't be called: write {_USAGE}, without parentheses behind the function")
        low = 0.001 if again else 0.0
        if not low <= seconds <= LONGEST:
            raise ValueError(f"{seconds:g} s: a timer takes {low:g} s to 365 days")
        number = next(self._numbers)
        timer = _Timer(seconds, function, arguments, again=again)
        timer.shared = shared
        if not shared or self._has_shared:
            self._timers[number] = timer
            self._in_loop(self._begin, number, timer)
        return number

    def clear(self, number: int) -> bool:
        timer = self._timers.pop(number, None)
        if timer is None:
            return False
        self._in_loop(self._cancel, timer)
        return True

    def serve(self) -> None:
        """This worker serves: what is once per server runs here."""
        self._serving = True
        for number, timer in list(self._timers.items()):
            if timer.shared:
                self._arm(number, timer)

    def retire(self) -> None:
        """The successor serves: it runs there."""
        self._serving = False
        for number, timer in list(self._timers.items()):
            if timer.shared:
                self.clear(number)

    async def finish(self) -> None:
        """No timer begins any more; waits for those that are under way."""
        self._over = True
        for number in list(self._timers):
            self.clear(number)
        while self._running:
            await asyncio.wait(self._running)

    def _in_loop(self, function: Callable[..., None], *arguments: Any) -> None:
        if self._loop is None or threading.get_ident() == self._thread:
            function(*arguments)
        else:
            self._loop.call_soon_threadsafe(function, *arguments)

    def _cancel(self, timer: _Timer) -> None:
        if timer.handle is not None:
            timer.handle.cancel()
            timer.handle = None

    def _begin(self, number: int, timer: _Timer) -> None:
        if not timer.shared or self._serving:
            self._arm(number, timer)

    def _arm(self, number: int, timer: _Timer) -> None:
        assert self._loop is not None
        if self._over or timer.handle is not None or self._timers.get(number) is not timer:
            return
        timer.due = self._loop.time() + timer.seconds
        timer.handle = self._loop.call_at(timer.due, self._fire, number, timer)

    def _fire(self, number: int, timer: _Timer) -> None:
        assert self._loop is not None
        timer.handle = None
        if self._timers.get(number) is not timer:
            return  # cleared in another thread
        if not timer.again:
            del self._timers[number]
        if timer.running is None:
            self._call(timer)
        if timer.again and self._timers.get(number) is timer:  # it may have cleared itself
            missed = math.floor((self._loop.time() - timer.due) / timer.seconds)
            timer.due += (max(0, missed) + 1) * timer.seconds
            timer.handle = self._loop.call_at(timer.due, self._fire, number, timer)

    def _call(self, timer: _Timer) -> None:
        context = timer.context.copy()
        try:
            result = context.run(timer.function, *timer.arguments)
            forks.end_child()
            running = running_of(result, function_name(timer.function))
        except BaseException as error:  # SystemExit too: it is this call's failure
            self._failed(timer.function, error)
            return
        if running is not None:
            timer.running = self._task_of(running, context)
            self._running.add(timer.running)
            timer.running.add_done_callback(lambda task: self._ended(timer, task))

    def _ended(self, timer: _Timer, task: "asyncio.Task[Any]") -> None:
        timer.running = None
        self._running.discard(task)
        error = failure_of(task)
        if error is not None:
            self._failed(timer.function, error)
