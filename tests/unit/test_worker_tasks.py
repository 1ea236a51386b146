"""Tasks as a worker hands them over, and as a task worker carries them out; the dispatcher is the test."""

import asyncio
import contextvars
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from mooring import StateError, TaskFailed, TaskLost, TaskQueueFull, TaskTimeout
from mooring._core.channel import BadRecord
from mooring._core.wire import Fate, Mail, Notice, TaskFlag
from mooring.app.values import pack, unpack
from mooring.config.tasks import Tasks
from mooring.worker.tasks import Task, TaskBench, TaskDesk, TaskOutcome
from support.loops import in_loop


class Channel:
    """What would go to the dispatcher."""

    def __init__(self) -> None:
        self.open = True
        self.waiting = 0
        self.sent: list[Notice] = []
        self.answer: Callable[[], None] = lambda: None

    def send(self, notice: Notice) -> None:
        self.sent.append(notice)

    def flush_now(self) -> None:
        pass

    def pump(self, _timeout: float) -> None:
        self.answer()

    def take(self) -> list[tuple[Mail, int]]:
        sent, self.sent = self.sent, []
        return [(Mail(one.kind), one.number) for one in sent]


class Desk(TaskDesk):
    """One that can hand over, in the loop that runs."""

    def __init__(self, **limits: Any) -> None:
        self.outcomes: list[TaskOutcome] = []
        self.called: list[Any] = []
        self.channel: Any = Channel()
        super().__init__(Tasks(**{"task_worker_num": 1, **limits}), self.outcomes.append, self._called)
        self.connect(self.channel)

    def _called(self, function: Callable[..., Any], value: Any, context: contextvars.Context | None = None) -> None:
        self.called.append((function, value, context))

    async def handed_over(self, number: int) -> None:
        """So many have been."""
        while self._count < number:
            await asyncio.sleep(0)

    def result(self, number: int, value: object, fate: int = Fate.DONE) -> None:
        self.on_result(Notice(Mail.RESULT, number, pack(value, "it"), opcode=fate))


def runs(test: Callable[[Desk], Awaitable[None]], **limits: Any) -> None:
    async def run() -> None:
        desk = Desk(**limits)
        desk.open()
        await test(desk)

    in_loop(run)


async def begun(desk: Desk, data: object = None, timeout: float | None = None, **more: Any) -> asyncio.Task[Any]:
    """One that was handed over and is waited for."""
    task = asyncio.ensure_future(desk.task(data, timeout, more.get("on_progress")))
    await asyncio.sleep(0)
    return task


def test_a_task_has_a_number_and_its_result_comes_to_who_waits():
    async def test(desk: Desk) -> None:
        first, second = await begun(desk, {"a": (1, 2)}), await begun(desk, b"b")
        assert unpack(desk.channel.sent[0].payload) == {"a": (1, 2)}
        assert desk.channel.take() == [(Mail.TASK, 1), (Mail.TASK, 2)]
        desk.result(2, "two")
        desk.result(1, {1})
        assert (await first, await second) == ({1}, "two")
        assert desk.channel.take() == [], "nothing is taken back"

    runs(test)


@pytest.mark.parametrize(
    ("fate", "why", "kind", "text"),
    [
        (Fate.FAILED, ["ValueError", "no"], TaskFailed, "ValueError: no"),
        (Fate.LOST, ["it ended"], TaskLost, "it ended"),
        (Fate.REFUSED, ["too many"], TaskQueueFull, "too many"),
    ],
)
def test_what_has_no_result_raises_why(fate: Fate, why: list[str], kind: type[Exception], text: str):
    async def test(desk: Desk) -> None:
        task = await begun(desk)
        desk.result(1, why, fate)
        with pytest.raises(kind, match=f"^{text}$"):
            await task

    runs(test)


