"""Answers in parts: who waits hears of room, of the client's end, or of the worker's; each answer is for one waiter."""

import asyncio
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from mooring._core.wire import FileNote, Respond
from mooring.errors import StateError
from mooring.worker.streams import Streams
from support.loops import in_loop

FD, NUMBER = 7, 3


class Outbox:
    """Notes what gateways are asked; `gone`: their connections are, and nothing reaches them."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.gone: set[int] = set()

    def _ask(self, what: str, fd: int, *more: Any) -> bool:
        self.asked.append((what, fd, *more))
        return fd not in self.gone

    def respond(self, fd: int, number: int, flags: int, data: bytes) -> bool:
        assert (flags, data) == (Respond.ASKS, b"")
        return self._ask("room of a request", fd, number)

    def room(self, fd: int) -> bool:
        return self._ask("room", fd)

    def want(self, fd: int, number: int) -> bool:
        return self._ask("want", fd, number)

    def send_file(self, fd: int, number: int, flags: int, claim: bytes, path: bytes, head: bytes) -> bool:
        return self._ask("file", fd, number, flags, path, head)

    def find(self, fd: int) -> object:
        return None if fd in self.gone else self


class Bench:
    def __init__(self) -> None:
        self.outbox = Outbox()
        self.streams = Streams(self.outbox)
        self.heard: list[Any] = []

    async def begin(self, waiting: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Waits in a task of its own, up to where it has asked."""
        task = asyncio.ensure_future(waiting)
        await asyncio.sleep(0)
        return task

    def watch(self, number: int, *, endless: bool) -> None:
        def end() -> None:
            self.heard.append(("end", number))

        def probe() -> None:
            self.heard.append(("probe", number))

        self.streams.watch(FD, number, end, probe, endless=endless)


