"""A function of the application's own: it runs until it ends by itself, or is told to."""

import asyncio
import contextvars
import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from mooring._core.steps import Steps
from mooring.worker.own_process import OwnProcess
from support.loops import LIMIT, in_loop

SERVER = object()


class Run:
    """One function, and what becomes of it."""

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self.stopping = threading.Event()
        self.over = asyncio.Event()
        self.process = OwnProcess(function, arguments, self.stopping, self.over.set, Steps(self).task_of)

    def start(self) -> None:
        self.process.start(SERVER, contextvars.copy_context())

    def end_child(self, error: BaseException | None) -> None:
        """It was not forked."""

    def on_result(self, result: object, kind: int) -> None:
        """Nobody wants it."""


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [line.getMessage() for line in caplog.records if line.levelno >= logging.ERROR]


@pytest.mark.parametrize("way", ["plain", "coroutine", "gives one"])
def test_it_is_given_the_server_and_its_arguments_and_its_end_is_told(way: str, caplog: pytest.LogCaptureFixture):
    given: list[tuple[Any, ...]] = []

    def plain(*arguments: Any) -> None:
        given.append(arguments)

    async def coroutine(*arguments: Any) -> None:
        given.append(arguments)

    async def run() -> None:
        one = Run({"plain": plain, "coroutine": coroutine, "gives one": lambda *all: coroutine(*all)}[way], 1, "a")
        one.start()
        await one.over.wait()
        await one.process.finish()

    in_loop(run)
    assert given == [(SERVER, 1, "a")]
    assert errors(caplog) == []


@pytest.mark.parametrize("kind", [ZeroDivisionError, SystemExit])
@pytest.mark.parametrize("is_coroutine", [False, True])
def test_what_it_raises_ends_it_and_is_reported_unless_it_wants_to_end(
    kind: type[BaseException], is_coroutine: bool, caplog: pytest.LogCaptureFixture
):
    def plain(_server: object) -> None:
        raise kind

    async def coroutine(_server: object) -> None:
        raise kind

    async def run() -> None:
        one = Run(coroutine if is_coroutine else plain)
        one.start()
        await one.over.wait()

    in_loop(run)
    assert len(errors(caplog)) == (kind is not SystemExit)


def test_a_coroutine_is_cancelled_at_the_end_and_has_its_finally(caplog: pytest.LogCaptureFixture):
    seen: list[str] = []

    async def forever(_server: object) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            seen.append("finally")

    async def run() -> None:
        one = Run(forever)
        one.start()
        await asyncio.sleep(0)
        await one.process.finish()
        assert not one.over.is_set(), "that it has ended nobody need be told"

    in_loop(run)
    assert seen == ["finally"]
    assert errors(caplog) == []


def test_a_plain_one_is_waited_for_until_it_has_heard_that_it_is_to_end():
    seen: list[bool] = []

    async def run() -> None:
        def forever(_server: object) -> None:
            seen.append(one.stopping.wait(LIMIT))

        one = Run(forever)
        one.start()
        await one.process.finish()

    in_loop(run)
    assert seen == [True]


def test_one_that_is_to_end_does_not_begin():
    async def run() -> None:
        one = Run(lambda _server: pytest.fail("it has begun"))
        one.stopping.set()
        one.start()
        await one.process.finish()

    in_loop(run)


def test_it_begins_once():
    begun: list[int] = []

    async def run() -> None:
        one = Run(lambda _server: begun.append(1))
        one.start()
        one.start()
        await one.over.wait()
        await one.process.finish()

    in_loop(run)
    assert begun == [1]


def test_without_a_thread_it_has_ended(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    def no_thread(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def run() -> None:
        one = Run(lambda _server: pytest.fail("it has begun"))
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", no_thread)
            one.start()
        await one.over.wait()

    in_loop(run)
    assert "failed" in errors(caplog)[0]
