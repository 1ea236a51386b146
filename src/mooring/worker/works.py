"""Work that connections own: coroutines that run beside the messages of a WebSocket, from `Server.spawn`.

A piece of work ends by itself, by a cancel of the application, when its connection ends (the gateway says so), or when
its worker has to go: then it has the time that the gateway tells (see GracefulEnd), and is *cut* at its end: cancelled,
logged, counted as dropped, and told to the handler of `error`. In each case `finally` runs.

The gateway is told when a piece begins and ends (_core/owned.pyx). As long as one runs, it leaves the connection
with this worker and waits for it in a drain; when the connection ends, it has it cancelled in whichever worker it runs.
"""

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from types import CoroutineType
from typing import Any

from mooring._core.gateway_end import GatewayEnd, Outbox
from mooring._core.wire import Work as Told
from mooring.app.foreign import is_a, not_waited_for
from mooring.errors import SpawnFull, StateError
from mooring.net import forks
from mooring.types import ConnectionState
from mooring.worker.site import Site

LONGEST_NAME = 255  # bytes in UTF-8
MOST_NUMBERS = (1 << 32) - 1  # in 32 bits of a record; then they begin again
FINALLY = 1.0  # seconds for the `finally` of what was cancelled before, when its connection ends or the process leaves
GOES = "this worker has to end, and graceful_timeout is over"

Failed = Callable[[int, int, str, BaseException], None]
"""failed(listener, fd, name, error): what a piece of work has raised."""
Lost = Callable[[int, int, str, str], None]
"""lost(listener, fd, name, why): it was cut."""


@not_waited_for
class OwnedTask(asyncio.Task[Any]):
    """Of a piece of work that a connection owns."""


class Work:
    """One piece."""

    __slots__ = ("cut", "endless", "fd", "gateway_end", "listener", "name", "number", "task")

    def __init__(
        self, fd: int, number: int, name: str, listener: int, gateway_end: GatewayEnd, *, endless: bool
    ) -> None:
        self.fd = fd
        self.number = number  # no other of its connection in this worker has it
        self.name = name
        self.listener = listener
        self.gateway_end = gateway_end
        self.endless = endless
        self.task: asyncio.Task[Any]
        self.cut = False


