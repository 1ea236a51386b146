"""Times are counted in buckets of fixed bounds."""

import pytest

from mooring._core.latency import BOUNDS_SECONDS, Latencies


def test_a_time_is_counted_in_the_first_bucket_that_is_not_shorter():
    found = Latencies()
    for seconds in (*BOUNDS_SECONDS, *[bound * 1.01 for bound in BOUNDS_SECONDS], 3600):
        found.note(2, round(seconds * 1_000_000))
    *counts, total = found.counted(2)
    assert counts == [1, *[2] * (len(BOUNDS_SECONDS) - 1), 2]
    assert total == pytest.approx((2.01 * sum(BOUNDS_SECONDS) + 3600) * 1_000_000, rel=1e-6)
    assert found.report() == {"message": [*counts, total]}
    assert Latencies().report() == {}
    with pytest.raises(ValueError, match="no kind 200"):
        found.counted(200)
    found.note(200, 1)  # is not counted
