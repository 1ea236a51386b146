"""Handlers whose first step is run at once, against tasks of asyncio, on generated handlers.

The rule: a handler can't tell the difference. It sees, step by step, the same (who its task is, whether it is
cancelled, what its context holds, what its timeouts and groups do), and whoever has its task sees the same outcome.
"""

import asyncio
import contextvars
import gc
import importlib
import importlib.util
import sys
import types
import weakref
from collections.abc import Awaitable, Callable, Generator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mooring._core.steps import HandlerTask, Steps, failure_of

LOOPS = [
    pytest.param("asyncio", id="asyncio"),
    pytest.param(
        "uvloop",
        id="uvloop",
        marks=pytest.mark.skipif(
            sys.version_info < (3, 12) or importlib.util.find_spec("uvloop") is None,
            reason="uvloop is not installed, or handlers begin in its next turn",
        ),
    ),
]
PROFILE = settings(max_examples=400)
variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)
kept: list[Any] = []


class Host:
    """See mooring.worker.Worker."""

    def end_child(self, error: BaseException | None) -> None:
        raise AssertionError("this is no forked child")

    def on_result(self, result: object, kind: int) -> None:
        pass


class Stop(Exception):
    pass


class Foreign:
    """A future of nobody's, by the protocol alone."""

    def __init__(self) -> None:
        self._asyncio_future_blocking = False
        self._callbacks: list[tuple[Any, Any]] = []
        self._state = "pending"
        self._loop = asyncio.get_running_loop()

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def add_done_callback(self, callback: Callable[..., object], *, context: Any = None) -> None:
        self._loop.call_soon(self._finish, "done")
        self._callbacks.append((callback, context))

    def _finish(self, state: str) -> None:
        if self._state == "pending":
            self._state = state
            for callback, context in self._callbacks:
                self._loop.call_soon(callback, self, context=context)

    def cancel(self, msg: object = None) -> bool:
        was = self._state == "pending"
        self._finish("cancelled")
        return was

    def result(self) -> str:
        if self._state == "cancelled":
            raise asyncio.CancelledError("foreign")
        return self._state

    def __await__(self) -> Generator[Any, None, str]:
        self._asyncio_future_blocking = True
        yield self
        return self.result()


class Stubborn(Foreign):
    """... that can't be cancelled."""

    def cancel(self, msg: object = None) -> bool:
        return False


@types.coroutine
def bare(value: object) -> Generator[Any, None, Any]:
    return (yield value)


class Handler:
    """Does what a list of operations says, and notes what it sees."""

    def __init__(self, operations: list[Any]) -> None:
        self.operations = operations
        self.seen: list[Any] = []
        self.task: asyncio.Task[Any] | None = None
        self.called_back = 0

    def note(self, *what: object) -> None:
        self.seen.append(what)

    def _current(self) -> asyncio.Task[Any]:
        task = asyncio.current_task()
        assert task is not None
        if self.task is not None:
            assert task is self.task, "another task than before"
        self.task = task
        assert isinstance(task, asyncio.Task)
        assert not task.done()
        assert asyncio.Task.get_loop(task) is asyncio.get_running_loop()
        assert task in asyncio.all_tasks()
        return task

    async def run(self) -> Any:
        return await self._all(self.operations)

    async def _all(self, operations: list[Any]) -> Any:
        result = None
        for operation in operations:
            result = await self._one(*operation)
        return result

    async def _one(self, name: str, *arguments: Any) -> Any:
        loop = asyncio.get_running_loop()
        match name:
            case "sleep":
                for _ in range(arguments[0]):
                    await asyncio.sleep(0)
            case "return":
                return arguments[0]
            case "raise":
                raise arguments[0]("raised")
            case "await":
                self.note("await", await arguments[0]())
            case "bare":
                try:
                    self.note("bare", await bare(arguments[0]))
                except RuntimeError as error:
                    self.note("bare", str(error).partition("<")[0])
            case "bare future":
                try:
                    await bare(loop.create_future())
                except RuntimeError as error:
                    self.note("bare future", str(error).partition("<")[0])
            case "await itself":
                try:
                    await self._current()
                except RuntimeError as error:
                    self.note("itself", str(error).partition(":")[0])
            case "look":
                task = self._current()
                self.note("look", task.cancelling(), task.get_name() == "named", task.get_coro() is not None)
            case "look by id":
                assert current() is not None
            case "keep":
                kept.append(current())
            case "keep weakly":
                kept.append(weakref.ref(current()))
            # these keep no reference to the task
            case "name":
                current().set_name("named")
            case "attribute":
                current().own = "own"  # type: ignore[attr-defined]
            case "hash":
                hash(current())
            case "call back":
                current().add_done_callback(self._called_back)
            case "fresh":
                assert current() not in kept
                assert current() not in [one() for one in kept if isinstance(one, weakref.ref)]
                assert current().get_name() != "named"
                assert not hasattr(current(), "own")
                assert current().cancelling() == 0
            case "cancel":
                self.note("cancel", self._current().cancel(*arguments))
            case "cancel unbound":
                asyncio.Task.cancel(current())
            case "cancel soon":
                loop.call_soon(self._current().cancel)
            case "uncancel":
                self.note("uncancel", self._current().uncancel())
            case "set":
                self.note("variable", variable.get())
                variable.set(arguments[0])
            case "catch":
                try:
                    self.note("caught nothing", await self._all(arguments[1]))
                except (Exception, asyncio.CancelledError) as error:
                    self.note("caught", type(error), str(error) if type(error) is not RuntimeError else "")
                    if arguments[0]:
                        raise
            case "timeout":
                try:
                    async with asyncio.timeout(arguments[0]):
                        await self._all(arguments[1])
                        self.note("in time")
                except TimeoutError:
                    self.note("timeout", self._current().cancelling())
            case "wait_for":
                try:
                    self.note("wait_for", await asyncio.wait_for(other(arguments[1]), arguments[0]))
                except TimeoutError:
                    self.note("wait_for timeout")
            case "group":
                try:
                    async with asyncio.TaskGroup() as group:
                        children = [group.create_task(other(child)) for child in arguments[0]]
                        await self._all(arguments[1])
                    self.note("group", [child.result() for child in children])
                except BaseExceptionGroup as errors:
                    self.note("group failed", [type(error) for error in errors.exceptions])
            case "gather":
                found = await asyncio.gather(*(other(child) for child in arguments[0]), return_exceptions=True)
                self.note("gather", [type(one) if isinstance(one, BaseException) else one for one in found])
            case "shield":
                child = asyncio.ensure_future(other(arguments[0]))
                try:
                    self.note("shield", await asyncio.shield(child))
                finally:
                    child.cancel()
        return None

    def _called_back(self, task: object) -> None:
        self.called_back += 1


