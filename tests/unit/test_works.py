"""Work that connections own: what begins, what ends it, and what gateways are told of it."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest

from mooring._core.wire import Work as Told
from mooring.errors import SpawnFull, StateError
from mooring.types import ConnectionState
from mooring.worker.works import FINALLY, GOES, LONGEST_NAME, Works
from support.loops import in_jumping_loop

FD, LISTENER, MOST = 7, 1, 3


class Outbox:
    """Of a worker that serves one connection; keeps what the gateway is told of its work."""

    def __init__(self) -> None:
        self.gateway_end: Any = SimpleNamespace(
            table=SimpleNamespace(info=lambda _: SimpleNamespace(listener=LISTENER))
        )
        self.states = {FD: ConnectionState.OPEN}
        self.told: list[tuple[Told, int, bytes]] = []

    def state(self, fd: int) -> int:
        return self.states.get(fd, 0)

    def find(self, fd: int) -> Any:
        return self.gateway_end

    def work(self, fd: int, what: int, number: int, name: bytes) -> None:
        assert fd == FD
        self.told.append((Told(what), number, name))


class Bench:
    def __init__(self, *, serves: bool = True) -> None:
        self.outbox = Outbox()
        self.failures: list[tuple[int, int, str, str]] = []
        self.lost: list[tuple[int, int, str, str]] = []
        sites: Any = [SimpleNamespace(max_spawned=0), SimpleNamespace(max_spawned=MOST)]
        self.works = Works(self.outbox, sites, self._failed, lambda *told: self.lost.append(told), serves=serves)
        self.log: list[str] = []

    def _failed(self, listener: int, fd: int, name: str, error: BaseException) -> None:
        self.failures.append((listener, fd, name, f"{type(error).__name__}: {error}"))

    def spawn(
        self, running: Coroutine[Any, Any, Any], name: str | None = None, *, fd: int = FD, endless: bool = False
    ) -> "asyncio.Task[Any]":
        return self.works.spawn(fd, running, name, endless=endless)

    async def long(self, name: str, last_words: float = 0.0) -> None:
        """Until it is cancelled."""
        try:
            self.log.append(f"{name} begins")
            await asyncio.Event().wait()
        finally:
            if last_words:
                await asyncio.sleep(last_words)
            self.log.append(f"{name} ends")

    @property
    def told(self) -> list[Told]:
        return [what for what, _, _ in self.outbox.told]


def looped(run: Callable[[Bench], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """A test that runs in a loop, with a bench."""

    def within() -> None:
        in_jumping_loop(lambda _: run(Bench()))

    within.__name__, within.__doc__ = run.__name__, run.__doc__
    return within


async def ended(*tasks: "asyncio.Task[Any]") -> None:
    """They have, and whoever is told of it was."""
    await asyncio.wait(tasks)
    await asyncio.sleep(0)


async def short() -> str:
    return "result"


async def fails(error: BaseException) -> None:
    raise error


# ------------------------------------------------------------------ what begins


@looped
async def test_the_gateway_is_told_of_each_piece_and_of_its_end(bench: Bench):
    task = bench.spawn(short(), "näme")
    assert task.get_name() == "näme"
    assert await task == "result"
    await ended(bench.spawn(short()))
    assert bench.outbox.told == [
        (Told.BEGUN, 1, "näme".encode()),
        (Told.ENDED, 1, b""),
        (Told.BEGUN, 2, b"short"),
        (Told.ENDED, 2, b""),
    ]
    assert not bench.works.of(FD, None)


@looped
async def test_what_a_connection_owns_is_found_by_its_name(bench: Bench):
    tasks = [bench.spawn(bench.long(name), name) for name in ("a", "b", "a")]
    assert bench.works.of(FD, None) == tasks
    assert bench.works.of(FD, "a") == [tasks[0], tasks[2]]
    assert bench.works.of(FD, "c") == bench.works.of(FD + 1, None) == []
    await bench.works.finish()


@looped
async def test_more_than_the_listener_allows(bench: Bench):
    tasks = [bench.spawn(bench.long("a")) for _ in range(MOST)]
    with pytest.raises(SpawnFull, match=f"connection {FD} owns max_spawned={MOST} pieces"):
        bench.spawn(short())
    tasks[0].cancel()
    await ended(tasks[0])
    assert await bench.spawn(short()) == "result"
    await bench.works.finish()


@looped
async def test_who_is_no_websocket_owns_nothing(bench: Bench):
    bench.outbox.states[FD] = ConnectionState.HTTP
    with pytest.raises(StateError, match="is no WebSocket, or none yet"):
        bench.spawn(short())
    assert not bench.told


@pytest.mark.parametrize("state", [0, ConnectionState.CLOSING])
def test_of_a_connection_that_has_gone_nothing_begins(state: int):
    async def run(_: Any) -> None:
        bench = Bench()
        bench.outbox.states[FD] = state
        task = bench.spawn(bench.long("a"))
        await ended(task)
        assert task.cancelled()
        assert not bench.log
        assert not bench.told

    in_jumping_loop(run)


@pytest.mark.parametrize(
    ("running", "name", "error", "said"),
    [
        (short, None, TypeError, r"short\): it is a function; call it: spawn\(fd, short\(...\)\)"),
        (print, None, TypeError, r"print\): it takes a coroutine"),
        (7, None, TypeError, r"int\): it takes a coroutine"),
        ("short", "x" * (LONGEST_NAME + 1), ValueError, f"at most {LONGEST_NAME} bytes in UTF-8, not 256"),
        ("short", "ä" * LONGEST_NAME, ValueError, "not 510"),
        ("short", 7, TypeError, "the name of work is a str, not int"),
        ("short", "\udcff", ValueError, "can't be encoded in UTF-8"),
    ],
)
def test_what_is_no_work(running: Any, name: Any, error: type[Exception], said: str):
    """A coroutine that is refused is closed: the interpreter does not warn of it, too."""

    async def run(_: Any) -> None:
        bench = Bench()
        with pytest.raises(error, match=said):
            bench.spawn(short() if running == "short" else running, name)
        assert not bench.told

    in_jumping_loop(run)


def test_where_there_are_no_connections():
    async def run(_: Any) -> None:
        with pytest.raises(StateError, match="works in workers only"):
            Bench(serves=False).spawn(short())

    in_jumping_loop(run)


@looped
async def test_a_thread_can_not_spawn_nor_cancel(bench: Bench):
    said: list[str] = []

    def elsewhere() -> None:
        for act in (lambda: bench.spawn(short()), lambda: bench.works.cancel(FD, None)):
            try:
                act()
            except StateError as error:
                said.append(str(error))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join(10)
    assert [text.partition(":")[0] for text in said] == [
        "spawn() was called in a thread",
        "cancel() was called in a thread",
    ]
    assert not bench.told


# ------------------------------------------------------------------ what ends it


@looped
async def test_a_failure_is_told_with_the_listener_and_the_name(bench: Bench):
    await ended(bench.spawn(fails(ValueError("a")), "first"), bench.spawn(fails(SystemExit(3)), "second"))
    assert bench.failures[0] == (LISTENER, FD, "first", "ValueError: a")
    assert bench.failures[1][:3] == (LISTENER, FD, "second")
    assert "StateError: what was spawned raised SystemExit; to stop the server, call shutdown()" in bench.failures[1]
    assert sorted(bench.told) == sorted([Told.BEGUN, Told.BEGUN, Told.ENDED, Told.ENDED])
    assert not bench.lost


@looped
async def test_a_cancel_spares_who_calls_it_and_goes_to_the_gateway(bench: Bench):
    """For work of that name in other workers."""
    others = [bench.spawn(bench.long(name), name) for name in ("a", "b")]
    found: list[int] = []

    async def cancels() -> None:
        found.append(bench.works.cancel(FD, "a"))
        found.append(bench.works.cancel(FD, None))
        await asyncio.sleep(0)

    own = bench.spawn(cancels(), "a")
    await ended(*others, own)
    assert not own.cancelled()
    assert found == [1, 2], "one that is being cancelled has not ended"
    assert (Told.CANCEL, 1, b"a") in bench.outbox.told
    assert (Told.CANCEL, 0, b"") in bench.outbox.told
    assert not bench.failures
    assert not bench.lost


@looped
async def test_the_end_of_a_connection_cancels_and_a_second_word_leaves_time_for_last_ones(bench: Bench):
    task = bench.spawn(bench.long("a", last_words=FINALLY / 2), "a")
    stubborn = bench.spawn(bench.long("b", last_words=FINALLY * 9), "b")
    await asyncio.sleep(0)
    for _ in range(2):
        bench.works.on_cancel(FD, None)
        await asyncio.sleep(0)
    await ended(task, stubborn)
    assert bench.log == ["a begins", "b begins", "a ends"]
    assert not bench.lost
    assert bench.told[2:] == [Told.ENDED, Told.ENDED]


@looped
async def test_the_end_of_a_gateway_cancels_and_there_is_nobody_to_tell(bench: Bench):
    task = bench.spawn(bench.long("a"))
    await asyncio.sleep(0)
    bench.works.gateway_lost()
    assert not task.cancelling(), "it was another one"
    bench.outbox.gateway_end = Outbox().gateway_end  # of its successor, which knows nothing of that connection
    bench.works.gateway_lost()
    await ended(task)
    assert task.cancelled()
    assert bench.told == [Told.BEGUN]


@looped
async def test_a_worker_that_leaves_ends_what_is_endless_and_later_all(bench: Bench):
    endless = bench.spawn(bench.long("endless"), "endless", endless=True)
    other = bench.spawn(bench.long("other"), "other")
    await asyncio.sleep(0)
    bench.works.end_endless()
    bench.works.end_endless()  # each gateway says it
    await ended(endless)
    assert (endless.cancelling(), other.cancelling()) == (1, 0)
    late = bench.spawn(bench.long("late"), "late", endless=True)
    await ended(late)
    assert late.cancelled()
    assert not bench.lost, "that was its way to end"
    bench.works.cut()
    bench.works.cut()
    await ended(other)
    assert other.cancelling() == 1
    assert bench.lost == [(LISTENER, FD, "other", GOES)]
    assert bench.told.count(Told.CUT) == 1
    too_late = bench.spawn(bench.long("too late"), "too late")
    await ended(too_late)
    assert bench.lost[1:] == [(LISTENER, FD, "too late", GOES)]


@looped
async def test_what_comes_to_its_end_although_it_is_cut_is_not_lost(bench: Bench):
    async def deaf() -> str:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return "done"

    task = bench.spawn(deaf())
    await asyncio.sleep(0)
    bench.works.cut()
    await ended(task)
    assert task.result() == "done"
    assert not bench.lost
    assert bench.told == [Told.BEGUN, Told.ENDED]


@looped
async def test_the_end_of_a_worker_waits_for_last_words_but_not_for_ever(bench: Bench):
    loop = asyncio.get_running_loop()
    bench.spawn(bench.long("a", last_words=FINALLY / 2))
    bench.spawn(bench.long("b", last_words=FINALLY * 9))
    await asyncio.sleep(0)
    before = loop.time()
    await bench.works.finish()
    assert loop.time() - before == pytest.approx(FINALLY)
    assert bench.log == ["a begins", "b begins", "a ends"]
    for task in bench.works.of(FD, None):
        task.cancel()


@looped
async def test_a_number_is_not_given_twice_at_a_time(bench: Bench):
    bench.works._number = (1 << 32) - 2
    tasks = [bench.spawn(bench.long("a")) for _ in range(2)]
    bench.works._number = (1 << 32) - 2  # as after four thousand million of them
    tasks.append(bench.spawn(bench.long("a")))
    assert [number for _, number, _ in bench.outbox.told] == [(1 << 32) - 1, 1, 2]
    await bench.works.finish()
