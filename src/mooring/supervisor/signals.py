"""Signals as bytes in a loop.

A handler may run between any two bytecodes, so it does nothing: the interpreter itself writes the number
into a socket (set_wakeup_fd), and the loop reads it when it is ready to act.
"""

from __future__ import annotations

import signal
import socket
from types import FrameType
from typing import Any

__all__ = ["HANDLED", "Signals"]

HANDLED = (
    signal.SIGTERM,  # stop
    signal.SIGINT,  # stop; in a stop: at once
    signal.SIGQUIT,  # stop at once
    signal.SIGHUP,  # reload
    signal.SIGUSR1,  # reload
    signal.SIGCHLD,  # a process ended, perhaps one we did not start
)


def _noted(number: int, frame: FrameType | None) -> None:
    """The number is in the wakeup socket already."""


class Signals:
    """While entered, the signals of HANDLED are bytes at `fileno()`. Main thread only."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._before: dict[int, Any] = {}
        self._wakeup_before = -1

    def __enter__(self) -> Signals:
        self._wakeup_before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, _noted) for number in HANDLED}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            # None: set by C code, which Python can't put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.set_wakeup_fd(self._wakeup_before)
        self._reader.close()
        self._writer.close()

    def fileno(self) -> int:
        return self._reader.fileno()

    def take(self) -> list[int]:
        """The numbers that arrived, in order."""
        try:
            return list(self._reader.recv(65536))
        except BlockingIOError:
            return []
