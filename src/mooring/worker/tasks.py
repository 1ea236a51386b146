"""Tasks: what a worker hands over, and what a task worker does with it.

Values cross as mooring.app.values has it. The limits are kept here, in the worker that hands a task over, so that a
refusal is immediate and has the traceback of the caller.

What comes from the dispatcher may come while a handler waits in `wait`, see mooring._core.records: so it is noted
here, and futures and `call_soon` bring it to coroutines and handlers.
"""

import asyncio
import contextvars
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import TimeoutError as NoAnswer
from functools import partial
from typing import Any

import msgspec

from mooring._core.channel import BadRecord
from mooring._core.latency import Latencies
from mooring._core.records import RecordChannel
from mooring._core.steps import failure_of
from mooring._core.wire import Fate, Mail, Notice, TaskFlag
from mooring.app.foreign import class_name, running_of, text_of
from mooring.app.values import pack, unpack
from mooring.config.tasks import Tasks as TaskLimits
from mooring.errors import StateError, TaskError, TaskFailed, TaskLost, TaskQueueFull, TaskTimeout
from mooring.journal import own_logger
from mooring.net import forks
from mooring.net.report import new_error_id, report

log = own_logger("mooring.worker")

FLUSH_LOOK = 0.005  # seconds between looks whether the last result has left
STATS_TIMEOUT = 5.0  # seconds the dispatcher has to answer
TEXT_LIMIT = 65_536  # characters of what an exception says, that are sent to who waits
_TASK = 0  # which of its Latencies: they are of one kind
THREAD_MARGIN = 5.0  # seconds that a thread waits longer than the loop, which has the true limit

Progress = Callable[[Any], Any]
_why = msgspec.msgpack.Decoder(list[str])
_traced = msgspec.msgpack.Decoder(tuple[dict[str, str], msgspec.Raw])


class TaskOutcome:
    """What became of a task that nobody waited for; the parameter of the `finish` handler.

    `id` is what `task_async` gave, `error` None or a TaskError.
    """

    __slots__ = ("_value", "error", "id")

    def __init__(self, number: int, value: Any, error: TaskError | None) -> None:
        self.id = number
        self.error = error
        self._value = value

    @property
    def result(self) -> Any:
        """What the `task` handler gave. Raises the TaskError when it gave nothing."""
        if self.error is not None:
            raise self.error
        return self._value

    def __repr__(self) -> str:
        return f"TaskOutcome(id={self.id}, {f'error={self.error!r}' if self.error else f'result={self._value!r}'})"