def current() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


async def other(steps: int) -> int:
    """A task of its own; a negative one fails."""
    for _ in range(abs(steps)):
        await asyncio.sleep(0)
    if steps < 0:
        raise Stop
    return steps


async def done() -> Any:
    future = asyncio.get_running_loop().create_future()
    future.set_result("done")
    return await future


async def soon() -> Any:
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    loop.call_soon(lambda: future.done() or future.set_result("soon"))
    return await future


async def foreign() -> Any:
    return await Foreign()


async def stubborn() -> Any:
    return await Stubborn()


LEAVES = st.one_of(
    st.tuples(st.just("sleep"), st.integers(0, 3)),
    st.tuples(st.just("return"), st.sampled_from([None, 1, (1, 2), ValueError])),
    st.tuples(st.just("raise"), st.sampled_from([Stop, asyncio.CancelledError, StopAsyncIteration, GeneratorExit])),
    st.tuples(st.just("await"), st.sampled_from([done, soon, foreign, stubborn])),
    st.tuples(st.just("bare"), st.sampled_from([None, 42, "text"])),
    st.tuples(st.sampled_from(["bare future", "await itself", "look", "look by id", "keep", "keep weakly"])),
    st.tuples(st.sampled_from(["name", "attribute", "hash", "call back", "cancel soon", "uncancel", "cancel unbound"])),
    st.tuples(st.just("cancel")),
    st.tuples(st.just("cancel"), st.just("why")),
    st.tuples(st.just("set"), st.integers(1, 9)),
    st.tuples(st.just("gather"), st.lists(st.integers(-2, 3), max_size=3)),
    st.tuples(st.just("shield"), st.integers(-2, 3)),
    st.tuples(st.just("wait_for"), st.sampled_from([0, 30, None]), st.integers(-2, 3)),
)


def nested(inner: Any) -> Any:
    some = st.lists(inner, max_size=3)
    return st.one_of(
        st.tuples(st.just("catch"), st.booleans(), some),
        st.tuples(st.just("timeout"), st.sampled_from([0, -1, 30, None]), some),
        st.tuples(st.just("group"), st.lists(st.integers(-2, 3), max_size=3), some),
    )


OPERATIONS = st.lists(st.recursive(LEAVES, nested, max_leaves=8), max_size=6)


def outcome(task: asyncio.Task[Any]) -> Any:
    if task.cancelled():
        return "cancelled", task.cancelling()
    error = task.exception()
    if error is not None:
        return type(error), str(error) if type(error) is not RuntimeError else "", task.cancelling()
    return task.result(), task.cancelling()


async def by_task(operations: list[Any]) -> Any:
    handler = Handler(operations)
    task = asyncio.Task(handler.run(), context=contextvars.copy_context())
    await asyncio.wait([task])
    await asyncio.sleep(0)
    return handler.seen, handler.called_back, outcome(task)


