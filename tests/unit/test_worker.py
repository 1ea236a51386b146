"""What a worker does beside the messages of connections: its own events, failures, and gateways that end."""

import asyncio
import contextvars
import logging
import os
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from mooring._core.wire import Event, Wants
from mooring.app.handlers import Handlers
from mooring.config import Settings
from mooring.errors import StateError
from mooring.types import ClosedBy, ConnectionState
from mooring.worker.worker import Worker
from support.loops import in_loop

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="")


def worker(number: int = 1, *, options: dict[str, Any] | None = None, **handlers: Callable[..., Any]) -> Worker:
    table = Handlers()
    for name, handler in {"message": lambda server, frame: None, **handlers}.items():
        table.register(name, handler)
    settings = Settings.from_options({"worker_num": 2, **(options or {})})
    return Worker("server", table, settings, number, 1, Mock())


def runs(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    in_loop(test)


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [line.getMessage() for line in caplog.records if line.levelno >= logging.ERROR]


# -- events of the server


def test_what_worker_start_has_set_is_seen_by_all_others_and_what_they_set_by_nobody():
    seen: list[str] = []

    async def start(server: Any, worker_id: int) -> None:
        variable.set(f"of worker {worker_id}")

    def stop(server: Any, worker_id: int) -> None:
        seen.append(variable.get())
        variable.set("of a handler")

    async def test() -> None:
        one = worker(worker_start=start, worker_stop=stop)
        await one.start()
        await one.fire("worker_stop", 1)
        await one.fire("worker_stop", 1)

    runs(test)
    assert seen == ["of worker 1"] * 2


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3)])
def test_what_worker_start_raises_passes_through(error: BaseException):
    def start(server: Any, worker_id: int) -> None:
        raise error

    async def test() -> None:
        with pytest.raises(type(error)):
            await worker(worker_start=start).start()

    runs(test)


def test_an_error_of_worker_start_that_nobody_can_look_at_is_told_as_a_text():
    class Odd(Exception):
        @property
        def __class__(self) -> Any:  # type: ignore[override]
            raise ZeroDivisionError

    def start(server: Any, worker_id: int) -> None:
        raise Odd

    async def test() -> None:
        with pytest.raises(StateError, match="raised what can't be looked at"):
            await worker(worker_start=start).start()

    runs(test)


@pytest.mark.parametrize("is_coroutine", [False, True])
def test_another_event_that_fails_concerns_nobody_else(is_coroutine: bool, caplog: pytest.LogCaptureFixture):
    def plain(server: Any, worker_id: int) -> None:
        raise SystemExit

    async def coroutine(server: Any, worker_id: int) -> None:
        raise SystemExit

    async def test() -> None:
        one = worker(worker_stop=coroutine if is_coroutine else plain)
        await one.fire("worker_stop", 1)
        await one.fire("worker_exit", 1, "there is no such handler")

    runs(test)
    [said] = errors(caplog)
    assert said.endswith("the 'worker_stop' handler failed")


def test_who_does_not_wait_for_an_event_any_more_has_it_cancelled():
    seen: list[str] = []

    async def stop(server: Any, worker_id: int) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async def test() -> None:
        fired = asyncio.ensure_future(worker(worker_stop=stop).fire("worker_stop", 1))
        await asyncio.sleep(0)
        fired.cancel()
        await asyncio.wait([fired])
        await asyncio.sleep(0)
        assert seen == ["cancelled"], "and not only when the loop ends"

    runs(test)


def test_at_its_end_the_application_has_so_much_time(caplog: pytest.LogCaptureFixture):
    async def leave(server: Any, worker_id: int, reason: str) -> None:
        await asyncio.Event().wait()

    async def test() -> None:
        await worker(worker_exit=leave).depart("it goes", 0.001)

    runs(test)
    assert "the 'worker_exit' handler did not end within event_timeout=0.001 s: not waiting" in caplog.text


# -- functions that belong to no connection


def test_a_function_that_fails_is_named_and_a_coroutine_is_waited_for_at_the_end(caplog: pytest.LogCaptureFixture):
    seen: list[Any] = []

    def fails(value: int) -> None:
        raise ValueError(value)

    async def waits(value: int) -> None:
        await asyncio.sleep(0.01)
        seen.append(value)

    async def test() -> None:
        one = worker()
        one.call(fails, 1)
        one.call(waits, 2)
        await one.finish()
        assert seen == [2]

    runs(test)
    [said] = errors(caplog)
    assert said.endswith("fails failed")


# -- what it says of itself


