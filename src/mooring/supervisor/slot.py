"""A slot: a process that is wanted, and the one that fills it now."""

from __future__ import annotations

from mooring.roles import ProcessSpec
from mooring.supervisor.child import Child
from mooring.supervisor.deadlines import Deadline
from mooring.supervisor.restarts import Restarts


class Slot:
    """`current` serves or is on its way to; None: a restart is due (`restart` says when)."""

    def __init__(self, spec: ProcessSpec, restarts: Restarts) -> None:
        self.spec = spec
        self.restarts = restarts
        self.generation = 1  # the newest that served here
        self.current: Child | None = None
        self.restart: Deadline | None = None
        self.degraded = False  # its processes end again and again
        self.restarted = 0  # times that its process ended unasked
        self._spawned = 0

    def new_child(self, generation: int) -> Child:
        """The next incarnation, not started yet."""
        child = Child(self.spec, generation, self._spawned)
        self._spawned += 1
        return child

    def take(self, spare: Slot, generation: int) -> Child:
        """The next incarnation is what waits in the slot of a spare, which is empty then."""
        assert spare.current is not None
        child, spare.current = spare.current, None
        child.take(self.spec, generation, self._spawned)
        self._spawned += 1
        return child

    def adopt(self, child: Child, *, new_code: bool) -> None:
        """A child of a new generation takes the slot; a restart of the old one is not wanted any more."""
        self.cancel_restart()
        if new_code:
            self.restarts.reset()
        self.generation = child.generation
        self.current = child

    def cancel_restart(self) -> None:
        if self.restart is not None:
            self.restart.cancel()
            self.restart = None
