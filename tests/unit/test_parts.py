"""What a gateway is made with."""

import time

import pytest

from mooring.parts import clock_offset, first_serial


@pytest.mark.parametrize("step", [-3600, 3600])
def test_f25_a_gateway_that_starts_after_the_clock_was_set_gives_out_no_fd_again(monkeypatch, step):
    offset = clock_offset()
    before = first_serial(offset)
    assert abs(before - time.time() * 1000) < 1000, "after the machine has started again, they go on too"
    now = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now() + step * 10**9)
    assert before <= first_serial(offset) < before + 60_000
