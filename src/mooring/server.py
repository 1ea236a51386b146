"""The front door for applications: one object with settings, handlers, and everything that can be asked of a server."""

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import replace
from typing import Any, Literal, NoReturn, TypeVar, overload

import msgspec

from mooring._core.gateway_end import GatewayEnd, topic_name, user_name
from mooring._core.hub import ALL_PLACES
from mooring._core.wire import Call
from mooring._core.ws import CloseFrame, Frame, pack, unpack
from mooring.app import forgotten
from mooring.app.handlers import Handlers
from mooring.app.listener import Listener
from mooring.app.shared import Atomic, Shared, SharedTable
from mooring.app.topics import TopicRules
from mooring.app.typed import OfType
from mooring.config import LISTENERS, Settings, listener_options
from mooring.counters import ANY_GATEWAY, Part, total
from mooring.errors import ConfigError, StateError
from mooring.near import METHODS, no_attribute
from mooring.net.forks import is_child
from mooring.runtime import guarantees, launch
from mooring.types import ClientInfo, ConnectionState, Guarantees, Opcode, Past, Position, Recovery
from mooring.worker.session import Session
from mooring.worker.topics import SENT
from mooring.worker.worker import Worker

F = TypeVar("F", bound=Callable[..., Any])
R = TypeVar("R")
T = TypeVar("T")

_json = msgspec.json.Encoder()
_OWN = {"_handlers", "_listeners", "_options", "_settings", "_shared", "_topics", "_worker"}  # what __init__ sets


