"""The worker: calls the application's handlers.

Plain messages never come here: the inlet calls their handler itself. What happens once per connection or per request
does, and so does every failure. What a handler raises ends that handler, and at most its connection: it is logged
with its traceback under an id, the client is told the id, and the `error` handler everything.

Handlers run in contexts (contextvars) of their own, copies of `inlet.context`: that of `worker_start` as it has ended.
"""

import asyncio
import contextvars
import logging
import os
import random
import threading
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, NoReturn, Protocol

from mooring._core.contract import WorkerContract
from mooring._core.gateway_end import GatewayEnd, Outbox
from mooring._core.inlet import Inlet
from mooring._core.pulse import Pulse
from mooring._core.reactor import Reactor
from mooring._core.steps import failure_of
from mooring._core.wire import RECORD_MARK, TICKETED, Event, Notice, Wants
from mooring.app.foreign import function_name, hides_class, refuse_odd, running_of, traceback_of
from mooring.app.handlers import Handlers
from mooring.app.spools import MOST, Spools, soft_limit
from mooring.app.topics import TopicRules
from mooring.config import Settings
from mooring.counters import Part, zeros
from mooring.errors import StateError
from mooring.journal import own_logger
from mooring.net import forks
from mooring.net.loop import HANDLING
from mooring.net.refusals import RefusalLog, say_bad
from mooring.net.report import new_error_id, report
from mooring.types import CloseCode, ClosedBy, CloseReason, ConnectionState
from mooring.worker import advice
from mooring.worker.blocking import BlockWatch
from mooring.worker.ends import Ends
from mooring.worker.failures import Failures
from mooring.worker.graceful_end import GracefulEnd
from mooring.worker.handshake import FOREIGN, Handshakes
from mooring.worker.notices import Notices
from mooring.worker.opened import Opened
from mooring.worker.own_process import OwnProcess
from mooring.worker.pipe import Pipe
from mooring.worker.requests import Requests, request_of
from mooring.worker.session import Session, Sessions
from mooring.worker.site import Site, sites_of, trace_sites
from mooring.worker.streams import Streams
from mooring.worker.tasks import Task, TaskBench, TaskDesk, TaskOutcome
from mooring.worker.timers import Timers
from mooring.worker.topics import TopicDesk
from mooring.worker.works import Works

log = own_logger("mooring.worker")


class Controller(Protocol):
    """Who can reload and stop the whole server, and end this process."""

    def ask_reload(self) -> None: ...
    def ask_shutdown(self) -> None: ...
    def ask_replacement(self, why: str) -> None: ...
    def end(self, reason: str) -> None: ...