def test_who_does_not_wait_any_more_takes_it_back_and_the_result_reaches_nobody():
    async def test(desk: Desk) -> None:
        late = await begun(desk, timeout=0.001)
        with pytest.raises(TaskTimeout, match=r"no result within 0\.001 s"):
            await late
        cancelled = await begun(desk)
        cancelled.cancel()
        await asyncio.wait([cancelled])
        assert desk.channel.take() == [(Mail.TASK, 1), (Mail.CANCEL, 1), (Mail.TASK, 2), (Mail.CANCEL, 2)]
        desk.result(1, "late")
        desk.result(2, "late")
        assert desk.outcomes == []

    runs(test)


def test_too_many_too_large_and_no_room_are_refused_at_once():
    async def test(desk: Desk) -> None:
        await begun(desk, bytes(3000))
        with pytest.raises(TaskQueueFull, match="raise task_queue_bytes"):
            await desk.task(bytes(2000), None, None)
        desk.result(1, None)
        await begun(desk, bytes(9000))  # one is taken, however large
        desk.result(2, None)
        await begun(desk)
        await begun(desk)
        with pytest.raises(TaskQueueFull, match="2 tasks of this worker are not finished"):
            await desk.task(None, None, None)
        desk.result(3, None)
        desk.full = True
        with pytest.raises(TaskQueueFull, match="raise dispatcher_memory_limit"):
            await desk.task(None, None, None)
        desk.connect(desk.channel)  # another dispatcher has room
        await begun(desk)
        assert [number for kind, number in desk.channel.take() if kind == Mail.TASK] == [1, 2, 3, 4, 5]

    runs(test, task_queue_limit=2, task_queue_bytes=4096)


def test_without_a_dispatcher_it_is_not_handed_over():
    async def test(desk: Desk) -> None:
        desk.channel.open = False
        with pytest.raises(TaskLost, match="not handed over"):
            await desk.task(None, None, None)

    runs(test)


def test_when_the_dispatcher_has_gone_so_has_what_it_kept():
    async def test(desk: Desk) -> None:
        task, number = await begun(desk), desk.send(None)
        other: Any = Channel()
        desk.on_lost(other, "an older one")
        assert not task.done()
        desk.on_lost(desk.channel, "killed")
        with pytest.raises(TaskLost, match="has ended: killed"):
            await task
        await asyncio.sleep(0)
        assert [(one.id, type(one.error)) for one in desk.outcomes] == [(number, TaskLost)]
        await desk.all_over()

    runs(test)


def test_nobody_can_hand_over_before_the_worker_has_begun_or_without_task_workers():
    async def test(desk: Desk) -> None:
        with pytest.raises(StateError, match="there are no task workers: set task_worker_num"):
            await desk.task(None, None, None)
        early = Desk()
        with pytest.raises(StateError, match="once `worker_start` has ended"):
            early.send(None)

    runs(test, task_worker_num=0)


def test_progress_comes_in_the_context_of_who_waits():
    async def test(desk: Desk) -> None:
        variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
        variable.set("mine")
        await begun(desk, on_progress=print)
        desk.on_progress(Notice(Mail.PROGRESS, 1, pack(0.5, "it")))
        assert desk.called == [], "no handler is called from within"
        await asyncio.sleep(0)
        [(function, value, context)] = desk.called
        assert (function, value, context[variable]) == (print, 0.5, "mine")
        desk.result(1, None)
        desk.on_progress(Notice(Mail.PROGRESS, 1, pack(0.9, "it")))
        await asyncio.sleep(0)
        assert len(desk.called) == 1

    runs(test)


def test_who_waits_in_a_handler_that_is_no_coroutine_is_told_from_within():
    async def test(desk: Desk) -> None:
        def answer() -> None:
            desk.on_progress(Notice(Mail.PROGRESS, 1, pack(1, "it")))
            desk.result(1, "done")

        desk.channel.answer = answer
        assert desk.wait(None, None, print) == "done"
        assert [value for _, value, _ in desk.called] == [1]
        desk.channel.answer = lambda: None
        with pytest.raises(TaskTimeout, match="no result within"):
            desk.wait(None, 0.001, None)
        assert desk.channel.take()[-1] == (Mail.CANCEL, 2)

    runs(test)


