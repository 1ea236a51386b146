"""What a gateway does for its clients while its workers end again and again."""

from types import SimpleNamespace
from typing import Any

import pytest

from mooring.gateway.degraded import LOOK, DegradedPool
from support.ticking import Ticking

HOLD = 10.0
WORKER = SimpleNamespace(usable=True, serves=True)


class Relay:
    """One whose workers, and those who wait for one, the test says."""

    def __init__(self) -> None:
        self.worker_ends: list[Any] = [None]
        self.asking: list[int] = []
        self.held: set[int] = set()
        self.reasons: list[str] = []

    def refuse_waiting(self, reason: str) -> list[int]:
        self.reasons.append(reason)
        asking, self.asking = self.asking, []
        return asking

    def holding(self) -> set[int]:
        return set(self.held)


class Pool(DegradedPool):
    def __init__(self, reactor: Any) -> None:
        self.relay = Relay()
        self.refused: list[int] = []
        self.closed: list[int] = []
        super().__init__(reactor, self.relay, HOLD, self.refused.append, self.closed.append)  # type: ignore[arg-type]


@pytest.fixture
def reactor(clock: list[float]) -> Any:
    return Ticking(clock)


@pytest.fixture
def pool(reactor: Any) -> Pool:
    return Pool(reactor)


def test_without_a_worker_clients_wait_until_the_supervisor_says_that_it_is_no_use(pool: Pool, reactor: Any):
    pool.relay.asking = [1]
    assert not pool.hopeless
    reactor.wait(60.0)
    assert pool.refused == []
    pool.tell(degraded=True)
    assert pool.hopeless
    assert pool.refused == [1]
    assert set(pool.relay.reasons) == {"degraded"}


def test_requests_that_come_to_wait_later_are_refused_as_well(pool: Pool, reactor: Any):
    pool.tell(degraded=True)
    pool.relay.asking = [2, 3]
    reactor.wait(LOOK)
    assert pool.refused == [2, 3]


@pytest.mark.parametrize("worker", [WORKER, None])
def test_a_worker_that_is_there_is_used_degraded_or_not(pool: Pool, reactor: Any, worker: Any):
    pool.relay.worker_ends = [None, worker]
    pool.tell(degraded=True)
    pool.relay.asking, pool.relay.held = [1], {2}
    reactor.wait(1.5 * HOLD)
    assert pool.hopeless == (worker is None)
    assert pool.refused == ([] if worker else [1])
    assert pool.closed == ([] if worker else [2])


@pytest.mark.parametrize("lacks", ["usable", "serves"])
def test_one_that_is_no_use_is_none(pool: Pool, lacks: str):
    pool.relay.worker_ends = [SimpleNamespace(**{**vars(WORKER), lacks: False})]
    pool.tell(degraded=True)
    assert pool.hopeless


def test_a_websocket_is_closed_when_its_messages_have_waited_for_the_hold_time(pool: Pool, reactor: Any):
    pool.tell(degraded=True)
    pool.relay.held = {5}
    reactor.wait(LOOK + HOLD - LOOK)
    assert pool.closed == []
    pool.relay.held = {5, 6}
    reactor.wait(2 * LOOK)
    assert pool.closed == [5]
    pool.relay.held = {6}
    reactor.wait(HOLD)
    assert pool.closed == [5, 6]


def test_the_time_counts_anew_for_one_whose_messages_were_taken_meanwhile(pool: Pool, reactor: Any):
    pool.tell(degraded=True)
    pool.relay.held = {5}
    reactor.wait(HOLD / 2)
    pool.relay.worker_ends = [WORKER]
    reactor.wait(2 * LOOK)
    pool.relay.worker_ends = [None]
    reactor.wait(HOLD - LOOK)
    assert pool.closed == []
    reactor.wait(3 * LOOK)
    assert pool.closed == [5]


def test_when_workers_serve_again_nobody_is_looked_at_any_more(pool: Pool, reactor: Any):
    pool.tell(degraded=True)
    pool.tell(degraded=True)
    assert reactor.timers == 1
    pool.tell(degraded=False)
    assert not pool.hopeless
    pool.relay.asking = [1]
    reactor.wait(1.0)
    assert pool.refused == []
    assert reactor.timers == 0