class _Given:
    """A task that was handed over and is not over."""

    __slots__ = ("context", "future", "news", "on_progress", "outcome", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.future: asyncio.Future[Any] | None = None
        self.on_progress: Progress | None = None
        self.context: contextvars.Context | None = None  # of whoever waits, for `on_progress`
        self.news: list[Any] | None = None  # progress, for one who waits while the loop stands still
        self.outcome: TaskOutcome | None = None


class TaskDesk:
    """Hands tasks over and brings their results; `on_finish` is given the outcome of those that nobody waits for."""

    def __init__(
        self,
        limits: TaskLimits,
        on_finish: Callable[[TaskOutcome], None],
        call: Callable[..., None],
        trace_context: Callable[[], dict[str, str]] = dict,
    ) -> None:
        """`call(function, *arguments)` calls a function of the application and reports what it raises;
        `trace_context()` is what a task takes along of the trace in which it is handed over."""
        self._trace_context = trace_context
        self._limits = limits
        self._on_finish = on_finish
        self._call = call
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._channel: RecordChannel | None = None
        self._given: dict[int, _Given] = {}
        self._bytes = 0
        self._count = 0
        self._stats: bytes | None = None
        self._all_over: asyncio.Event | None = None
        self.full = False  # the dispatcher has no memory for more

    def connect(self, channel: RecordChannel) -> None:
        """The dispatcher can be reached through this one from now on."""
        self._channel = channel
        self.full = False

    def open(self) -> None:
        """`worker_start` is over: tasks can be handed over, from this loop and its thread."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    # ------------------------------------------------------------------ what the application asks for

    async def task(self, data: object, timeout: float | None, on_progress: Progress | None) -> Any:
        if asyncio.get_running_loop() is not self._ready():
            raise StateError("task() was awaited in another event loop than the worker's: use task_wait() there")
        number, given = self._hand_over(data, unawaited=False)
        given.on_progress, given.context = on_progress, contextvars.copy_context()
        future = given.future = asyncio.get_running_loop().create_future()
        limit = self._limits.task_timeout if timeout is None else timeout
        try:
            async with asyncio.timeout(limit):
                return await future
        except TimeoutError:
            raise TaskTimeout(f"no result within {limit:g} s") from None
        finally:
            self._take_back(number)

    def wait(self, data: object, timeout: float | None, on_progress: Progress | None) -> Any:
        loop = self._ready()
        limit = self._limits.task_timeout if timeout is None else timeout
        if threading.get_ident() != self._thread:
            running = asyncio.run_coroutine_threadsafe(self.task(data, limit, on_progress), loop)
            try:
                return running.result(limit + THREAD_MARGIN)
            except NoAnswer:
                if running.done():
                    raise
                running.cancel()
                raise TaskTimeout(f"no result within {limit:g} s: the worker's loop stands still") from None
        number, given = self._hand_over(data, unawaited=False)
        given.news = []
        end = time.monotonic() + limit
        try:
            while given.outcome is None:
                left = end - time.monotonic()
                if left <= 0:
                    raise TaskTimeout(f"no result within {limit:g} s")
                self._pump(left)
                for value in given.news:
                    if on_progress is not None:
                        self._call(on_progress, value, context=contextvars.copy_context())
                given.news.clear()
            return given.outcome.result
        finally:
            self._take_back(number)

    def send(self, data: object) -> int:
        """Hands a task over that nobody waits for; its number."""
        loop = self._ready()
        if threading.get_ident() != self._thread:
            running = asyncio.run_coroutine_threadsafe(self._send(data), loop)
            return running.result(THREAD_MARGIN)
        return self._hand_over(data, unawaited=True)[0]

    async def _send(self, data: object) -> int:
        return self._hand_over(data, unawaited=True)[0]

    async def map(self, items: Iterable[object], timeout: float | None, at_once: int) -> list[Any]:
        results: list[Any] = []
        todo = enumerate(items)

        async def work() -> None:
            for index, item in todo:
                results.extend([None] * (index + 1 - len(results)))
                results[index] = await self.task(item, timeout, None)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(at_once):
                    group.create_task(work())
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return results

    def stats(self) -> dict[str, int]:
        """The dispatcher's counters. Raises StateError when it does not answer within 5 seconds."""
        if self._loop is not None and threading.get_ident() != self._thread:
            return asyncio.run_coroutine_threadsafe(self._ask_stats(), self._loop).result(STATS_TIMEOUT)
        channel, self._stats = self._channel, None
        if channel is None or not channel.open:
            return {}
        channel.send(Notice(Mail.STATS, 0))
        end = time.monotonic() + STATS_TIMEOUT
        while self._stats is None:
            if time.monotonic() > end or not channel.open:
                raise StateError(f"the dispatcher does not answer within {STATS_TIMEOUT:g} s")
            self._pump(end - time.monotonic())
        found: dict[str, int] = unpack(self._stats)
        return found

    async def _ask_stats(self) -> dict[str, int]:
        return self.stats()

    async def all_over(self) -> None:
        """Nothing that was handed over is still to come back."""
        while self._given:
            self._all_over = asyncio.Event()
            await self._all_over.wait()

    # ------------------------------------------------------------------ handing over

    def _ready(self) -> asyncio.AbstractEventLoop:
        if not self._limits.task_worker_num:
            raise StateError("there are no task workers: set task_worker_num")
        if self._loop is None:
            raise StateError("tasks can be handed over once `worker_start` has ended: use `start`, or a timer")
        return self._loop

    def _hand_over(self, data: object, *, unawaited: bool) -> tuple[int, _Given]:
        payload = pack(data, "the data of a task")
        flags = TaskFlag.UNAWAITED if unawaited else 0
        context = self._trace_context()
        if context:
            payload = msgspec.msgpack.encode((context, msgspec.Raw(payload)))
            flags |= TaskFlag.TRACED
        limits = self._limits
        if len(self._given) >= limits.task_queue_limit:
            raise TaskQueueFull(
                f"{len(self._given)} tasks of this worker are not finished: wait for some, add task workers "
                "(task_worker_num), or raise task_queue_limit"
            )
        if self._given and self._bytes + len(payload) > limits.task_queue_bytes:
            raise TaskQueueFull(
                f"the tasks of this worker that are not finished hold {self._bytes} bytes, and {len(payload)} more are "
                "too many: wait for some, or raise task_queue_bytes"
            )
        if self.full:
            raise TaskQueueFull(
                "what waits in the dispatcher, for all workers, is as much as it may keep: wait until tasks are "
                "finished, or raise dispatcher_memory_limit"
            )
        if self._channel is None or not self._channel.open:
            raise TaskLost("not handed over: the dispatcher, which keeps the queue, is being started again")
        self._count += 1
        self._channel.send(Notice(Mail.TASK, self._count, payload, opcode=flags))
        given = self._given[self._count] = _Given(len(payload))
        self._bytes += given.size
        return self._count, given

    def _take_back(self, number: int) -> None:
        """Nobody waits for that one any more."""
        if number in self._given:
            self._forget(number)
            if self._channel is not None:
                self._channel.send(Notice(Mail.CANCEL, number))

    def _forget(self, number: int) -> _Given | None:
        given = self._given.pop(number, None)
        if given is not None:
            self._bytes -= given.size
        if not self._given and self._all_over is not None:
            self._all_over.set()
        return given

    def _pump(self, timeout: float) -> None:
        assert self._channel is not None
        self._channel.pump(timeout)

    # ------------------------------------------------------------------ what comes: no handler may be called here

    def on_stats(self, notice: Notice) -> None:
        self._stats = notice.payload

    def on_progress(self, notice: Notice) -> None:
        given = self._given.get(self._number_of(notice))
        if given is not None and given.news is not None:
            given.news.append(unpack(notice.payload))
        elif given is not None and given.on_progress is not None:
            self._soon(partial(self._call, context=given.context), given.on_progress, unpack(notice.payload))

    def on_result(self, notice: Notice) -> None:
        number = self._number_of(notice)
        if notice.opcode == Fate.DONE:
            self._over(TaskOutcome(number, unpack(notice.payload), None))
        else:
            why = _why.decode(notice.payload)
            kind_of = {Fate.FAILED: TaskFailed, Fate.REFUSED: TaskQueueFull}.get(Fate(notice.opcode), TaskLost)
            self._over(TaskOutcome(number, None, kind_of(*why)))

    def _number_of(self, notice: Notice) -> int:
        if notice.number > self._count:
            raise BadRecord(f"news of task {notice.number}, which was not handed over")
        return notice.number

    def on_lost(self, channel: RecordChannel, why: str) -> None:
        """The dispatcher is gone, and what it kept."""
        if channel is not self._channel:
            return
        self._channel = None
        for number in list(self._given):
            self._over(TaskOutcome(number, None, TaskLost(f"the dispatcher, which kept the queue, has ended: {why}")))

    def _over(self, outcome: TaskOutcome) -> None:
        given = self._forget(outcome.id)
        if given is None:
            return  # it was taken back meanwhile
        given.outcome = outcome
        if given.future is not None:
            if not given.future.done():
                if outcome.error is not None:
                    given.future.set_exception(outcome.error)
                else:
                    given.future.set_result(outcome.result)
        elif given.news is None:
            self._soon(self._on_finish, outcome)

    def _soon(self, function: Callable[..., object], *arguments: object) -> None:
        assert self._loop is not None
        self._loop.call_soon(function, *arguments)


# ---------------------------------------------------------------------------------------------- in the task worker


class Task:
    """What a `task` handler is given."""

    def __init__(
        self, channel: RecordChannel, number: int, worker_id: int, data: Any, trace_context: dict[str, str]
    ) -> None:
        self.id = number
        """A number that no other task of this server has had since the dispatcher was started."""
        self.worker_id = worker_id
        """The worker that handed it over."""
        self.data = data
        """What was given to `task()`."""
        self.trace_context = trace_context
        """The trace in which it was handed over, as OpenTelemetry's propagator writes it; empty if there is none."""
        self._channel = channel

    def progress(self, value: object) -> None:
        """Tells whoever waits how far it is; it arrives at once, at `on_progress`. Raises TypeError for a value that
        can't be sent."""
        self._tell(Notice(Mail.PROGRESS, self.id, pack(value, "progress")))

    def _tell(self, notice: Notice) -> None:
        """A record to the dispatcher that the task came from, at once: the loop may not turn for long. If that one is
        gone, so is whoever waited."""
        self._channel.send(notice)
        self._channel.flush_now()

    def __repr__(self) -> str:
        return f"Task(id={self.id}, worker_id={self.worker_id})"


class TaskBench:
    """Carries tasks out, one at a time. `handler(task)` runs in the loop, and may block it: it is there for that."""

    def __init__(
        self,
        handler: Callable[[Task], object],
        task_of: Callable[[Awaitable[Any], contextvars.Context], asyncio.Task[Any]],
        new_context: Callable[[], contextvars.Context],
        limit: int,
        worn: Callable[[], None],
    ) -> None:
        """Each task has a context of its own. After `limit` tasks (0: never) it takes no more, and calls `worn()`."""
        self._new_context = new_context
        self._worn = worn
        self._handler = handler
        self._task_of = task_of
        self._limit = limit
        self._todo: deque[Task] = deque()  # the first one is being done; another comes only from a new dispatcher
        self._idle: asyncio.Event | None = None
        self._last: RecordChannel | None = None  # where the last result went
        self._began = 0.0
        self._times: Latencies | None = None
        self.done = 0

    def measure(self) -> None:
        """Counts from now on how long tasks take."""
        self._times = Latencies()

    def timings(self) -> dict[str, list[int]]:
        """What was measured so far, under the name of the event; nothing unless measure() was called."""
        return {"task": self._times.counted(_TASK)} if self._times is not None else {}

    def on_task(self, channel: RecordChannel, notice: Notice) -> None:
        """A task; it begins when the loop turns."""
        try:
            context: dict[str, str] = {}
            value: bytes | msgspec.Raw = notice.payload
            if notice.opcode & TaskFlag.TRACED:
                context, value = _traced.decode(value)
            data = unpack(value)
        except (msgspec.MsgspecError, ValueError, RecursionError) as problem:
            why = pack(["BadRecord", str(problem)], "a failure")
            channel.send(Notice(Mail.RESULT, notice.number, why, opcode=Fate.FAILED))
            raise
        self._todo.append(Task(channel, notice.number, notice.arg, data, context))
        if len(self._todo) == 1:
            asyncio.get_running_loop().call_soon(self._begin)

    async def finish(self) -> None:
        """Waits until nothing is being done."""
        while self._todo:
            self._idle = asyncio.Event()
            await self._idle.wait()
        while self._last is not None and self._last.open and self._last.waiting:
            await asyncio.sleep(FLUSH_LOOK)  # a large result leaves as fast as it is taken

    def _begin(self) -> None:
        task = self._todo[0]
        context = self._new_context()
        self._began = time.monotonic()
        try:
            result = context.run(self._handler, task)
            forks.end_child()
            running = running_of(result, "the 'task' handler")
            if running is not None:
                self._task_of(running, context).add_done_callback(partial(self._ended, task))
                return
        except BaseException as error:  # SystemExit too: it is the failure of this task
            self._failed(task, error)
        else:
            self._succeeded(task, result)

    def _ended(self, task: Task, running: asyncio.Task[Any]) -> None:
        error = failure_of(running)
        if error is not None:
            self._failed(task, error)
        else:
            self._succeeded(task, running.result())

    def _succeeded(self, task: Task, result: object) -> None:
        try:
            payload = pack(result, "the result of a task")
        except BaseException as error:  # of what becomes of it, or of what its fields do when they are read
            self._failed(task, error)
        else:
            self._over(task, Fate.DONE, payload)

    def _failed(self, task: Task, error: BaseException) -> None:
        forks.end_child(error)
        message = "error %s: the 'task' handler failed on task %d of worker %d"
        try:
            report(log, message, new_error_id(), task.id, task.worker_id, error=error)
        finally:
            self._over(task, Fate.FAILED, pack([class_name(error), text_of(error, limit=TEXT_LIMIT)], "a failure"))

    def _over(self, task: Task, fate: int, payload: bytes) -> None:
        self.done += 1
        if self._times is not None:
            self._times.note(_TASK, int((time.monotonic() - self._began) * 1_000_000))
        if self.done == self._limit:
            task._tell(Notice(Mail.DEPART, 0))
            self._worn()
        task._tell(Notice(Mail.RESULT, task.id, payload, opcode=fate))
        self._last = task._channel
        self._todo.popleft()
        if self._todo:
            asyncio.get_running_loop().call_soon(self._begin)
        elif self._idle is not None:
            self._idle.set()
