"""What a gateway does itself, more rarely than per message: sessions, answers to workers, and who is told of what."""

import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from mooring._core.reactor import Reactor
from mooring._core.table import Table
from mooring._core.wire import Call, Command, Notice
from mooring.config import Settings
from mooring.gateway.gateway import Gateway


@pytest.fixture
def retired() -> list[Any]:
    """The workers of which was told that they have retired."""
    return []


@pytest.fixture
def gateway(retired: list[Any]) -> Iterator[Gateway]:
    memory = os.memfd_create("table", 0)
    made = Gateway(
        Reactor(),
        Settings.from_options({"session_limit": 1024}),
        number=3,
        table=Table(memory, 16),
        first_serial=1,
        on_retired=retired.append,
    )
    yield made
    os.close(memory)


def entry(fd: int, *change: Any) -> Notice:
    return Notice(Command.SESSION, fd, msgspec.msgpack.encode(change))


def test_a_worker_that_has_retired_is_told_of_once(gateway: Gateway, retired: list[Any]):
    """When nothing of it is left here; or when its channel ends, if that comes first."""
    in_order: Any = SimpleNamespace(retiring=True, departed=True)
    gateway.on_retired(in_order)
    gateway.on_worker_lost(in_order)
    assert retired == [in_order]
    killed: Any = SimpleNamespace(retiring=True, departed=False)
    gateway.on_worker_lost(killed)
    assert retired == [in_order, killed]
    gateway.on_worker_lost(SimpleNamespace(retiring=False, departed=False))  # type: ignore[arg-type]
    assert retired == [in_order, killed]


def test_a_session_of_a_connection_that_has_gone_is_not_kept(gateway: Gateway):
    gateway.apply(SimpleNamespace(pid=1), entry(3 << 57 | 1, "name", "ada"))  # type: ignore[arg-type]
    assert gateway.relay.sessions == {}


def test_a_session_that_no_worker_can_have_told_raises(gateway: Gateway):
    with pytest.raises(msgspec.DecodeError):
        gateway.apply(SimpleNamespace(pid=1), Notice(Command.SESSION, 1, b"\xc1"))  # type: ignore[arg-type]


def test_what_is_asked_of_a_connection_that_has_gone_has_an_answer(gateway: Gateway):
    def asked(what: Call, payload: bytes = b"") -> Any:
        return msgspec.msgpack.decode(gateway.call(what, 7, payload))

    assert asked(Call.SESSION) == {}
    assert asked(Call.CONNECTIONS_OF, b"ada") == []
    assert asked(Call.SUBSCRIBER_COUNT, b"lobby") == 0
    assert asked(Call.ROWS, msgspec.msgpack.encode([7])) == []
    assert asked(Call.STATS)["gateway"] == 3
    assert gateway.call(99, 7, b"") == b"\xc0", "of a worker with newer code"


def test_a_second_drain_is_the_first(gateway: Gateway):
    done: list[dict[str, int]] = []
    assert not gateway.draining
    gateway.hurry()  # there is nothing to hurry
    for _ in range(2):
        gateway.drain(30.0, 1001, done.append)
        assert gateway.draining
        assert gateway.refuses_all
    for _ in range(3):
        gateway.reactor.poll(0)
    assert done == [{"accepted": 0, "finished": 0, "uncertain": 0, "dropped": 0, "in_flight": 0}]