class Server:
    """A WebSocket and HTTP server.

    `host`, `port` and every other setting can be given here or to `set()`; docs/settings.md lists them.
    Raises ConfigError for a name or value that is not allowed.

    The methods that concern connections work in every handler, in every worker, for every connection; also from
    other threads of a worker. They take an `fd`, the public id of a connection (`request.fd`, `frame.fd`). Before
    `start()` they raise StateError.
    """

    def __init__(self, host: str | None = None, port: int | None = None, **settings: object) -> None:
        self._options: dict[str, object] = {}
        self._settings = self._before = Settings()
        self._worker: Worker | None = None
        self._handlers = Handlers()
        self._listeners: list[Listener] = []  # those of listen()
        self._shared = Shared()
        self._topics = TopicRules()
        self.set(**_where(host, port), **settings)
        forgotten.made()

    # ------------------------------------------------------------------ before the start

    @property
    def settings(self) -> Settings:
        """The settings, checked; in a handler those that the server runs with."""
        return self._settings

    @property
    def guarantees(self) -> Guarantees:
        """What holds with these settings, above all in this `mode`, and what does not; before `start()`, too."""
        return guarantees(self)

    def set(self, **options: object) -> None:
        """Changes settings. Raises ConfigError for a name or value that is not allowed, StateError once it runs."""
        if self._worker is not None:
            raise StateError("set() has no effect on a server that runs: call it before start()")
        if LISTENERS in options:
            raise ConfigError(f"{LISTENERS} is no option: call listen() for each")
        merged = self._options | options
        self._settings = self._made(merged, self._listeners)
        self._options = merged

    def _made(self, options: dict[str, object], listeners: list[Listener]) -> Settings:
        further = [listener_options(options, listener._options) for listener in listeners]
        return Settings.from_options(options | {LISTENERS: further})

    def listen(self, host: str | None = None, port: int | None = None, **settings: object) -> Listener:
        """A further listener: another port, a `unix_socket`, or an `inherited` socket.

        It has settings of its own, those of the sections listen, http, websocket and flow that can differ; for what is
        not given here those of the server count, except where to listen. What it returns has handlers of its own, see
        Listener. All listeners are bound at the start, or none. get_client_info(fd).listener tells them apart.

        Raises ConfigError for a name or value that is not allowed, StateError once it runs.
        """
        if self._worker is not None:
            raise StateError("listen() has no effect on a server that runs: call it before start()")
        given = _where(host, port)
        listener = Listener(
            len(self._listeners) + 1, given | settings, self._handlers, lambda: self._worker is not None
        )
        self._settings = self._made(self._options, [*self._listeners, listener])
        self._listeners.append(listener)
        return listener

    @overload
    def on(self, event: str) -> Callable[[F], F]: ...
    @overload
    def on(self, event: str, handler: F) -> F: ...
    @overload
    def on(  # type: ignore[overload-overlap]
        self, event: Literal["message"], *, type: type[T]
    ) -> Callable[[OfType[T, R]], OfType[T, R]]: ...
    @overload
    def on(self, event: Literal["message"], handler: OfType[T, R], *, type: type[T]) -> OfType[T, R]: ...
    @overload
    def on(self, event: Literal["message"], *, type: object) -> Callable[[F], F]: ...
    def on(self, event: str, handler: Any = None, *, type: object = None) -> Any:
        """Registers the handler of an event, a function or a coroutine function; also as a decorator.

        With `type`, messages are JSON of that type, one that msgspec knows, and the handler is called as
        `message(server, frame, value)`. A union of Structs with tags can be one, too: `type=Move | Say`. What a client
        sends that is not of that type is answered, see the setting on_invalid, and told to the handler of `invalid`.

        Raises ConfigError for an unknown event, for a function that can't take the event's parameters, and for a second
        handler of an event, StateError once it runs.
        """
        if self._worker is not None:
            raise StateError("on() has no effect on a server that runs: call it before start()")
        return self._handlers.on(event, handler, type)

    def add_process(self, function: Callable[..., Any], *arguments: object) -> None:
        """Runs `function(server, *arguments)` in a process of its own, which loads the application like a worker.

        It is started again when the function returns or raises, and replaced at a reload. It can push, publish, hand
        over tasks and ask for everything. A coroutine function is cancelled when the process shall end; a plain one
        runs in a thread and has to return once `server.stopping` is set. In base mode it needs a supervisor, too, so
        there is one. Raises ConfigError for what can't be called, StateError once the server runs.
        """
        if self._worker is not None:
            raise StateError("add_process() has no effect on a server that runs: call it before start()")
        if not callable(function):
            raise ConfigError(f"add_process({function!r}): it can't be called; it is called as function(server)")
        if len(self._handlers.processes) >= 64:
            raise ConfigError("add_process: there are 64 processes already")
        self._handlers.processes.append((function, arguments))

    def atomic(self, name: str, initial: int = 0) -> Atomic:
        """Declares an integer of 64 bits that all processes of the server share, or finds it again.

        It keeps its value as long as the server runs, over reloads and deaths of workers. Raises ConfigError for a name
        or value that is not allowed, StateError for one that was not declared before start().
        """
        return self._shared.atomic(name, initial)

    def table(self, name: str, /, *, rows: int = 1024, row_bytes: int = 1024, **columns: type) -> SharedTable:
        """Declares a table that all processes of the server share, or finds it again: `table("users", name=str,
        age=int)`. Columns are int, float, str, bytes or bool.

        At most `rows` rows of `row_bytes` bytes each, packed; then set() raises TableFull. Needs
        `mooring-server[tables]`. It lives as long as the server. Raises ConfigError and StateError like atomic().
        """
        return self._shared.table(name, rows, row_bytes, columns)

    def topic(self, pattern: str, *, history_size: int, history_ttl: float = 0, positions: bool = False) -> None:
        """Gives topics a history: those whose name fits the pattern, such as "room:*" (as in fnmatch). The first
        pattern that fits counts.

        What was published last is kept, `history_size` publications of each topic and for `history_ttl` seconds (0:
        without end), whatever becomes of workers and gateways. Who comes back gets what it missed: subscribe() with
        `since`.

        With `positions`, a client is told where it is: what it gets is JSON, {"topic": ..., "epoch": ..., "offset":
        ..., "data": ...}, where data is the text that was published, or the value of publish_json(). Bytes can't be
        published there. If what it may have missed is lost, it is told so, too: {"topic": ..., "epoch": ..., "offset":
        ..., "verdict": ...}.

        Raises ConfigError for what can't be meant, StateError once the server runs.
        """
        if self._worker is not None:
            raise StateError("topic() has no effect on a server that runs: call it before start()")
        self._topics.add(pattern, history_size, history_ttl, positions=positions)

    def start(self, *, target: str | None = None) -> NoReturn:
        """Runs the server; the process ends with it. `target` is MODULE:ATTR, for who found this server by it.

        Raises ConfigError for handlers and settings with which nothing can be served, StateError when it runs already.
        """
        if self._worker is not None:
            raise StateError("start() was called twice")
        forgotten.started()
        launch(self, target)

    def _begin(self, worker: Worker, settings: Settings) -> None:
        """For the runtime: the server runs in this process from now on, with these settings."""
        forgotten.started()
        self._worker = worker
        self._before = self._settings
        self._settings = settings  # the command line may have changed them
        # The one call that is made for every message goes straight to the compiled core, unless the application has one
        # of its own. vars(self) is not asked: it would make a dict, in which each look-up costs 100 instructions more.
        if getattr(self.push, "__func__", None) is Server.push:
            self.push = worker.outbox.push  # type: ignore[method-assign]
        # A class with __getattr__ costs each look-up of a method 200 instructions more, as Python specialises none of
        # them. Where the server runs, the report of an error says what was meant.
        if "__getattr__" in vars(Server):
            del Server.__getattr__  # type: ignore[attr-defined]

    def _end(self) -> None:
        """For the runtime: the server runs here no more, or this process was forked off one in which it does."""
        if self._worker is not None and self.push == self._worker.outbox.push:
            del self.push
        self._worker = None
        self._settings = self._before
        Server.__getattr__ = _missing  # type: ignore[attr-defined]

    def _running(self) -> Worker:
        if self._worker is None:
            if is_child():
                raise StateError("this process was forked off a worker, and has no part in the server: ask the parent")
            raise StateError("the server does not run in this process: call this in a handler, after start()")
        return self._worker

    def _gateway_ends(self) -> list[GatewayEnd]:
        return self._running().outbox.all()

    # ------------------------------------------------------------------ who am I

    @property
    def worker_id(self) -> int:
        """Number of this worker, from 0."""
        return self._running().number

    @property
    def stopping(self) -> threading.Event:
        """Set once this process shall end, at a stop or at a reload; for functions of add_process() to wait for."""
        return self._running().stopping

    @property
    def task_worker(self) -> bool:
        """Whether this is a task worker; their numbers follow those of the workers."""
        return self._running().bench is not None

    @property
    def worker_pid(self) -> int:
        """Process id of this worker."""
        return os.getpid()

    # ------------------------------------------------------------------ one connection

    def push(self, fd: int, data: str | bytes | Frame | CloseFrame, opcode: int | None = None) -> bool:
        """Sends one whole message; False when the connection is no open WebSocket any more.

        A `str` goes as text, `bytes` as binary, unless `opcode` says TEXT, BINARY, PING or PONG; a Frame brings its own
        opcode, a CloseFrame starts the closing handshake. What one worker pushes to one connection arrives in that
        order. It returns at once: a client that lets more than `write_limit` bytes wait is closed with 1008.

        Raises ValueError for what can't be sent: an unknown opcode, text that is not UTF-8, a control frame over 125
        bytes, a fragment.
        """
        return self._running().outbox.push(fd, data, opcode)

    def push_json(self, fd: int, value: object) -> bool:
        """Sends a value as JSON in one text message: what JSON has, and what msgspec makes JSON of, such as Structs,
        dataclasses, datetime, Enum. False when the connection is no open WebSocket. Raises TypeError for what is none
        of these, ValueError for a str that is not UTF-8."""
        return self._running().outbox.push(fd, _json.encode(value), Opcode.TEXT)

    async def drain(self, fd: int) -> bool:
        """Waits until the client has read most of what was pushed to it: until no more than `write_high_water` bytes
        wait. False when the connection is no open WebSocket, or no longer.

        Push in a loop, each time with this behind it: however much it is, it goes as fast as the client reads. Any
        worker can."""
        return await self._running().streams.drain(fd)

    def ping(self, fd: int, payload: bytes = b"") -> bool:
        """Sends a ping of at most 125 bytes; False when the connection is no open WebSocket. The gateway sends its own
        to silent clients, see the setting ping_interval. Raises ValueError for a longer payload."""
        return self._running().outbox.push(fd, payload, Opcode.PING)

    def disconnect(self, fd: int, code: int = 1000, reason: str = "") -> bool:
        """Closes a WebSocket; False when it is not open. Raises ValueError for what may not be sent."""
        return self._running().outbox.disconnect_client(fd, code, reason)

    def close(self, fd: int) -> bool:
        """Ends a connection, whatever it speaks; a WebSocket with code 1000. False when it is gone already."""
        return self._running().outbox.drop(fd)

    def exists(self, fd: int) -> bool:
        """Whether there is such a connection, whatever it speaks."""
        return self._running().outbox.state(fd) != 0

    def is_established(self, fd: int) -> bool:
        """Whether it is an open WebSocket, which can be pushed to."""
        return self._running().outbox.state(fd) == ConnectionState.OPEN

    def get_client_info(self, fd: int) -> ClientInfo | None:
        """What is known of a connection; None when it is gone."""
        gateway_end = self._running().outbox.find(fd)
        state = self._running().outbox.state(fd)  # with what this worker has decided
        info = gateway_end.table.info(fd) if gateway_end is not None and state else None
        if info is not None and state == ConnectionState.CLOSING != info.state:
            info = replace(info, state=ConnectionState.CLOSING)
        if info is None or info.server_port:
            return info
        return replace(info, unix_socket=self._settings.per_listener[info.listener].listen.unix_socket)

    def session(self, fd: int) -> Session:
        """The session of a connection, a mapping that every worker can read and write."""
        return self._running().session(fd)

    # ------------------------------------------------------------------ all connections

    @property
    def connections(self) -> list[int]:
        """The fds of all connections of this server, in all its gateways, HTTP included."""
        return [fd for gateway_end in self._gateway_ends() for fd in gateway_end.table.connections()]

    # ------------------------------------------------------------------ work that a connection owns

    def spawn(
        self, fd: int, work: Coroutine[Any, Any, T], *, name: str | None = None, endless: bool = False
    ) -> asyncio.Task[T]:
        """Runs a coroutine that a WebSocket owns, beside its further messages: `server.spawn(fd, answer(fd, text))`.

        It is cancelled when the connection ends, or by cancel(). Meanwhile the connection stays with the worker that
        serves it; a reload or stop gives it `graceful_timeout`, then cuts it: it is cancelled, and the `error` handler
        told of WorkLost, as when its worker dies. Of an `endless` one nobody waits for the end. What it raises is
        reported like what a handler raises. `name`: for cancel(); None: that of the function. For a connection that
        has gone the task is cancelled, and nothing of it runs. A handler that returns the task does not wait for it.

        Raises SpawnFull when the connection owns `max_spawned` already; StateError for one that is no WebSocket, in
        other threads, and in processes without connections; TypeError for what is no coroutine.
        """
        task: asyncio.Task[T] = self._running().works.spawn(fd, work, name, endless=endless)
        return task

    def cancel(self, fd: int, name: str | None = None) -> int:
        """Cancels what a connection owns by spawn(), all of it or what has that name, but the work that calls this. How
        many that were in this worker; if others run work for this connection, theirs are cancelled a moment later.
        Raises StateError in other threads; TypeError or ValueError for a name that is no text."""
        return self._running().works.cancel(fd, name)

    def spawned(self, fd: int, name: str | None = None) -> list[asyncio.Task[Any]]:
        """What a connection owns in this worker by spawn() and has not ended, the oldest first."""
        return self._running().works.of(fd, name)

    # ------------------------------------------------------------------ many connections

    @overload
    def subscribe(self, fd: int, topic: str) -> bool: ...
    @overload
    def subscribe(self, fd: int, topic: str, *, since: tuple[str, int]) -> Awaitable[Recovery | None]: ...
    def subscribe(
        self, fd: int, topic: str, *, since: tuple[str, int] | None = None
    ) -> bool | Awaitable[Recovery | None]:
        """Puts a connection into a topic; it leaves when it closes. False when it is no open WebSocket.

        In a topic with a history, `since` is the Position that the client has read up to, an epoch and an offset, and
        ("", 0) of who has read nothing: it is sent what it missed and then what is new, without a gap, nothing twice
        and in order. To be awaited; the Recovery says whether that is so, and where it goes on if not: all that is
        kept behind that position comes. None when the connection is no open WebSocket, or no longer, leaves the topic
        meanwhile or is in too many.

        Raises ValueError for a name that is empty or longer than 255 bytes in UTF-8, and for what is no position;
        StateError for a topic without a history.
        """
        worker = self._running()
        if since is not None:
            return worker.topics.recover(fd, topic, since)
        return worker.topics.subscribe(fd, topic) if worker.topics.any else worker.outbox.subscribe(fd, topic)

    def unsubscribe(self, fd: int, topic: str) -> bool:
        """Takes a connection out of a topic."""
        worker = self._running()
        if worker.topics.any:
            return worker.topics.unsubscribe(fd, topic)
        return worker.outbox.subscribe(fd, topic, leave=True)

    def bind(self, fd: int, user: str | int | None) -> bool:
        """Says whose connection it is: a user can have many, on many gateways, a connection has one user or none
        (`None`). It lasts until the connection closes, whatever becomes of the workers. False when it is no open
        WebSocket. Raises ValueError for an id that is empty or longer than 254 bytes in UTF-8.
        """
        return self._running().outbox.bind(fd, user)

    def push_user(
        self,
        user: str | int,
        data: str | bytes | Frame,
        opcode: int | None = None,
        *,
        exclude: int | Iterable[int] | None = None,
    ) -> None:
        """Sends one message to every connection of a user, but not to `exclude`, one fd or several: `exclude=frame.fd`
        reaches the other tabs. Raises ValueError like publish()."""
        self._running().outbox.push_user(user, data, opcode, exclude)

    def push_user_json(self, user: str | int, value: object, *, exclude: int | Iterable[int] | None = None) -> None:
        """Sends a value as JSON to every connection of a user, but not to `exclude`. Raises like push_json() and
        push_user()."""
        self._running().outbox.push_user(user, _json.encode(value), Opcode.TEXT, exclude)

    def connections_of(self, user: str | int) -> list[int]:
        """The fds of a user's connections, in all gateways. It asks them and waits: raises StateError when one does not
        answer within 5 seconds."""
        name = user_name(user)
        calls = (gateway_end.call(Call.CONNECTIONS_OF, 0, name) for gateway_end in self._gateway_ends())
        return [fd for answer in calls for fd in msgspec.msgpack.decode(answer, type=list[int])]

    def disconnect_user(self, user: str | int, code: int = 1000, reason: str = "") -> None:
        """Closes every connection of a user. Raises ValueError for what may not be sent."""
        self._running().outbox.disconnect_user(user, code, reason)

    def pause(self, fd: int) -> bool:
        """Hands out no more messages of this WebSocket until resume(): what is in flight is finished, then its socket
        is not read any more and TCP slows the client down. Pings are answered until a message waits. False when it is
        not open."""
        return self._running().outbox.pause(fd, True)

    def resume(self, fd: int) -> bool:
        """Hands out messages again. False when it is no open WebSocket."""
        return self._running().outbox.pause(fd, False)

    def publish(
        self,
        topic: str,
        data: str | bytes | Frame,
        opcode: int | None = None,
        *,
        exclude: int | Iterable[int] | None = None,
    ) -> Awaitable[Position | None]:
        """Sends one message to every connection in a topic, but not to `exclude`, one fd or several:
        `exclude=frame.fd` is everybody else in the room. One that is not in the topic does not matter.

        It is done at once, and need not be awaited. In a topic with a history, who awaits it gets the Position of the
        publication, or PublishRefused (nothing was published) or PublishUncertain (nobody can say); what fails and is
        awaited by nobody is logged.

        Raises ValueError like push(), and for more than 1024 that are left out.
        """
        worker = self._running()
        if worker.topics.any:
            return worker.topics.publish(topic, data, opcode, exclude)
        worker.outbox.publish(topic, data, opcode, exclude)
        return SENT

    def publish_json(
        self, topic: str, value: object, *, exclude: int | Iterable[int] | None = None
    ) -> Awaitable[Position | None]:
        """Sends a value as JSON to every connection in a topic, but not to `exclude`. Gives what publish() gives, and
        raises like push_json() and publish()."""
        worker = self._running()
        if worker.topics.any:
            return worker.topics.publish(topic, _json.encode(value), Opcode.TEXT, exclude, is_json=True)
        worker.outbox.publish(topic, _json.encode(value), Opcode.TEXT, exclude)
        return SENT

    async def history(
        self,
        topic: str,
        *,
        since: tuple[str, int] | None = None,
        limit: int = 100,
        newest_first: bool = False,
    ) -> Past:
        """A part of a topic's history: what comes behind a Position, the first `limit` of it, or the last `limit`
        publications. Its verdict says whether what comes behind `since` is all there.

        Raises StateError for a topic without a history, and when what keeps it does not answer, ValueError for what is
        no position.
        """
        return await self._running().topics.past(topic, since, limit, newest_first=newest_first)

    def subscribers(self, topic: str) -> list[int]:
        """The fds of the open WebSockets in a topic, in all gateways, in no order; none twice. Those that come or leave
        while it asks may be among them or not. It asks and waits: raises StateError when a gateway does not answer
        within 5 seconds, ValueError like subscribe()."""
        name = topic_name(topic)
        return [fd for gateway_end in self._gateway_ends() for fd in _subscribers(gateway_end, name)]

    def subscriber_count(self, topic: str) -> int:
        """How many these are. Raises like subscribers()."""
        name = topic_name(topic)
        calls = (gateway_end.call(Call.SUBSCRIBER_COUNT, 0, name) for gateway_end in self._gateway_ends())
        return sum(msgspec.msgpack.decode(answer, type=int) for answer in calls)

    # ------------------------------------------------------------------ tasks

    async def task(
        self, data: object, *, timeout: float | None = None, on_progress: Callable[[Any], Any] | None = None
    ) -> Any:
        """Has a task worker run the `task` handler on `data`, and gives what it gave.

        `timeout` in seconds, None: the setting task_timeout; `on_progress` is called with what the handler tells by
        `task.progress()`. Data and result arrive with the types that they have, see docs/sessions.md.

        Raises TaskFailed when the handler raised, TaskTimeout, TaskLost when its process ended, TaskQueueFull when
        this worker has too many unfinished ones, TypeError for data that can't be sent, and StateError when there are
        no task workers, or `worker_start` has not ended yet. Not awaited, it does nothing: see task_async().
        """
        return await self._running().task_desk.task(data, timeout, on_progress)

    def task_wait(
        self, data: object, timeout: float | None = None, *, on_progress: Callable[[Any], Any] | None = None
    ) -> Any:
        """The same for handlers that are no coroutines, and for threads. In a handler the whole worker stands still
        until the result comes: use task() where you can. Raises what task() raises."""
        return self._running().task_desk.wait(data, timeout, on_progress)

    def task_async(self, data: object) -> int:
        """Hands a task over and returns at once, with its number. Its TaskOutcome comes to the `finish` handler of this
        worker, if there is one; without one, a failure is logged. Raises what task() raises before it waits."""
        return self._running().task_desk.send(data)

    async def task_map(
        self, items: Iterable[object], *, timeout: float | None = None, at_once: int | None = None
    ) -> list[Any]:
        """A task for each item; their results, in that order. `at_once` of them are handed over at the same time, by
        default twice as many as there are task workers; `timeout` is for each. The first error ends it, and takes
        back what has not begun. Raises what task() raises."""
        worker = self._running()
        if at_once is not None and at_once < 1:
            raise ValueError(f"at_once={at_once}: at least one task has to be under way")
        limits = self._settings.tasks
        at_once = at_once or max(1, min(2 * limits.task_worker_num, limits.task_queue_limit))
        return await worker.task_desk.map(items, timeout, at_once)

    # ------------------------------------------------------------------ other workers

    def send_message(self, data: object, worker_id: int) -> bool:
        """Sends a value to a worker or task worker, where the `pipe_message` handler gets it; also to this one.

        What one sends to another arrives in that order, at most once: it is lost when that process ends before it has
        handled it. A worker that is being started again gets it then. False when it could not be handed over, because
        the dispatcher is being started again.

        Raises ValueError for a number that no worker has and for more than 16 MiB, TypeError for data that can't be
        sent, StateError without a `pipe_message` handler, PipeFull when too much waits to be handed over.
        """
        return self._running().pipe.send(data, worker_id)

    # ------------------------------------------------------------------ timers

    def tick(
        self, seconds: float, function: Callable[..., Any], *arguments: object, once_per_server: bool = False
    ) -> int:
        """Calls `function(*arguments)` every so many seconds, in this worker; the number of the timer.

        A function or a coroutine function. A call that is late, or still under way, makes others be left out, never
        queue. What it raises is logged, and the timer goes on. With `once_per_server` it runs in worker 0 only, and in
        its successor after a reload or a crash: make it in `worker_start`, which every worker runs; in the others it
        does nothing. Raises ValueError for less than 0.001 s, TypeError for what can't be called.
        """
        return self._running().timers.add(seconds, function, arguments, again=True, shared=once_per_server)

    def after(self, seconds: float, function: Callable[..., Any], *arguments: object) -> int:
        """Calls `function(*arguments)` once, so many seconds from now, in this worker; the number of the timer."""
        return self._running().timers.add(seconds, function, arguments, again=False)

    def clear_timer(self, number: int) -> bool:
        """Stops a timer of this worker; False when there is no such one any more. A call under way goes on."""
        return self._running().timers.clear(number)

    # ------------------------------------------------------------------ the server

    def reload(self) -> None:
        """Replaces all workers by new ones that load the application anew; connections stay."""
        self._running().controller.ask_reload()

    def shutdown(self) -> None:
        """Stops the server in order: clients are told 1001, handlers finish, then every process ends."""
        self._running().controller.ask_shutdown()

    def stats(self) -> dict[str, Any]:
        """Counters, added up over all gateways, and each gateway's own under "gateways"; docs/counters.md has them all.

        "tree" is the state of the process tree: processes wanted and running (of spares: those that are ready), those
        that are degraded (they end again and again), and counts of restarts, replacements, reloads and hangs.

        accepted = finished + uncertain + dropped + in_flight, counted over messages, requests and work that connections
        own; "spawned" of those in flight are such work.

        "oldest_in_flight" is for how many seconds the oldest event has been with its worker; "overdue" is how many
        handlers had not ended after `overdue_after`.

        A gateway that does not answer within 5 seconds (or has not answered to a question before) is "error": TEXT
        in place of its counters, is not in the sums, and is counted in "gateways_silent".
        """
        gateways = [_counters(gateway_end) for gateway_end in self._gateway_ends()]
        worker = self._running()
        own, tasks = worker.stats(), worker.task_desk.stats()
        counted = ANY_GATEWAY | Part.DISPATCHER if tasks else ANY_GATEWAY  # which is not there without tasks
        identity = {
            "gateways_silent": sum("error" in one for one in gateways),
            "worker_id": worker.number,
            "generation": worker.generation,
        }
        totals = total([*gateways, tasks, own], counted)
        return {**own, **totals, **identity, "gateways": gateways, "tree": worker.tree}

    # ------------------------------------------------------------------ frames by hand

    pack = staticmethod(pack)
    unpack = staticmethod(unpack)


