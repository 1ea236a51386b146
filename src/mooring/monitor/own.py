"""The endpoint of a server that is one process: in a thread, so that it answers while a handler keeps the loop.

The loop reports into a scoreboard of the process's own, for itself and for the tree that is not there, and the thread
reads it, with a reactor of its own. They share nothing else.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from mooring._core.reactor import Reactor
from mooring.monitor.endpoint import Endpoint
from mooring.monitor.reporter import Counts, Reporter, Timings
from mooring.monitor.scoreboard import TREE, Place, Seen, TreeReport, new_scoreboard

END_LIMIT = 1.0  # seconds that the thread may take to end


class OwnMonitor:
    """Answers on `listener`, which it takes over, from `start()` to `stop()`.

    `report()` gives counters and histograms; `tree()` the phase (starting, running, stopping) and the state of the
    tree, as in Server.stats()["tree"]. `hang_limit`: see Endpoint.
    """

    def __init__(
        self,
        later: Callable[[float, Callable[[], None]], object],
        listener: socket.socket,
        hang_limit: float,
        report: Callable[[], tuple[Counts, Timings]],
        tree: Callable[[], tuple[str, dict[str, Any]]],
    ) -> None:
        self._listener = listener
        self._report = report
        self._tree = tree
        self._file = new_scoreboard()
        self._place = Place(self._file, TREE, TreeReport)
        self._reporter = Reporter(later, self._file, TREE + 1, self._collect)
        self._started = time.monotonic()
        self._reactor = Reactor()
        self._endpoint = Endpoint(self._reactor, listener, self._file, hang_limit)
        self._thread = threading.Thread(target=self._run, name="mooring-monitor", daemon=True)

    def start(self) -> None:
        """In the loop's thread. Raises RuntimeError when no thread can be started."""
        self._reporter.start()
        self._thread.start()

    def tell(self) -> None:
        """The phase has changed."""
        phase, state = self._tree()
        uptime = time.monotonic() - self._started
        serves = "starting" if phase == "starting" else "serving"
        seen = Seen(TREE + 1, "server", 0, os.getpid(), 1, serves, 0, False, uptime)
        self._place.write(TreeReport(phase, state, [seen]))

    def _collect(self) -> tuple[Counts, Timings]:
        self.tell()
        return self._report()

    def _run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # they are the main thread's
        self._reactor.run()

    def stop(self) -> None:
        """Ends the thread."""
        self._reporter.stop()
        self._reactor.post(self._endpoint.close)
        self._reactor.post(self._reactor.stop)
        if self._thread.is_alive():
            self._thread.join(END_LIMIT)
        self._close()

    def abandon(self, came_back: Callable[[], None]) -> None:
        """In a forked child, where that thread is not: gives back what it has."""
        self._reporter.stop()
        self._reactor.abandon(came_back)
        self._endpoint.connections.abandon()
        self._close()

    def _close(self) -> None:
        self._listener.close()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
