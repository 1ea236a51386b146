"""A worker that waits until a WebSocket has taken what was sent to it is answered as often as it asks."""

from mooring._core.wire import Command, Event
from support.fronts import Player, bench


def answers(worker: Player) -> list[tuple[Event, int]]:
    return [(told.kind, told.fd) for told in worker.heard() if told.kind in (Event.ROOM, Event.GONE)]


def test_the_answer_is_at_once_where_nothing_waits():
    with bench() as one:
        worker = one.worker()
        fd = one.client()
        worker.tell(Command.ROOM, fd)
        worker.tell(Command.ROOM, 7)
        one.turn()
        assert answers(worker) == [(Event.ROOM, fd), (Event.GONE, 7)]


def test_who_has_to_wait_hears_when_the_client_has_read_or_has_gone():
    with bench(write_high_water=1024, write_limit=1 << 22) as one:
        worker, other = one.worker(), one.worker()
        fds = [one.client(), one.client()]
        for fd in fds:
            for _ in range(8):
                worker.tell(Command.SEND, fd, bytes(200_000), opcode=2)
            one.turn()
            worker.tell(Command.ROOM, fd)
            other.tell(Command.ROOM, fd)
            worker.tell(Command.ROOM, fd)
        assert answers(worker) == answers(other) == []
        for _ in range(200):
            one.clients[fds[0]].receive()
            one.turn(1)
        assert answers(worker) == [(Event.ROOM, fds[0])] * 2
        assert answers(other) == [(Event.ROOM, fds[0])]
        one.clients[fds[1]].close()
        one.turn()
        assert answers(worker) == [(Event.GONE, fds[1])] * 2
        assert answers(other) == [(Event.GONE, fds[1])]
