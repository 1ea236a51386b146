"""How each process is doing, for whoever watches from outside: what the kernel says of it and what its pulse says.

Asked for by worker 0, on behalf of the control socket; nothing is collected while nobody asks. The pids are those of
children that were not reaped yet, and so their own. Counts of time and events only grow: who asks twice gets rates.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from mooring._core.pulse import Pulse
from mooring.monitor.kernel import cpu_seconds, resident_bytes
from mooring.monitor.scoreboard import TREE, Seen
from mooring.roles import ROLES, SUPERVISOR
from mooring.supervisor.child import Child
from mooring.supervisor.slot import Slot

SHOWN = 200  # processes in one answer, which is one child message


def vitals(children: Iterable[Child], slot_of: Callable[[Child], Slot], started: float) -> list[dict[str, Any]]:
    """The supervisor, which began at `started` (monotonic), and its children, one row each; SHOWN at most."""
    rows = [row(supervisor_seen(started))]
    return rows + [row(seen(child, slot_of(child)), child.pulse) for child in list(children)[: SHOWN - 1]]


def seen(child: Child, slot: Slot) -> Seen:
    """A child, as the supervisor sees it."""
    spec, state = child.spec, child.state.value
    facts = child.pid, child.generation, state, slot.restarted, slot.degraded, child.served
    return Seen(child.place, spec.role, spec.number, *facts)


def supervisor_seen(started: float) -> Seen:
    """This process, the supervisor, which began at `started` (monotonic)."""
    return Seen(TREE, SUPERVISOR, 0, os.getpid(), 0, "serving", 0, False, time.monotonic() - started)


def row(process: Seen, pulse: Pulse | None = None) -> dict[str, Any]:
    """One process. `pulse_age`: seconds since its loop was seen to turn, None: never or not watched; `events`: handlers
    it has called, None: it calls none; `cpu`: seconds it has used; `memory`: bytes; `uptime`: seconds it serves."""
    beats = pulse is not None and pulse.last_beat > 0
    facts = msgspec.structs.asdict(process)
    del facts["place"]
    return facts | {
        "generation": process.generation or None,
        "cpu": cpu_seconds(process.pid) or 0.0,  # of one that has just ended
        "memory": resident_bytes(process.pid) or 0,
        "pulse_age": max(0.0, time.monotonic() - pulse.last_beat) if pulse is not None and beats else None,
        "events": pulse.begun if pulse is not None and ROLES[process.role].worker else None,
    }
