"""Plans: what the supervisor is about, one at a time.

    Start     nothing has served: whatever fails ends everything
    Serve     slots are kept filled
    Reload    the same, while some of them get other processes (reload.py)
    Stop      nothing is started any more, everything ends (shutdown.py)

What happens to a child is told to the plan by whoever notices it: the tree, or the supervisor for its end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from functools import partial
from typing import Any

from mooring.journal import own_logger
from mooring.supervisor.child import Child, ChildState
from mooring.supervisor.slots import Slots
from mooring.supervisor.tree import Tree
from mooring.types import CloseCode

log = own_logger("mooring.supervisor")

END_LIMIT = 0.5  # seconds that a process may take to end, when it has drained


class Phase(Enum):
    """The life of the supervisor, see its theory."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    ENDED = "ended"


class Plan:
    """What is not overridden is no part of the plan."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    @property
    def phase(self) -> Phase:
        raise NotImplementedError

    def on_ready(self, child: Child) -> None:
        """It can be announced; a spare: it can take a slot."""

    def on_retired(self, child: Child) -> None:
        """No gateway has anything of it in flight."""

    def on_drained(self, child: Child, counts: Mapping[str, Any]) -> None:
        """It has no clients any more."""

    def on_terminated(self, child: Child) -> None:
        """Somebody has sent it SIGTERM."""

    def on_handled(self, child: Child, answer: int) -> None:
        """It has run the handler of an event."""

    def on_failure(self, child: Child, why: str) -> None:
        """It will not serve, or serves no longer, without having been asked to."""
        log.warning("%s %s", child, why)

    def on_end(self, child: Child) -> None:
        """It is gone."""


class Start(Plan):
    """All at once, or nothing: `served()` when everybody is ready, `failed(why)` at the first failure."""

    phase = Phase.STARTING

    def __init__(self, tree: Tree, slots: Slots, served: Callable[[], None], failed: Callable[[str], None]) -> None:
        super().__init__(tree)
        self._slots = slots
        self._served = served
        self._failed = failed

    def begin(self) -> None:
        """Starts a process for each slot."""
        try:
            self._tree.spawn(self._slots.first(1))
        except OSError as problem:
            self._failed(f"a process can't be started: {problem.strerror or problem}")

    def on_ready(self, child: Child) -> None:
        if all(slot.current and slot.current.state is ChildState.READY for slot in self._slots.wanted):
            self._served()

    def on_failure(self, child: Child, why: str) -> None:
        self._failed(f"{child} {why}")


class Serve(Plan):
    """Failures are repaired, and who ends is replaced."""

    phase = Phase.RUNNING

    def __init__(self, tree: Tree, slots: Slots, graceful_timeout: float) -> None:
        super().__init__(tree)
        self._slots = slots
        self._graceful_timeout = graceful_timeout
        self.reason = "SIGTERM"  # why one that retires has to end

    def on_ready(self, child: Child) -> None:
        if child.state is ChildState.WARM:
            log.info("%s is ready to take the place of a worker", child)
        else:
            self._tree.announce([child])
            log.info("%s serves in place of the one that ended", child)
        self._slots.hope(child)
        if child.state is not ChildState.WARM:
            self._slots.warm_spares()

    def on_failure(self, child: Child, why: str) -> None:
        log.warning("%s %s%s", child, why, self._slots.repair(child))

    def on_retired(self, child: Child) -> None:
        self._tree.stop(child, self.reason)

    def on_terminated(self, child: Child) -> None:
        """It was not the server: it ends in order, and another one takes its place."""
        if child.state is not ChildState.SERVING or not self._slots.holds(child):
            return
        log.info("%s ends: it was sent SIGTERM", child)
        timeout = self._graceful_timeout
        child.deadlines.append(self._tree.deadlines.after(timeout + END_LIMIT, partial(self._stays, child)))
        if child.spec.gateway is not None:
            child.terminated = True
            self._tree.drain(child, timeout, CloseCode.GOING_AWAY)
            return
        if child.spec.worker is not None:
            self._tree.retire(child)
        else:
            self._tree.stop(child, "SIGTERM")
        self._slots.fill(self._slots.of(child))

    def _stays(self, child: Child) -> None:
        """It was to end by itself, and has not."""
        log.warning("%s did not end in time: killing it", child)
        self._tree.kill(child)
        self._fill_behind(child)  # its end was asked for, so nobody else will

    def on_drained(self, child: Child, counts: Mapping[str, Any]) -> None:
        if child.terminated and child.state is ChildState.DRAINED:
            self._tree.stop(child, "SIGTERM")
            self._fill_behind(child)

    def _fill_behind(self, child: Child) -> None:
        if self._tree.plan.phase is Phase.RUNNING and self._slots.holds(child):
            self._slots.fill(self._slots.of(child))
