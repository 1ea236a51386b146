"""The epoll loop, as Python sees it: calls, posts, descriptors, errors. asyncio as its guest is in test_loop.py."""

import contextlib
import gc
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mooring._core.reactor import Reactor

LIMIT = 5.0  # seconds that nothing here ever takes
EPOLLIN, EPOLLOUT, EPOLLHUP = 1, 4, 16


def run(reactor: Reactor) -> None:
    """run(), which must come to its end."""
    late: list[bool] = []

    def give_up() -> None:
        late.append(True)
        reactor.stop()

    guard = reactor.call_later(LIMIT, give_up)
    reactor.run()
    reactor.cancel_call(guard)
    assert not late, "the reactor was not stopped"


@pytest.fixture
def reactor() -> Reactor:
    return Reactor()


@contextlib.contextmanager
def handling(number: int, handler: Callable[..., Any]) -> Iterator[None]:
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


# ------------------------------------------------------------------ calls at a time


def test_calls_come_in_order_and_never_early(reactor: Reactor) -> None:
    chance = random.Random(1)
    delays = [chance.choice([0.0, 0.005, 0.01, 0.02, 0.03]) for _ in range(200)]
    came: list[int] = []
    due: list[int] = []
    begin = time.monotonic()
    for number, delay in enumerate(delays):

        def call(number: int = number, delay: float = delay) -> None:
            assert time.monotonic() - begin >= delay - 0.002  # the clock is read in whole milliseconds
            came.append(number)
            if len(came) == len(delays):
                reactor.stop()

        due.append(reactor.call_later(delay, call)[0])
    reactor.on_error = lambda doing, error: pytest.fail(f"{doing}: {error!r}")
    run(reactor)
    assert came == sorted(range(len(due)), key=lambda number: (due[number], number))
    assert time.monotonic() - begin < 1.0


@pytest.mark.parametrize("delay", [0, -1, -0.5, -1e9, 0.0])
def test_a_call_without_delay(reactor: Reactor, delay: float) -> None:
    reactor.call_later(delay, reactor.stop)
    begin = time.monotonic()
    run(reactor)
    assert time.monotonic() - begin < 0.5


def test_a_call_may_call_again(reactor: Reactor) -> None:
    left = [20]

    def again() -> None:
        left[0] -= 1
        if left[0]:
            reactor.call_later(0, again)
        else:
            reactor.stop()

    reactor.call_later(0, again)
    run(reactor)
    assert left == [0]


def test_a_far_call_does_not_hold_up_a_near_one(reactor: Reactor) -> None:
    far = reactor.call_later(1e6, lambda: pytest.fail("too early"))
    reactor.call_later(0.01, reactor.stop)
    run(reactor)
    reactor.cancel_call(far)


def test_cancelled_calls_do_not_come(reactor: Reactor) -> None:
    came: list[str] = []
    first = reactor.call_later(0, lambda: came.append("first"))
    reactor.cancel_call(first)
    reactor.cancel_call(first)
    second = reactor.call_later(0.001, lambda: came.append("second"))
    third = reactor.call_later(0.005, lambda: came.append("third"))
    reactor.call_later(0.003, lambda: reactor.cancel_call(third))
    reactor.call_later(0.01, reactor.stop)
    run(reactor)
    assert came == ["second"]
    reactor.cancel_call(second)  # it has come: nothing happens


def test_one_call_cancels_another_that_is_due_too(reactor: Reactor) -> None:
    came: list[str] = []
    handles: list[Any] = []

    def first() -> None:
        came.append("first")
        reactor.cancel_call(handles[0])

    reactor.call_later(0.002, first)
    handles.append(reactor.call_later(0.002, lambda: came.append("second")))
    time.sleep(0.01)  # both are due in one turn
    reactor.call_later(0.02, reactor.stop)
    run(reactor)
    assert came == ["first"]


# ------------------------------------------------------------------ posts


def test_posts_come_in_order(reactor: Reactor) -> None:
    came: list[int] = []
    for number in range(100):
        reactor.post(lambda number=number: came.append(number))
    reactor.post(reactor.stop)
    run(reactor)
    assert came == list(range(100))


