"""A worker that is new gets its share of the connections, each when it speaks next."""

import pytest

from support.fronts import bench


@pytest.mark.parametrize("dispatch", ["connection", "user"])
def test_a_new_worker_gets_its_share(dispatch: str):
    with bench(dispatch=dispatch) as one:
        worker = one.worker()
        fds = [one.client() for _ in range(12)]
        one.finish(worker)
        assert worker.worker_end.bound == 12
        newcomer = one.worker()
        assert (worker.worker_end.bound, newcomer.worker_end.bound) == (12, 0), "nobody moves in silence"
        for fd in fds:
            one.say(fd, "hello")
            one.turn(1)
            worker.settle(*worker.messages())
            newcomer.settle(*newcomer.messages())
        assert worker.worker_end.bound + newcomer.worker_end.bound == 12
        if dispatch == "connection":
            assert newcomer.worker_end.bound == 6


def test_who_has_something_in_flight_stays():
    with bench() as one:
        worker = one.worker()
        fd = one.client()
        second = one.client()
        one.finish(worker)
        one.say(fd, "first")
        one.say(second, "first")
        one.turn()
        open_ones = worker.messages()
        newcomer = one.worker()
        one.say(fd, "second")
        one.say(second, "second")
        one.turn()
        others = worker.messages()
        assert len(others) == 1, "of the one that is to move, nothing comes before the first is finished"
        assert newcomer.worker_end.bound == 0
        worker.settle(*open_ones, *others)
        one.turn()
        (moved,) = newcomer.messages()
        assert moved.payload == b"second"
        assert {moved.fd, others[0].fd} == {fd, second}
