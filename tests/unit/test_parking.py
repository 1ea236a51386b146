"""Connections that have to wait: for a ticket, for a worker; and requests whose clients do not."""

from mooring._core.wire import Event
from support.fronts import bench


def test_who_finds_no_ticket_waits_for_one():
    with bench(worker_messages=2) as one:
        worker = one.worker()
        fds = [one.client() for _ in range(4)]
        one.finish(worker)
        for fd in fds:
            one.say(fd, "hello")
        one.turn()
        first = worker.messages()
        assert len(first) == 2, "as many as there are tickets"
        assert one.relay.books.in_flight == 2, "the others are not even read"
        worker.settle(*first)
        one.turn()
        second = worker.messages()
        assert {told.fd for told in first + second} == set(fds)
        worker.settle(*second)
        assert one.relay.books.finished == 4


def test_who_finds_no_worker_waits_for_one():
    with bench() as one:
        worker = one.worker()
        fd = one.client()
        one.finish(worker)
        worker.end()
        one.turn()
        one.say(fd, "hello")
        one.turn()
        assert one.relay.holding() == {fd}
        successor = one.worker()
        one.turn()
        assert [told.payload for told in successor.messages()] == [b"hello"]
        assert one.relay.holding() == set()


def test_a_request_whose_client_leaves_is_dropped():
    with bench() as one:
        worker = one.worker()
        one.client()
        one.finish(worker)
        worker.end()
        one.turn()
        fd = next(iter(one.clients))
        leaves = type(one.clients[fd])()
        one.turn()
        leaves.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        one.turn()
        assert one.relay.books.waiting == 1
        leaves.close()
        one.turn()
        assert one.relay.books.dropped == {"client left": 1}
        assert not any(event.kind == Event.REQUEST for event in one.relay.limbo)