def test_a_post_from_a_thread_wakes_the_sleeper(reactor: Reactor) -> None:
    asleep = threading.Event()
    came: list[int] = []

    def other() -> None:
        assert asleep.wait(LIMIT)
        reactor.post(lambda: came.append(threading.get_ident()))
        reactor.post(reactor.stop)

    thread = threading.Thread(target=other)
    thread.start()
    reactor.post(asleep.set)
    begin = time.monotonic()
    run(reactor)
    thread.join(LIMIT)
    assert came == [threading.get_ident()]  # it ran here, not there
    assert time.monotonic() - begin < 1.0


def test_posts_of_many_threads_come_once_each_and_in_order(reactor: Reactor) -> None:
    count, threads = 2000, 4
    came: list[tuple[int, int]] = []

    def got(thread: int, number: int) -> None:
        came.append((thread, number))
        if len(came) == count * threads:
            reactor.stop()

    def poster(thread: int) -> None:
        for number in range(count):
            reactor.post(lambda number=number: got(thread, number))

    running = [threading.Thread(target=poster, args=(thread,)) for thread in range(threads)]
    for thread in running:
        thread.start()
    run(reactor)
    for thread in running:
        thread.join(LIMIT)
    for thread in range(threads):
        assert [number for who, number in came if who == thread] == list(range(count))


def test_a_post_from_a_signal_handler_wakes_the_sleeper(reactor: Reactor) -> None:
    with handling(signal.SIGALRM, lambda *_: reactor.post(reactor.stop)):
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        run(reactor)


def test_what_is_posted_by_a_post_waits_for_the_next_turn(
    reactor: Reactor, pair: tuple[socket.socket, socket.socket]
) -> None:
    """Else callbacks that post themselves would starve the sockets."""
    a, b = pair
    turns: list[int] = []

    def again() -> None:
        turns.append(reactor.turns)
        reactor.post(again)

    def readable() -> None:
        assert a.recv(1) == b"x"
        reactor.stop()

    reactor.add_reader(a.fileno(), readable)
    reactor.post(again)
    reactor.call_later(0.01, lambda: b.send(b"x"))
    run(reactor)
    assert len(turns) == len(set(turns)) > 1


# ------------------------------------------------------------------ descriptors


def test_a_reader_is_called_until_all_is_read(reactor: Reactor, pair: tuple[socket.socket, socket.socket]) -> None:
    a, b = pair
    came: list[bytes] = []

    def readable() -> None:
        came.append(a.recv(1))
        if came[-1] == b"c":
            reactor.stop()

    reactor.add_reader(a.fileno(), readable)
    b.send(b"abc")
    run(reactor)
    assert came == [b"a", b"b", b"c"]
    b.close()
    came.clear()
    reactor.remove_reader(a.fileno())
    reactor.add_reader(a.fileno(), lambda: (came.append(a.recv(1)), reactor.stop()))
    run(reactor)
    assert came == [b""]


def test_a_removed_reader_is_not_called(reactor: Reactor, pair: tuple[socket.socket, socket.socket]) -> None:
    a, b = pair
    reactor.add_reader(a.fileno(), lambda: pytest.fail("called"))
    b.send(b"x")
    reactor.remove_reader(a.fileno())
    reactor.remove_reader(a.fileno())
    reactor.call_later(0.01, reactor.stop)
    run(reactor)


def test_readers_remove_each_other_in_one_turn(reactor: Reactor) -> None:
    """Both are ready; whoever comes first removes the other, whose event is in the same batch."""
    pairs = [socket.socketpair() for _ in range(2)]
    came: list[int] = []

    def readable(number: int) -> None:
        came.append(number)
        reactor.remove_reader(pairs[1 - number][0].fileno())
        reactor.stop()

    for number, (a, b) in enumerate(pairs):
        reactor.add_reader(a.fileno(), lambda number=number: readable(number))
        b.send(b"x")
    run(reactor)
    assert len(came) == 1
    for a, b in pairs:
        a.close()
        b.close()


