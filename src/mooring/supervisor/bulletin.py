"""What the application is told of the process tree: events for one worker, and the state for all of them.

The supervisor runs no application code, so an event of the tree (`worker_error`, `after_reload`, ...) is
handed to a worker that serves, not to a task worker, which may be busy for an hour. While there is none it
waits for the next one. The worker says when its handler has run; if it ends before, the event is told to
another one, since what ends workers often ends several in a row. Three of them, and the event is lost, and
counted: its handler may be what ends them.

The state (what is wanted, what runs, what happened) goes to every worker when it has changed, and from there
into `Server.stats()`; to one that starts it goes once, because that waits for it before it takes events. A worker
that does not read its messages is not sent a second state behind an unread one: only the newest is worth
anything. Gateways are told whether all workers are degraded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

from mooring.counters import Part, zeros
from mooring.journal import own_logger
from mooring.net import messages
from mooring.roles import ROLES
from mooring.supervisor.child import Child, ChildState
from mooring.supervisor.slot import Slot
from mooring.supervisor.tree import Tree

log = own_logger("mooring.supervisor")

KINDS = list(dict.fromkeys(kind for row in ROLES.values() for kind in row.counts_as))
AT_WORK = (ChildState.SERVING, ChildState.WARM)
EVENTS_KEPT = 256  # while no worker serves; the oldest go first
MAX_ATTEMPTS = 3  # workers that are told of an event

EventOfTree = tuple[str, tuple[Any, ...], int]  # its name, its arguments, how many have been told


def alone() -> dict[str, Any]:
    """The state of a tree that is one process, without a supervisor."""
    running = {f"{role}s_{what}": 1 for role in ("gateway", "worker") for what in ("wanted", "running")}
    return {**zeros(Part.TREE), **running, "spares_wanted": 0, "spares_running": 0, "degraded": []}


class Bulletin:
    """Counts what happens; `look()` tells it to whom it concerns."""

    def __init__(self, tree: Tree, slots: Iterable[Slot]) -> None:
        self._tree = tree
        self._slots = list(slots)
        self._events: deque[EventOfTree] = deque()
        self._told: dict[int, tuple[Child, EventOfTree]] = {}  # whose handler has not ended, by our number
        self._number = 0
        self.counts = zeros(Part.TREE)

    def event(self, name: str, *arguments: Any) -> None:
        """Fire this event of the application in a worker that serves, now or as soon as there is one."""
        if len(self._events) == EVENTS_KEPT:
            self._lose(self._events.popleft()[0], "no worker has served for long")
        self._events.append((name, arguments, 0))

    def on_handled(self, child: Child, answer: int) -> None:
        """A worker has run the handler of the event that it was told with this number."""
        if answer in self._told and self._told[answer][0] is child:
            del self._told[answer]

    def on_end(self, child: Child) -> None:
        """What that one was told, and has not handled, others shall hear, before anything later."""
        mine = [number for number, (told, _) in self._told.items() if told is child]
        for number in reversed(mine):
            _, event = self._told.pop(number)
            if event[2] < MAX_ATTEMPTS:
                self._events.appendleft(event)
            else:
                self._lose(event[0], f"{MAX_ATTEMPTS} workers have ended while they were told of it")

    def _lose(self, name: str, why: str) -> None:
        self.counts["events_lost"] += 1
        log.warning("the event %r is lost: %s", name, why)

    def listener(self) -> Child | None:
        """Who hears of an event that is told now: the first worker that serves."""
        return next((child for child in self._workers() if child.spec.row.hears_of_tree), None)

    def _workers(self) -> list[Child]:
        return [
            slot.current
            for slot in self._slots
            if slot.spec.worker is not None and slot.current is not None and slot.current.state is ChildState.SERVING
        ]

    def state(self) -> dict[str, Any]:
        """Wanted and running processes, and what happened so far."""
        state: dict[str, Any] = dict(self.counts)
        for kind in KINDS:
            slots = [slot for slot in self._slots if kind in slot.spec.row.counts_as]
            running = [s for s in slots if s.current is not None and s.current.state in AT_WORK]
            state |= {f"{kind}s_wanted": len(slots), f"{kind}s_running": len(running)}
        state["degraded"] = [str(slot.spec) for slot in self._slots if slot.degraded]
        state["restarts"] = sum(slot.restarted for slot in self._slots)
        return state

    def _tell_gateways(self) -> None:
        """Whether all workers are degraded: then a gateway without one answers its clients itself."""
        workers = [slot for slot in self._slots if slot.spec.fits_spare and slot.spec.row.hears_of_tree]
        degraded = bool(workers) and all(slot.degraded for slot in workers)
        for slot in self._slots:
            child = slot.current if slot.spec.gateway is not None and slot.spec.worker is None else None
            if child is None or child.state is not ChildState.SERVING:
                continue
            if degraded != (child.told is not None and child.told["degraded"]):
                child.told = {"degraded": degraded}
                self._tree.tell(child, messages.Degraded(degraded))

    def look(self) -> None:
        """Before each wait: tell what is new."""
        workers = self._workers()
        listener = self.listener()
        while self._events and listener is not None and len(self._told) < EVENTS_KEPT:
            name, arguments, attempts = self._events.popleft()
            self._number -= 1  # reloads count upwards
            self._told[self._number] = listener, (name, arguments, attempts + 1)
            self._tree.tell(listener, messages.Event(name, list(arguments), self._number))
        self._tell_gateways()
        state = self.state()
        begins = (ChildState.STARTING, ChildState.READY)
        newcomers = [one for one in self._tree.children if one.spec.worker is not None and one.state in begins]
        for child in [*workers, *(one for one in newcomers if one.told is None)]:
            if child.told != state and child.control is not None and not child.control.pending:
                child.told = state
                self._tree.tell(child, messages.State(state))
