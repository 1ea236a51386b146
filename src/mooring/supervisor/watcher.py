"""Watch source files in a thread; the loop learns of a change through a descriptor.

`watchfiles` is an optional dependency and blocks while it waits, hence the thread, the only one of the
supervisor. It shares one deque with the loop and touches nothing else.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from mooring.errors import ConfigError
from mooring.journal import own_logger

__all__ = ["Watcher"]

log = own_logger("mooring.supervisor")


class Watcher:
    """Readable at `fileno()` when files below `paths` changed; `take()` names them."""

    def __init__(self, paths: Sequence[str | Path]) -> None:
        """Start watching. Raises ConfigError: watchfiles is not installed, or a path is not there."""
        try:
            import watchfiles
        except ImportError:
            raise ConfigError(
                "watch needs the package watchfiles: install mooring with its extra, mooring[watch]"
            ) from None
        for path in paths:
            if not Path(path).exists():
                raise ConfigError(f"watch: there is no {str(path)!r}")
        self._watch = watchfiles.watch
        self._paths = [Path(path) for path in paths]
        self._changed: deque[str] = deque()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mooring-watcher", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            # milliseconds: an editor that writes twice is one change
            for changes in self._watch(
                *self._paths,
                stop_event=self._stop,
                debounce=200,
                step=50,
                rust_timeout=200,
                yield_on_timeout=False,
            ):
                self._changed.extend(sorted({path for _, path in changes}))
                os.eventfd_write(self._wake, 1)
        except Exception as problem:  # such as: no inotify watches left, the directory was removed
            log.error("watch ended, changes are not noticed any more: %s", problem)

    def fileno(self) -> int:
        return self._wake

    def take(self) -> list[str]:
        """The paths that changed since the last call, each once."""
        try:
            os.eventfd_read(self._wake)
        except BlockingIOError:
            return []
        paths: dict[str, None] = {}
        while self._changed:
            paths[self._changed.popleft()] = None
        return list(paths)

    def close(self) -> None:
        """End the thread (it looks at the stop event every 0.2 s)."""
        self._stop.set()
        self._thread.join(timeout=2.0)
        if not self._thread.is_alive():
            os.close(self._wake)
