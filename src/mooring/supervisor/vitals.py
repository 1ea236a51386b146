"""How each process is doing, for whoever watches from outside: what the kernel says of it and what its pulse says.

Asked for by worker 0, on behalf of the control socket; nothing is collected while nobody asks. The pids are those of
children that were not reaped yet, and so their own. Counts of time and events only grow: who asks twice gets rates.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from typing import Any

from mooring._core.pulse import Pulse
from mooring.monitor.kernel import cpu_seconds, resident_bytes
from mooring.roles import ROLES, SUPERVISOR
from mooring.supervisor.child import Child
from mooring.supervisor.slot import Slot

__all__ = ["SHOWN", "one", "vitals"]

SHOWN = 200  # processes in one answer, which is one child message


def vitals(children: Iterable[Child], slot_of: Callable[[Child], Slot], started: float) -> list[dict[str, Any]]:
    """The supervisor, which began at `started` (monotonic), and its children, one row each; SHOWN at most."""
    rows = [one(SUPERVISOR, 0, os.getpid(), uptime=time.monotonic() - started)]
    for child in list(children)[: SHOWN - 1]:
        slot = slot_of(child)
        rows.append(
            one(
                child.spec.role,
                child.spec.number,
                child.pid,
                state=child.state.value,
                generation=child.generation,
                restarts=slot.restarted,
                degraded=slot.degraded,
                uptime=child.served,
                pulse=child.pulse,
            )
        )
    return rows


def one(
    role: str,
    number: int,
    pid: int,
    *,
    state: str = "serving",
    generation: int | None = None,
    restarts: int = 0,
    degraded: bool = False,
    uptime: float = 0.0,
    pulse: Pulse | None = None,
) -> dict[str, Any]:
    """One process. `pulse_age`: seconds since its loop was seen to turn, None: never or not watched; `events`: handlers
    it has called, None: it calls none; `cpu`: seconds it has used; `memory`: bytes; `uptime`: seconds it serves."""
    beats = pulse is not None and pulse.last_beat > 0
    return {
        "role": role,
        "number": number,
        "pid": pid,
        "state": state,
        "generation": generation,
        "restarts": restarts,
        "degraded": degraded,
        "uptime": uptime,
        "cpu": cpu_seconds(pid) or 0.0,  # of one that has just ended
        "memory": resident_bytes(pid) or 0,
        "pulse_age": max(0.0, time.monotonic() - pulse.last_beat) if pulse is not None and beats else None,
        "events": pulse.begun if pulse is not None and ROLES[role].worker else None,
    }
