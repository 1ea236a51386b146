"""Whether a peer takes what it is sent: who takes some of it goes on, who takes nothing is ended; the kernel's buffers,
which take it at once, are no peer."""

import time

from mooring._core.wire import Command, Event
from support.fronts import bench

TIMEOUT = 0.1  # seconds, in which something is to be taken
LOOKS = 5
PART = 1 << 16


def test_who_takes_something_goes_on_and_who_takes_nothing_is_ended():
    limits = {"write_timeout": TIMEOUT, "write_min_rate": 0, "close_timeout": TIMEOUT}
    with bench(write_high_water=1024, write_limit=1 << 24, **limits) as one:
        worker = one.worker()
        reads, sleeps = one.client(), one.client()
        one.finish(worker)
        for fd in (reads, sleeps):
            for _ in range(20):
                worker.tell(Command.SEND, fd, bytes(200_000), opcode=2)
        one.turn()
        ended: list[int] = []
        end = time.monotonic() + LOOKS * TIMEOUT
        while time.monotonic() < end:
            assert len(one.clients[reads].socket.recv(PART)) > 0, "it never has everything"
            one.loop.reactor.poll(TIMEOUT / 5)
            one.turn(1)
            ended += [told.fd for told in worker.heard() if told.kind == Event.CLOSE]
        assert ended == [sleeps]