class Works:
    """Those of one worker; `serves`: it has connections (no task worker, nor a process of the application's own)."""

    def __init__(self, outbox: Outbox, sites: Sequence[Site], failed: Failed, lost: Lost, *, serves: bool) -> None:
        self._outbox = outbox
        self._sites = sites
        self._failed = failed
        self._lost = lost
        self._serves = serves
        self._thread = threading.get_ident()  # in which the worker's loop runs
        self._number = 0  # the last one
        self._of: dict[int, dict[int, Work]] = {}
        self._ending = False  # what is endless ends at once
        self._over = False  # whatever begins is cut

    def spawn(self, fd: int, running: Awaitable[Any], name: str | None, *, endless: bool) -> "asyncio.Task[Any]":
        """See Server.spawn."""
        try:
            name, encoded = self._checked(running, name)
            state = self._outbox.state(fd)
            if state == ConnectionState.HTTP:
                raise StateError(
                    f"connection {fd} is no WebSocket, or none yet, and owns no work: for a client that a 'handshake' "
                    "handler accepts, spawn in 'open'; a 'request' handler awaits its work, and may send its answer in "
                    "parts, by response.write() or response.event_stream()"
                )
            gateway_end = self._outbox.find(fd)
            info = gateway_end.table.info(fd) if gateway_end is not None and state == ConnectionState.OPEN else None
            limit = 0 if info is None else self._sites[info.listener].max_spawned
            if limit and len(self.of(fd, None)) >= limit:
                raise SpawnFull(
                    f"connection {fd} owns max_spawned={limit} pieces of work already: cancel(fd) ends them, "
                    "spawned(fd) lists them"
                )
        except BaseException:
            _close(running)
            raise
        context = contextvars.copy_context()
        task = OwnedTask(_contained(running), loop=asyncio.get_running_loop(), name=name, context=context)
        if gateway_end is None or info is None:
            task.add_done_callback(lambda _: _close(running))
            task.cancel()  # of a connection that has gone, it does not begin
            return task
        owned = self._of.setdefault(fd, {})
        work = Work(fd, self._next_number(owned), name, info.listener, gateway_end, endless=endless)
        work.task = task
        owned[work.number] = work
        task.add_done_callback(lambda _: self._ended(work, running), context=context)
        self._outbox.work(fd, Told.BEGUN, work.number, encoded)
        if self._over or (self._ending and endless):
            self._cut(work)
        return task

    def _next_number(self, owned: dict[int, Work]) -> int:
        while True:
            self._number = self._number % MOST_NUMBERS + 1
            if self._number not in owned:
                return self._number

    def _checked(self, running: object, name: str | None) -> tuple[str, bytes]:
        """Its name. Raises what spawn() raises for what can be seen without looking at the connection."""
        if not inspect.isawaitable(running):
            what = getattr(running, "__name__", None) or type(running).__name__
            if inspect.iscoroutinefunction(running):
                raise TypeError(f"spawn(fd, {what}): it is a function; call it: spawn(fd, {what}(...))")
            raise TypeError(f"spawn(fd, {what}): it takes a coroutine, as asyncio.create_task() does")
        if not self._serves:
            raise StateError("spawn() works in workers only: this process serves no connections")
        self._refuse_thread("spawn")
        if name is None:
            name = str(getattr(running, "__name__", None) or type(running).__name__)
        encoded = _encoded(name)
        if len(encoded) > LONGEST_NAME:
            raise ValueError(f"the name of work has at most {LONGEST_NAME} bytes in UTF-8, not {len(encoded)}")
        return name, encoded

    def _refuse_thread(self, method: str) -> None:
        """Also one that runs a loop of its own."""
        if threading.get_ident() != self._thread:
            raise StateError(
                f"{method}() was called in a thread: call it in a handler, or there by loop.call_soon_threadsafe()"
            )

    def _ended(self, work: Work, running: Awaitable[Any]) -> None:
        owned = self._of[work.fd]
        del owned[work.number]
        if not owned:
            del self._of[work.fd]
        _close(running)
        error = None if work.task.cancelled() else work.task.exception()
        if error is not None:
            self._failed(work.listener, work.fd, work.name, error)
        if work.cut and not work.endless and (error is not None or work.task.cancelled()):
            self._lost(work.listener, work.fd, work.name, GOES)
            told = Told.CUT
        else:
            told = Told.ENDED
        if self._outbox.find(work.fd) is work.gateway_end:  # else that gateway has ended, and its connections
            self._outbox.work(work.fd, told, work.number, b"")  # behind what it has sent

    # ------------------------------------------------------------------ who asks

    def of(self, fd: int, name: str | None) -> list["asyncio.Task[Any]"]:
        """What that connection owns in this worker, the oldest first."""
        owned = self._of.get(fd, {}).values()
        return [work.task for work in owned if name in (None, work.name) and not work.task.done()]

    def cancel(self, fd: int, name: str | None) -> int:
        """See Server.cancel."""
        self._refuse_thread("cancel")
        wanted = b"" if name is None else _encoded(name)
        own = asyncio.current_task() if self._of.get(fd) else None
        found = [task for task in self.of(fd, name) if task is not own]
        for task in found:
            task.cancel()
        if self._serves and len(wanted) <= LONGEST_NAME and self._outbox.state(fd):
            self._outbox.work(fd, Told.CANCEL, name is not None, wanted)
        return len(found)

    # ------------------------------------------------------------------ who says that it is over

    def on_cancel(self, fd: int, name: str | None) -> None:
        """The gateway says that the connection has ended, or that another worker wants it so."""
        for task in self.of(fd, name):
            _cancel(task)

    def gateway_lost(self) -> None:
        """The outbox does not know that gateway any more: its connections are gone."""
        for fd, owned in self._of.items():
            for work in owned.values():
                if self._outbox.find(fd) is not work.gateway_end:
                    _cancel(work.task)

    def end_endless(self) -> None:
        """This worker is to go: what would never end by itself ends now."""
        self._ending = True
        for work in self._all():
            if work.endless and not work.cut:  # each gateway says it
                self._cut(work)

    def cut(self) -> None:
        """The time is over for all others, too."""
        self._over = True
        for work in self._all():
            if not work.cut:
                self._cut(work)

    async def finish(self) -> None:
        """Nothing runs any more when this process ends."""
        self.cut()
        left = [work.task for work in self._all()]
        if left:
            await asyncio.wait(left, timeout=FINALLY)

    def _cut(self, work: Work) -> None:
        work.cut = True
        work.task.cancel()

    def _all(self) -> list[Work]:
        return [work for owned in self._of.values() for work in owned.values()]


def _cancel(task: "asyncio.Task[Any]") -> None:
    """What was cancelled before may be in its `finally`, and has time for that; or it has swallowed the cancel and
    goes on."""
    if task.cancelling():
        asyncio.get_running_loop().call_later(FINALLY, task.cancel)
    else:
        task.cancel()


def _close(running: object) -> None:
    """A coroutine that may never have begun: the interpreter need not warn of it. One that somebody else runs, who was
    given it first, goes on."""
    if type(running) is CoroutineType:
        if inspect.getcoroutinestate(running) == inspect.CORO_CREATED:
            running.close()
    elif issubclass(type(running), Coroutine):
        running.close()  # type: ignore[attr-defined]


def _encoded(name: object) -> bytes:
    if not isinstance(name, str):
        raise TypeError(f"the name of work is a str, not {type(name).__name__}")
    try:
        return name.encode()
    except UnicodeEncodeError:
        raise ValueError(f"the name of work can't be encoded in UTF-8: {name!r}") from None


async def _contained(running: Awaitable[Any]) -> Any:
    """A SystemExit or KeyboardInterrupt that leaves a task would be the loop's matter; it is this work's failure."""
    try:
        result = await running
    except BaseException as error:
        forks.end_child(error)
        if is_a(error, SystemExit, KeyboardInterrupt):
            kind = "KeyboardInterrupt" if is_a(error, KeyboardInterrupt) else "SystemExit"
            raise StateError(f"what was spawned raised {kind}; to stop the server, call shutdown()") from error
        raise
    forks.end_child()
    return result
