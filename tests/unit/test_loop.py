"""asyncio as the guest of our reactor: everything asyncio does, and everything the reactor does, at once."""

import asyncio
import os
import selectors
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from mooring._core.reactor import Reactor
from mooring.net.loop import ReactorSelector, new_event_loop

LIMIT = 10.0  # seconds that nothing here ever takes

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture
def reactor() -> Reactor:
    return Reactor()


@pytest.fixture
def run(reactor: Reactor) -> Iterator[Run]:
    """Runs a coroutine to its end on a loop that is the reactor's guest."""
    with asyncio.Runner(loop_factory=lambda: new_event_loop(reactor)) as runner:

        async def limited(coroutine: Coroutine[Any, Any, Any]) -> Any:
            async with asyncio.timeout(LIMIT):
                return await coroutine

        yield lambda coroutine: runner.run(limited(coroutine))


# ------------------------------------------------------------------ what asyncio does


def test_sleep(run: Run) -> None:
    async def main() -> list[float]:
        came: list[float] = []

        async def one(delay: float) -> None:
            begin = time.monotonic()
            await asyncio.sleep(delay)
            assert time.monotonic() - begin >= delay - 0.001
            came.append(delay)

        await asyncio.gather(*map(one, (0.03, 0.0, 0.01, 0.02)))
        return came

    assert run(main()) == [0.0, 0.01, 0.02, 0.03]


def test_it_sleeps_when_nothing_is_to_be_done(reactor: Reactor, run: Run) -> None:
    async def main() -> tuple[int, float]:
        await asyncio.sleep(0)
        before, begin = reactor.turns, time.process_time()
        await asyncio.sleep(0.1)
        return reactor.turns - before, time.process_time() - begin

    turns, cpu = run(main())
    assert turns <= 5
    assert cpu < 0.05


def test_streams_over_a_socket_pair(run: Run) -> None:
    """More than any socket buffer holds, in both directions: reading and writing are both waited for."""
    data = os.urandom(1 << 16) * 64

    async def main() -> None:
        a, b = socket.socketpair()
        (reader, writer), (other_reader, other_writer) = [await asyncio.open_connection(sock=sock) for sock in (a, b)]

        async def echo() -> None:
            while piece := await other_reader.read(1 << 16):
                other_writer.write(piece)
                await other_writer.drain()
            other_writer.close()
            await other_writer.wait_closed()

        echoing = asyncio.create_task(echo())

        async def send() -> None:
            writer.write(data)
            await writer.drain()
            writer.write_eof()

        sending = asyncio.create_task(send())
        assert await reader.read() == data
        await sending
        await echoing
        writer.close()
        await writer.wait_closed()

    run(main())


def test_a_server_and_its_clients(run: Run) -> None:
    async def main() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write((await reader.readline()).upper())
            writer.close()
            await writer.wait_closed()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]

        async def client(number: int) -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"hello %d\n" % number)
            answer = await reader.read()
            writer.close()
            await writer.wait_closed()
            return answer

        assert await asyncio.gather(*map(client, range(50))) == [b"HELLO %d\n" % n for n in range(50)]
        server.close()
        await server.wait_closed()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)

    run(main())


def test_a_child_process(run: Run) -> None:
    async def main() -> tuple[bytes, bytes, int | None]:
        program = "import sys; sys.stdout.write(sys.stdin.read().upper()); sys.stderr.write('err'); sys.exit(3)"
        pipe = asyncio.subprocess.PIPE
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, stdin=pipe, stdout=pipe, stderr=pipe
        )
        out, err = await child.communicate(b"hello" * 50_000)
        return out, err, child.returncode

    assert run(main()) == (b"HELLO" * 50_000, b"err", 3)


