"""One reload: from a generation to the next, without a moment in which nobody serves.

A worker that has worked long enough (`max_request`, `worker_memory_limit`) is replaced in the same way, alone. Task
workers (`task_max_request`) are so together, as many as are due: they take no tasks any more, and none shall wait.

Rules
* First the application is told, in a worker that serves, and has some seconds for what it wants to do before the new
  code is loaded (`before_reload`).
* Successors are spawned while the old ones serve. Only when all of a batch are ready are they attached and
  told to serve, and only then do the old ones leave. A batch that fails before that is ended, and the old
  generation never learns of it.
* Workers are one batch: old and new code answer side by side for as short a time as possible. Processes
  with a gateway inside can't hand their clients over, so they go one at a time: never more than one
  drains.
* An old worker is told to stop when every gateway said that it has nothing of it in flight; an old server,
  when its clients are gone. One that takes longer than the graceful timeout is ended by signal.
* A reload lasts until its last old process is gone; a second one can't begin before. So there are at most
  two generations, and at most twice the workers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from functools import partial
from typing import Any

from mooring.journal import own_logger
from mooring.net import messages
from mooring.supervisor.child import Child, ChildState
from mooring.supervisor.plans import Serve
from mooring.supervisor.slot import Slot
from mooring.supervisor.slots import Slots
from mooring.supervisor.tree import Tree
from mooring.types import CloseCode

log = own_logger("mooring.supervisor")


class ReloadOutcome(Enum):
    """Where a reload stands."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class Reload(Serve):
    """Serves, while slots get other processes; the supervisor looks at `outcome` before each wait."""

    def __init__(
        self, tree: Tree, slots: Slots, generation: int, graceful_timeout: float, why: str, worn: Sequence[Child] = ()
    ) -> None:
        """`worn`: it is about these workers, which have worked long enough, and not about new code."""
        super().__init__(tree, slots, graceful_timeout)
        concerned = [slots.of(child) for child in worn] or [one for one in slots.wanted if one.spec.worker is not None]
        workers = [slot for slot in concerned if slot.spec.gateway is None]
        self.generation = generation
        self.worn = worn
        self.why = why
        self.failure = ""
        self.reason = f"{'replaced' if worn else 'reload'}: {why}"
        self._name = f"replacing {', '.join(map(str, worn))}" if worn else "reload"
        self.outcome = ReloadOutcome.RUNNING
        self._batches = [workers] if workers else []
        self._batches += [[slot] for slot in concerned if slot.spec.gateway is not None]
        self._successors: dict[Child, Slot] = {}
        self._ending: set[Child] = set()  # the old ones, or the successors that failed
        self._failed = False
        self._preparing: Child | None = None  # runs the handler of before_reload

    def begin(self) -> None:
        """Spawn the first batch."""
        self._preparing = None
        self._next_batch()

    def prepare(self, child: Child, limit: float) -> None:
        """Begin when that worker has run the handler of `before_reload`, in `limit` seconds at the latest."""
        self._preparing = child
        self._tree.tell(child, messages.Event("before_reload", [self.why], self.generation))
        child.deadlines.append(self._tree.deadlines.after(limit, partial(self._begin_anyway, child, limit)))

    def _begin_anyway(self, child: Child, limit: float) -> None:
        if self._preparing is child:
            log.warning("reload: the 'before_reload' handler in %s did not end within %g s: not waiting", child, limit)
            self.begin()

    def on_handled(self, child: Child, answer: int) -> None:
        if self._preparing is child and answer == self.generation:
            self.begin()

    def _next_batch(self) -> None:
        if not self._batches:
            self.outcome = ReloadOutcome.DONE
            return
        self._successors = {slot.new_child(self.generation): slot for slot in self._batches.pop(0)}
        try:
            self._tree.spawn(list(self._successors))
        except OSError as problem:
            self._fail(f"a process can't be started: {problem.strerror or problem}")

    def on_ready(self, child: Child) -> None:
        if child not in self._successors:
            super().on_ready(child)
        elif all(one.state is ChildState.READY for one in self._successors):
            self._switch()
            if not self.worn:  # spares have loaded code that does not serve any more
                self._slots.end_spares()
                self._slots.warm_spares()

    def _switch(self) -> None:
        batch, self._successors = self._successors, {}
        old = [slot.current for slot in batch.values() if slot.current is not None]
        for child, slot in batch.items():
            slot.adopt(child, new_code=not self.worn)
        self._tree.announce(batch)
        what = ", ".join(str(child.spec) for child in batch)
        log.info("%s: generation %d serves (%s)", self._name, self.generation, what)
        self._ending = set(old)  # before anything is told: an answer may come at once
        for child in old:
            if child.state is ChildState.SERVING:
                late = partial(self._late, child)
                child.deadlines.append(self._tree.deadlines.after(self._graceful_timeout, late))
                if child.spec.gateway is None:
                    self._tree.retire(child)
                else:
                    self._tree.drain(child, self._graceful_timeout, CloseCode.SERVICE_RESTART)
            elif child.state is not ChildState.STOPPING:
                self._tree.terminate(child)  # restarted after a crash, not yet ready: it has nothing
        self._look()

    def on_drained(self, child: Child, counts: Mapping[str, Any]) -> None:
        super().on_drained(child, counts)
        if child in self._ending and child.state is ChildState.DRAINED:
            self._tree.stop(child, self.reason)

    def on_failure(self, child: Child, why: str) -> None:
        if child in self._successors:
            self._fail(f"{child} {why}")
        elif child in self._ending:
            log.warning("%s: %s of generation %d %s while it was ending", self._name, child, child.generation, why)
        else:
            super().on_failure(child, why)

    def on_end(self, child: Child) -> None:
        if child is self._preparing:
            self.begin()
        if child in self._ending:
            self._ending.discard(child)
            self._look()

    def abandon(self) -> None:
        """The server stops: end what does not serve yet."""
        self._preparing = None
        self._end_successors()

    def _look(self) -> None:
        if self.outcome is ReloadOutcome.RUNNING and not self._ending and not self._successors:
            if self._failed:
                self.outcome = ReloadOutcome.FAILED
            else:
                self._next_batch()

    def _late(self, child: Child) -> None:
        if child.killed:
            return
        log.warning(
            "%s: %s of generation %d did not end within %g s: killing it",
            self._name,
            child,
            child.generation,
            self._graceful_timeout,
        )
        self._tree.terminate(child)

    def _fail(self, why: str) -> None:
        log.error("%s failed: %s; generation %d is not used, the old one serves on", self._name, why, self.generation)
        # Over only when they are gone: else a reload that follows would be a third generation.
        self._failed = True
        self.failure = why
        self._end_successors()
        self._look()

    def _end_successors(self) -> None:
        successors, self._successors = self._successors, {}
        self._ending = {child for child in successors if child in self._tree.children}
        for child in self._ending:
            if not child.killed:
                self._tree.terminate(child)
