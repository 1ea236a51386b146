"""A worker, as a gateway sees it: what it was given, how long it has been silent, that it was told to leave."""

from mooring._core.port import Port, Receiver
from mooring._core.wire import Event
from support.fronts import bench


def test_what_it_shows():
    with bench() as one:
        worker = one.worker()
        port = worker.port
        assert isinstance(port.receiver, Receiver)
        assert port.receiver.books is one.relay.books
        assert port.ledger in one.relay.books.ledgers
        assert (port.worker, port.generation, port.pid, port.serves, port.usable) == (0, 1, worker.pid, True, True)
        assert (port.in_flight, port.silent, port.bound) == (0, 0, 0)
        one.client()
        assert (port.in_flight, port.bound) == (1, 1), "its open is on its way"
        assert port.silent >= 0


def test_that_it_is_to_leave_is_said_and_seen():
    with bench() as one:
        worker = one.worker()
        worker.heard()
        worker.port.depart()
        one.turn()
        assert worker.port.left
        assert [told.kind for told in worker.heard()] == [Event.DEPART]


def test_by_itself_it_carries_nothing():
    with bench() as one:
        port = Port(one.relay.commands, 5)
        port.depart()
        port.reply(1, b"")
        port.close()
        assert (port.left, port.still, port.index) == (True, 0, -1)
        one.relay.books.close(port.ledger)
