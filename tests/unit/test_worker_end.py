"""A worker, as a gateway sees it: what it was given, how long it has been silent, that it was told to leave."""

from mooring._core.wire import Event
from mooring._core.worker_end import Receiver, WorkerEnd
from support.fronts import bench


def test_what_it_shows():
    with bench() as one:
        worker = one.worker()
        worker_end = worker.worker_end
        assert isinstance(worker_end.receiver, Receiver)
        assert worker_end.receiver.books is one.relay.books
        assert worker_end.ledger in one.relay.books.ledgers
        assert (worker_end.worker, worker_end.generation, worker_end.pid) == (0, 1, worker.pid)
        assert (worker_end.serves, worker_end.usable) == (True, True)
        assert (worker_end.in_flight, worker_end.silent, worker_end.bound) == (0, 0, 0)
        one.client()
        assert (worker_end.in_flight, worker_end.bound) == (1, 1), "its open is on its way"
        assert worker_end.silent >= 0


def test_that_it_is_to_leave_is_said_and_seen():
    with bench() as one:
        worker = one.worker()
        worker.heard()
        worker.worker_end.depart()
        one.turn()
        assert worker.worker_end.departed
        assert [told.kind for told in worker.heard()] == [Event.DEPART]


def test_a_worker_that_may_go_has_heard_of_it_before_the_supervisor_does():
    with bench() as one:
        worker = one.worker()
        worker.heard()
        there: list[list[Event]] = []
        one.front.gateway._tell_retired = lambda _whose: there.append([told.kind for told in worker.heard()])
        one.relay.retire(0, 1)
        assert there == [[Event.END_STREAMS, Event.DEPART]]
        one.front.gateway._tell_retired = there.append  # its end tells of it again


def test_by_itself_it_carries_nothing():
    with bench() as one:
        worker_end = WorkerEnd(one.relay.commands, 5)
        worker_end.depart()
        worker_end.reply(1, b"")
        worker_end.close()
        assert (worker_end.departed, worker_end.still, worker_end.index) == (True, 0, -1)
        one.relay.books.close(worker_end.ledger)
