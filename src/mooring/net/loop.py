"""asyncio as a guest of our reactor.

Handlers may be coroutines, so a worker needs asyncio; its channels and, in base mode, its clients are served by our
reactor. Two event loops in one process would cost a second epoll and a hand-over between them. Instead asyncio gets
a selector that polls our reactor: everything that is ours is handled inside of `select`, and what is asyncio's own is
handed out. `select` returns after every turn, so coroutines that a handler started run at once, and what they sent is
flushed before the reactor sleeps again.

Whatever policy the application has installed (`uvloop.install()` is a common line), the loop is this one. Only for the
end of a subprocess asyncio asks the policy, up to Python 3.13, and those of others have no answer for a loop that is
not theirs; so we learn of it ourselves.

Threads are started when the application needs one for `to_thread`, and then there may be none left. Python raises an
error and yet keeps the call, for whichever thread comes later; here one that is there takes it, or nobody ever does.

A KeyboardInterrupt or SystemExit that leaves a callback or a task ends an asyncio loop, whoever it belongs to: a task
gives it to whoever awaits it *and* lets it pass. Here it is the failure of that callback or task. What the loop itself
runs, the process's own coroutine, may end it so.
"""

import asyncio
import concurrent.futures
import contextvars
import os
import selectors
import sys
import threading
from asyncio import unix_events
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar
from weakref import WeakSet

from mooring._core.reactor import Reactor
from mooring.app.foreign import is_a
from mooring.errors import NoThread
from mooring.journal import own_logger
from mooring.net import forks
from mooring.net.report import new_error_id, report

log = own_logger("mooring.worker")

T = TypeVar("T")

HANDLING: contextvars.ContextVar[bool] = contextvars.ContextVar("mooring.handling", default=False)
"""Whether what runs belongs to a handler of a connection; so it does in the tasks that the handler starts."""

_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
_EPOLLIN, _EPOLLOUT = 1, 4


class ReactorSelector(selectors.BaseSelector):
    """A selector that is a view of a Reactor."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._keys: dict[int, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        fd = _descriptor(fileobj)
        if fd in self._keys:
            raise KeyError(f"descriptor {fd} is registered already")
        self._reactor.register(fd, _mask(events))
        key = self._keys[fd] = selectors.SelectorKey(fileobj, fd, events, data)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        key = self._keys.pop(self._find(fileobj))
        self._reactor.unregister(key.fd)
        return key

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        fd = self._find(fileobj)
        if events != self._keys[fd].events:
            self._reactor.modify(fd, _mask(events))
        key = self._keys[fd] = selectors.SelectorKey(fileobj, fd, events, data)
        return key

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = []
        for fd, events in self._reactor.poll(-1 if timeout is None else max(0.0, timeout)):
            key = self._keys.get(fd)
            if key is not None:
                # as selectors.EpollSelector: an error or a hang-up wakes whoever waits for either
                found = (_WRITE if events & ~_EPOLLIN else 0) | (_READ if events & ~_EPOLLOUT else 0)
                if found & key.events:
                    ready.append((key, found & key.events))
        return ready

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return _Map(self, self._keys)

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys[self._find(fileobj)]

    def close(self) -> None:
        self._keys.clear()

    def _find(self, fileobj: Any) -> int:
        """Also for a file object that was closed meanwhile, and so has no descriptor any more."""
        try:
            return _descriptor(fileobj)
        except ValueError:
            for fd, key in self._keys.items():
                if key.fileobj is fileobj:
                    return fd
            raise KeyError(f"{fileobj!r} is not registered") from None


class _Map(Mapping[Any, selectors.SelectorKey]):
    """What is registered, also found by file objects: from Python 3.13 on asyncio asks so."""

    def __init__(self, selector: ReactorSelector, keys: Mapping[int, selectors.SelectorKey]) -> None:
        self._selector = selector
        self._keys = keys

    def __getitem__(self, fileobj: Any) -> selectors.SelectorKey:
        return self._selector.get_key(fileobj)

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[int]:
        return iter(self._keys)


def _descriptor(fileobj: Any) -> int:
    fd = fileobj if isinstance(fileobj, int) else int(fileobj.fileno())
    if fd < 0:
        raise ValueError(f"invalid descriptor {fd}")
    return fd


def _mask(events: int) -> int:
    return (_EPOLLIN if events & _READ else 0) | (_EPOLLOUT if events & _WRITE else 0)


async def outcome(future: "asyncio.Future[T]") -> T:
    """What comes of a future of the process's own, also when the application cancels all tasks that it finds."""
    while True:
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if future.cancelled() or task is None:
                raise
            task.uncancel()
            log.error("the application has cancelled the task of this process: it goes on; shutdown() stops the server")


def new_event_loop(reactor: Reactor) -> asyncio.AbstractEventLoop:
    """An asyncio loop whose selector is our reactor."""
    return _Loop(ReactorSelector(reactor))


