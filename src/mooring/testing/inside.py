"""`in_process()`: an application in the process of the test, without processes of its own.

Theory
    It is no imitation. What serves is base mode with one worker (mooring.single): the gateway, the worker and the seam
    between them, on a port of 127.0.0.1, in a thread beside the test. So sessions, topics, users, limits and the order
    of things are the server's own, and the application is the very object that the test has imported: it can be
    patched, looked into and stopped at by a debugger, and its handlers can be called directly.

    Only what a process of the test's own can't have is different. Signals are the test's. Tasks are done by a second
    thread, which has the real dispatcher and the real bench of a task worker. Nothing can be reloaded or killed, and
    functions of `add_process()` do not run: serve() has these.

    What handlers have the server do is noted down on its way (`made`): the methods of the Server that change something
    are wrapped while it runs.
"""

import asyncio
import contextvars
import functools
import inspect
import logging
import os
import socket
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable
from concurrent.futures import TimeoutError as NoAnswer
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple, NoReturn, Self

from mooring._core.reactor import Reactor
from mooring.app.foreign import function_name, running_of
from mooring.app.shared import remove
from mooring.config import LISTENERS, Settings
from mooring.dispatcher.dispatcher import Dispatcher
from mooring.errors import StateError
from mooring.journal import own_logger
from mooring.net.loop import new_event_loop
from mooring.parts.gateway import GatewayPart
from mooring.runtime import check_handlers
from mooring.server import Server
from mooring.single import SingleProcess
from mooring.supervisor.service import Service
from mooring.testing.errors import Closed, HandlerFailed, NotInTime, ServerFailed
from mooring.testing.process import ServedServer
from mooring.testing.running import LIMIT, PLAIN, RunningServer, alive
from mooring.worker.dispatcher_link import DispatcherLink
from mooring.worker.pipe import Pipe
from mooring.worker.tasks import Task, TaskBench, TaskDesk
from mooring.worker.worker import Worker

OURS: dict[str, object] = {
    **PLAIN,
    "mode": "base",
    "worker_num": 1,
    "port": 0,
    "unix_socket": "",
    "inherited": "",
    "control_socket": "",
    "pid_file": "",
    "watch": [],
    "max_request": 0,
    "worker_memory_limit": 0,
}
DEFAULTS: dict[str, object] = {"host": "127.0.0.1", "max_connections": 1000}
# what is noted down
_SENDS = "push push_json ping push_user push_user_json publish publish_json task_async send_message"
_CHANGES = "disconnect disconnect_user close subscribe unsubscribe bind pause resume reload shutdown"
WRITES = (*_SENDS.split(), *_CHANGES.split())


class Made(NamedTuple):
    """A call of a method of the server: its name, its arguments by their names, and what it returned."""

    method: str
    arguments: dict[str, Any]
    result: Any


def in_process(
    app: Server | Callable[[], Server], *, limit: float = LIMIT, raise_errors: bool = True, **settings: object
) -> "InsideServer":
    """Runs an application in this process, in a thread, on a free port: `with in_process(chat.server) as running:`.

    `app` is the Server itself, or a function that makes one. After the `with` it can be run again, with nothing left of
    the first time but what the application keeps in variables of its own. `settings` override those of the application.
    `limit` in seconds is for each wait.

    What a handler raises is in `running.errors`, and at the end of the `with` it is raised as HandlerFailed, unless
    `raise_errors` is False or the list was emptied. Raises ValueError for a setting that can't be had here.
    """
    for name in OURS:
        if name in settings:
            raise ValueError(f"{name} can't be set here, where there is one process, and a free port without TLS")
    server = app if isinstance(app, Server) else app()
    if not isinstance(server, Server):
        raise ValueError(f"in_process() takes a Server, or a function that makes one, not {server!r}")
    return InsideServer(server, limit, settings, raise_errors=raise_errors)