def test_threads_can_do_the_same():
    async def test(desk: Desk) -> None:
        waiting = asyncio.ensure_future(asyncio.to_thread(desk.wait, None, None, None))
        while not desk.channel.sent:
            await asyncio.sleep(0.001)
        desk.result(1, "done")
        assert await waiting == "done"
        assert await asyncio.to_thread(desk.send, None) == 2

    runs(test)


def test_the_outcome_that_nobody_waits_for_is_told():
    async def test(desk: Desk) -> None:
        numbers = [desk.send(None), desk.send(None)]
        assert [one.opcode for one in desk.channel.sent] == [TaskFlag.UNAWAITED] * 2
        desk.result(1, "done")
        desk.result(2, ["ValueError", "no"], Fate.FAILED)
        assert desk.outcomes == [], "no handler is called from within"
        await asyncio.sleep(0)
        assert [one.id for one in desk.outcomes] == numbers
        assert desk.outcomes[0].result == "done"
        with pytest.raises(TaskFailed):
            _ = desk.outcomes[1].result

    runs(test)


def test_results_of_many_are_in_the_order_of_the_items_and_so_many_are_under_way():
    async def test(desk: Desk) -> None:
        mapped = asyncio.ensure_future(desk.map("abcd", None, 2))
        await desk.handed_over(2)
        assert desk.channel.take() == [(Mail.TASK, 1), (Mail.TASK, 2)]
        for number in (2, 1, 4, 3):
            await desk.handed_over(number)
            desk.result(number, number)
        assert await mapped == [1, 2, 3, 4]

    runs(test)


def test_the_first_error_ends_the_others():
    async def test(desk: Desk) -> None:
        mapped = asyncio.ensure_future(desk.map("abcd", None, 2))
        await desk.handed_over(2)
        desk.result(1, ["ValueError", "no"], Fate.FAILED)
        with pytest.raises(TaskFailed):
            await mapped
        assert desk.channel.take() == [(Mail.TASK, 1), (Mail.TASK, 2), (Mail.CANCEL, 2)]

    runs(test)


def test_news_of_a_task_that_was_never_handed_over_make_no_sense():
    async def test(desk: Desk) -> None:
        with pytest.raises(BadRecord, match="news of task 7"):
            desk.result(7, None)
        with pytest.raises(BadRecord, match="news of task 7"):
            desk.on_progress(Notice(Mail.PROGRESS, 7))

    runs(test)


# ---------------------------------------------------------------------------------------------- the task worker


class Bench(TaskBench):
    """One with a handler of the test."""

    def __init__(self, handler: Callable[[Task], Any], limit: int = 0) -> None:
        self.worn: list[int] = []
        self.channel: Any = Channel()
        super().__init__(handler, self._task, contextvars.copy_context, limit, lambda: self.worn.append(self.done))

    @staticmethod
    def _task(running: Awaitable[Any], context: contextvars.Context) -> asyncio.Task[Any]:
        async def awaited() -> Any:
            return await running

        return asyncio.get_running_loop().create_task(awaited(), context=context)

    def give(self, number: int, payload: bytes = b"\xc0", flags: int = 0) -> None:
        self.on_task(self.channel, Notice(Mail.TASK, number, payload, opcode=flags, arg=3))

    def results(self) -> list[tuple[int, int, Any]]:
        return [(one.number, one.opcode, unpack(one.payload)) for one in self.channel.sent if one.kind == Mail.RESULT]