def test_a_reader_removes_itself(reactor: Reactor, pair: tuple[socket.socket, socket.socket]) -> None:
    a, b = pair
    came: list[int] = []

    def readable() -> None:
        came.append(1)
        reactor.remove_reader(a.fileno())

    reactor.add_reader(a.fileno(), readable)
    b.send(b"x")
    reactor.call_later(0.02, reactor.stop)
    run(reactor)
    assert came == [1]
    reactor.add_reader(a.fileno(), reactor.stop)  # the descriptor may come back
    run(reactor)


def test_descriptors_that_can_not_be_watched(
    reactor: Reactor, pair: tuple[socket.socket, socket.socket], tmp_path: Any
) -> None:
    reactor.add_reader(pair[0].fileno(), lambda: None)
    with pytest.raises(FileExistsError):
        reactor.add_reader(pair[0].fileno(), lambda: None)
    a, b = socket.socketpair()
    number = a.fileno()
    a.close()
    b.close()
    with pytest.raises(OSError, match=f"descriptor {number}"):
        reactor.add_reader(number, lambda: None)
    with open(tmp_path / "file", "w") as file, pytest.raises(PermissionError):
        reactor.add_reader(file.fileno(), lambda: None)
    # nothing is left of the failures
    reactor.remove_reader(number)
    reactor.call_later(0, reactor.stop)
    run(reactor)


def test_poll_gives_the_events_of_registered_descriptors(
    reactor: Reactor, pair: tuple[socket.socket, socket.socket]
) -> None:
    a, b = pair
    reactor.register(a.fileno(), EPOLLIN)
    assert reactor.poll(0) == []
    b.send(b"x")
    assert reactor.poll(LIMIT) == [(a.fileno(), EPOLLIN)]
    assert reactor.poll(0) == [(a.fileno(), EPOLLIN)]  # level-triggered
    reactor.modify(a.fileno(), EPOLLIN | EPOLLOUT)
    assert reactor.poll(0) == [(a.fileno(), EPOLLIN | EPOLLOUT)]
    reactor.modify(a.fileno(), 0)
    assert reactor.poll(0) == []
    b.close()
    assert reactor.poll(0) == [(a.fileno(), EPOLLHUP)]  # which can't be turned off
    reactor.unregister(a.fileno())
    assert reactor.poll(0) == []
    reactor.unregister(a.fileno())
    with pytest.raises(FileNotFoundError):
        reactor.modify(a.fileno(), EPOLLIN)


def test_a_closed_descriptor_can_be_unregistered(reactor: Reactor) -> None:
    a, b = socket.socketpair()
    number = a.fileno()
    reactor.register(number, EPOLLIN)
    a.close()
    b.close()
    reactor.unregister(number)
    assert reactor.poll(0) == []


# ------------------------------------------------------------------ turns and time


def test_poll_takes_as_long_as_it_is_told(reactor: Reactor) -> None:
    for timeout in (0.0, 0.001, 0.02, 0.05):
        begin = time.monotonic()
        assert reactor.poll(timeout) == []
        assert timeout - 0.001 <= time.monotonic() - begin < timeout + 0.5


def test_poll_runs_what_is_due(reactor: Reactor) -> None:
    came: list[str] = []
    reactor.call_later(0.01, lambda: came.append("later"))
    reactor.post(lambda: came.append("posted"))
    reactor.poll(LIMIT)
    assert came == ["posted"]
    while "later" not in came:
        reactor.poll(LIMIT)
    assert came == ["posted", "later"]


def test_it_sleeps_when_nothing_is_to_be_done(reactor: Reactor) -> None:
    for delay in (0.05, 0.0505, 0.0995):
        before, begin = reactor.turns, time.process_time()
        reactor.call_later(delay, reactor.stop)
        run(reactor)
        assert reactor.turns - before <= 4
        assert time.process_time() - begin < 0.04