def test_threads(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert await asyncio.to_thread(threading.get_ident) != threading.get_ident()
        came = asyncio.Event()
        asleep = threading.Event()

        def other() -> None:
            assert asleep.wait(LIMIT)
            loop.call_soon_threadsafe(came.set)

        thread = threading.Thread(target=other)
        thread.start()
        loop.call_soon(asleep.set)
        await came.wait()
        thread.join(LIMIT)

    run(main())


def test_signals(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            came = asyncio.Event()
            loop.add_signal_handler(number, came.set)
            loop.call_later(0.01, os.kill, os.getpid(), number)
            await came.wait()
            assert loop.remove_signal_handler(number)

    before = signal.getsignal(signal.SIGUSR1), signal.getsignal(signal.SIGUSR2)
    run(main())
    assert (signal.getsignal(signal.SIGUSR1), signal.getsignal(signal.SIGUSR2)) == before


def test_readers_and_writers_of_one_descriptor(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        a, b = socket.socketpair()
        with a, b:
            a.setblocking(False)
            came: asyncio.Queue[str] = asyncio.Queue()

            def readable() -> None:
                came.put_nowait(a.recv(10).decode())

            def writable() -> None:
                loop.remove_writer(a)
                came.put_nowait("writable")

            loop.add_reader(a, readable)
            loop.add_writer(a, writable)
            assert await came.get() == "writable"
            b.send(b"1")
            assert await came.get() == "1"
            loop.add_writer(a, writable)
            assert loop.remove_reader(a)
            b.send(b"2")
            assert await came.get() == "writable"
            await asyncio.sleep(0.02)
            assert came.empty()
            loop.add_reader(a, readable)
            assert await came.get() == "2"
            assert loop.remove_reader(a)
            assert not loop.remove_reader(a)
            assert not loop.remove_writer(a)

    run(main())


def test_an_error_in_a_callback_ends_nothing(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        reported: list[BaseException] = []
        loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))

        def fail() -> None:
            raise ValueError("here")

        loop.call_soon(fail)
        loop.call_later(0.001, fail)
        await asyncio.sleep(0.01)
        assert [str(error) for error in reported] == ["here", "here"]

    run(main())


def test_cancelled_waits(run: Run) -> None:
    async def main() -> None:
        a, b = socket.socketpair()
        a.setblocking(False)
        with a, b:
            loop = asyncio.get_running_loop()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await loop.sock_recv(a, 1)
            b.send(b"x")
            assert await loop.sock_recv(a, 1) == b"x"

    run(main())


# ------------------------------------------------------------------ what the reactor does meanwhile


def test_posts_and_calls_of_the_reactor(reactor: Reactor, run: Run) -> None:
    """They run while asyncio waits, and what they start runs at once."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for schedule in (reactor.post, lambda call: reactor.call_later(0.01, call)):
            came = loop.create_future()

            async def work(came: asyncio.Future[bool] = came) -> None:
                await asyncio.sleep(0)
                came.set_result(True)

            tasks: list[asyncio.Task[None]] = []
            schedule(lambda work=work, tasks=tasks: tasks.append(loop.create_task(work())))
            begin = time.monotonic()
            assert await came
            assert time.monotonic() - begin < 1.0

    run(main())


def test_a_post_from_a_thread_wakes_a_sleeping_guest(reactor: Reactor, run: Run) -> None:
    async def main() -> None:
        came = asyncio.Event()
        timer = threading.Timer(0.02, lambda: reactor.post(came.set))
        timer.start()
        await came.wait()
        timer.join(LIMIT)

    run(main())


def test_an_error_of_the_reactors_ends_nothing(reactor: Reactor, run: Run) -> None:
    reported: list[BaseException] = []
    reactor.on_error = lambda doing, error: reported.append(error)

    def fail() -> None:
        raise ValueError("here")

    async def main() -> None:
        reactor.post(fail)
        await asyncio.sleep(0.01)

    run(main())
    assert [str(error) for error in reported] == ["here"]


def test_a_busy_guest_does_not_starve_the_reactor(reactor: Reactor, run: Run) -> None:
    """A coroutine that never waits for anything still gives a turn between two steps."""

    async def main() -> int:
        came: list[int] = []
        reactor.call_later(0.01, lambda: came.append(1))
        steps = 0
        while not came:
            await asyncio.sleep(0)
            steps += 1
        return steps

    assert run(main()) > 1


def test_the_reactor_outlives_its_guest(reactor: Reactor) -> None:
    for _ in range(3):
        loop = new_event_loop(reactor)
        assert loop.run_until_complete(asyncio.sleep(0.001, "done")) == "done"
        loop.close()
        assert reactor.poll(0) == []
    reactor.call_later(0.01, reactor.stop)
    reactor.run()


# ------------------------------------------------------------------ the selector, beside the standard library's


@pytest.fixture(params=[selectors.EpollSelector, lambda: ReactorSelector(Reactor())], ids=["epoll", "ours"])
def selector(request: pytest.FixtureRequest) -> Iterator[selectors.BaseSelector]:
    with request.param() as made:
        yield made


READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


def found(selector: selectors.BaseSelector, timeout: float | None = 0) -> list[tuple[Any, int]]:
    return [(key.data, events) for key, events in selector.select(timeout)]


def test_select(selector: selectors.BaseSelector, pair: tuple[socket.socket, socket.socket]) -> None:
    a, b = pair
    key = selector.register(a, READ, "a")
    assert (key.fileobj, key.fd, key.events, key.data) == (a, a.fileno(), READ, "a")
    assert found(selector) == []
    b.send(b"x")
    assert found(selector, None) == [("a", READ)]
    assert found(selector, -1) == [("a", READ)]
    selector.modify(a, WRITE, "b")
    assert found(selector) == [("b", WRITE)]
    selector.modify(a, READ | WRITE, "c")
    assert found(selector) == [("c", READ | WRITE)]
    assert selector.get_key(a).data == "c"
    assert selector.get_key(a.fileno()).data == "c"
    assert set(selector.get_map()) == {a.fileno()}
    assert selector.get_map().get(a) is selector.get_map()[a.fileno()] is selector.get_key(a)
    assert selector.get_map().get(b) is None
    assert selector.unregister(a).data == "c"
    assert found(selector) == []


def test_select_of_a_peer_that_is_gone(
    selector: selectors.BaseSelector, pair: tuple[socket.socket, socket.socket]
) -> None:
    """Wakes whoever waits for either, and nobody for what they did not ask."""
    a, b = pair
    b.close()
    selector.register(a, READ, "r")
    assert found(selector, 1) == [("r", READ)]
    selector.modify(a, WRITE, "w")
    assert found(selector, 1) == [("w", WRITE)]
    selector.modify(a, READ | WRITE, "rw")
    assert found(selector, 1) == [("rw", READ | WRITE)]


def test_select_with_a_timeout(selector: selectors.BaseSelector) -> None:
    for timeout in (0.0, 0.0004, 0.02, -0.5, -1):
        begin = time.monotonic()
        assert found(selector, timeout) == []
        assert time.monotonic() - begin >= timeout - 0.001


def test_registration(selector: selectors.BaseSelector, pair: tuple[socket.socket, socket.socket]) -> None:
    a, b = pair
    selector.register(a, READ)
    with pytest.raises(KeyError):
        selector.register(a, READ)
    with pytest.raises(KeyError):
        selector.register(a.fileno(), WRITE)
    for call in (selector.unregister, selector.get_key, lambda fileobj: selector.modify(fileobj, READ)):
        with pytest.raises(KeyError):
            call(b)
    for wrong in (-1, None, "a"):
        with pytest.raises((ValueError, AttributeError, TypeError)):
            selector.register(wrong, READ)  # type: ignore[arg-type]
    selector.unregister(a.fileno())
    with pytest.raises(KeyError):
        selector.unregister(a)


def test_a_file_object_that_was_closed(selector: selectors.BaseSelector) -> None:
    a, b = socket.socketpair()
    selector.register(a, READ, "a")
    a.close()
    b.close()
    assert selector.unregister(a).data == "a"
    with pytest.raises((KeyError, ValueError)):
        selector.unregister(a)
    assert found(selector) == []


def test_a_file_that_epoll_does_not_take(selector: selectors.BaseSelector, tmp_path: Any) -> None:
    with open(tmp_path / "file", "w") as file:
        with pytest.raises(PermissionError):
            selector.register(file, WRITE)
        with pytest.raises(KeyError):
            selector.unregister(file)


def test_what_ends_an_asyncio_loop_does_not_end_this_one():
    """Exceptions that asyncio lets through, of callbacks and of tasks that the application has started itself."""
    done = []

    def callback(error: BaseException) -> None:
        raise error

    async def task(error: BaseException) -> None:
        raise error

    async def work() -> str:
        loop = asyncio.get_running_loop()
        for error in (SystemExit(3), KeyboardInterrupt(), GeneratorExit()):
            loop.call_soon(callback, error)
            started = asyncio.ensure_future(task(error))
            loop.call_soon(done.append, type(error))
            with pytest.raises(type(error)):
                await started
        loop.call_soon(loop.stop)
        await asyncio.sleep(0.001)
        return "whole"

    with asyncio.Runner(loop_factory=lambda: new_event_loop(Reactor())) as runner:
        runner.get_loop().set_exception_handler(lambda *_: None)  # of GeneratorExit
        assert runner.run(work()) == "whole"
        assert done == [SystemExit, KeyboardInterrupt, GeneratorExit]
        with pytest.raises(SystemExit):  # what it is run for may end it
            runner.run(task(SystemExit(4)))
