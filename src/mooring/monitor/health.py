"""/health and /ready: what an orchestrator and a load balancer are told.

*Live* asks whether to start the server anew. A supervisor repairs whatever ends or hangs below it, so a server is alive
as long as its supervisor's loop turns; one process without a supervisor, as long as its own does.

*Ready* asks whether to send clients here. They are served as long as a gateway accepts them and there is, or will soon
be, a worker: a reload, a crash or a busy worker makes nobody unready, because gateways keep what comes meanwhile.
"""

from __future__ import annotations

from typing import Any

from mooring.monitor.board import STILL, Process, Snapshot

STARTING, READY, DEGRADED, UNSERVED, DRAINING = "starting", "ready", "degraded", "unserved", "draining"
OK, UNAVAILABLE = 200, 503

Verdict = tuple[int, dict[str, Any]]  # the status code, and the body


def live(snapshot: Snapshot, limit: float) -> Verdict:
    """Whether it has to be started anew; who supervises has shown nothing for `limit` seconds (0: any time)."""
    if limit and snapshot.tree is not None and snapshot.age >= limit:
        return UNAVAILABLE, {"status": "hangs", "why": [f"nothing was heard for {snapshot.age:.0f} s"]}
    return OK, {"status": "live"}


def ready(snapshot: Snapshot) -> Verdict:
    """Whether clients are served, and what is wrong if not all is well; who stands still is named."""
    tree = snapshot.tree
    if tree is None or tree.phase == "starting":
        return UNAVAILABLE, {"status": STARTING, "why": ["not every process has started"]}
    if tree.phase == "stopping":
        return UNAVAILABLE, {"status": DRAINING, "why": ["the server is stopping"]}
    state = tree.state
    missing = snapshot.missing()
    why = [f"{one} stands still" for one in missing]
    why += [f"{name} ends again and again" for name in state["degraded"]]
    for role in ("gateway", "worker"):
        running, wanted = state[f"{role}s_running"], state[f"{role}s_wanted"]
        if running < wanted:
            why.append(f"{running} of {wanted} {role}s serve")
    lost = _unserved(snapshot, missing)
    if lost:
        return UNAVAILABLE, {"status": UNSERVED, "why": [lost, *why], "missing": [str(one) for one in missing]}
    if not why:
        return OK, {"status": READY}
    return OK, {"status": DEGRADED, "why": why, "missing": [str(one) for one in missing]}


def _unserved(snapshot: Snapshot, missing: list[Process]) -> str:
    """Why nobody is served; empty when somebody is."""
    assert snapshot.tree is not None
    state = snapshot.tree.state
    accepting = [
        seen for seen in snapshot.tree.processes if seen.role in ("gateway", "server") and seen.state == "serving"
    ]
    still = {(one.role, one.number) for one in missing}
    if not accepting:
        return "no gateway serves"
    if all((seen.role, seen.number) in still for seen in accepting):
        return f"no gateway's loop has turned for {STILL:g} s"
    workers = [seen for seen in snapshot.tree.processes if seen.role == "worker"]
    slots = {seen.number for seen in workers if seen.degraded}
    if not state["workers_running"] and state["workers_wanted"] and _all_degraded(state, slots):
        return "no worker serves: they end again and again"
    return ""


def _all_degraded(state: dict[str, Any], slots: set[int]) -> bool:
    """Whether every worker ends again and again, also those that have no process at this moment."""
    named = {name for name in state["degraded"] if name.startswith("worker ")}
    wanted: int = state["workers_wanted"]
    return len(named | {f"worker {number}" for number in slots}) >= wanted