@pytest.mark.parametrize(("grace", "most"), [(-1, 150), (0, 100), (7, 107)])
def test_workers_are_not_all_replaced_at_the_same_moment(grace: int, most: int, monkeypatch: pytest.MonkeyPatch):
    one: Any = worker(options={"max_request": 100, "max_request_grace": grace})
    one.inlet = Mock()
    for highest in (False, True):
        monkeypatch.setattr("random.randint", lambda low, high, highest=highest: high if highest else low)
        one.observe("pulse")
    assert [call.args for call in one.inlet.observe.mock_calls] == [("pulse", 100), ("pulse", most)]


def test_without_a_limit_there_is_none():
    one: Any = worker(options={"max_request_grace": 5})
    one.inlet = Mock()
    one.observe("pulse")
    one.inlet.observe.assert_called_once_with("pulse", 0)


def test_gateways_ask_it_for_what_it_has_handlers_for():
    def origin(server: Any, request: Any) -> bool:
        return True

    assert worker().inlet.wants == 0
    assert worker(origin=origin).inlet.wants == Wants.ORIGIN
    spoken = Worker("server", Handlers(), Settings(), 0, 1, Mock())
    assert spoken.inlet.wants == Wants.HANDSHAKE, "it refuses each: there is no 'message' handler"


def test_one_that_can_not_follow_a_gateway_ends_at_once(monkeypatch: pytest.MonkeyPatch):
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    worker().on_broken("gateway 0", "nonsense")
    assert ended == [1]


# -- a gateway that has ended


class Table:
    """Of a gateway that has ended: connections that this process has served, and those that nobody had."""

    def __init__(self, mine: list[tuple[int, ConnectionState, int, bool]], nobodys: list[Any]) -> None:
        self._served = {os.getpid(): mine, 0: nobodys}

    def served(self, pid: int) -> list[Any]:
        return list(self._served[pid])

    def info(self, _fd: int) -> None:
        return None


def lost(
    one: Any, mine: list[tuple[int, ConnectionState, int, bool]], nobodys: Any = (), *, departed: bool = False
) -> list[tuple[int, Event]]:
    """The ends that the application is told of."""
    one.inlet, one.outbox = Mock(), Mock()
    gateway = SimpleNamespace(table=Table(mine, list(nobodys)), gateway=3, departed=departed)
    one.gateway_lost(gateway, "killed")
    one.outbox.disconnect.assert_called_once_with(gateway)
    notices = [call.args[1] for call in one.inlet.end.mock_calls]
    for notice in notices:
        assert (notice.payload, notice.arg, notice.opcode) == (b"gateway 3 has ended", 1006, ClosedBy.SERVER)
    return [(notice.fd, Event(notice.kind)) for notice in notices]


def gone(server: Any, fd: int, reason: str) -> None:
    """A handler of `disconnect`."""


MINE = [
    (1, ConnectionState.OPEN, 0, True),
    (2, ConnectionState.CLOSING, 0, True),
    (3, ConnectionState.OPEN, 0, False),  # the gateway had not heard that its `open` was begun
    (4, ConnectionState.OPEN, 0, False),  # it was not
    (5, ConnectionState.HTTP, 0, False),
]


def test_each_websocket_whose_open_was_begun_has_its_close():
    one = worker()
    one._opened.add(3)
    assert lost(one, MINE) == [(1, Event.CLOSE), (2, Event.CLOSE), (3, Event.CLOSE)]


def test_the_others_have_a_disconnect_where_somebody_wants_it():
    assert lost(worker(disconnect=gone), MINE[3:]) == [(5, Event.DISCONNECT)]


@pytest.mark.parametrize(("number", "told"), [(0, [(9, Event.DISCONNECT)]), (1, [])])
def test_those_that_nobody_has_served_are_the_matter_of_worker_0(number: int, told: list[Any]):
    assert lost(worker(number, disconnect=gone), [], [(9, ConnectionState.HTTP, 0, False)]) == told


def test_nor_are_they_when_it_ends_itself():
    one = worker(0, disconnect=gone)
    one.retire()
    assert lost(one, [], [(9, ConnectionState.HTTP, 0, False)]) == []


@pytest.mark.parametrize("departed", [False, True])
def test_one_that_has_said_that_it_ends_is_no_line_in_the_log(departed: bool, caplog: pytest.LogCaptureFixture):
    lost(worker(), MINE[:1], departed=departed)
    assert ("the channel to gateway 3 has ended: killed; 1 connections" in caplog.text) is not departed
