"""What a gateway knows of work that connections own: who runs it, and who has to hear that it is over."""

from mooring._core.wire import Command, Event, Work
from support.fronts import Player, bench


def cancelled(worker: Player) -> list[tuple[int, int, bytes]]:
    return [(told.fd, told.extra, told.payload) for told in worker.heard() if told.kind == Event.WORK]


def test_it_is_counted_from_its_begin_to_its_end():
    with bench() as one:
        worker = one.worker()
        fd = one.client()
        before = one.relay.books.finished
        for number, name in ((1, b"a"), (2, b"b")):
            worker.tell(Command.WORK, fd, name, opcode=Work.BEGUN, extra=number)
        assert one.relay.works == {fd: {(worker.worker_end, 1): b"a", (worker.worker_end, 2): b"b"}}
        worker.tell(Command.WORK, fd, opcode=Work.ENDED, extra=1)
        worker.tell(Command.WORK, fd, opcode=Work.CUT, extra=2)
        assert one.relay.works == {}
        assert one.relay.books.finished == before + 1
        assert one.relay.books.dropped == {"cut": 1}


def test_all_but_the_one_that_asks_are_to_cancel():
    with bench() as one:
        worker, other = one.worker(), one.worker()
        fd = one.client()
        for player in (worker, other):
            player.tell(Command.WORK, fd, b"a", opcode=Work.BEGUN, extra=1)
        worker.tell(Command.WORK, fd, b"a", opcode=Work.CANCEL, extra=1)
        one.turn()
        assert cancelled(worker) == []
        assert cancelled(other) == [(fd, 1, b"a")]
        other.tell(Command.WORK, fd, opcode=Work.CANCEL)
        one.turn()
        assert cancelled(worker) == [(fd, 0, b"")]


def test_the_end_of_a_connection_is_the_end_of_its_work():
    with bench() as one:
        worker = one.worker()
        fd = one.client()
        worker.tell(Command.WORK, fd, b"a", opcode=Work.BEGUN, extra=1)
        one.clients[fd].close()
        one.turn()
        assert cancelled(worker) == [(fd, 0, b"")]
        worker.tell(Command.WORK, fd, b"late", opcode=Work.BEGUN, extra=2)
        one.turn()
        assert cancelled(worker) == [(fd, 0, b"")], "it is told to all that run something, which does no harm"


def test_what_a_dead_worker_ran_is_uncertain_and_told():
    with bench() as one:
        worker = one.worker()
        fd = one.client()
        one.finish(worker)
        worker.tell(Command.WORK, fd, b"a", opcode=Work.BEGUN, extra=1)
        worker.end()
        one.turn()
        assert one.relay.works == {}
        assert one.relay.books.uncertain == 1
        successor = one.worker()
        one.turn()
        (report,) = [told for told in successor.heard() if told.kind == Event.UNCERTAIN]
        assert report.payload.endswith(b"ended while it rana")
        successor.settle(report)