def looped(run: Callable[[Bench], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """A test that runs in a loop, with a bench."""

    def within() -> None:
        in_loop(lambda: run(Bench()))

    within.__name__, within.__doc__ = run.__name__, run.__doc__
    return within


# ------------------------------------------------------------------ room


@looped
async def test_all_who_wait_for_room_of_one_request_have_it(bench: Bench):
    tasks = [await bench.begin(bench.streams.room(FD, NUMBER)) for _ in range(2)]
    other = await bench.begin(bench.streams.room(FD, NUMBER + 1))
    assert bench.outbox.asked == [("room of a request", FD, number) for number in (NUMBER, NUMBER, NUMBER + 1)]
    bench.streams.on_room(FD, NUMBER)
    assert await asyncio.gather(*tasks) == [True, True]
    assert not other.done()
    bench.streams.on_gone(FD, NUMBER + 1)
    assert await other is False


@looped
async def test_a_client_that_is_gone_has_none(bench: Bench):
    bench.outbox.gone.add(FD)
    assert await bench.streams.room(FD, NUMBER) is False
    assert await bench.streams.drain(FD) is False


@looped
async def test_nobody_waits_for_a_request_that_is_over(bench: Bench):
    task = await bench.begin(bench.streams.room(FD, NUMBER))
    reader = await bench.begin(bench.streams.part(FD, NUMBER))
    bench.streams.forget(FD, NUMBER)
    assert await task is False
    assert await reader is None


@looped
async def test_a_websocket_answers_each_who_waits_in_turn(bench: Bench):
    """One that does not wait any more has had its turn all the same: the answers carry no number."""
    first, cancelled, third = [await bench.begin(bench.streams.drain(FD)) for _ in range(3)]
    cancelled.cancel()
    await asyncio.wait([cancelled])
    bench.streams.on_room(FD, 0)
    assert await first is True
    bench.streams.on_room(FD, 0)
    await asyncio.sleep(0)
    assert not third.done()
    bench.streams.on_gone(FD, 0)
    assert await third is False
    bench.streams.on_room(FD, 0)  # nobody has asked: nothing happens


# ------------------------------------------------------------------ bodies in parts


@looped
async def test_a_part_comes_when_it_is_asked_for(bench: Bench):
    bench.streams.on_part(FD, NUMBER, b"nobody wants it")
    task = await bench.begin(bench.streams.part(FD, NUMBER))
    assert bench.outbox.asked == [("want", FD, NUMBER)]
    bench.streams.on_part(FD, NUMBER + 1, b"of another")
    bench.streams.on_part(FD, NUMBER, b"part")
    assert await task == b"part"


@looped
async def test_two_can_not_read_one_body(bench: Bench):
    task = await bench.begin(bench.streams.part(FD, NUMBER))
    with pytest.raises(StateError, match="read already, by another task"):
        await bench.streams.part(FD, NUMBER)
    bench.streams.on_part(FD, NUMBER, b"")
    assert await task == b"", "and the first goes on"
    assert bench.outbox.asked == [("want", FD, NUMBER)]


@looped
async def test_a_part_is_not_lost_with_who_waited_for_it(bench: Bench):
    for came in ("before it is asked for again", "behind that", "in the turn of the cancel"):
        task = await bench.begin(bench.streams.part(FD, NUMBER))
        if came == "in the turn of the cancel":
            bench.streams.on_part(FD, NUMBER, came.encode())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        if came == "before it is asked for again":
            bench.streams.on_part(FD, NUMBER, came.encode())
        task = await bench.begin(bench.streams.part(FD, NUMBER))
        if came == "behind that":
            bench.streams.on_part(FD, NUMBER, came.encode())
        assert await task == came.encode()
        assert bench.outbox.asked == [("want", FD, NUMBER)]
        bench.outbox.asked.clear()


@looped
async def test_what_nobody_took_is_forgotten_with_its_request(bench: Bench):
    task = await bench.begin(bench.streams.part(FD, NUMBER))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bench.streams._untaken
    bench.streams.forget(FD, NUMBER)
    assert not bench.streams._untaken


@looped
async def test_who_asks_again_hears_that_the_client_has_left(bench: Bench):
    task = await bench.begin(bench.streams.part(FD, NUMBER))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    bench.streams.on_gone(FD, NUMBER)
    assert await bench.streams.part(FD, NUMBER) is None


@looped
async def test_no_part_comes_of_a_client_that_has_left(bench: Bench):
    task = await bench.begin(bench.streams.part(FD, NUMBER))
    bench.streams.on_gone(FD, NUMBER)
    assert await task is None
    bench.outbox.gone.add(FD)
    assert await bench.streams.part(FD, NUMBER) is None


# ------------------------------------------------------------------ files


@pytest.fixture
def file(tmp_path: Path) -> int:
    (tmp_path / "file").write_bytes(bytes(100))
    return os.open(tmp_path / "file", os.O_RDONLY)


def transfer(bench: Bench, file: int, over: Any = None) -> Any:
    return bench.streams.transfer(over, FD, NUMBER, b"the head", file, 0, 100, True)


def test_the_gateway_says_that_it_takes_a_file_and_once_more_when_it_is_over(file: int, tmp_path: Path):
    async def run() -> None:
        bench, over = Bench(), []
        noted = transfer(bench, file, lambda sent, whole: over.append((sent, whole)))
        path = str(tmp_path / "file").encode()
        assert bench.outbox.asked == [("file", FD, NUMBER, Respond.CLOSE, path, b"the head")]
        bench.streams.on_file(FD, NUMBER, bytes([FileNote.TAKEN]))
        assert await noted == FileNote.TAKEN
        assert not over
        bench.streams.on_file(FD, NUMBER, bytes([FileNote.OVER]) + (40).to_bytes(8, "little"))
        assert over == [(40, False)]
        bench.streams.on_file(FD, NUMBER, bytes([FileNote.OVER]) + (40).to_bytes(8, "little"))
        assert over == [(40, False)], "once"

    in_loop(run)
    os.close(file)


@pytest.mark.parametrize("gone", [True, False])
def test_a_client_that_has_left_gets_no_file(file: int, gone: bool):
    async def run() -> None:
        bench, over = Bench(), []
        if gone:
            bench.outbox.gone.add(FD)
        noted = transfer(bench, file, lambda *told: over.append(told))
        bench.streams.on_gone(FD, NUMBER)
        assert await noted == FileNote.LATE
        bench.streams.finish()
        assert not over, "its worker answers for it, and no gateway has it"

    in_loop(run)
    os.close(file)


def test_a_file_that_has_no_name_any_more_is_nothing_for_a_gateway(file: int, tmp_path: Path):
    (tmp_path / "file").unlink()

    async def run() -> None:
        bench = Bench()
        assert transfer(bench, file) is None
        assert not bench.outbox.asked

    in_loop(run)
    os.close(file)


@pytest.mark.parametrize("note", [b"", b"\xff"])
def test_what_no_gateway_can_say_of_a_file(note: bytes):
    with pytest.raises(ValueError, match=r"nothing is said of a file|is not a valid FileNote"):
        Bench().streams.on_file(FD, NUMBER, note)


@pytest.mark.parametrize(("lost", "told"), [(True, (None, False)), (False, (None, True))])
def test_what_becomes_of_a_file_when_its_gateway_or_its_worker_ends(file: int, lost: bool, told: tuple[Any, bool]):
    """With the gateway the client is gone; with the worker it goes on, unseen."""

    async def run() -> None:
        bench, over = Bench(), []
        noted = transfer(bench, file, lambda *told: over.append(told))
        bench.streams.on_file(FD, NUMBER, bytes([FileNote.TAKEN]))
        await noted
        if lost:
            bench.outbox.gone.add(FD)
        bench.streams.gateway_lost() if lost else bench.streams.finish()
        assert over == [told]

    in_loop(run)
    os.close(file)


# ------------------------------------------------------------------ who is told of the end


@looped
async def test_who_watches_is_told_once_that_the_client_left(bench: Bench):
    bench.watch(NUMBER, endless=True)
    bench.streams.on_peer_ended(FD, NUMBER)
    bench.streams.on_peer_ended(FD, NUMBER + 1)
    bench.streams.on_gone(FD, NUMBER)
    bench.streams.on_gone(FD, NUMBER)
    bench.streams.on_peer_ended(FD, NUMBER)
    assert bench.heard == [("probe", NUMBER), ("end", NUMBER)]


@looped
async def test_who_has_ended_is_told_nothing(bench: Bench):
    bench.watch(NUMBER, endless=True)
    bench.streams.forget(FD, NUMBER)
    bench.streams.on_gone(FD, NUMBER)
    bench.streams.cut()
    assert not bench.heard


@looped
async def test_what_is_endless_ends_first_and_the_rest_when_the_time_is_over(bench: Bench):
    bench.watch(1, endless=True)
    bench.watch(2, endless=False)
    bench.streams.end()
    assert bench.heard == [("end", 1)]
    bench.watch(3, endless=True)
    bench.watch(4, endless=False)
    await asyncio.sleep(0)
    assert bench.heard == [("end", 1), ("end", 3)], "it begins, and ends at once"
    bench.streams.cut()
    assert sorted(bench.heard[2:]) == [("end", 2), ("end", 4)]
    bench.watch(5, endless=False)
    await asyncio.sleep(0)
    assert bench.heard[4:] == [("end", 5)]


@looped
async def test_the_end_of_a_gateway_is_that_of_all_its_clients(bench: Bench):
    bench.watch(NUMBER, endless=False)
    room = await bench.begin(bench.streams.room(FD, NUMBER))
    drains = [await bench.begin(bench.streams.drain(FD)) for _ in range(2)]
    part = await bench.begin(bench.streams.part(FD, NUMBER))
    other = await bench.begin(bench.streams.room(FD + 1, 1))
    bench.outbox.gone.add(FD)
    bench.streams.gateway_lost()
    assert await room is False
    assert await asyncio.gather(*drains) == [False, False]
    assert await part is None
    assert bench.heard == [("end", NUMBER)]
    assert not other.done()
    bench.streams.on_room(FD + 1, 1)
    assert await other is True
