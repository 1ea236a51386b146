"""Which server has a partition."""

import pytest

from mooring.engine.redis.several import engine_at, share

SERVERS = ["redis://a", "redis://b", "redis://c"]


def test_shares_are_alike_and_the_order_of_names_is_of_no_matter():
    before = [share(one, SERVERS) for one in range(1024)]
    assert before == [share(one, SERVERS[::-1]) for one in range(1024)]
    assert all(250 < before.count(one) < 450 for one in SERVERS)


def test_a_server_that_comes_takes_from_the_others_and_nothing_else_moves():
    before = [share(one, SERVERS) for one in range(1024)]
    after = [share(one, [*SERVERS, "redis://d"]) for one in range(1024)]
    moved = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert 150 < len(moved) < 400
    assert {new for _, new in moved} == {"redis://d"}


@pytest.mark.parametrize("urls", ["", "  ", "http://x", "redis://a nonsense"])
def test_urls_that_make_no_sense(urls):
    with pytest.raises(ValueError):
        engine_at(urls)
