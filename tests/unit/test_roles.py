"""The table of roles: what a server with these settings consists of."""

from pkgutil import resolve_name

import pytest

from mooring.config import Settings
from mooring.parts import Part
from mooring.roles import ROLES, SPARE, Needs, ProcessSpec, shown, specs


def names(needs=Needs(), **options):  # noqa: B008: it is immutable
    return [(str(one), one.gateway, one.worker) for one in specs(Settings.from_options(options), needs)]


def test_process_mode():
    assert names(mode="process", gateway_num=2, worker_num=2) == [
        ("gateway 0", 0, None),
        ("gateway 1", 1, None),
        ("worker 0", None, 0),
        ("worker 1", None, 1),
    ]


def test_base_mode():
    assert names(mode="base", worker_num=2) == [("server 0", 0, 0), ("server 1", 1, 1)]


@pytest.mark.parametrize("mode", ["process", "base"])
def test_workers_are_counted_through(mode):
    """Task workers after workers, processes of the application after task workers."""
    made = names(Needs(dispatcher=True, processes=2), mode=mode, worker_num=2, gateway_num=1, task_worker_num=3)
    first = [("server 0", 0, 0), ("server 1", 1, 1)]
    if mode == "process":
        first = [("gateway 0", 0, None), ("worker 0", None, 0), ("worker 1", None, 1)]
    assert made == [
        *first,
        ("dispatcher 0", None, None),
        *[(f"task worker {n}", None, 2 + n) for n in range(3)],
        *[(f"process {n}", None, 5 + n) for n in range(2)],
    ]


def test_what_a_role_says_of_its_processes_is_so():
    for name, row in ROLES.items():
        assert name == row.name
        parts = [resolve_name(part) for part in row.parts]
        assert all(issubclass(part, Part) for part in parts)
        assert row.gateway == any(part.__name__ == "GatewayPart" for part in parts)
        assert row.worker == any(part.__name__ == "WorkerPart" for part in parts)
        assert row.takes_links >= row.gateway, "every worker has a link to a gateway"
        assert bool(parts) == (row is not SPARE)


@pytest.mark.parametrize(
    ("role", "gateway", "worker"),
    [("gateway", None, None), ("worker", 0, 0), ("server", 0, None), ("dispatcher", None, 0), ("nobody", None, None)],
)
def test_a_process_that_can_not_be(role, gateway, worker):
    with pytest.raises(ValueError, match=f"a {role} can't have gateway={gateway} and worker={worker}"):
        ProcessSpec(role, 0, gateway, worker)


def test_one_that_is_alone_in_its_role_is_shown_without_a_number():
    assert [shown(role, 0) for role in ("supervisor", "gateway", "task worker", "dispatcher", "engine", "monitor")] == [
        "supervisor",
        "gateway 0",
        "task worker 0",
        "dispatcher",
        "engine",
        "monitor",
    ]
    busy = Settings.from_options({"worker_num": 9, "task_worker_num": 9, "metrics_listen": "127.0.0.1:0"})
    assert {
        row.number(busy, Needs(dispatcher=True, engine=True, processes=9)) for row in ROLES.values() if row.single
    } == {1}
