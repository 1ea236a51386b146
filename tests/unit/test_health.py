"""/health and /ready: who is told what."""

from typing import Any

import pytest

from mooring.monitor import health
from mooring.monitor.board import Process, Snapshot
from mooring.monitor.scoreboard import Seen, TreeReport

STATE: dict[str, Any] = {
    "gateways_wanted": 2,
    "gateways_running": 2,
    "workers_wanted": 2,
    "workers_running": 2,
    "degraded": [],
}


def snapshot(phase: str = "running", age: float = 0.0, missing: tuple[str, ...] = (), **more: Any) -> Snapshot:
    """Two gateways and two workers; `states` says what is not serving, `state` what the tree says."""
    states: dict[str, str] = more.pop("states", {})
    names = ("gateway 0", "gateway 1", "worker 0", "worker 1")
    degraded = more.get("degraded", [])
    seen = [
        Seen(at, name[:-2], int(name[-1]), 7, 1, states.get(name, "serving"), 0, name in degraded, 1.0)
        for at, name in enumerate(names, 1)
        if states.get(name) != "gone"
    ]
    processes = [Process(one.role, one.number, missing=f"{one.role} {one.number}" in missing) for one in seen]
    return Snapshot(TreeReport(phase, STATE | more, seen), age, processes)


NONE = {"states": dict.fromkeys(("worker 0", "worker 1"), "gone"), "workers_running": 0}


@pytest.mark.parametrize(
    ("found", "code", "status", "why"),
    [
        (Snapshot(None, 0.0, []), 503, "starting", "has started"),
        (snapshot("starting"), 503, "starting", "has started"),
        (snapshot(), 200, "ready", ""),
        (snapshot("stopping"), 503, "draining", "is stopping"),
        (snapshot(missing=("worker 0",)), 200, "degraded", "worker 0 stands still"),
        (snapshot(missing=("worker 0", "worker 1")), 200, "degraded", "worker 1 stands still"),
        (snapshot(missing=("gateway 0",)), 200, "degraded", "gateway 0 stands still"),
        (snapshot(missing=("gateway 0", "gateway 1")), 503, "unserved", "no gateway's loop has turned for 5 s"),
        (snapshot(states={"gateway 0": "starting"}, gateways_running=1), 200, "degraded", "1 of 2 gateways serve"),
        (
            snapshot(states=dict.fromkeys(("gateway 0", "gateway 1"), "gone"), gateways_running=0),
            503,
            "unserved",
            "no gateway serves",
        ),
        (snapshot(**NONE), 200, "degraded", "0 of 2 workers serve"),  # they are being started again
        (snapshot(**NONE, degraded=["worker 0"]), 200, "degraded", "worker 0 ends again and again"),
        (snapshot(**NONE, degraded=["worker 0", "worker 1"]), 503, "unserved", "no worker serves"),
        (snapshot(degraded=["worker 0", "worker 1"]), 200, "degraded", "worker 1 ends again and again"),
        (snapshot(states={"worker 0": "retiring"}), 200, "ready", ""),  # a reload
    ],
    ids=str,
)
def test_ready(found: Snapshot, code: int, status: str, why: str):
    answered, body = health.ready(found)
    assert (answered, body["status"]) == (code, status)
    assert any(why in line for line in body.get("why", [""]))


def test_live():
    assert health.live(Snapshot(None, 0.0, []), 30) == (200, {"status": "live"})
    assert health.live(snapshot(age=29), 30)[0] == 200
    assert health.live(snapshot("stopping", age=1), 30)[0] == 200
    assert health.live(snapshot(age=31), 30) == (503, {"status": "hangs", "why": ["nothing was heard for 31 s"]})
    assert health.live(snapshot(age=3600), 0)[0] == 200
