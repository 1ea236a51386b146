"""A worker that is to go: how long what goes on in it has for that.

Gateways say it (END_STREAMS): at a reload or a replacement when they begin to move its connections away, at a stop
when they begin to close them. What would never end by itself (event streams, what was spawned as endless) ends at
once. The rest has the graceful timeout, of which a little is kept back for the `finally` of what is cut then.

Tasks that handlers have started by themselves (asyncio.create_task) are waited for, too, as long as clients stay
connected and may be waiting for what they do: at a reload. Only those of handlers of connections, as their context
says: what `worker_start` and timers have started goes round in loops that never end, and is cancelled as ever. At a
stop clients have gone, and a task has a moment for what it still has to write: it may be a loop as well, of a
library's, say, and a stop shall not take the whole timeout for that.
"""

import asyncio
import time

from mooring.journal import own_logger
from mooring.net.loop import started_by_handlers
from mooring.worker.streams import Streams
from mooring.worker.works import Works

log = own_logger("mooring.worker")

KEPT_BACK, SHARE = 1.0, 0.2  # seconds at most, and of the time: for what is cut
AT_STOP = 1.0  # seconds for tasks of the application's when nobody is connected any more
NAMED = 5  # tasks in a line of the log


class GracefulEnd:
    """Of one worker; `patience` is the graceful timeout in seconds, for one that is told to end before it has heard of
    its time: its gateways and the supervisor speak to it over different sockets."""

    def __init__(self, streams: Streams, works: Works, patience: float) -> None:
        self._streams = streams
        self._works = works
        self._patience = patience
        self._deadline: float | None = None  # by the monotonic clock
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """It ends now; unless it has heard how long it has, it has the graceful timeout."""
        if self._deadline is None:
            self.within(self._patience)

    def within(self, seconds: float) -> None:
        """It has so long; whoever says the least is right."""
        self._streams.end()
        self._works.end_endless()
        deadline = time.monotonic() + seconds - min(KEPT_BACK, SHARE * seconds)
        if self._deadline is None or deadline < self._deadline:
            self._deadline = deadline
            if self._timer is not None:
                self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_later(max(0.0, deadline - time.monotonic()), self._cut)

    def _cut(self) -> None:
        self._streams.cut()
        self._works.cut()

    async def finish(self, own: "set[asyncio.Task[object]]", *, clients_stay: bool) -> None:
        """Waits for the tasks of handlers; `own` are the worker's."""
        self.begin()
        assert self._deadline is not None
        if self._timer is not None:
            self._timer.cancel()
        now = time.monotonic()
        deadline = self._deadline if clients_stay else min(self._deadline, now + AT_STOP)
        loop = asyncio.get_running_loop()
        told = False
        while tasks := started_by_handlers(loop) - own:
            left = deadline - time.monotonic()
            if left <= 0:
                for task in tasks:
                    task.cancel()
                log.warning(
                    "%d tasks that handlers have started did not end within %.1f s and are cancelled: %s; spawn() "
                    "makes work that the server knows of",
                    len(tasks),
                    time.monotonic() - now,
                    _names(tasks),
                )
                await asyncio.wait(tasks, timeout=KEPT_BACK)
                return
            if not told:
                log.info(
                    "waiting up to %.1f s for %d tasks that handlers have started: %s", left, len(tasks), _names(tasks)
                )
                told = True
            await asyncio.wait(tasks, timeout=left)


def _names(tasks: "set[asyncio.Task[object]]") -> str:
    names = sorted(getattr(task.get_coro(), "__qualname__", task.get_name()) for task in tasks)
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