class InsideServer(RunningServer):
    """A server that runs in a thread of this process; made by in_process()."""

    def __init__(self, server: Server, limit: float, settings: dict[str, object], *, raise_errors: bool) -> None:
        super().__init__("in_process()", limit)
        self.server = server
        """The Server that runs, for handlers that are called directly. Its methods work in the test, too."""
        self.made: list[Made] = []
        """What handlers, and the test, have had the server do, in that order."""
        self.errors: list[BaseException] = []
        """What handlers have raised."""
        self._raise_errors = raise_errors
        self._given = settings
        self._single: _Inside | None = None
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._undo = ExitStack()

    def __getattr__(self, name: str) -> NoReturn:
        if hasattr(ServedServer, name):
            raise AttributeError(
                f"in_process() has no {name!r}, as all of it runs in the process of the test: use serve()"
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    # ------------------------------------------------------------------ its life

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        try:
            self.stop()
        finally:
            if error is not None and not isinstance(error, NotInTime | Closed):  # which have the log already
                error.add_note(self.why().lstrip())
        if error is None and self.errors and self._raise_errors:
            text = f"a handler has raised {type(self.errors[0]).__name__}: {self.errors[0]}"
            raise HandlerFailed(text + self._log.tail()) from self.errors[0]

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.start)
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        await asyncio.to_thread(self.__exit__, kind, error, traceback)

    def start(self) -> None:
        """Starts it and waits until it serves; what `with` does."""
        if self._thread is not None:
            raise StateError("it was started already: in_process() makes another one")
        if self.server._worker is not None:
            raise StateError(
                "this Server runs already, and it can't be two: make another Server, by a function perhaps"
            )
        options = {**self.server.settings.to_dict(), **DEFAULTS, **self._given, **OURS}
        further: Any = options.get(LISTENERS, [])
        for listener in further:
            listener["port"] = 0
        settings = Settings.from_options(options)
        self.host = settings.listen.host
        check_handlers(self.server, settings)
        self._keep_log()
        self._thread = threading.Thread(target=self._run, args=(settings,), name="mooring", daemon=True)
        self._thread.start()
        alive.add(self)
        if not self._ready.wait(self.limit) or self._failure is not None:
            self.stop()

    def _run(self, settings: Settings) -> None:
        try:
            self._single = _Inside(self.server, settings, self._serves)
            with ExitStack() as noting:
                self._note_down(noting)
                self._single._run()
        except BaseException as error:
            self._failure = error
            self._log.end(f"the server has failed: {type(error).__name__}: {error}")
        finally:
            self._log.end(self._log.ended or "the server has ended")
            if self._single is not None:
                self._single.close()
            self._ready.set()

    def _serves(self, sockets: list[socket.socket]) -> None:
        self.ports = [int(one.getsockname()[1]) for one in sockets if one.family != socket.AF_UNIX]
        self._ready.set()

    def stop(self) -> None:
        """Stops it in order, and waits for its end. Raises ServerFailed when it does not start, or does not end within
        the limit. `with` does this at its end."""
        thread, single = self._thread, self._single
        if thread is None:
            raise StateError("it was not started: write `with in_process(...) as running:`")
        self._end_clients()
        if single is not None and thread.is_alive():
            single.ask_shutdown()
        thread.join(self.limit)
        alive.discard(self)
        stands = ""
        if thread.is_alive():
            frame = sys._current_frames().get(thread.ident or 0)
            stands = "".join(traceback.format_stack(frame)) if frame is not None else ""
        elif self._failure is None:
            # also of one that has never served
            self._undo.close()
            return
        self._undo.close()
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise ServerFailed(f"it did not start, or has failed: {failure}{self._log.tail()}") from failure
        raise ServerFailed(f"it did not end within {self.limit:g} s; it is at\n{stands}{self._log.tail()}")

    def _keep_log(self) -> None:
        own, handler = own_logger(), _Lines(self)
        level = own.level
        own.addHandler(handler)
        own.setLevel(logging.INFO)
        self._undo.callback(own.setLevel, level)
        self._undo.callback(own.removeHandler, handler)

    def _note_down(self, undo: ExitStack) -> None:
        """Puts a wrapper in the place of each method that changes something, for this Server only."""
        server = self.server
        for name in WRITES:
            if hasattr(server, name):
                kept = vars(server).get(name)
                setattr(server, name, self._noting(name, getattr(server, name)))
                undo.callback(_put_back, server, name, kept)

    def _noting(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(getattr(type(self.server), name))

        @functools.wraps(method)
        def note(*arguments: Any, **named: Any) -> Any:
            result = method(*arguments, **named)  # what it raises is no call that was made
            bound = signature.bind(self.server, *arguments, **named)
            bound.apply_defaults()
            given = dict(bound.arguments)
            given.pop("self", None)
            self.made.append(Made(name, given, result))
            return result

        return note

    # ------------------------------------------------------------------ calling and looking

    def call(self, handler: Callable[..., Any], *arguments: Any, limit: float | None = None) -> Any:
        """Calls a handler, or any other function, where handlers run: `running.call(chat.said, running.server,
        client.frame("hello"))`. A coroutine is awaited. What it returns or raises comes back.

        Raises NotInTime when it does not end within the limit. In a test that is a coroutine, call it by
        `await asyncio.to_thread(running.call, ...)`.
        """
        limit = self.limit if limit is None else limit
        loop = self._serving().host.loop
        assert loop is not None
        done = asyncio.run_coroutine_threadsafe(_awaited(handler, arguments), loop)
        try:
            return done.result(limit)
        except NoAnswer:
            if done.done():
                raise
            done.cancel()
            raise NotInTime(f"{function_name(handler)} did not end within {limit:g} s{self.why()}") from None

    @property
    def pushed(self) -> list[tuple[int, Any]]:
        """(fd, data) of each push that was taken, of push() and push_json()."""
        return [
            (one.arguments["fd"], _data(one))
            for one in self.made
            if one.method in ("push", "push_json") and one.result is not False
        ]

    @property
    def published(self) -> list[tuple[str, Any]]:
        """(topic, data) of each publish() and publish_json()."""
        return [(one.arguments["topic"], _data(one)) for one in self.made if one.method in ("publish", "publish_json")]

    @property
    def pushed_to_users(self) -> list[tuple[str | int, Any]]:
        """(user, data) of each push_user()."""
        return [
            (one.arguments["user"], _data(one)) for one in self.made if one.method in ("push_user", "push_user_json")
        ]

    def stats(self) -> dict[str, Any]:
        """What `Server.stats()` says."""
        self._serving()
        return self.server.stats()

    def fd_at(self, port: int) -> int:
        """The fd of the connection whose client has this port."""
        self._serving()
        for fd in self.server.connections:
            info = self.server.get_client_info(fd)
            if info is not None and info.remote_port == port:
                return fd
        raise LookupError("the server does not know that connection any more")

    def _serving(self) -> "_Inside":
        if self._single is None or self._thread is None or not self._thread.is_alive():
            raise StateError("it does not run: write `with in_process(...) as running:`")
        return self._single


def _data(made: Made) -> Any:
    given = made.arguments
    return given["data"] if "data" in given else given["value"]


def _put_back(server: Server, name: str, kept: Any) -> None:
    vars(server).pop(name, None)
    if kept is not None:
        setattr(server, name, kept)


async def _awaited(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    result = function(*arguments)
    running = running_of(result, function_name(function))
    return result if running is None else await running


class _Lines(logging.Handler):
    """Has the lines of the package, as the log of a server has them, and keeps what handlers have raised."""

    def __init__(self, running: InsideServer) -> None:
        super().__init__()
        self._running = running
        self.setFormatter(logging.Formatter("%(levelname)-7s [%(name)s] %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        for line in self.format(record).splitlines():
            self._running._log.add(line)
        error = record.exc_info[1] if record.exc_info else None
        if record.levelno >= logging.ERROR and error is not None:
            self._running.errors.append(error)


class _Inside(SingleProcess):
    """Base mode in one process, as a thread of it."""

    def __init__(self, server: Server, settings: Settings, serves: Callable[[list[socket.socket]], None]) -> None:
        super().__init__(server, settings, None, Service())
        self._server = server
        self._serves = serves
        self._task_thread = _TaskThread(server, settings, self.worker) if settings.tasks.task_worker_num else None

    @property
    def worker(self) -> Worker:
        """Its worker."""
        assert self.host.worker is not None
        return self.host.worker

    def _take_signals(self) -> None:
        """They are the test's."""

    def _limit_stop(self, number: int, _frame: object = None) -> None:
        """Likewise; who has started it waits for its end, with a limit."""

    def ready(self) -> None:
        if self._task_thread is not None:
            self._task_thread.start(self.host.reactor)
        super().ready()

    def handled(self, answer: int) -> None:
        self._serves(self.listeners)

    def close(self) -> None:
        """What was opened is closed, and the server is as it was before."""
        for part in self.host.parts:
            if isinstance(part, GatewayPart):
                part.close_listeners()  # one that has failed still has them
        self._close_sockets()
        if self._task_thread is not None:
            self._task_thread.stop()
        self._server._end()
        os.close(self._boot.tables[0])  # a process of its own would end now
        remove(self._boot.shared)


class _TaskThread:
    """The dispatcher and a task worker, in a thread of their own: a task may block it."""

    def __init__(self, server: Server, settings: Settings, worker: Worker) -> None:
        self._server = server
        self._settings = settings
        self._worker = worker
        self._link: DispatcherLink | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._over: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="mooring-tasks", daemon=True)
        self._ends = [_pair(), _pair()]
        self._running: set[asyncio.Task[Any]] = set()

    def start(self, reactor: Reactor) -> None:
        """In the loop of the server."""
        worker = self._worker
        self._link = DispatcherLink(reactor, self._ends[0][0], worker.task_desk, None, worker.pipe, worker)
        self._link.hello()
        self._thread.start()

    def stop(self) -> None:
        """When the server has ended."""
        if self._loop is not None and self._over is not None:
            self._loop.call_soon_threadsafe(self._over.set)

    def _run(self) -> None:
        reactor = Reactor()
        with asyncio.Runner(loop_factory=partial(new_event_loop, reactor)) as runner:
            runner.run(self._main(reactor))

    async def _main(self, reactor: Reactor) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        limits, worker = self._settings.tasks, self._worker
        dispatcher = Dispatcher(reactor, _nothing, _nothing, limits.dispatcher_memory_limit)
        dispatcher.attach(self._ends[0][1], worker=0, generation=1)
        dispatcher.attach(self._ends[1][1], worker=1, generation=1)
        bench = TaskBench(self._run_task, self._task_of, worker.new_context, 0, _nothing)
        pipe = Pipe(1, 2, _nothing, handled=False)
        link = DispatcherLink(reactor, self._ends[1][0], TaskDesk(limits, _nothing, _nothing), bench, pipe, worker)
        link.hello()
        await self._over.wait()

    def _run_task(self, task: Task) -> object:
        handler = self._server._handlers.get("task")
        assert handler is not None, "it was checked at the start"
        return handler(self._server, task)

    def _task_of(self, running: Awaitable[Any], context: contextvars.Context) -> asyncio.Task[Any]:
        async def contained() -> Any:
            return await running

        task = asyncio.get_running_loop().create_task(contained(), context=context)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task


def _pair() -> tuple[int, int]:
    one, other = socket.socketpair()
    for end in (one, other):
        end.setblocking(False)
    return one.detach(), other.detach()


def _nothing(*_: object) -> None:
    pass
