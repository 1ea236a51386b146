"""A process of the application's own, kept running by the supervisor: `add_process`.

A coroutine function runs in the loop and is cancelled when the process shall end. A plain one runs in a thread, so that
the loop goes on serving what it sends and asks; it is told by `server.stopping` and has to return by itself. When it
returns, or raises, the process ends in order, and the supervisor starts it again as it does any that ends unasked:
later and later, if that happens again and again.
"""

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from mooring._core.steps import failure_of
from mooring.app.foreign import function_name, is_a, running_of
from mooring.app.handlers import Handler
from mooring.errors import StateError
from mooring.journal import own_logger
from mooring.net import forks
from mooring.net.report import new_error_id, report

log = own_logger("mooring.worker")


class OwnProcess:
    """Runs one function of the application, from the moment this process serves."""

    def __init__(
        self,
        function: Handler,
        arguments: tuple[object, ...],
        stopping: threading.Event,
        over: Callable[[], None],
        task_of: Callable[[Awaitable[Any], contextvars.Context], "asyncio.Task[Any]"],
    ) -> None:
        self._function = function
        self._arguments = arguments
        self._stopping = stopping
        self._over = over  # called when the function has ended by itself
        self._task_of = task_of
        self._over_all: asyncio.Future[None] | None = None  # done when the function has ended, however
        self._task: asyncio.Task[Any] | None = None  # of one that is a coroutine, or gives one

    def start(self, server: object, context: contextvars.Context) -> None:
        """Has it run, in this context."""
        if self._over_all is not None or self._stopping.is_set():
            return
        loop = asyncio.get_running_loop()
        self._over_all = loop.create_future()
        if inspect.iscoroutinefunction(self._function):
            self._await(context.run(self._function, server, *self._arguments), context)
            return

        def run() -> None:
            error: BaseException | None = None
            running: Awaitable[Any] | None = None
            try:
                result = context.run(self._function, server, *self._arguments)
                running = running_of(result, function_name(self._function))
            except BaseException as raised:  # SystemExit too: it ends this process, in order
                error = raised
            forks.end_child(error)
            if running is not None:
                loop.call_soon_threadsafe(self._await, running, context)
            else:
                loop.call_soon_threadsafe(self._ended, error)

        try:
            threading.Thread(target=run, name="process", daemon=True).start()
        except RuntimeError as problem:  # there are too many: the next process may have one
            self._ended(problem)

    def _await(self, running: Awaitable[Any], context: contextvars.Context) -> None:
        self._task = self._task_of(running, context)
        self._task.add_done_callback(lambda task: self._ended(failure_of(task)))
        if self._stopping.is_set():
            self._task.cancel()

    def _ended(self, error: BaseException | None) -> None:
        why = error.__cause__ if is_a(error, StateError) else error  # see Worker.task_of
        ends = is_a(why, SystemExit) or (is_a(why, asyncio.CancelledError) and self._stopping.is_set())
        if error is not None and not ends:
            message = "error %s: the process function %s failed"
            report(log, message, new_error_id(), function_name(self._function), error=error)
        if self._over_all is not None and not self._over_all.done():
            self._over_all.set_result(None)
        if not self._stopping.is_set():
            self._over()

    async def finish(self) -> None:
        """Has it end, and waits for that."""
        self._stopping.set()
        if self._task is not None:
            self._task.cancel()
        if self._over_all is not None:
            await self._over_all
