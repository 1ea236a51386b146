"""What the dispatcher and the processes it serves read of one another: records that may be nonsense, in any pieces.

The input is streams, one behind the other: for the dispatcher of two workers and a task worker, then for a task worker.
"""

import asyncio
import socket
from collections.abc import Iterator

import msgspec

from fuzz.harness import pieces
from fuzz.targets.worker_channel import Watched
from fuzz.world import Loop, Nobody, is_about_bytes, new_server, nothing_is_left, records, short
from mooring._core.wire import Fate, Mail
from mooring.dispatcher.dispatcher import Dispatcher
from mooring.worker.dispatcher_link import DispatcherLink

SERVER = new_server(task_worker_num=1, worker_num=1)
BETWEEN = b"\xfe\xfd\xfc"


@SERVER.on("task")
def work(server: object, task: object) -> str:
    return "done"


@SERVER.on("finish")
def finished(server: object, outcome: object) -> None: ...


@SERVER.on("pipe_message")
def told(server: object, source: int, data: object) -> None:
    assert isinstance(source, int)


def seeds() -> Iterator[bytes]:
    value = msgspec.msgpack.encode(["value", 1])
    hello, task = b"\1" + short(Mail.HELLO, fd=5), short(Mail.TASK, payload=value, fd=1)
    bench = b"\1" + short(Mail.HELLO, 1, fd=6)
    result = short(Mail.RESULT, Fate.DONE, payload=value, fd=1)
    yield BETWEEN.join((hello + task, hello, bench + result, b"\1" + task + task))
    yield BETWEEN.join((bench, hello + task + short(Mail.CANCEL, fd=1), bench, b"\1" + short(Mail.CANCEL, fd=1)))
    yield BETWEEN.join((bench + short(Mail.DEPART), hello + task + task, b"", b"\1" + result))
    message = short(Mail.MESSAGE, 0, 1, value)
    yield BETWEEN.join((hello + message, hello + short(Mail.STATS, fd=9), b"", b"\1" + message + short(Mail.STATS)))
    failed = short(Mail.RESULT, Fate.FAILED, payload=msgspec.msgpack.encode(["E", "why"]), fd=1)
    progress = short(Mail.PROGRESS, payload=value, fd=1)
    yield BETWEEN.join((hello + task, bench + progress + failed, b"", b"\1" + progress + failed))


class Watching(Dispatcher):
    def on_bad(self, peer: object, problem: Exception) -> None:
        assert is_about_bytes(problem), repr(problem)
        self._counters["bad_records"] += 1


def check(dispatcher: Dispatcher) -> None:
    stats = dispatcher.stats()
    ends = ("done", "failed", "lost", "cancelled", "queued", "running")
    assert stats["tasks_accepted"] == sum(stats[f"tasks_{end}"] for end in ends), stats


def dispatch(streams: list[list[bytes]]) -> object:
    """What the dispatcher makes of three streams; then its peers leave, one after the other."""
    loop = Loop()
    broken: list[str] = []
    dispatcher = Watching(loop.reactor, lambda _peer: None, lambda _peer, why: broken.append(why), 1 << 20)
    dispatcher._refusals = Nobody()
    ends = []
    for worker in range(3):
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        dispatcher.attach(theirs.detach(), worker=worker, generation=1)
        ends.append(ours)
    for channel, parts in zip(list(dispatcher._channels.values()), streams, strict=True):
        for part in parts:
            channel.feed(part)
        check(dispatcher)
    loop.turn(1)
    stats = dispatcher.stats()
    for end in ends:
        end.close()
        loop.turn(3)  # that something of ours was left unread is told first
        check(dispatcher)
    assert not dispatcher._channels
    loop.close()
    return stats, broken


def work_off(parts: list[bytes]) -> object:
    """What a task worker makes of a stream."""
    loop = Loop()
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    worker = Watched(SERVER, 1)
    SERVER._begin(worker, SERVER.settings)

    async def feed() -> None:
        link = DispatcherLink(loop.reactor, theirs.detach(), worker.task_desk, worker.bench, worker.pipe, worker)
        worker.task_desk.open()
        link.hello()
        SERVER.task_async("one")
        for part in parts:
            link._channel.feed(part)
        for _ in range(6):
            await asyncio.sleep(0)
        ours.close()
        loop.turn(2)

    loop.run(feed())
    loop.close()
    return worker.told


def one(data: bytes) -> None:
    streams = [records(stream, []) for stream in [*data.split(BETWEEN, 3), b"", b"", b""][:4]]
    whole, cut = [[stream] for stream in streams], [pieces(stream) for stream in streams]
    assert dispatch(whole[:3]) == dispatch(cut[:3])
    assert work_off(whole[3]) == work_off(cut[3])
    nothing_is_left()
