"""Processes that run and yet do not: those whose loop stands still, and those that grow.

A process that serves writes a beat into its pulse (mooring._core.pulse) from a timer of its loop. When that has
stood still for the hang timeout, three signals follow, a second apart:

    SIGUSR2   every thread writes its stack to the log, also one that holds the interpreter (faulthandler)
    SIGABRT   the process ends, with its stacks once more
    SIGKILL   also a process that was stopped ends

If the loop turns again before the second, the process lives on. When it was this process that stood still (a stopped
container, a machine without a CPU to spare), nobody else is blamed: everybody gets the whole time again.

The memory of a worker is what the kernel says it has resident. One that is over the limit is replaced like one that
reached `max_request`; one that can't be is killed when the graceful timeout is over.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from functools import partial

from mooring.config.process import Process
from mooring.journal import own_logger
from mooring.monitor.kernel import resident_bytes
from mooring.supervisor.child import Child, ChildState
from mooring.supervisor.tree import Tree

log = own_logger("mooring.supervisor")

LONGEST_PERIOD = 1.0  # seconds between two looks
STEP = 1.0  # seconds between two signals


class Watchdog:
    """Looks at the children of `tree` from `start()` on."""

    def __init__(
        self, tree: Tree, limits: Process, on_hang: Callable[[Child], None], on_large: Callable[[Child, str], None]
    ) -> None:
        self._tree = tree
        self._limits = limits
        self._on_hang = on_hang
        self._on_large = on_large
        timeouts = [limits.worker_hang_timeout, limits.gateway_hang_timeout]
        self._watching = any(timeouts) or limits.worker_memory_limit > 0
        self._period = min([LONGEST_PERIOD, *(timeout / 4 for timeout in timeouts if timeout)])
        self._looked = self._fair_since = 0.0

    def start(self) -> None:
        """Begin to look, if there is anything to look for."""
        if self._watching:
            self._looked = self._fair_since = time.monotonic()
            self._tree.deadlines.after(self._period, self._look)

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._looked > self._period + LONGEST_PERIOD:
            self._fair_since = now
        self._looked = now
        self._tree.deadlines.after(self._period, self._look)
        for child in list(self._tree.children):
            if child.state is ChildState.SERVING and child.spec.row.watched:
                self._look_at(child, now)

    def _look_at(self, child: Child, now: float) -> None:
        worker = child.spec.worker is not None
        timeout = self._limits.worker_hang_timeout if worker else self._limits.gateway_hang_timeout
        last = max(child.pulse.last_beat, child.serving_since or now, self._fair_since)
        if timeout and now - last > timeout:
            if not child.hangs:
                self._hangs(child, now - last)
        elif worker and self._limits.worker_memory_limit:
            size = resident_bytes(child.pid) or 0  # of one that has just ended
            if size > self._limits.worker_memory_limit:
                limit = self._limits.worker_memory_limit
                self._on_large(child, f"it has {size} bytes in memory, more than worker_memory_limit={limit}")

    def _hangs(self, child: Child, seconds: float) -> None:
        child.hangs = True
        log.error("%s hangs: its loop has not turned for %.1f s%s; its stacks:", child, seconds, child.last_event())
        self._on_hang(child)
        child.signal(signal.SIGUSR2)
        after = self._tree.deadlines.after
        child.deadlines.append(after(STEP, partial(self._abort, child, child.pulse.last_beat, seconds)))

    def _abort(self, child: Child, beat: float, seconds: float) -> None:
        if child.pulse.last_beat != beat:
            child.hangs = False
            log.warning("%s turns again", child)
            return
        child.cause = f"its loop had not turned for {seconds:.1f} s"
        child.signal(signal.SIGABRT)
        child.deadlines.append(self._tree.deadlines.after(STEP, partial(child.signal, signal.SIGKILL)))
