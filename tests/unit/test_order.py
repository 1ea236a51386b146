"""The log in which gateways agree on the order of publishes, with few entries: what happens where it ends."""

import logging
import os
import random
from collections import deque
from collections.abc import Iterator

import pytest

from mooring._core.order import ORDER_BYTES, Order, Publisher
from mooring._core.reactor import Reactor

HEAD = 64  # octets ahead of the entries
LAPS = 1 << 12  # after which the number of a lap begins again


def memory(size: int) -> int:
    file = os.memfd_create("order")
    os.ftruncate(file, size)
    return file


@pytest.fixture(params=[2, 8])
def log(request: pytest.FixtureRequest) -> Iterator[int]:
    file = memory(HEAD + 8 * request.param)
    yield file
    os.close(file)


class Gateway:
    """One that applies what is on the channels of its workers, first come first served, as far as the order lets it."""

    def __init__(self, log: int) -> None:
        self.order = Order(Reactor(), log)
        self.channels: dict[int, tuple[Publisher, deque[int]]] = {}
        self.applied: list[tuple[int, int]] = []

    def receive(self, pid: int, number: int) -> None:
        self.channels.setdefault(pid, (Publisher(), deque()))[1].append(number)

    def apply(self, pid: int) -> bool:
        """Whether the next one of that worker was applied."""
        publisher, waiting = self.channels[pid]
        if not waiting or not self.order.offer(publisher, pid, waiting[0]):
            return False
        self.applied.append((pid, waiting.popleft()))
        return True

    def finish(self) -> None:
        """Applies everything; one of those that wait can always go on."""
        while any(waiting for _, waiting in self.channels.values()):
            assert [True for pid in self.channels if self.apply(pid)], "nobody's turn has come"


def of(pid: int, applied: list[tuple[int, int]]) -> list[int]:
    return [number for publisher, number in applied if publisher == pid]


def test_the_log_is_as_large_as_its_file() -> None:
    for size in (0, HEAD, HEAD + 8, HEAD + 8 * 3, HEAD + 8 * 4 + 1, ORDER_BYTES + 8, 2 * ORDER_BYTES):
        file = memory(size)
        with pytest.raises(ValueError, match=f"a log of {size} bytes"):
            Order(Reactor(), file)
        os.close(file)
    file = memory(ORDER_BYTES)
    Order(Reactor(), file)
    os.close(file)


def test_gateways_that_keep_up_agree_over_all_laps(log: int) -> None:
    """Also where the number of the lap begins again: an old entry is never taken for a new one."""
    rng = random.Random(20261125)
    gateways = [Gateway(log), Gateway(log)]
    entries = (os.fstat(log).st_size - HEAD) // 8
    numbers = {11: 0, 22: 0}
    turns = (LAPS + 3) * entries
    for _ in range(turns):
        pid = rng.choice([11, 22])
        numbers[pid] += 1
        for gateway in gateways:
            gateway.receive(pid, numbers[pid])
        for gateway in rng.sample(gateways, 2):
            for one in rng.sample([11, 22], 2):
                if one in gateway.channels:
                    gateway.apply(one)
    for gateway in gateways:
        gateway.finish()
    assert gateways[0].applied == gateways[1].applied
    assert len(gateways[0].applied) == turns
    assert [gateway.order.out_of_order for gateway in gateways] == [0, 0]


@pytest.mark.parametrize("held", [False, True])
def test_a_gateway_that_is_too_far_behind_loses_nothing_and_says_so(
    log: int, held: bool, caplog: pytest.LogCaptureFixture
) -> None:
    fast, slow = Gateway(log), Gateway(log)
    entries = (os.fstat(log).st_size - HEAD) // 8
    for pid in (11, 22):
        for gateway in (fast, slow):
            gateway.receive(pid, 1)
            assert gateway.apply(pid)
    if held:
        # the next one of 22 is before that of 11, and has not come to the slow one yet
        fast.receive(22, 2)
        assert fast.apply(22)
        slow.receive(11, 2)
        assert not slow.apply(11)
        assert slow.channels[11][0].held
    with caplog.at_level(logging.WARNING, "mooring.gateway"):
        for number in range(2, 2 + entries + 1):
            for pid in (11, 22):
                if (pid, number) != (22, 2) or not held:
                    fast.receive(pid, number)
                    assert fast.apply(pid)
                if (pid, number) != (11, 2) or not held:
                    slow.receive(pid, number)
        assert caplog.messages == []
        slow.finish()
    # the slow one has its own order of what it could not read, but each of a worker once, and in turn
    for pid in (11, 22):
        assert of(pid, slow.applied) == of(pid, fast.applied) == list(range(1, entries + 3))
    assert len(slow.applied) == len(fast.applied)
    assert slow.order.out_of_order >= 1
    assert fast.order.out_of_order == 0
    assert f"this gateway is more than {entries} publishes behind another one" in caplog.text
    # and they agree again on what comes then
    mark = len(fast.applied)
    for number in range(entries + 3, entries + 60):
        for pid in (22, 11):
            for gateway in (slow, fast):
                gateway.receive(pid, number)
        for gateway in (slow, fast):
            for pid in (11, 22):
                gateway.apply(pid)
    slow.finish()
    fast.finish()
    assert slow.applied[mark:] == fast.applied[mark:]
    assert fast.order.out_of_order == 0


def test_a_damaged_log_keeps_nobody_waiting(log: int, caplog: pytest.LogCaptureFixture) -> None:
    """In base mode the application runs in processes that can write there."""
    rng = random.Random(9)
    damaged = 0
    for _ in range(50):
        gateways = [Gateway(log), Gateway(log)]
        for number in range(1, 20):
            start = rng.choice([0, HEAD])
            os.pwrite(log, rng.randbytes(rng.choice([8, os.fstat(log).st_size - start])), start)
            for gateway in gateways:
                for pid in (11, 22):
                    gateway.receive(pid, number)
                    gateway.apply(pid)
        for gateway in gateways:
            for pid in (11, 22):
                assert of(pid, gateway.applied) == list(range(1, len(of(pid, gateway.applied)) + 1))
            damaged += gateway.order.damaged
            if gateway.order.damaged:
                gateway.finish()
    assert damaged
    assert "has been damaged" in caplog.text