class Worker(WorkerContract):
    """One worker; `server` is what its handlers are given."""

    def __init__(
        self,
        server: object,
        handlers: Handlers,
        settings: Settings,
        number: int,
        generation: int,
        controller: Controller,
        listeners: Sequence[Handlers] = (),
        topics: TopicRules | None = None,
    ) -> None:
        self.refusals = RefusalLog(_later, log)
        self.counters = zeros(Part.WORKER)
        self.control_refused_reasons: dict[str, int] = {}
        self.number = number
        self.generation = generation
        self.controller = controller
        self.tree: dict[str, Any] = {}  # the state of the process tree, as the supervisor told it last
        self.outbox = Outbox()
        self.sessions = Sessions(self.outbox, settings.websocket.session_limit)
        self.streams = Streams(self.outbox)
        self.topics = TopicDesk(topics or TopicRules(), self.outbox, self.refusals)
        self.spools = Spools(settings.http.upload_file_limit or min(MOST, soft_limit() // 2))
        self._sites = sites_of(handlers, listeners, settings, self.spools)
        traced = (trace_sites(self._sites, self.session),) if settings.operation.tracing else ()
        on_message = tuple([site.handlers.get("message") or _no_message for site in self._sites])
        self.inlet = Inlet(server, on_message, self, self.outbox)
        self.inlet.output_limit = settings.flow.gateway_bytes
        self._failures = Failures(server, self._sites, self.outbox, self.refusals, self.call, self.on_bad_record)
        self.ends = Ends(server, self._sites, self.outbox, self._failures.ended_failed)
        told = (self._failures.work_failed, self._failures.work_cut)
        self.works = Works(self.outbox, self._sites, *told, serves=number < settings.process.worker_num)
        self._graceful_end = GracefulEnd(self.streams, self.works, settings.process.graceful_timeout)
        self._notices = Notices(self.sessions, self.streams, self.works, self._graceful_end, self.ends, self.topics)
        self._cold: dict[int, Callable[[Site, Notice], Awaitable[Any] | None]] = {
            event: getattr(self, f"_on_{event.name.lower()}") for event in TICKETED - {Event.MESSAGE, Event.REQUEST}
        }
        self._cold[Event.REQUEST] = Requests(
            self.outbox, self.streams, self.sessions, self.refusals, self._failures.answered
        ).answer
        self._handshakes = [
            Handshakes(
                server,
                site.handlers,
                self.outbox,
                self.sessions,
                partial(self._failures.answered, site, Event.HANDSHAKE),
                self.refusals,
                server_header=site.http.server_header,
            )
            for site in self._sites
        ]
        self.inlet.wants = sum(
            flag
            for flag in Wants
            if any(site.handlers.get((flag.name or "").lower()) is not None for site in self._sites)
        )
        if _no_message in on_message:
            self.inlet.wants |= Wants.HANDSHAKE  # they are refused there
        self.task_desk = TaskDesk(settings.tasks, self._task_over, self.call, *traced)
        workers = settings.process.worker_num
        with_tasks = workers + settings.tasks.task_worker_num
        is_task_worker = workers <= number < with_tasks
        everybody = with_tasks + len(handlers.processes)
        self.pipe = Pipe(number, everybody, self._pipe_message, handled=handlers.get("pipe_message") is not None)
        self.stopping = threading.Event()
        own = handlers.processes[number - with_tasks] if number >= with_tasks else None
        self._process = OwnProcess(*own, self.stopping, self._process_over, self.task_of) if own is not None else None
        self._coroutines: set[asyncio.Task[Any]] = set()
        self.timers = Timers(self.task_of, self._call_failed, has_shared=number == 0)
        self._task_max_request = settings.tasks.task_max_request
        self.bench = (
            TaskBench(self._run_task, self.task_of, self.new_context, self._task_max_request, self._bench_worn)
            if is_task_worker
            else None
        )
        self._server = server
        self._handlers = handlers
        self._blocked_after = settings.process.blocked_after
        self._watch: BlockWatch | None = None
        self._max_request = settings.process.max_request
        self._max_request_grace = settings.process.max_request_grace
        self.loop: asyncio.AbstractEventLoop | None = None  # in which it runs
        self._opened = Opened(self.outbox)

    def session(self, fd: int) -> Session:
        """The session of a connection."""
        return Session(self.sessions, fd)

    def stats(self) -> dict[str, Any]:
        """Counters of this worker, see mooring.counters."""
        return {
            **self.counters,
            "uploads_refused": self.spools.refused,
            "events_handled": self.inlet.handled,
            "handlers_suspended": self.inlet.suspended,
            "control_refused_reasons": dict(self.control_refused_reasons),
        }

    # ------------------------------------------------------------------ its own life

    async def start(self) -> None:
        """Calls the handler of `worker_start`; what it raises passes through, and this process does not start. What it
        has set in its context is seen by all others."""
        handler = self._handlers.get("worker_start")
        if handler is not None:
            try:
                running = running_of(handler(self._server, self.number), "the 'worker_start' handler")
                if running is not None:
                    await running
            except BaseException as error:
                forks.end_child(error)
                if hides_class(error):  # asyncio and the interpreter ask for it, and would never end
                    text = f"the 'worker_start' handler raised what can't be looked at:\n{traceback_of(error)}"
                    raise StateError(text) from None
                raise
            forks.end_child()
        self.inlet.context = contextvars.copy_context()
        self.inlet.context.run(HANDLING.set, True)

    async def fire(self, event: str, *arguments: object) -> None:
        """Calls the handler of another server event. Its failure concerns nobody else: it is logged."""
        handler = self._handlers.get(event)
        if handler is None:
            return
        context, task = self.new_context(), None
        try:
            result = context.run(handler, self._server, *arguments)
            forks.end_child()
            running = running_of(result, f"the {event!r} handler")
            if running is not None:
                task = self.task_of(running, context)
        except BaseException as error:
            self._fire_failed(event, error)
        if task is None:
            return
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:  # nobody waits for it any more
            task.add_done_callback(failure_of)
            task.cancel()
            raise
        failure = failure_of(task)
        if failure is not None:
            self._fire_failed(event, failure)

    def _fire_failed(self, event: str, error: BaseException) -> None:
        forks.end_child(error)
        report(log, "error %s: the %r handler failed", new_error_id(), event, error=error)

    async def finish(self, *, clients_stay: bool = False) -> None:
        """Waits until nothing of the application runs any more; `clients_stay`: they are connected."""
        self._graceful_end.begin()
        while self.inlet.suspended:
            idle = asyncio.Event()
            self.inlet.on_idle = idle.set
            await idle.wait()
        await self.works.finish()
        self.streams.finish()
        self.stopping.set()
        if self._process is not None:
            await self._process.finish()
        if self.bench is not None:
            await self.bench.finish()
        await self.timers.finish()
        await self.task_desk.all_over()
        while self._coroutines:
            await asyncio.wait(self._coroutines)
        await self._graceful_end.finish(self.inlet.steps.tasks, clients_stay=clients_stay)
        if self._watch is not None:
            self._watch.stop()

    async def depart(self, reason: str, limit: float) -> None:
        """Tells the application that this worker has handled its last event; it is not waited for longer than that."""
        try:
            async with asyncio.timeout(limit):
                await self.fire("worker_exit", self.number, reason)
        except TimeoutError:
            log.warning("the 'worker_exit' handler did not end within event_timeout=%g s: not waiting", limit)

    def watch(self, reactor: Reactor) -> None:
        """From now on a handler that blocks the loop of this thread is named."""
        if self._blocked_after and self.bench is None and self._process is None:
            self._watch = BlockWatch(reactor, self.inlet, self._blocked_after)
            self._watch.start()

    def serve(self) -> None:
        """This worker serves from now on."""
        self.timers.serve()
        if self._process is not None:
            self._process.start(self._server, self.new_context())

    def retire(self) -> None:
        """Its successor does, or none will."""
        self.timers.retire()
        self.stopping.set()

    def new_context(self) -> contextvars.Context:
        """For one call of a function that is no handler of a connection."""
        context = self.inlet.context.copy()
        context.run(HANDLING.set, False)
        return context

    def call(
        self, function: Callable[..., object], *arguments: object, context: contextvars.Context | None = None
    ) -> None:
        """Calls a function of the application that belongs to no connection; what it raises is reported."""
        context = self.new_context() if context is None else context.copy()
        try:
            result = context.run(function, *arguments)
            forks.end_child()
            running = running_of(result, function_name(function))
            if running is not None:
                task = self.task_of(running, context)
                self._coroutines.add(task)
                task.add_done_callback(partial(self._called, function))
        except BaseException as error:
            self._call_failed(function, error)

    def _called(self, function: Callable[..., object], task: asyncio.Task[Any]) -> None:
        self._coroutines.discard(task)
        error = failure_of(task)
        if error is not None:
            self._call_failed(function, error)

    def _call_failed(self, function: Callable[..., object], error: BaseException) -> None:
        forks.end_child(error)
        report(log, "error %s: %s failed", new_error_id(), function_name(function), error=error)

    def abandon(self) -> None:
        """In a child that was forked off this worker: nothing here goes on, and nothing can be sent."""
        self.inlet.abandon()
        self.outbox.abandon()
        if self.loop is not None:
            for handle in list(getattr(self.loop, "_ready", ())):
                handle.cancel()  # they would run before the loop comes to wait, see forks.came_back

    def end_child(self, error: BaseException | None) -> None:
        """In such a child, when the handler that has forked it is over."""
        forks.end_child(error)

    def came_back(self) -> None:
        """In such a child, when its handler awaits something."""
        forks.came_back()

    # ------------------------------------------------------------------ tasks and messages

    def _pipe_message(self, source: int, data: object) -> None:
        handler = self._handlers.get("pipe_message")
        if handler is not None:
            self.call(handler, self._server, source, data)

    def _run_task(self, task: Task) -> object:
        handler = self._sites[0].handlers.get("task")
        if handler is None:
            raise StateError("there is no 'task' handler")
        return handler(self._server, task)

    def _process_over(self) -> None:
        self.controller.end("its function has ended")

    def _bench_worn(self) -> None:
        self.controller.ask_replacement(f"it has done task_max_request={self._task_max_request} tasks")

    def _task_over(self, outcome: TaskOutcome) -> None:
        handler = self._handlers.get("finish")
        if handler is not None:
            self.call(handler, self._server, outcome)
        elif outcome.error is not None:
            log.error("task %d, which nobody waits for: %r", outcome.id, outcome.error)

    # ------------------------------------------------------------------ called by the inlet

    def task_of(self, running: Awaitable[Any], context: contextvars.Context) -> asyncio.Task[Any]:
        """The asyncio task of a coroutine, or of something else to be awaited, that a handler gave; it has begun."""
        return self.inlet.steps.task_of(running, context)

    def on_result(self, result: object, kind: int) -> None:
        """A coroutine has returned something; `kind`: of the event that it has handled, or 0. Raises TypeError for what
        nobody can have meant."""
        self._advise(result, kind)
        refuse_odd(result, "the handler")

    def cold(self, event: Notice) -> Awaitable[Any] | None:
        """Any event on a ticket but a message; what is still to be awaited when its handler is a coroutine."""
        return self._cold[event.kind](self._sites[event.listener], event)

    def note(self, gateway_end: GatewayEnd, notice: Notice) -> None:
        """What a gateway tells without waiting for an answer."""
        self._notices.take(gateway_end, notice)

    def failed(self, kind: int, listener: int, fd: int, error: BaseException) -> Awaitable[Any] | None:
        """A handler has raised; what is still to be awaited."""
        return self._failures.failed(kind, listener, fd, error)

    def running_of(self, result: object, kind: int) -> Awaitable[Any] | None:
        """What is still to be awaited of what a handler has returned. Raises TypeError for what runs nothing."""
        if result is None:
            return None
        self._advise(result, kind)
        return running_of(result, f"the {Event(kind).name.lower()!r} handler")

    def _advise(self, result: object, kind: int) -> None:
        if kind in (Event.MESSAGE, Event.OPEN) and (what := advice.of_event(result)):
            self.refusals.say(logging.ERROR, "the %r handler %s", Event(kind).name.lower(), what)

    def on_bad_record(self, whose: str, problem: Exception) -> None:
        """A record of another process had no effect."""
        self.counters["bad_records"] += 1
        say_bad(self.refusals, whose, problem)

    def on_standstill(self, gateway: int, over: bool) -> None:
        """So much waits for a gateway that its clients will miss something; `over`: it takes something again."""
        if over:
            log.warning("gateway %d takes commands again", gateway)
        else:
            log.error(
                "gateway %d stands still, and gateway_bytes=%d wait for it: those of its clients who miss something "
                "from here on are closed with 1013",
                gateway,
                self.inlet.output_limit,
            )

    def on_broken(self, whose: str, why: str) -> None:
        """What is on its way to this worker is lost, and nobody knows what it was. Its end settles everything: events
        that had not started go to another one, those that had are reported."""
        log.critical("this worker ends, since it can't follow %s any more: %s", whose, why)
        os._exit(1)

    def observe(self, pulse: Pulse) -> None:
        """Notes in `pulse` what handlers begin, and has this worker replaced after `max_request`, if that is set."""
        limit, grace = self._max_request, self._max_request_grace
        self.inlet.observe(pulse, limit + random.randint(0, grace if grace >= 0 else limit // 2) if limit else 0)

    def limit_reached(self) -> None:
        """The inlet has begun so many messages and requests as this worker shall handle; it goes on until replaced."""
        why = f"it has had max_request={self._max_request} messages and requests, or a few more"
        self.controller.ask_replacement(why)

    def gateway_lost(self, gateway_end: GatewayEnd, why: str) -> None:
        """A gateway is gone, and its connections with it."""
        self.outbox.disconnect(gateway_end)
        self.streams.gateway_lost()
        self.works.gateway_lost()
        self.topics.gateway_lost()
        served = gateway_end.table.served(os.getpid())
        if not gateway_end.departed:
            message = "the channel to gateway %d has ended: %s; %d connections that this worker served are lost with it"
            log.warning(message, gateway_end.gateway, why, len(served))
        reason = f"gateway {gateway_end.gateway} has ended".encode()
        if self.number == 0 and not self.stopping.is_set():
            served += gateway_end.table.served(0)
        for fd, state, listener, opened in served:
            # it frees an entry before it tells of the end, so nobody was told of these
            is_open = opened or fd in self._opened
            record = self.ends.lost(gateway_end.gateway, gateway_end.table, fd, opened=is_open)
            if is_open:
                kind = Event.CLOSE
            elif record or (state == ConnectionState.HTTP and self._sites[listener].handlers.get("disconnect")):
                kind = Event.DISCONNECT
            else:
                continue
            told = reason + RECORD_MARK + record if record else reason
            code = CloseCode.ABNORMAL
            self.inlet.end(gateway_end, Notice(kind, fd, told, opcode=ClosedBy.SERVER, arg=code, extra=listener))

    # ------------------------------------------------------------------ events

    def _on_open(self, site: Site, event: Notice) -> Awaitable[Any] | None:
        fd = event.fd  # one object, which is kept
        if not event.opcode:  # else the handshake has put something into the session, and the gateway told it
            self.sessions.begin(fd)
        self._opened.add(fd)
        handler = site.handlers.get("open")
        request = request_of(event)
        return self.running_of(handler(self._server, request), Event.OPEN) if handler is not None else None

    def _on_close(self, site: Site, event: Notice) -> Awaitable[Any] | None:
        return self._last(site, event, partial(self._close, site, event.fd, "close", event.arg, _reason(event)))

    def _on_disconnect(self, site: Site, event: Notice) -> Awaitable[Any] | None:
        reason = _reason(event, event.arg)
        return self._last(site, event, partial(self._close, site, event.fd, "disconnect", reason))

    def _last(self, site: Site, event: Notice, close: Callable[[], Awaitable[Any] | None]) -> Awaitable[Any] | None:
        """The last event of a connection: `close` or `disconnect`; and behind it, with a record, `ended`."""
        record = event.payload.partition(RECORD_MARK)[2]
        return self.ends.tell(site, event.fd, close, record) if record else close()

    def _on_handshake(self, site: Site, event: Notice) -> Awaitable[Any] | None:
        return self._handshakes[event.listener].judge(request_of(event), foreign=event.opcode == FOREIGN)

    def _on_uncertain(self, site: Site, event: Notice) -> Awaitable[Any] | None:
        return self._failures.lost(site, event)

    _on_quarantined = _on_uncertain

    def _close(self, site: Site, fd: int, event: str, *arguments: object) -> Awaitable[Any] | None:
        self._opened.discard(fd)
        handler = site.handlers.get(event)
        running = None
        try:
            if handler is not None:
                what = "the 'close' handler" if event == "close" else "the 'disconnect' handler"
                running = running_of(handler(self._server, fd, *arguments), what)
        finally:
            if running is None:
                self.sessions.forget(fd)
        return self._close_later(fd, running) if running is not None else None

    async def _close_later(self, fd: int, running: Awaitable[Any]) -> None:
        try:
            await running
        finally:
            self.sessions.forget(fd)


def _no_message(_server: object, _frame: object) -> NoReturn:
    raise StateError("there is no 'message' handler any more: the code was reloaded since this WebSocket was opened")


def _later(delay: float, callback: Callable[[], None]) -> object:
    """When a worker is made, its loop does not run yet."""
    return asyncio.get_running_loop().call_later(delay, callback)


def _reason(event: Notice, status: int = CloseCode.NORMAL) -> CloseReason:
    text = event.payload.partition(RECORD_MARK)[0].decode(errors="replace")
    by = ClosedBy(event.opcode)
    return CloseReason(text, by, status if status < CloseCode.NORMAL else None)