def test_now_is_the_time_of_the_turn(reactor: Reactor) -> None:
    seen: list[int] = []

    def first() -> None:
        seen.append(reactor.now)
        time.sleep(0.01)
        seen.append(reactor.now)
        reactor.call_later(0.01, later)  # of another turn, however slow the machine is

    def later() -> None:
        seen.append(reactor.now)
        reactor.stop()

    reactor.call_later(0.01, first)
    run(reactor)
    assert seen[0] == seen[1] < seen[2]
    assert abs(time.monotonic() * 1000 - seen[2]) < 1000


def test_stop_ends_the_turn_not_the_middle_of_it(reactor: Reactor) -> None:
    came: list[str] = []
    reactor.post(reactor.stop)
    reactor.post(lambda: came.append("the same turn"))
    run(reactor)
    assert came == ["the same turn"]
    reactor.post(lambda: came.append("run again"))
    reactor.post(reactor.stop)
    run(reactor)
    assert came == ["the same turn", "run again"]


def test_signals_are_handled_while_it_sleeps(reactor: Reactor) -> None:
    came: list[int] = []
    with handling(signal.SIGUSR1, lambda number, _: came.append(number)):
        thread = threading.Timer(0.02, lambda: signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1))
        thread.start()
        reactor.call_later(0.1, reactor.stop)
        run(reactor)
        thread.join(LIMIT)
    assert came == [signal.SIGUSR1]


def test_a_signal_handler_that_raises_ends_run(reactor: Reactor) -> None:
    def handler(*_: object) -> None:
        raise KeyboardInterrupt

    with handling(signal.SIGALRM, handler):
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        with pytest.raises(KeyboardInterrupt):
            run(reactor)


# ------------------------------------------------------------------ errors


def test_an_error_is_reported_and_ends_nothing(reactor: Reactor, pair: tuple[socket.socket, socket.socket]) -> None:
    a, b = pair
    reported: list[tuple[str, BaseException]] = []
    came: list[str] = []
    reactor.on_error = lambda doing, error: reported.append((doing, error))

    def fail(text: str) -> None:
        raise ValueError(text)

    def readable() -> None:
        came.append("reader")
        a.recv(1)
        fail("reader")

    reactor.post(lambda: fail("post"))
    reactor.post(lambda: came.append("post"))
    reactor.call_later(0, lambda: fail("call"))
    reactor.add_reader(a.fileno(), readable)
    b.send(b"xx")
    reactor.call_later(0.02, lambda: (came.append("call"), reactor.stop()))
    run(reactor)
    assert came == ["post", "reader", "reader", "call"]
    assert sorted(str(error) for _, error in reported) == ["call", "post", "reader", "reader"]
    assert all(isinstance(error, ValueError) and doing for doing, error in reported)


def test_an_error_is_logged_with_its_traceback(reactor: Reactor, caplog: pytest.LogCaptureFixture) -> None:
    def misbehave() -> None:
        raise ValueError("here it is")

    reactor.post(misbehave)
    reactor.post(reactor.stop)
    run(reactor)
    (entry,) = caplog.records
    assert (entry.name, entry.levelname) == ("mooring.reactor", "ERROR")
    assert "here it is" in entry.getMessage()
    assert entry.exc_info is not None
    assert "misbehave" in caplog.text


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_is_no_error_ends_run(reactor: Reactor, kind: type[BaseException]) -> None:
    def leave() -> None:
        raise kind

    came: list[str] = []
    reactor.post(leave)
    with pytest.raises(kind):
        run(reactor)
    reactor.post(lambda: came.append("again"))
    reactor.post(reactor.stop)
    run(reactor)
    assert came == ["again"]


# ------------------------------------------------------------------ descriptors of its own


def descriptors() -> set[int]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            os.fstat(int(name))  # not the one of listdir itself
            found.add(int(name))
    return found


def test_its_descriptors_are_not_inherited_and_go_with_it() -> None:
    gc.collect()
    before = descriptors()
    reactor = Reactor()
    mine = descriptors() - before
    assert len(mine) == 2
    for number in mine:
        assert not os.get_inheritable(number)
    del reactor
    gc.collect()
    assert descriptors() == before