def test_one_at_a_time_in_order_whatever_the_handler_is():
    busy: list[int] = []

    async def coroutine(task: Task) -> int:
        busy.append(task.id)
        assert busy == [task.id]
        await asyncio.sleep(0)
        busy.remove(task.id)
        return task.id * 10

    async def run() -> None:
        bench = Bench(lambda task: coroutine(task) if task.id != 2 else (task.worker_id, task.data))
        for number in (1, 2, 3):
            bench.give(number, pack({"n": number}, "it"))
        assert not busy, "it begins when the loop turns"
        await bench.finish()
        assert bench.results() == [(1, Fate.DONE, 10), (2, Fate.DONE, (3, {"n": 2})), (3, Fate.DONE, 30)]

    in_loop(run)


@pytest.mark.parametrize(
    ("handler", "told"),
    [
        (lambda _task: 1 / 0, ["ZeroDivisionError", "division by zero"]),
        (lambda _task: object(), ["TypeError", "the result of a task can't be sent to another process"]),
        (lambda _task: exit(3), ["SystemExit", "3"]),
    ],
    ids=["raises", "odd", "exit"],
)
def test_what_fails_is_told_by_its_kind_and_text_and_the_next_one_is_done(
    handler: Callable[[Task], Any], told: list[str], caplog: pytest.LogCaptureFixture
):
    async def run() -> None:
        bench = Bench(lambda task: handler(task) if task.id == 1 else "next")
        bench.give(1)
        bench.give(2)
        with caplog.at_level(logging.ERROR):
            await bench.finish()
        (_, fate, why), following = bench.results()
        assert (fate, why[0]) == (Fate.FAILED, told[0])
        assert why[1].startswith(told[1])
        assert following == (2, Fate.DONE, "next")

    in_loop(run)
    assert "the 'task' handler failed on task 1 of worker 3" in caplog.text


def test_progress_goes_at_once_and_what_can_not_be_sent_is_the_handlers_error():
    async def run() -> None:
        def handler(task: Task) -> None:
            task.progress([1])
            with pytest.raises(TypeError, match="progress can't be sent"):
                task.progress(object())
            assert [(Mail(one.kind), unpack(one.payload)) for one in bench.channel.sent] == [(Mail.PROGRESS, [1])]

        bench = Bench(handler)
        bench.give(1)
        await bench.finish()

    in_loop(run)


def test_one_that_can_not_be_read_fails_by_itself():
    async def run() -> None:
        bench = Bench(lambda _task: "done")
        with pytest.raises(msgspec.MsgspecError):
            bench.give(1, b"\xc1")
        bench.give(2)
        await bench.finish()
        assert [(number, fate) for number, fate, _ in bench.results()] == [(1, Fate.FAILED), (2, Fate.DONE)]

    in_loop(run)


def test_the_trace_comes_along():
    async def run() -> None:
        seen: list[Any] = []
        bench = Bench(lambda task: seen.append((task.trace_context, task.data)))
        traced = msgspec.msgpack.encode(({"traceparent": "00-1"}, msgspec.Raw(pack("data", "it"))))
        bench.give(1, traced, TaskFlag.TRACED)
        await bench.finish()
        assert seen == [({"traceparent": "00-1"}, "data")]

    in_loop(run)


def test_one_that_is_worn_says_so_ahead_of_its_last_result():
    async def run() -> None:
        bench = Bench(lambda _task: None, limit=2)
        bench.give(1)
        await bench.finish()
        assert not bench.worn
        bench.give(2)
        await bench.finish()
        assert bench.channel.take() == [(Mail.RESULT, 1), (Mail.DEPART, 0), (Mail.RESULT, 2)]
        assert bench.worn == [2]

    in_loop(run)


def test_how_long_they_take_is_measured_when_somebody_wants_to_know():
    async def run() -> None:
        bench = Bench(lambda _task: None)
        assert bench.timings() == {}
        bench.measure()
        bench.give(1)
        await bench.finish()
        *counts, _total = bench.timings()["task"]
        assert sum(counts) == 1

    in_loop(run)
