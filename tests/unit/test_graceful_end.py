"""How long what goes on in a worker has, once the worker has to go."""

import asyncio
from unittest.mock import Mock

import pytest

from mooring.net.loop import HANDLING
from mooring.worker import graceful_end
from mooring.worker.graceful_end import GracefulEnd
from support.loops import in_loop

PATIENCE = 60.0


class Bench:
    """A GracefulEnd whose streams and works only note what they are told, and tasks of a handler that wait for ever."""

    def __init__(self, patience: float = PATIENCE) -> None:
        self.streams, self.works = Mock(), Mock()
        self.graceful_end = GracefulEnd(self.streams, self.works, patience)

    def task(self) -> "asyncio.Task[object]":
        HANDLING.set(True)
        try:
            return asyncio.ensure_future(asyncio.Event().wait())
        finally:
            HANDLING.set(False)


def test_who_has_not_heard_of_its_time_has_the_graceful_timeout() -> None:
    async def test() -> None:
        bench = Bench()
        task = bench.task()
        finishing = asyncio.ensure_future(bench.graceful_end.finish(set(), clients_stay=True))
        await asyncio.wait([finishing], timeout=0.05)
        assert not task.cancelling()
        bench.streams.end.assert_called_once_with()
        bench.works.end_endless.assert_called_once_with()
        task.cancel()
        await finishing

    in_loop(test)


def test_who_has_heard_of_it_has_no_more() -> None:
    async def test() -> None:
        bench = Bench()
        task = bench.task()
        bench.graceful_end.within(0.05)
        bench.graceful_end.begin()
        await bench.graceful_end.finish(set(), clients_stay=True)
        assert task.cancelled()

    in_loop(test)


def test_the_least_counts() -> None:
    async def test() -> None:
        bench = Bench()
        task = bench.task()
        bench.graceful_end.within(0.05)
        bench.graceful_end.within(PATIENCE)
        await bench.graceful_end.finish(set(), clients_stay=True)
        assert task.cancelled()

    in_loop(test)


def test_at_a_stop_a_task_has_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graceful_end, "AT_STOP", 0.05)

    async def test() -> None:
        bench = Bench()
        task = bench.task()
        await bench.graceful_end.finish(set(), clients_stay=False)
        assert task.cancelled()

    in_loop(test)


def test_what_goes_on_is_cut_before_the_time_is_over() -> None:
    async def test() -> None:
        bench, cut = Bench(), asyncio.Event()
        bench.works.cut.side_effect = cut.set
        bench.graceful_end.within(0.05)
        await cut.wait()
        bench.streams.cut.assert_called_once_with()

    in_loop(test)


def test_own_tasks_are_nobody_else_s() -> None:
    async def test() -> None:
        bench = Bench()
        own = bench.task()
        await bench.graceful_end.finish({own}, clients_stay=True)
        assert not own.cancelling()
        own.cancel()

    in_loop(test)
