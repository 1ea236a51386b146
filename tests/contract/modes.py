"""The modes in which every test runs."""

from typing import Any

import pytest

MODES: dict[str, dict[str, Any]] = {
    "base": {"mode": "base", "worker_num": 1},
    "base-2": {"mode": "base", "worker_num": 2},
    "process": {"mode": "process", "gateway_num": 1, "worker_num": 2},
    "process-2": {"mode": "process", "gateway_num": 2, "worker_num": 2},
}


def only(*names: str) -> pytest.MarkDecorator:
    """For a test of what other modes don't have, or do differently."""
    return pytest.mark.parametrize("mode", names, indirect=True, scope="session")
