"""The slots of a server, each kept filled: a process that has ended gets a successor, at once or later.

Which slots there are is fixed for life. A process that crashes is started again in the newest generation that serves
anywhere: that is the code which is on the disk. The delay before that is in restarts.py; a slot whose processes end
again and again is degraded, which changes nothing but what others are told, and it is not any more when one of them
has served for long enough, or new code does.

A spare is a process that has loaded the application and waits, in a slot of its own, which is kept full like any other.
When a worker has died, a spare leaves its slot for that of the worker: from then on it is a process that starts, and
has the slow part behind it. Its code is that of the generation which served when it was started, so a reload replaces
spares once the new generation serves. A worker that is replaced while it serves needs none: nobody waits for its
successor. Nor does a slot that is degraded get one: it would use up spares, and they are kept for the others.

When any of this is due, the supervisor says.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from mooring.config.process import Process
from mooring.journal import own_logger
from mooring.roles import SPARE, ProcessSpec
from mooring.supervisor.child import Child
from mooring.supervisor.restarts import Restarts
from mooring.supervisor.slot import Slot
from mooring.supervisor.tree import Tree

log = own_logger("mooring.supervisor")


class Slots:
    """`wanted`: those that serve, in the order of the specs; `spares`: those of the spares."""

    def __init__(self, tree: Tree, specs: Sequence[ProcessSpec], limits: Process) -> None:
        self._tree = tree
        self._limits = limits
        spare_num = limits.spare_worker_num if any(spec.fits_spare for spec in specs) else 0
        spares = [ProcessSpec(SPARE.name, n) for n in range(spare_num)]
        self._of = {spec: Slot(spec, self._restarts()) for spec in (*specs, *spares)}
        self.wanted = [self._of[spec] for spec in specs]
        self.spares = [self._of[spec] for spec in spares]

    def _restarts(self) -> Restarts:
        return Restarts(self._limits.restart_free, self._limits.restart_window, self._limits.restart_backoff_max)

    def __iter__(self) -> Iterator[Slot]:
        return iter((*self.wanted, *self.spares))

    def of(self, child: Child) -> Slot:
        """The slot that it was started for or has taken, also if another one fills it by now."""
        return self._of[child.spec]

    def holds(self, child: Child) -> bool:
        """Whether it still fills its slot."""
        return self.of(child).current is child

    @property
    def serving(self) -> list[Child]:
        """Who fills the slots that serve, whatever its state."""
        return [slot.current for slot in self.wanted if slot.current is not None]

    def first(self, generation: int) -> list[Child]:
        """A child for each slot that serves, not started yet."""
        for slot in self.wanted:
            slot.current = slot.new_child(generation)
        return self.serving

    # -- repair

    def repair(self, child: Child) -> str:
        """Plans another child for the slot of one that failed; what the log shall say of it."""
        slot = self.of(child)
        if slot.current is not child:
            return ""
        slot.current = None
        slot.restarted += 1
        delay = slot.restarts.delay(child.served)
        if not slot.degraded and slot.restarts.crashes >= self._limits.degraded_after:
            slot.degraded = True
            log.error(
                "%s is degraded: it has ended %d times in a row, the first lines above say why; restarts go on, "
                "up to %g s apart",
                slot.spec,
                slot.restarts.crashes,
                self._limits.restart_backoff_max,
            )
        slot.restart = self._tree.deadlines.after(delay, partial(self.fill, slot))
        return f": restarting it in {delay:.1f} s" if delay else ": restarting it"

    def fill(self, slot: Slot) -> None:
        """Starts a process for a slot, or has a spare take it."""
        slot.restart = None
        generation = max(other.generation for other in self.wanted)
        spare = self._best_spare() if slot.spec.fits_spare and not slot.degraded else None
        child = slot.current = slot.take(spare, generation) if spare else slot.new_child(generation)
        try:
            if spare:
                log.info("%s takes the place of %s", spare.spec, child)
                self._tree.place(child)
            else:
                self._tree.spawn([child])
        except OSError as problem:
            why = f"can't be started: {problem.strerror or problem}"
            log.warning("%s %s%s", child, why, self.repair(child))

    def hope(self, child: Child) -> None:
        """A slot is not degraded any more when its process has served for long enough."""
        slot = self.of(child)
        if slot.degraded:
            recover = partial(self._recover, slot, child)
            child.deadlines.append(self._tree.deadlines.after(self._limits.restart_window, recover))

    def _recover(self, slot: Slot, child: Child) -> None:
        if slot.current is child and slot.degraded:
            slot.degraded = False
            slot.restarts.reset()
            log.info("%s is not degraded any more", child)

    def forgive(self) -> None:
        """New code serves: what ended again and again was the old."""
        for slot in self.wanted:
            slot.degraded = slot.degraded and slot.spec.worker is None

    def close(self) -> None:
        """No restart that is planned will happen."""
        for slot in self:
            slot.cancel_restart()

    # -- spares

    def _best_spare(self) -> Slot | None:
        """One that waits, else one that is on its way there and still earlier than a new process."""
        spares = [slot for slot in self.spares if slot.current is not None]
        return max(spares, key=lambda slot: slot.current is not None and slot.current.was_ready, default=None)

    def warm_spares(self) -> None:
        """Fills the slots of spares; for moments when no client waits for the processor."""
        for slot in self.spares:
            if slot.current is None and slot.restart is None:
                self.fill(slot)

    def end_spares(self) -> None:
        """They have loaded code that does not serve any more."""
        for slot in self.spares:
            slot.cancel_restart()
            slot.restarts.reset()
            child, slot.current = slot.current, None
            if child is not None:
                self._tree.terminate(child)
