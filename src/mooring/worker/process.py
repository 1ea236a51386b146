"""A process of the application's own, kept running by the supervisor: `add_process`.

A coroutine function runs in the loop and is cancelled when the process shall end. A plain one runs in a thread, so that
the loop goes on serving what it sends and asks; it is told by `server.stopping` and has to return by itself. When it
returns, or raises, the process ends in order, and the supervisor starts it again as it does any that ends unasked:
later and later, if that happens again and again.
"""

import asyncio
import inspect
import threading
from collections.abc import Callable
from typing import Any

from mooring.app.handlers import Handler
from mooring.journal import own_logger
from mooring.net import forks

log = own_logger("mooring.worker")


class OwnProcess:
    """Runs one function of the application, from the moment this process serves."""

    def __init__(
        self, function: Handler, arguments: tuple[object, ...], stopping: threading.Event, over: Callable[[], None]
    ) -> None:
        self._function = function
        self._arguments = arguments
        self._stopping = stopping
        self._over = over  # called when the function has ended by itself
        self._running: asyncio.Future[Any] | None = None

    def start(self, server: object) -> None:
        if self._running is not None or self._stopping.is_set():
            return
        if inspect.iscoroutinefunction(self._function):
            self._running = asyncio.ensure_future(self._in_loop(server))
        else:
            self._running = asyncio.get_running_loop().create_future()
            run = self._in_thread(asyncio.get_running_loop(), self._running, server)
            threading.Thread(target=run, name="process", daemon=True).start()
        self._running.add_done_callback(self._ended)

    async def _in_loop(self, server: object) -> Any:
        try:
            result = await self._function(server, *self._arguments)
        except BaseException as error:
            forks.leave(error)
            raise
        forks.leave()
        return result

    def _in_thread(
        self, loop: asyncio.AbstractEventLoop, over: "asyncio.Future[Any]", server: object
    ) -> Callable[[], None]:
        def run() -> None:
            error: BaseException | None = None
            try:
                self._function(server, *self._arguments)
            except BaseException as raised:  # SystemExit too: it ends this process, in order
                error = raised
            forks.leave(error)
            loop.call_soon_threadsafe(_settle, over, error)

        return run

    def _ended(self, running: "asyncio.Future[Any]") -> None:
        if not running.cancelled() and (error := running.exception()) is not None:
            log.error("the process function %s failed", self._function.__qualname__, exc_info=error)
        if not self._stopping.is_set():
            self._over()

    async def finish(self) -> None:
        """Has it end, and waits for that."""
        self._stopping.set()
        if self._running is not None:
            if inspect.iscoroutinefunction(self._function):
                self._running.cancel()
            await asyncio.wait([self._running])


def _settle(over: "asyncio.Future[Any]", error: BaseException | None) -> None:
    if over.done():
        return
    if error is None or isinstance(error, SystemExit):
        over.set_result(None)
    else:
        over.set_exception(error)
