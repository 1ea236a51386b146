"""A turn copies so much of what workers publish, and the rest in the next ones, in order."""

from mooring._core.wire import Command
from support.fronts import bench

MOST = 200_000


def test_a_burst_of_publishes_takes_several_turns():
    with bench() as one:
        worker, other = one.worker(), one.worker()
        fds = [one.client() for _ in range(8)]
        for fd in fds:
            worker.tell(Command.SUBSCRIBE, fd, b"room")
        turns = one.relay.turns
        count = 0
        while not turns.paused and count < MOST:
            count += 1
            worker.tell(Command.PUBLISH, worker.pid << 32 | count, b"room%d" % count, opcode=1, arg=4)
        assert turns.paused == [worker.worker_end]
        other.tell(Command.PUBLISH, other.pid << 32 | 1, b"roomlast", opcode=1, arg=4)
        assert turns.paused == [worker.worker_end, other.worker_end], "nobody passes one that waits"
        for _ in range(100):
            one.turn(1)
            if not turns.paused:
                break
        assert turns.paused == []
        one.turn()
        end = one.clients[fds[0]].receive()[-60:]
        assert end.endswith(b"last")
        assert end.index(b"%d" % count) < end.index(b"last")
        for fd in fds:
            worker.tell(Command.UNSUBSCRIBE, fd, b"room")
