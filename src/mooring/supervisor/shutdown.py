"""The stop, in bounded time.

    DRAIN    processes with a gateway close their clients, and
             the dispatcher has the tasks done that there are        until the graceful timeout
    OTHERS   everything but worker 0 stops                           until 0.5 s later
    LAST     worker 0 runs the `shutdown` event, if there was a start until 1 s later
    KILL     whatever is left is killed

The monitor ends when nobody else is there any more, so that /ready says until then that the server is stopping; so does
the engine, which has what is published up to then.
If worker 0 is not there (it has died, or is being started again), the next one is the last.

Each stage ends as soon as nothing is left to wait for. The limits are counted from the beginning, so that
the whole never takes longer than the graceful timeout and a second, whoever used up the time.

A stop in a hurry (SIGQUIT, a second SIGINT) is the same with 0 in place of what is left of the timeout. One
can be in a hurry once: each further signal would put the limits off again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import IntEnum
from functools import partial
from typing import Any

from mooring.journal import own_logger
from mooring.supervisor.child import Child, ChildState
from mooring.supervisor.deadlines import Deadline
from mooring.supervisor.plans import Phase, Plan
from mooring.supervisor.tree import Tree
from mooring.types import CloseCode

log = own_logger("mooring.supervisor")

OTHERS_LIMIT = 0.5  # seconds after the graceful timeout
LAST_LIMIT = 1.0
GIVE_UP_LIMIT = 1.9  # a killed process that can't even die (waits for a device) is left behind


class Stage(IntEnum):
    """How far the stop is; it only goes on."""

    BEGIN = 0
    DRAIN = 1
    OTHERS = 2
    LAST = 3
    KILL = 4
    DONE = 5


class Stop(Plan):
    """Ends everything; see the module's text."""

    def __init__(
        self, tree: Tree, last: Child | None, graceful_timeout: float, *, event: bool, reason: str = "shutdown"
    ) -> None:
        """`last` is the child that carries worker 0; `event`: it shall run the `shutdown` event. `reason`: for those
        that leave."""
        super().__init__(tree)
        self.stage = Stage.BEGIN
        self._last = last
        self._event = event
        self._reason = reason
        self._timeout = graceful_timeout
        self._hastened = False
        self._limits: list[Deadline] = []
        self._drained: dict[Child, Mapping[str, Any]] = {}
        self._asked: list[Child] = []

    @property
    def phase(self) -> Phase:
        return Phase.ENDED if self.stage is Stage.DONE else Phase.STOPPING

    def begin(self) -> None:
        """Drain, or whatever there is to do next."""
        self._set_limits(self._timeout)
        self._enter(Stage.DRAIN)

    def hasten(self) -> None:
        """Do what is left within a second."""
        if not self._hastened:
            self._hastened = True
            self._set_limits(0.0)
            self._enter(Stage.OTHERS)

    def kill(self) -> None:
        """Nothing here has served: end it all, politely for a second."""
        for child in list(self._tree.children):
            if not child.killed:
                self._tree.terminate(child)
        self._set_limits(LAST_LIMIT)
        self._enter(Stage.LAST)

    def on_drained(self, child: Child, counts: Mapping[str, Any]) -> None:
        if child in self._asked:
            self._drained[child] = counts
        self._look()

    def on_retired(self, child: Child) -> None:
        self._tree.stop(child, self._reason)

    def on_end(self, child: Child) -> None:
        self._look()

    def summary(self) -> str | None:
        """The last line of the log: what became of the messages; None when there were no gateways."""
        if not self._asked:
            return None
        silent = [str(child.spec) for child in self._asked if child not in self._drained]
        return drained_line(self._drained.values(), silent)

    def _set_limits(self, timeout: float) -> None:
        for limit in self._limits:
            limit.cancel()
        after = self._tree.deadlines.after
        self._limits = [
            after(timeout, partial(self._enter, Stage.OTHERS)),
            after(timeout + OTHERS_LIMIT, self._kill_others),
            after(timeout + LAST_LIMIT, partial(self._enter, Stage.KILL)),
            after(timeout + GIVE_UP_LIMIT, self._give_up),
        ]

    def _enter(self, stage: Stage) -> None:
        """The one place where the stage changes; it never goes back."""
        if stage <= self.stage:
            return
        self.stage = stage
        children = list(self._tree.children)
        if stage is Stage.DRAIN:
            self._drain(children)
        elif stage is Stage.OTHERS:
            if self._last not in children or self._last.state is ChildState.STOPPING:
                self._last = _next_last(children)
            for child in children:
                if child is not self._last and not child.spec.row.outlives and child.state is not ChildState.STOPPING:
                    self._tree.stop(child, self._reason)
        elif stage is Stage.LAST:
            if self._last in children and self._last.state is not ChildState.STOPPING:
                self._tree.stop(self._last, self._reason, last=self._event)
            elif self._event:
                log.warning("no worker is left: the shutdown event does not run")
        elif stage is Stage.KILL:
            self._kill(children)
        self._look()

    def _drain(self, children: Iterable[Child]) -> None:
        for child in children:
            if child.state in (ChildState.WARMING, ChildState.WARM, ChildState.STARTING):
                self._tree.terminate(child)  # it has no clients and no messages
            elif child.spec.row.takes_links and child.state is not ChildState.STOPPING:
                self._asked.append(child)
                if child.state in (ChildState.READY, ChildState.SERVING):
                    self._tree.drain(child, self._timeout, CloseCode.GOING_AWAY)

    def _look(self) -> None:
        """Go on when nothing is left to wait for."""
        children = [child for child in self._tree.children if not child.spec.row.outlives]
        if not children and self._tree.children:
            for child in self._tree.children:
                if child.state is not ChildState.STOPPING:
                    self._tree.stop(child, self._reason)
        elif not children:
            for limit in self._limits:
                limit.cancel()
            if self.stage < Stage.LAST:
                self._enter(Stage.LAST)
            self._enter(Stage.DONE)
        elif self.stage is Stage.DRAIN:
            if not any(child.state is ChildState.DRAINING for child in children):
                self._enter(Stage.OTHERS)
        elif self.stage is Stage.OTHERS and all(child is self._last for child in children):
            self._enter(Stage.LAST)

    def _kill_others(self) -> None:
        self._kill([child for child in self._tree.children if child is not self._last and not child.spec.row.outlives])
        self._enter(Stage.LAST)

    def _kill(self, children: Iterable[Child]) -> None:
        for child in children:
            if not child.killed:
                log.warning("%s did not end in time: killing it", child)
            self._tree.kill(child)

    def _give_up(self) -> None:
        log.error("could not be killed: %s", ", ".join(str(child) for child in self._tree.children))
        self._enter(Stage.DONE)


