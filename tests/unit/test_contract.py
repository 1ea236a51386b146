"""Gateway and worker do all that is asked of them, and nothing else is asked."""

import inspect
from typing import Any

import pytest

from mooring._core.contract import GatewayContract, WorkerContract
from mooring.gateway.gateway import Gateway
from mooring.worker.worker import Worker

PAIRS = [(GatewayContract, Gateway), (WorkerContract, Worker)]


def asked(contract: type) -> set[str]:
    return {name for name in vars(contract) if not name.startswith("_") and name != "counters"}


@pytest.mark.parametrize(("contract", "role"), PAIRS)
def test_all_of_it_is_done(contract: type, role: type):
    assert issubclass(role, contract)
    assert asked(contract) <= set(vars(role))


@pytest.mark.parametrize(("contract", "role"), PAIRS)
def test_it_is_done_with_what_is_given(contract: type, role: type):
    """As many parameters as the contract says; mypy compares their types with the stub."""
    for name in asked(contract):
        told: Any = getattr(role, name)
        if callable(told):
            given = [one for one in inspect.signature(told).parameters.values() if one.default is one.empty]
            wanted = inspect.signature(getattr(contract, name)).parameters
            assert len(given) == len(wanted), name