async def by_steps(operations: list[Any]) -> Any:
    """Behind others, in the task that they had, and with a task that waits for another beside it."""
    steps = Steps(Host())
    plain = Handler([("set", 77)])
    assert steps.begin(plain.run(), contextvars.copy_context()) is None
    beside = steps.begin(Handler([("sleep", 5)]).run(), contextvars.copy_context())
    assert steps.begin(Handler([("look by id",)]).run(), contextvars.copy_context()) is None
    assert beside is not None
    assert not beside.done()
    handler = Handler(operations)
    task = steps.begin(handler.run(), contextvars.copy_context())
    behind = Handler([("set", 78)])
    fresh = steps.begin(Handler([("fresh",)]).run(), contextvars.copy_context())
    assert fresh is not None
    fresh.result()
    assert steps.begin(behind.run(), contextvars.copy_context()) is None
    if task is not None:
        if not task.done():
            await asyncio.wait([task])
            await asyncio.sleep(0)
        assert handler.task in (None, task)
        found = outcome(task)
        failure_of(task)
    else:
        assert handler.task is None, "the task was seen, and is another's now"
        found = (None, 0)
    await asyncio.wait([beside])
    assert behind.seen == plain.seen == [("variable", 0)]
    return handler.seen, handler.called_back, found


def in_loop(coroutine: Awaitable[Any], kind: str = "asyncio") -> Any:
    problems: list[dict[str, Any]] = []

    async def limited() -> Any:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: problems.append(context))
        async with asyncio.timeout(30):
            return await coroutine

    with asyncio.Runner(loop_factory=importlib.import_module(kind).new_event_loop) as runner:
        found = runner.run(limited())
    kept.clear()
    return found, [str(one["message"]) for one in problems if "never retrieved" not in str(one["message"])]


@pytest.mark.parametrize("loop", LOOPS)
@PROFILE
@given(operations=OPERATIONS)
@example(operations=[("name",)])
@example(operations=[("attribute",)])
@example(operations=[("call back",)])
@example(operations=[("keep",)])
@example(operations=[("keep weakly",)])
@example(operations=[("cancel unbound",)])
@example(operations=[("cancel unbound",), ("sleep", 1)])
@example(operations=[("cancel",), ("await", stubborn), ("sleep", 1)])
@example(operations=[("timeout", 0, [("wait_for", None, 3)])])
@example(operations=[("group", [-1], [("sleep", 3)])])
@example(operations=[("cancel unbound",), ("return", 1)])
@example(operations=[("cancel unbound",), ("raise", Stop)])
@example(operations=[("cancel unbound",), ("catch", False, [("await", soon)]), ("sleep", 1)])
def test_a_handler_sees_what_it_sees_in_a_task(loop: str, operations: list[Any]) -> None:
    real, problems = in_loop(by_task(operations), loop)
    seen, calls, found = real
    plain = found == (None, 0) or (len(found) == 2 and found[1] == 0 and not isinstance(found[0], str))
    ours, more = in_loop(by_steps(operations), loop)
    if plain and ours[2] == (None, 0) and found[1] == 0:  # what it returned is not kept when nobody has its task
        assert ours[:2] == (seen, calls)
    else:
        assert ours == real
    assert more == problems


def test_what_has_found_the_task_that_is_ready_and_cancels_it_reaches_no_handler() -> None:
    async def run() -> None:
        steps = Steps(Host())
        assert steps.begin(Handler([]).run(), contextvars.copy_context()) is None
        gc.collect()  # those of other tests
        (found,) = [one for one in gc.get_objects() if type(one) is HandlerTask]
        assert found.cancel()
        following = Handler([("set", 1), ("sleep", 2), ("set", 2)])
        task = steps.begin(following.run(), contextvars.copy_context())
        assert task is not None
        await task
        assert following.seen == [("variable", 0), ("variable", 1)]
        assert found.cancelled()

    in_loop(run())


def test_another_thread_that_calls_the_loop_is_not_taken_for_a_task() -> None:
    """It comes between the task that is made and the look into the loop's queue."""

    async def run() -> None:
        steps = Steps(Host())
        loop = asyncio.get_running_loop()
        called = asyncio.Event()
        call_soon = loop.call_soon

        def disturbed(*arguments: Any, **options: Any) -> asyncio.Handle:
            handle = call_soon(*arguments, **options)
            call_soon(called.set)
            return handle

        loop.call_soon = disturbed  # type: ignore[method-assign]
        try:
            assert steps.begin(Handler([("set", 1)]).run(), contextvars.copy_context()) is None
        finally:
            loop.call_soon = call_soon  # type: ignore[method-assign]
        if sys.version_info < (3, 12):  # later ones do not ask the loop
            await called.wait()

    in_loop(run())


def test_a_task_is_kept_as_long_as_its_handler_runs() -> None:
    """By steps alone: a loop has only weak references."""

    async def run() -> None:
        steps = Steps(Host())
        handler = Handler([("sleep", 1), ("bare", None), ("sleep", 1)])
        task = weakref.ref(steps.begin(handler.run(), contextvars.copy_context()))
        assert steps.tasks == {task()}
        gc.collect()
        one = task()
        assert one is not None
        await one
        assert steps.tasks == set()
        del one, handler
        await asyncio.sleep(0)
        gc.collect()
        assert task() is None

    in_loop(run())
