"""What a gateway is made with."""

import time

import pytest

from mooring.boot import clock_offset
from mooring.parts.gateway import first_serial, share


@pytest.mark.parametrize("step", [-3600, 3600])
def test_f25_a_gateway_that_starts_after_the_clock_was_set_gives_out_no_fd_again(monkeypatch, step):
    offset = clock_offset()
    before = first_serial(offset)
    assert abs(before - time.time() * 1000) < 1000, "after the machine has started again, they go on too"
    now = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now() + step * 10**9)
    assert before <= first_serial(offset) < before + 60_000


@pytest.mark.parametrize("links", [0, 1, 8, 300])
@pytest.mark.parametrize("taken", [20, 60])
@pytest.mark.parametrize("limit", [1024, 4096, 65_536, 1 << 20])
def test_f32_descriptors_that_no_client_gets(limit, taken, links):
    made = share(limit, taken, links)
    both_sets = 3 * links * 2
    assert made.connections >= 16
    assert made.files >= 16
    if taken + both_sets + 64 + 32 <= limit:
        assert taken + made.connections + made.files + both_sets + 64 <= limit
        assert made.kept_from == limit - 64 - 3 * links
        assert made.connections >= (limit - taken - both_sets - 64) * 0.89
    else:
        assert made.kept_from >= taken + 32, "some can be served"


def test_f32_more_connections_than_there_can_be():
    made = share(400, 40, 2, connections=4096)
    assert made == (4096, 16, 400 - 64 - 6)