class _Threads(ThreadPoolExecutor):
    """What asyncio has by default, where threads may run out."""

    def _adjust_thread_count(self) -> None:
        try:
            super()._adjust_thread_count()
        except RuntimeError as problem:
            if self._threads:
                return  # they take it when they have done what they are at
            self._work_queue.get_nowait()
            log.error("no thread could be started: %s; raise the limit of processes (ulimit -u, TasksMax=)", problem)
            raise NoThread(503, "the server has no thread for this now, try again", {"Retry-After": "5"}) from problem


class _Loop(asyncio.SelectorEventLoop):
    """Ends when what it was run for has ended, and for no other reason."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        super().__init__(selector)
        self._threads: ThreadPoolExecutor | None = None
        self._purpose: asyncio.Future[Any] | None = None
        self.of_handlers: WeakSet[asyncio.Task[Any]] = WeakSet()

    def run_until_complete(self, future: Any) -> Any:
        before, self._purpose = self._purpose, asyncio.ensure_future(future, loop=self)
        try:
            return super().run_until_complete(self._purpose)
        finally:
            self._purpose = before

    def run_forever(self) -> None:
        while True:
            # each time it goes on with what was due: callbacks behind the one that raised wait in the loop's queue
            try:
                super().run_forever()
            except BaseException as error:
                if is_a(error, Exception) or self._is_over():
                    raise
                forks.end_child(error)
                text = "error %s: a task or a callback of the application raised what would end the process"
                report(log, text, new_error_id(), error=error)
            else:
                if self._is_over():
                    return
                log.error("the application has stopped the worker's loop: it goes on; shutdown() stops the server")

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:  # type: ignore[override]
        if executor is None and self._threads is None:
            self._threads = _Threads(thread_name_prefix="asyncio")
            if getattr(self, "_default_executor", None) is None:  # else the application has set one
                self.set_default_executor(self._threads)
        return super().run_in_executor(executor, func, *args)

    if sys.version_info < (3, 12):  # tasks don't tell their context there

        def create_task(self, coro: Any, **options: Any) -> Any:
            task = super().create_task(coro, **options)
            context = options.get("context")
            if HANDLING.get() if context is None else context.get(HANDLING):
                self.of_handlers.add(task)
            return task

    async def shutdown_default_executor(self, *args: Any, **options: Any) -> None:
        """asyncio starts a thread that waits for the others; without it they have their time all the same, see
        mooring.net.ending."""
        with suppress(RuntimeError):
            await super().shutdown_default_executor(*args, **options)

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        if forks.is_child():
            # it was forked in a thread, by a function for run_in_executor() that has returned or raised there
            done = next((one for one in args if isinstance(one, concurrent.futures.Future) and one.done()), None)
            forks.end_child(done.exception() if done is not None and not done.cancelled() else None)
        return super().call_soon_threadsafe(callback, *args, context=context)

    def _is_over(self) -> bool:
        return self._purpose is None or self._purpose.done()

    if sys.version_info < (3, 14):

        async def _make_subprocess_transport(
            self,
            protocol: asyncio.SubprocessProtocol,
            args: Any,
            shell: bool,
            stdin: Any,
            stdout: Any,
            stderr: Any,
            bufsize: int,
            extra: Any = None,
            **options: Any,
        ) -> asyncio.SubprocessTransport:
            """As that of the base class, with `_await_end` in place of the policy's child watcher."""
            waiter = self.create_future()
            made: Any = unix_events._UnixSubprocessTransport  # type: ignore[attr-defined]
            transport: Any = made(
                self, protocol, args, shell, stdin, stdout, stderr, bufsize, waiter=waiter, extra=extra, **options
            )
            self._await_end(transport)
            try:
                await waiter
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException:
                transport.close()
                await transport._wait()
                raise
            found: asyncio.SubprocessTransport = transport
            return found

    def _await_end(self, transport: Any) -> None:
        pid = transport.get_pid()
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:  # no descriptors left
            threading.Thread(
                target=self._wait_for, args=(pid, transport), name=f"mooring-wait-{pid}", daemon=True
            ).start()
        else:
            self.add_reader(pidfd, self._ended, pid, pidfd, transport)

    def _wait_for(self, pid: int, transport: Any) -> None:
        code = _exit_code(pid)
        if not self.is_closed():
            self.call_soon_threadsafe(transport._process_exited, code)

    def _ended(self, pid: int, pidfd: int, transport: Any) -> None:
        self.remove_reader(pidfd)
        os.close(pidfd)
        transport._process_exited(_exit_code(pid))


def started_by_handlers(loop: asyncio.AbstractEventLoop) -> set["asyncio.Task[Any]"]:
    """Tasks that are not done and that a handler of a connection has started, directly or not."""
    if sys.version_info < (3, 12):
        return {task for task in getattr(loop, "of_handlers", ()) if not task.done()}
    return {task for task in asyncio.all_tasks(loop) if _context_of(task).get(HANDLING)}


def _context_of(task: Any) -> contextvars.Context:
    try:
        found: contextvars.Context = task.get_context()
    except AttributeError:  # of another kind, which the application's task factory has made
        return contextvars.Context()
    return found


def _exit_code(pid: int) -> int:
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except ChildProcessError:
        return 255  # somebody else has waited for it; asyncio says the same