def _where(host: str | None, port: int | None) -> dict[str, object]:
    """What was given of the two. Raises ConfigError for a port alone, which would be taken for the host."""
    if isinstance(host, int) and port is None:
        raise ConfigError(f"the host, {host!r}, is a number: write port={host!r}, or the host first")
    return {name: value for name, value in (("host", host), ("port", port)) if value is not None}


def _counters(gateway_end: GatewayEnd) -> dict[str, Any]:
    """Those of one gateway; one that stands still must not hide the others'."""
    try:
        counters: dict[str, Any] = msgspec.msgpack.decode(gateway_end.call(Call.STATS, 0, b""))
    except StateError as error:
        return {"gateway": gateway_end.gateway, "error": str(error)}
    return counters


def _subscribers(gateway_end: GatewayEnd, name: bytes) -> Iterable[int]:
    """Those in one gateway, which shows them part by part. One that has moved meanwhile may come twice."""
    found: dict[int, None] = {}
    before = ALL_PLACES
    while before:
        before, *part = memoryview(gateway_end.call(Call.SUBSCRIBERS, before, name)).cast("Q").tolist()
        found.update(dict.fromkeys(part))
    return found


def _missing(server: Server, name: str) -> NoReturn:
    """Server.__getattr__ while an application is made: the words of other servers, which people write first."""
    if name in _OWN and not _OWN & vars(server).keys():
        raise AttributeError("Server.__init__() has not run: a subclass calls super().__init__() first")
    raise AttributeError(no_attribute(server, name, METHODS), name=name)  # else Python adds a guess


Server.__getattr__ = _missing  # type: ignore[attr-defined]