def _next_last(children: Iterable[Child]) -> Child | None:
    """Who runs the `shutdown` event in the place of worker 0."""
    able = (ChildState.SERVING, ChildState.DRAINING, ChildState.DRAINED)
    workers = [child for child in children if child.spec.row.hears_of_tree and child.state in able]
    return min(workers, key=lambda child: child.spec.number, default=None)


def drained_line(counts: Iterable[Mapping[str, Any]], silent: Iterable[str] = ()) -> str:
    """Sum the counts of gateways and say whether they add up (a map of reasons counts as its sum).

    accepted = finished + uncertain + dropped + in_flight; `silent` names gateways that gave no counts.
    """
    totals = {"accepted": 0, "finished": 0, "uncertain": 0, "dropped": 0, "in_flight": 0}
    for one in counts:
        for name, value in one.items():
            numbers = value.values() if isinstance(value, Mapping) else [value]
            # What is no number is not counted: the last line must come out, whoever sent nonsense.
            number = sum(number for number in numbers if isinstance(number, int))
            totals[name] = totals.get(name, 0) + number
    missing = totals["accepted"] - sum(totals[name] for name in ("finished", "uncertain", "dropped", "in_flight"))
    shown = " ".join(f"{name}={number}" for name, number in totals.items() if number or name != "in_flight")
    verdict = "adds up" if missing == 0 else f"does not add up: {missing} unaccounted for"
    without = "".join(f"; no counts from {name}" for name in silent)
    return f"drained: {shown} ({verdict}{without})"
