"""By which rules a gateway judges, from the settings."""

import pytest

from mooring.config import Settings
from mooring.gateway.rules import buffer_limit


@pytest.mark.parametrize(
    ("options", "shares"),
    [
        ({"mode": "process", "gateway_num": 1, "worker_num": 3}, 1),
        ({"mode": "process", "gateway_num": 4, "worker_num": 1}, 4),
        ({"mode": "base", "worker_num": 3}, 3),
    ],
)
def test_gateways_share_a_quarter_of_the_memory(options, shares):
    alone = buffer_limit(Settings.from_options({"mode": "process", "gateway_num": 1}))
    assert alone > 1 << 24
    assert buffer_limit(Settings.from_options(options)) == alone // shares
    assert buffer_limit(Settings.from_options(options | {"buffer_limit": 1 << 20})) == 1 << 20, (
        "what is set is that of each gateway"
    )
